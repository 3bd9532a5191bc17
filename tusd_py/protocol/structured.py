"""Structured fields for HTTP (RFC 9651): items and dictionaries, parsed and built exactly as they are written there.

Whatever comes over the wire, parsing gives a value or raises ``Malformed``. The draft takes a field that is malformed
for one that is not there, and ``boolean``, ``integer`` and ``dictionary`` do that at once; parameters, which mean
nothing to us, are parsed and then do not matter.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import TypeVar
from urllib.parse import unquote_to_bytes

from tusd_py.protocol.fields import Fields

# sf-integer = ["-"] 1*15DIGIT
LARGEST = 10**15 - 1

# sf-decimal = ["-"] 1*12DIGIT "." 1*3DIGIT
_NUMBER = re.compile(r"-?(?:[0-9]{1,12}\.[0-9]{1,3}|[0-9]{1,15})(?![0-9.])")
# sf-string = DQUOTE *( unescaped / "%" / bs-escaped ) DQUOTE
_STRING = re.compile(r'"((?:[ !#-\[\]-~]|\\["\\])*)"')
# sf-token = ( ALPHA / "*" ) *( tchar / ":" / "/" )
_TOKEN = re.compile(r"[A-Za-z*][!#$%&'*+\-.^_`|~0-9A-Za-z:/]*")
# sf-binary = ":" base64 ":"
_BINARY = re.compile(r":([A-Za-z0-9+/]*)=*:")
# sf-boolean = "?" ( "0" / "1" )
_BOOLEAN = re.compile(r"\?([01])")
# sf-date = "@" sf-integer
_DATE = re.compile(r"@(-?[0-9]{1,15})(?![0-9.])")
# sf-displaystring = "%" DQUOTE *( unescaped / "\" / pct-encoded ) DQUOTE
_DISPLAY = re.compile(r'%"((?:[ !#$&-~]|%[0-9a-f]{2})*)"')
# key = ( lcalpha / "*" ) *( lcalpha / DIGIT / "_" / "-" / "." / "*" )
_KEY = re.compile(r"[a-z*][a-z0-9_\-.*]*")

_SPACES = re.compile(r" *")
_WHITE_SPACE = re.compile(r"[ \t]*")


class Malformed(ValueError):
    """The field is no structured one of the kind that was expected."""


class Token(str):
    """A word without quotes."""

    __slots__ = ()


class Display(str):
    """Text of any language."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Date:
    """A moment: ``seconds`` since the epoch, which may lie before it."""

    seconds: int


Bare = bool | int | Decimal | str | Token | Display | bytes | Date
Parameters = tuple[tuple[str, Bare], ...]

T = TypeVar("T", bool, int)


@dataclass(frozen=True, slots=True)
class Item:
    """A value, and parameters that belong to it, each name once."""

    value: Bare
    parameters: Parameters = ()


@dataclass(frozen=True, slots=True)
class InnerList:
    """Several items in parentheses, and parameters that belong to all of them."""

    items: tuple[Item, ...]
    parameters: Parameters = ()


Member = Item | InnerList


def parse_item(text: str) -> Item:
    """Return the item that a field consists of. Source: RFC 9651, 4.2.3.

    Raises:
        Malformed: it is none, or more than that.
    """
    reader = _Reader(text)
    reader.skip(_SPACES)
    item = reader.item()
    reader.skip(_SPACES)
    reader.expect_the_end()
    return item


def build_item(item: Item) -> str:
    """Write an item. Source: RFC 9651, 4.1.3.

    Raises:
        Malformed: there is no way to write this value, an integer of more than 15 digits for example.
    """
    return _written(item.value) + _written_parameters(item.parameters)


def parse_dictionary(text: str) -> Mapping[str, Member]:
    """Return the members of a dictionary by their keys; of a key that comes twice the last. Source: RFC 9651, 4.2.2.

    Raises:
        Malformed: it is none.
    """
    reader = _Reader(text)
    reader.skip(_SPACES)
    members: dict[str, Member] = {}
    while not reader.is_done():
        key = reader.key()
        # One that comes again takes its later place.
        members.pop(key, None)
        members[key] = reader.member() if reader.take("=") else Item(True, reader.parameters())
        reader.skip(_WHITE_SPACE)
        if reader.is_done():
            break
        reader.expect(",")
        reader.skip(_WHITE_SPACE)
        if reader.is_done():
            raise Malformed("a comma ends the dictionary")
    return members


def build_dictionary(members: Mapping[str, Member]) -> str:
    """Write a dictionary. Source: RFC 9651, 4.1.2."""
    return ", ".join(_written_member(key, member) for key, member in members.items())


def boolean(fields: Fields, name: str) -> bool | None:
    """Return the boolean that the field ``name`` holds, ``None`` when there is none."""
    return _of_type(fields, name, bool)


def integer(fields: Fields, name: str) -> int | None:
    """Return the integer that the field ``name`` holds, ``None`` when there is none."""
    return _of_type(fields, name, int)


def dictionary(fields: Fields, name: str) -> Mapping[str, Member]:
    """Return the dictionary that the field ``name`` holds, an empty one when there is none."""
    text = fields.combined(name)
    if not text:
        return {}
    try:
        return parse_dictionary(text)
    except Malformed:
        return {}


