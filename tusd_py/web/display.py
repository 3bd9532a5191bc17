"""What a browser may show of an upload instead of saving it, and as what.

A table of ours says it, never the client's ``filetype``: picture, sound, film and plain text, which can run nothing.
Whatever is not in the table, and whatever has first bytes that do not prove what its name says, is to be saved.
"""

from __future__ import annotations

import re
from functools import lru_cache

from tusd_py.media import FAMILY, TEXT, sniff

MEDIA_TYPES = {
    ".aac": "audio/aac",
    ".bmp": "image/bmp",
    ".flac": "audio/flac",
    ".gif": "image/gif",
    ".jpeg": "image/jpeg",
    ".jpg": "image/jpeg",
    ".m4a": "audio/mp4",
    ".m4v": "video/mp4",
    ".mkv": "video/x-matroska",
    ".mov": "video/quicktime",
    ".mp3": "audio/mpeg",
    ".mp4": "video/mp4",
    ".oga": "audio/ogg",
    ".ogg": "audio/ogg",
    ".ogv": "video/ogg",
    ".opus": "audio/ogg",
    ".png": "image/png",
    ".txt": "text/plain; charset=utf-8",
    ".wav": "audio/wav",
    ".webm": "video/webm",
    ".webp": "image/webp",
}

# Their beginnings are too short, or too common, for the table that judges uploads.
_PICTURES = {
    # BITMAPFILEHEADER with its four reserved zeros, and the size of the header that follows.
    ".bmp": re.compile(rb"BM....\0\0\0\0....[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0", re.DOTALL),
    ".webp": re.compile(rb"RIFF....WEBPVP8[ LX]", re.DOTALL),
}

# A character of UTF-8 has four bytes at most, so that a prefix may end within one.
_LONGEST_CHARACTER = 4


@lru_cache(maxsize=64)
def display_type(extension: str, prefix: bytes) -> str | None:
    """Return the content type to show content as that begins with ``prefix``, ``None`` for what is to be saved.

    ``extension`` is lower case with its dot. Players ask for many ranges of one upload, so the last answers are kept.
    """
    media_type = MEDIA_TYPES.get(extension)
    return media_type if media_type and _agrees(extension, prefix) else None


def _agrees(extension: str, prefix: bytes) -> bool:
    if extension in _PICTURES:
        return _PICTURES[extension].match(prefix) is not None
    proven = sniff(prefix, sure=True)
    if extension == ".txt":
        return not proven and _is_text(prefix)
    return not proven.isdisjoint(FAMILY.get(extension, {extension}))


def _is_text(prefix: bytes) -> bool:
    if prefix.translate(None, TEXT):
        return False
    try:
        prefix.decode()
    except UnicodeDecodeError as error:
        return error.reason == "unexpected end of data" and len(prefix) - error.start < _LONGEST_CHARACTER
    return True
