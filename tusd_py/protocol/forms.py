"""The grammars of a form: what its content type says, and what the head of a part says of the part.

A form is ``multipart/form-data`` (RFC 7578). Splitting it is left to a library; what the heads mean is ours.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from tusd_py.errors import BadRequest

FORM_TYPE = "multipart/form-data"

# RFC 2046, 5.1.1:  boundary := 0*69<bchars> bcharsnospace
# Of all bytes that lines are written with: clients in the wild have asterisks, which are no bchars.
MAX_BOUNDARY = 70
_BOUNDARY = re.compile(rf"[ -~]{{0,{MAX_BOUNDARY - 1}}}[!-~]")

# RFC 9110, 5.6.6:  parameter = token "=" ( token / quoted-string )
# Backslashes that escape nothing stay what they are, and what is not quoted ends at the next semicolon: browsers write
# names of files as they are.
_PARAMETER = re.compile(r""";[ \t]*([!#$%&'*+\-.^_`|~0-9A-Za-z]+)[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|([^";]*))[ \t]*""")
_END = re.compile(r"[ \t;]*")
_ESCAPED = re.compile(r'\\(["\\])')

# RFC 8187, 3.2.1:  ext-value = charset "'" [ language ] "'" value-chars
_EXTENDED = re.compile(r"(utf-8|iso-8859-1)'[^']*'([!#$%&+\-.^_`|~0-9A-Za-z]*)", re.IGNORECASE)

# RFC 6838, 4.2: names of media types have 127 characters at most.
_MEDIA_TYPE = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]{0,126}/[a-z0-9][a-z0-9!#$&^_.+-]{0,126}")

# RFC 7578, 4.7: encodings that change nothing. The others are deprecated, and would be stored as they are.
_IDENTITIES = frozenset({"7bit", "8bit", "binary"})

# Unicode that turns or hides text: with it, "gpj.exe" reads as "exe.jpg".
BIDI = frozenset({*range(0x200B, 0x2010), *range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x061C, 0xFEFF})


@dataclass(frozen=True, slots=True)
class PartHead:
    """What the head of a part says.

    ``name`` is that of the field. ``filename`` is the client's own name for its file, harmless to show, ``""`` when
    there is none; ``has_filename`` tells that one was sent, if only an empty one. ``media_type`` is ``""`` when it is
    not told, or not sound.
    """

    name: str
    filename: str = ""
    has_filename: bool = False
    media_type: str = ""


def bad_form(trouble: str) -> BadRequest:
    """Return the error for a form that cannot be read."""
    return BadRequest("ERR_INVALID_FORM", f"{trouble}; send the file as {FORM_TYPE}, in a part with the name file")


def parse_boundary(content_type: str) -> bytes:
    """Return the boundary of a form. Source: RFC 7578, 4.1; RFC 2046, 5.1.1.

    Raises:
        BadRequest: it is no form, or there is no boundary that could be one.
    """
    media_type, parameters = parse_parameters(content_type)
    if media_type != FORM_TYPE:
        raise bad_form(f"the content type is not {FORM_TYPE}")
    boundary = parameters.get("boundary", "")
    if not boundary:
        raise bad_form("Content-Type names no boundary")
    if _BOUNDARY.fullmatch(boundary) is None:
        raise bad_form(f"the boundary has more than {MAX_BOUNDARY} characters, or some that no boundary has")
    return boundary.encode("ascii")


def parse_head(fields: Mapping[bytes, bytes]) -> PartHead:
    """Return what ``fields`` (names in lower case) say of their part. Source: RFC 7578, 4.2, 4.4 and 4.7.

    Raises:
        BadRequest: the part has no name, or its content is encoded.
    """
    kind, parameters = parse_parameters(_decode(fields.get(b"content-disposition", b"")))
    if kind != "form-data" or not parameters.get("name"):
        raise bad_form("a part of the form has no name")
    encoding = _decode(fields.get(b"content-transfer-encoding", b"binary")).strip().lower()
    if encoding not in _IDENTITIES:
        raise bad_form("a part of the form has a Content-Transfer-Encoding, which is not undone here")
    media_type = _decode(fields.get(b"content-type", b"")).partition(";")[0].strip().lower()
    return PartHead(
        parameters["name"],
        _filename(parameters),
        "filename" in parameters or "filename*" in parameters,
        media_type if _MEDIA_TYPE.fullmatch(media_type) else "",
    )


def parse_parameters(text: str) -> tuple[str, dict[str, str]]:
    """Return the first word of a field in lower case, and its parameters by their names in lower case.

    Raises:
        BadRequest: it is none of that, or a parameter is there twice, so that nobody can tell which one is meant.
    """
    word = text.partition(";")[0]
    parameters: dict[str, str] = {}
    position = len(word)
    while match := _PARAMETER.match(text, position):
        name, quoted, plain = match.groups()
        name = name.lower()
        if name in parameters:
            raise bad_form(f"the parameter {name} is there twice")
        parameters[name] = _ESCAPED.sub(r"\1", quoted) if quoted is not None else plain.rstrip(" \t")
        position = match.end()
    if _END.fullmatch(text, position) is None:
        raise bad_form("the parameters of a field cannot be read")
    return word.strip(" \t").lower(), parameters


def parse_name(value: bytes) -> str:
    """Return the name of a file that is the value of a field, as ``sound_name`` leaves it."""
    return sound_name(_decode(value))


def sound_name(text: str) -> str:
    """Return a client's own name for its file without what could do harm, ``""`` when nothing is left.

    Controls, bidirectional marks and everything up to the last path separator are dropped.
    """
    name = text.replace("\\", "/").rpartition("/")[2]
    return "".join(c for c in name if c.isprintable() and ord(c) not in BIDI).strip()


def _filename(parameters: Mapping[str, str]) -> str:
    """Source: RFC 7578, 4.2, which knows ``filename`` alone; clients send the other one all the same."""
    extended = _EXTENDED.fullmatch(parameters.get("filename*", ""))
    if extended is not None:
        charset, encoded = extended.groups()
        name = sound_name(unquote_to_bytes(encoded).decode(charset.lower(), "replace"))
        if name:
            return name
    # HTML, "multipart/form-data encoding algorithm": quotes and line ends are percent-encoded, and nothing else.
    return sound_name(parameters.get("filename", "").replace("%22", '"').replace("%0D", "").replace("%0A", ""))


def _decode(value: bytes) -> str:
    """Source: RFC 7578, 5.1.1: names are UTF-8. Older clients took what they had."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")
