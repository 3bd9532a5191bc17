"""Header field grammars, in pairs: ``parse_*`` reads what came over the wire, ``build_*`` writes what goes there.

For every value ``v`` that ``build_x`` takes, ``parse_x(build_x(v)) == v``. A parser either returns a value that obeys
the grammar or raises ``BadRequest`` with a sentence that names the field and says what to send.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from urllib.parse import unquote

from tusd_py.errors import BadRequest
from tusd_py.upload import Metadata

# Far beyond any disk, far within what every language counts exactly; longer ones are not worth their arithmetic.
MAX_DIGITS = 18

_NUMBER = re.compile(rf"[0-9]{{1,{MAX_DIGITS}}}")

# RFC 9110, 5.6.2:  token = 1*tchar
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")

# tus 1.0.0, Upload-Metadata: keys hold neither space nor comma, are not empty and should be ASCII.
_METADATA_KEY = re.compile(r"[!-+\--~]+")

# tus 1.0.0, Upload-Concat:  "partial" / ( "final;" URL *( SP URL ) ), a URL being absolute or relative (RFC 3986).
_URL = re.compile(r"[!-~]+")

# RFC 3986, appendix B, without query and fragment, which the URL of an upload has not.
_URL_PATH = re.compile(r"(?:(?:https?:)?//[^/?#]*(?=/)|)([^?#]*)", re.IGNORECASE)

# RFC 9110, 5.6.7:  IMF-fixdate = day-name "," SP date1 SP time-of-day SP GMT
_DAYS = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]
_MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
_HTTP_DATE = re.compile(
    rf"(?:{'|'.join(_DAYS)}), ([0-9]{{2}}) ({'|'.join(_MONTHS)}) ([0-9]{{4}}) "
    r"([0-9]{2}):([0-9]{2}):([0-9]{2}) GMT"
)


class Fields:
    """The header fields of one request, looked up by lower-case name.

    Values are decoded as latin-1, as HTTP has them, with the white space around them dropped (RFC 9110, 5.5).
    """

    __slots__ = ("_lines",)

    def __init__(self, lines: Iterable[tuple[bytes, bytes]]) -> None:
        """Take ``lines`` as ASGI gives them: pairs of lower-case name and value, in the order of the request."""
        self._lines: dict[bytes, list[bytes]] = {}
        for name, value in lines:
            self._lines.setdefault(name, []).append(value)

    def __contains__(self, name: str) -> bool:
        return name.encode("latin-1") in self._lines

    def single(self, name: str) -> str | None:
        """Return the value of a field that stands on one line, ``None`` when it is missing.

        Raises:
            BadRequest: the field stands on several lines, so that nobody can tell which one is meant.
        """
        lines = self._lines.get(name.encode("latin-1"))
        if lines is None:
            return None
        if len(lines) > 1:
            raise BadRequest("ERR_DUPLICATE_FIELD", f"the field {name} is there {len(lines)} times; send it once")
        return lines[0].decode("latin-1").strip(" \t")

    def combined(self, name: str) -> str | None:
        """Return the value of a list field, its lines joined by commas (RFC 9110, 5.3); ``None`` when missing."""
        lines = self._lines.get(name.encode("latin-1"))
        if lines is None:
            return None
        return ",".join(line.decode("latin-1").strip(" \t") for line in lines)


def parse_number(text: str, *, field: str, code: str) -> int:
    """Return a count of bytes. ASCII digits alone: no sign, no space, no underscore; leading zeros do not matter.

    Source: tus 1.0.0, Upload-Offset and Upload-Length: a non-negative integer.
    """
    if _NUMBER.fullmatch(text) is None:
        raise BadRequest(code, f"{field} is not a number; send ASCII digits alone, {MAX_DIGITS} at most")
    return int(text)


def build_number(value: int) -> str:
    """Write a count of bytes."""
    return str(value)


def parse_defer_length(text: str) -> bool:
    """Return ``True`` for the only value that ``Upload-Defer-Length`` may have. Source: tus 1.0.0, Creation."""
    if text != "1":
        raise BadRequest("ERR_INVALID_UPLOAD_LENGTH_DEFER", "Upload-Defer-Length is not 1; send 1 or leave it out")
    return True


def build_defer_length() -> str:
    """Write that the length is deferred."""
    return "1"


def parse_metadata(text: str) -> Metadata:
    """Return the pairs of an ``Upload-Metadata`` field together with the field as it came.

    Pairs are split by commas; a pair is a key, one space and standard base64 with padding; an empty value may drop
    the space. White space after a comma belongs to the list, not to the pair. An empty field means no metadata.

    Source: tus 1.0.0, Creation, Upload-Metadata; RFC 9110, 5.6.1 for the list.

    Raises:
        BadRequest: a key is empty, not ASCII or there twice, or a value is not base64.
    """
    if not text:
        return Metadata()
    pairs: dict[str, bytes] = {}
    for member in text.split(","):
        key, _, encoded = member.strip(" \t").partition(" ")
        if _METADATA_KEY.fullmatch(key) is None:
            raise _bad_metadata("holds a key that is empty or not ASCII")
        if key in pairs:
            raise _bad_metadata("holds a key twice")
        try:
            pairs[key] = b64decode(encoded, validate=True)
        except (Base64Error, ValueError):
            raise _bad_metadata("holds a value that is not base64") from None
    return Metadata(text, tuple(pairs.items()))


def build_metadata(pairs: Iterable[tuple[str, bytes]]) -> str:
    """Write ``Upload-Metadata``. An empty value is its key alone: some parsers refuse a space at the end."""
    return ",".join(f"{key} {b64encode(value).decode()}" if value else key for key, value in pairs)


def _bad_metadata(trouble: str) -> BadRequest:
    return BadRequest(
        "ERR_INVALID_METADATA",
        f"Upload-Metadata {trouble}; send pairs of an ASCII key, a space and a base64 value, separated by commas",
    )


def parse_concat(text: str) -> tuple[str, ...]:
    """Return the URLs that a final consists of, as they were sent; none for ``partial``.

    Source: tus 1.0.0, Concatenation, Upload-Concat.

    Raises:
        BadRequest: it is neither, or the list is empty.
    """
    if text == "partial":
        return ()
    kind, _, members = text.partition(";")
    # More than one space between two of them, or one before the first, is seen and harms nobody.
    urls = tuple(url for url in members.split(" ") if url)
    if kind != "final" or not urls or not all(map(_URL.fullmatch, urls)):
        raise bad_concat("is neither partial nor final; with the URLs of partials, separated by spaces")
    return urls


def build_concat(urls: Sequence[str]) -> str:
    """Write ``Upload-Concat``: that of a final made of ``urls``, that of a partial when there are none."""
    return f"final;{' '.join(urls)}" if urls else "partial"


def parse_url_path(url: str) -> str:
    """Return the path of a URL, percent-decoded once. Scheme and host say nothing: proxies rename them.

    Dots and doubled slashes are left as they are, so that a path that climbs leads nowhere.

    Source: RFC 3986, appendix B.

    Raises:
        BadRequest: it is no URL of HTTP, or has a query or a fragment.
    """
    match = _URL_PATH.fullmatch(url)
    if match is None:
        raise bad_concat("holds something else than the URL of an upload")
    return unquote(match[1])


def bad_concat(trouble: str) -> BadRequest:
    """Return the error for a list that cannot be used."""
    return BadRequest(
        "ERR_INVALID_CONCAT",
        f"Upload-Concat {trouble}; send partial, or final; and the URLs of partials that were created here",
    )


def parse_content_type(text: str) -> str:
    """Return type and subtype in lower case, parameters dropped. Source: RFC 9110, 8.3.1."""
    return text.partition(";")[0].strip(" \t").lower()


def build_content_type(media_type: str) -> str:
    """Write a content type without parameters."""
    return media_type


def parse_method(text: str) -> str:
    """Return the method that ``X-HTTP-Method-Override`` names. Methods have case (RFC 9110, 9.1).

    Source: tus 1.0.0, X-HTTP-Method-Override.
    """
    if _TOKEN.fullmatch(text) is None:
        raise BadRequest("ERR_INVALID_METHOD", "X-HTTP-Method-Override names no method; send PATCH, DELETE or HEAD")
    return text


def build_method(method: str) -> str:
    """Write a method."""
    return method


def parse_list(text: str) -> tuple[str, ...]:
    """Return the tokens of a comma-separated list; empty members count for nothing (RFC 9110, 5.6.1.2)."""
    members = (member.strip(" \t") for member in text.split(","))
    tokens = tuple(member for member in members if member)
    for token in tokens:
        if _TOKEN.fullmatch(token) is None:
            raise BadRequest("ERR_INVALID_LIST", "a list holds something else than names; send names and commas")
    return tokens


def build_list(tokens: Sequence[str]) -> str:
    """Write a list without white space, as the examples of tus do."""
    return ",".join(tokens)


def parse_http_date(text: str) -> datetime:
    """Return the moment that an IMF-fixdate names, aware and in UTC. Source: RFC 9110, 5.6.7."""
    # email.utils would read far more than that: other zones, two digits of a year, a date without a zone as local time.
    date = _HTTP_DATE.fullmatch(text)
    if date is None:
        raise _bad_date()
    day, month, year, hour, minute, second = date.groups()
    try:
        return datetime(int(year), _MONTHS.index(month) + 1, int(day), int(hour), int(minute), int(second), tzinfo=UTC)
    except ValueError:
        raise _bad_date() from None


def build_http_date(moment: datetime) -> str:
    """Write a moment as an IMF-fixdate, cut down to the second."""
    moment = moment.astimezone(UTC)
    return (
        f"{_DAYS[moment.weekday()]}, {moment.day:02} {_MONTHS[moment.month - 1]} {moment.year:04} "
        f"{moment.hour:02}:{moment.minute:02}:{moment.second:02} GMT"
    )


def _bad_date() -> BadRequest:
    return BadRequest("ERR_INVALID_DATE", "a date is malformed; send an HTTP date in GMT")