def build_boolean(value: bool) -> str:
    """Write a boolean."""
    return _written(value)


def build_integer(value: int) -> str:
    """Write an integer."""
    return _written(value)


def _of_type(fields: Fields, name: str, kind: type[T]) -> T | None:
    try:
        # Two lines of an item are no item: joined by a comma, they are malformed as they should be.
        value = parse_item(fields.combined(name) or "").value
    except Malformed:
        return None
    # A boolean is an int to Python.
    return value if type(value) is kind else None


class _Reader:
    """A text, and how far it was read."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._position = 0

    def is_done(self) -> bool:
        return self._position == len(self._text)

    def expect_the_end(self) -> None:
        if not self.is_done():
            raise Malformed("something follows the end")

    def skip(self, pattern: re.Pattern[str]) -> None:
        self._match(pattern)

    def take(self, mark: str) -> bool:
        """Read ``mark`` if it comes next, and tell whether it did."""
        if not self._text.startswith(mark, self._position):
            return False
        self._position += len(mark)
        return True

    def expect(self, mark: str) -> None:
        if not self.take(mark):
            raise Malformed(f"{mark} is missing")

    def key(self) -> str:
        match = self._match(_KEY)
        if match is None:
            raise Malformed("a key is missing")
        return match[0]

    def member(self) -> Member:
        return self._inner_list() if self.take("(") else self.item()

    def item(self) -> Item:
        return Item(self._bare(), self.parameters())

    def parameters(self) -> Parameters:
        found: dict[str, Bare] = {}
        while self.take(";"):
            self.skip(_SPACES)
            key = self.key()
            found.pop(key, None)
            found[key] = self._bare() if self.take("=") else True
        return tuple(found.items())

    def _inner_list(self) -> InnerList:
        items: list[Item] = []
        while True:
            self.skip(_SPACES)
            if self.take(")"):
                return InnerList(tuple(items), self.parameters())
            items.append(self.item())
            if self._text[self._position : self._position + 1] not in (" ", ")"):
                raise Malformed("an inner list does not go on with a space")

    def _bare(self) -> Bare:
        if match := self._match(_BOOLEAN):
            return match[1] == "1"
        if match := self._match(_NUMBER):
            return Decimal(match[0]) if "." in match[0] else int(match[0])
        if match := self._match(_STRING):
            return re.sub(r"\\(.)", r"\1", match[1])
        if match := self._match(_TOKEN):
            return Token(match[0])
        if match := self._match(_BINARY):
            return _decoded(match[1])
        if match := self._match(_DATE):
            return Date(int(match[1]))
        if match := self._match(_DISPLAY):
            return _displayed(match[1])
        raise Malformed("a value is missing")

    def _match(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        match = pattern.match(self._text, self._position)
        if match is not None:
            self._position = match.end()
        return match


def _decoded(base64: str) -> bytes:
    # Padding may be missing: RFC 9651, 4.2.7.
    try:
        return b64decode(base64 + "=" * (-len(base64) % 4), validate=True)
    except Base64Error:
        raise Malformed("a byte sequence is no base64") from None


def _displayed(text: str) -> Display:
    try:
        return Display(unquote_to_bytes(text).decode())
    except UnicodeDecodeError:
        raise Malformed("a display string is no UTF-8") from None


def _written(value: Bare) -> str:
    if isinstance(value, bool):
        return f"?{value:d}"
    if isinstance(value, Date):
        return f"@{_written(value.seconds)}"
    if isinstance(value, bytes):
        return f":{b64encode(value).decode()}:"
    if isinstance(value, Display):
        return '%"' + "".join(map(_percented, value.encode())) + '"'
    text = _plainly_written(value)
    if parse_item(text) != Item(value):
        raise Malformed(f"there is no way to write {value!r}")
    return text


def _plainly_written(value: int | Decimal | str) -> str:
    if isinstance(value, str) and not isinstance(value, Token):
        return '"' + re.sub(r'(["\\])', r"\\\1", value) + '"'
    if isinstance(value, Decimal):
        text = format(value, "f")
        return text if "." in text else f"{text}.0"
    return str(value)


def _percented(byte: int) -> str:
    is_plain = 0x20 <= byte < 0x7F and byte not in b'%"'
    return chr(byte) if is_plain else f"%{byte:02x}"


def _written_member(key: str, member: Member) -> str:
    if isinstance(member, Item) and member.value is True:
        return _checked(key) + _written_parameters(member.parameters)
    if isinstance(member, InnerList):
        items = " ".join(build_item(item) for item in member.items)
        return f"{_checked(key)}=({items}){_written_parameters(member.parameters)}"
    return f"{_checked(key)}={build_item(member)}"


def _written_parameters(parameters: Iterable[tuple[str, Bare]]) -> str:
    return "".join(
        f";{_checked(key)}" if value is True else f";{_checked(key)}={_written(value)}" for key, value in parameters
    )


def _checked(key: str) -> str:
    if _KEY.fullmatch(key) is None:
        raise Malformed(f"{key!r} is no key")
    return key
