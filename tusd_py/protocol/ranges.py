"""Which bytes of a finished upload a GET is answered with: its preconditions and its ``Range``.

Plain decisions over header fields; nothing here opens anything. One range is served, because that is what players and
resumed downloads ask for. Several of them, and what is no range at all, are answered with the whole: the standard
allows that (RFC 9110, 14.2), and so no request can make us work for many small pieces. Of a list no more than
``MAX_MEMBERS`` are looked at, and all parsing is linear in what was sent.

Fields whose value is malformed count as not sent (RFC 9110, 13.1.3, 13.1.4 and 14.2).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

from tusd_py.errors import BadRequest, PreconditionFailed, RangeNotSatisfiable
from tusd_py.protocol.fields import MAX_DIGITS, Fields, build_http_date, parse_http_date

# Far more than clients send; a head has room for twenty thousand.
MAX_MEMBERS = 32

# RFC 9110, 14.1.1 and 14.1.2:
#   ranges-specifier = range-unit "=" range-set     int-range    = first-pos "-" [ last-pos ]
#   range-set        = 1#range-spec                 suffix-range = "-" suffix-length
_RANGE = re.compile(r"([0-9]*)-([0-9]*)")

# RFC 9110, 8.8.3:  entity-tag = [ weak ] opaque-tag ; opaque-tag = DQUOTE *etagc DQUOTE
_ETAG = re.compile(r'(W/)?("[\x21\x23-\x7e\x80-\xff]*")')
_SEPARATOR = re.compile(r"[ \t]*(?:,[ \t]*)*")


@dataclass(frozen=True, slots=True)
class ByteRange:
    """The bytes from ``start`` to before ``stop``; there is at least one."""

    start: int
    stop: int

    @property
    def size(self) -> int:
        """How many bytes that are."""
        return self.stop - self.start


@dataclass(frozen=True, slots=True, kw_only=True)
class Representation:
    """What a client may have of an upload, and know it by.

    ``etag`` is a strong entity tag with its quotes. ``modified_at`` is ``None`` where there is no moment to be told.
    The content of a finished upload does not change, so the second that ``Last-Modified`` tells is a strong validator
    too (RFC 9110, 8.8.2.2).
    """

    length: int
    etag: str
    modified_at: datetime | None = None


def check_preconditions(fields: Fields, representation: Representation) -> None:
    """Refuse a request that is only meant for something else than there is.

    Source: RFC 9110, 13.1.1 and 13.1.4, in the order of 13.2.2.

    Raises:
        PreconditionFailed: ``If-Match`` names other tags, or it was modified since ``If-Unmodified-Since`` (412).
    """
    tags = fields.combined("if-match")
    if tags is not None:
        if not _names(tags, representation.etag, weak=False):
            raise PreconditionFailed
        return
    since = _moment(fields, "if-unmodified-since")
    if since is not None and representation.modified_at is not None and _second(representation.modified_at) > since:
        raise PreconditionFailed


def is_not_modified(fields: Fields, representation: Representation) -> bool:
    """Tell whether the client has what it asks for already (304).

    Source: RFC 9110, 13.1.2 and 13.1.3: dates count only where no tags are named.
    """
    tags = fields.combined("if-none-match")
    if tags is not None:
        return _names(tags, representation.etag, weak=True)
    since = _moment(fields, "if-modified-since")
    if since is None or representation.modified_at is None:
        return False
    return _second(representation.modified_at) <= since


def select_range(fields: Fields, representation: Representation) -> ByteRange | None:
    """Return the range that is to be sent, or ``None`` for the whole.

    Source: RFC 9110, 13.1.5 and 14.2.

    Raises:
        RangeNotSatisfiable: the range begins behind the end (416).
    """
    given = fields.combined("range")
    if given is None or not _is_range_wanted(fields, representation):
        return None
    return parse_range(given, representation.length)


def parse_range(text: str, length: int) -> ByteRange | None:
    """Return what a ``Range`` field means for content of ``length`` bytes; ``None`` when it is to be ignored.

    It is ignored when it has another unit than bytes, when it is malformed, and when it names several ranges.

    Source: RFC 9110, 14.1.2 and 14.2. A suffix of nothing cannot be satisfied; any other suffix can, also of empty
    content, where it is the whole.

    Raises:
        RangeNotSatisfiable: the range is well formed and holds no byte (416).
    """
    unit, _, specs = text.partition("=")
    if unit.lower() != "bytes" or specs.count(",") > MAX_MEMBERS:
        return None
    # Empty members of a list count for nothing (RFC 9110, 5.6.1.2).
    members = [member for member in (spec.strip(" \t") for spec in specs.split(",")) if member]
    spec = _RANGE.fullmatch(members[0]) if len(members) == 1 else None
    if spec is None or spec.group() == "-":
        return None
    first, last = spec.groups()
    if not first:
        return _suffix(_position(last), length)
    start = _position(first)
    stop = _position(last) + 1 if last else length
    if last and stop <= start:
        return None
    if start >= length:
        raise RangeNotSatisfiable(length=length)
    return ByteRange(start, min(stop, length))


def build_content_range(range: ByteRange | None, length: int) -> str:
    """Write a ``Content-Range`` field; ``None`` is what cannot be satisfied. Source: RFC 9110, 14.4."""
    return f"bytes */{length}" if range is None else f"bytes {range.start}-{range.stop - 1}/{length}"


def _suffix(size: int, length: int) -> ByteRange | None:
    if size == 0:
        raise RangeNotSatisfiable(length=length)
    return ByteRange(max(0, length - size), length) if length else None


def _position(digits: str) -> int:
    """Return a position. A longer number than any file is as good as any other such: no long arithmetic for it."""
    digits = digits.lstrip("0")
    return 10**MAX_DIGITS if len(digits) > MAX_DIGITS else int(digits or "0")


def _is_range_wanted(fields: Fields, representation: Representation) -> bool:
    """Tell what ``If-Range`` says: the range of what the client has the rest of, else the whole."""
    condition = fields.combined("if-range")
    if condition is None:
        return True
    if condition.startswith(('"', "W/")):
        return condition == representation.etag  # strong comparison: a weak tag never matches
    if representation.modified_at is None:
        return False
    return condition == build_http_date(representation.modified_at)


def _names(tags: str, etag: str, *, weak: bool) -> bool:
    """Tell whether a list of entity tags, or ``*``, names ``etag``; ``weak`` lets weak tags count.

    What follows a member that is no tag, or the last of ``MAX_MEMBERS``, is not looked at.
    """
    if tags == "*":
        return True
    position = _skip(tags, 0)
    for _ in range(MAX_MEMBERS):
        member = _ETAG.match(tags, position)
        if member is None:
            return False
        if member[2] == etag and (weak or not member[1]):
            return True
        position = _skip(tags, member.end())
    return False


def _skip(tags: str, position: int) -> int:
    separator = _SEPARATOR.match(tags, position)
    return separator.end() if separator else position


def _moment(fields: Fields, name: str) -> datetime | None:
    # Only in the form that everybody sends since 1996: an older one costs its client a whole body, and nothing else.
    given = fields.combined(name)
    try:
        return None if given is None else parse_http_date(given)
    except BadRequest:
        return None


def _second(moment: datetime) -> datetime:
    return moment.replace(microsecond=0)
