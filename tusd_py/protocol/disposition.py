"""The file name in ``Content-Disposition``. Source: RFC 6266, 4; RFC 8187, 3.2.

Clients have written this field in many ways, and nothing depends on it: what cannot be read is no name.
"""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

# content-disposition = disposition-type *( ";" disposition-parm )
# disposition-parm    = token "=" ( token / quoted-string )
_TYPE = re.compile(r"[ \t]*[!#$%&'*+\-.^_`|~0-9A-Za-z]+[ \t]*")
_PARAMETER = re.compile(
    r";[ \t]*(?:([!#$%&'*+\-.^_`|~0-9A-Za-z]+)[ \t]*=[ \t]*"
    r'(?:"((?:[^"\\\x00-\x08\x0a-\x1f\x7f]|\\[\t -~\x80-\xff])*)"'
    r"|([!#$%&'*+\-.^_`|~0-9A-Za-z]+))[ \t]*)?"
)

# ext-value = charset "'" [ language ] "'" value-chars
_EXTENDED = re.compile(
    r"(UTF-8|ISO-8859-1)'[A-Za-z0-9-]*'((?:%[0-9A-Fa-f]{2}|[A-Za-z0-9!#$&+\-.^_`|~])*)", re.IGNORECASE
)


def parse_disposition(text: str) -> str:
    """Return the name that the client gives its file, ``""`` when it gives none that can be read.

    ``filename*`` is the better one where both are there. A plain one may hold bytes of UTF-8, as browsers send them.
    """
    match = _TYPE.match(text)
    parameters: dict[str, str] = {}
    while match is not None and match.end() < len(text):
        match = _PARAMETER.match(text, match.end())
        if match is not None and match[1]:
            value = match[3] if match[2] is None else re.sub(r"\\(.)", r"\1", match[2])
            # Of one that comes twice, nobody can tell which is meant; the first is what most programs take.
            parameters.setdefault(match[1].lower(), value)
    if match is None:
        return ""
    return _extended(parameters.get("filename*", "")) or _plain(parameters.get("filename", ""))


def _extended(text: str) -> str:
    match = _EXTENDED.fullmatch(text)
    if match is None:
        return ""
    try:
        return unquote_to_bytes(match[2]).decode(match[1].lower())
    except UnicodeDecodeError:
        return ""


def _plain(text: str) -> str:
    try:
        return text.encode("latin-1").decode()
    except UnicodeError:
        return text
