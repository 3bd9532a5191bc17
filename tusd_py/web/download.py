"""A finished upload as a download: its head, built so that a browser does nothing with it but save it or show it.

Content is never guessed at, run or framed. Pictures, sound, film and plain text are shown where ``display.py`` says
so; everything else is an attachment without a type.
"""

from __future__ import annotations

from datetime import datetime
from hashlib import blake2b
from urllib.parse import quote

from tusd_py.lifecycle import Reader
from tusd_py.media import SNIFF_SIZE
from tusd_py.protocol.fields import build_http_date, build_number
from tusd_py.protocol.forms import sound_name
from tusd_py.protocol.messages import Reply
from tusd_py.protocol.ranges import ByteRange, Representation, build_content_range
from tusd_py.upload import Upload
from tusd_py.web.display import MEDIA_TYPES, display_type

# The content is somebody's upload (reliability: stored scripts).
_NO_SNIFFING = ("X-Content-Type-Options", "nosniff")
_SAVED_POLICY = ("Content-Security-Policy", "sandbox; default-src 'none'")

# A browser that is sent to a film makes a page of its own for it, and holds it to the film's policy: Chromium's player
# stays empty without leave to load what it plays, and loses its looks without styles. Neither can run anything.
_SHOWN_POLICY = (
    "Content-Security-Policy",
    "sandbox; default-src 'none'; img-src 'self'; media-src 'self'; style-src 'unsafe-inline'",
)

# It does not change, but it may be removed, or not be for everybody: caches keep it for one client, and ask again.
_CACHING = ("Cache-Control", "private, no-cache")

# What file systems can write.
_LONGEST_NAME = 255


def represent(upload: Upload, now: datetime) -> Representation:
    """Return what clients know the content of a finished upload by.

    The entity tag is strong: it differs as soon as the data is touched where it lies, whoever does that. A moment of
    change in the future (clocks are set back) is not told (RFC 9110, 8.8.2.1).
    """
    assert upload.completed_at is not None, "only finished uploads are downloaded"
    facts = f"{upload.id} {upload.offset} {upload.completed_at.isoformat()} {upload.written_at.isoformat()}"
    return Representation(
        length=upload.offset,
        etag=f'"{blake2b(facts.encode(), digest_size=16).hexdigest()}"',
        modified_at=upload.written_at if upload.written_at <= now else None,
    )


def describe(representation: Representation) -> tuple[tuple[str, str], ...]:
    """Return the fields that tell what the content is known by, and that parts of it can be had."""
    fields = [("Accept-Ranges", "bytes"), ("ETag", representation.etag)]
    if representation.modified_at is not None:
        fields.append(("Last-Modified", build_http_date(representation.modified_at)))
    return tuple(fields)


def build_not_modified(representation: Representation) -> Reply:
    """Return the answer to a client that has the content already. Source: RFC 9110, 15.4.5."""
    return Reply(304, (_CACHING, *describe(representation)))


def build_head(upload: Upload, representation: Representation, part: ByteRange | None, shown_as: str | None) -> Reply:
    """Return the head of the answer that carries the bytes of ``upload``, or the ``part`` of them that was asked for.

    ``shown_as`` is the content type for a browser to show, ``None`` for it to save the content.

    Source: RFC 9110, 15.3.7: 206 says ``Content-Range``, and everything that 200 would say.
    """
    size = representation.length if part is None else part.size
    ranged = [] if part is None else [("Content-Range", build_content_range(part, representation.length))]
    return Reply(
        200 if part is None else 206,
        (
            ("Content-Type", shown_as or "application/octet-stream"),
            ("Content-Length", build_number(size)),
            *ranged,
            (
                "Content-Disposition",
                build_disposition(upload.metadata.filename, "inline" if shown_as else "attachment"),
            ),
            _NO_SNIFFING,
            _SHOWN_POLICY if shown_as else _SAVED_POLICY,
            _CACHING,
            *describe(representation),
        ),
    )


async def shown_as(upload: Upload, read: Reader) -> str | None:
    """Return the content type that a browser may show the upload as, ``None`` when it is to be saved.

    Looks at the first bytes where the name allows it at all.
    """
    name = clean_name(upload.metadata.filename)
    if upload.extension not in MEDIA_TYPES or (name and not name.lower().endswith(upload.extension)):
        return None
    prefix = b"".join([chunk async for chunk in read(0, min(SNIFF_SIZE, upload.offset))])
    return display_type(upload.extension, prefix)


def clean_name(filename: str) -> str:
    """Return a client's own name for its file without what could do harm: "" when nothing is left.

    It is no longer than names are that file systems can write.
    """
    return sound_name(filename)[:_LONGEST_NAME]


def build_disposition(filename: str, kind: str = "attachment") -> str:
    """Write ``Content-Disposition`` for a client's own name: an ASCII form for all, and the true one beside it.

    Source: RFC 6266, 4.3 and appendix D; RFC 8187, 3.2.
    """
    name = clean_name(filename)
    if not name:
        return kind
    plain = "".join(c if c.isascii() and c not in '"\\%' else "_" for c in name)
    if plain == name:
        return f'{kind}; filename="{name}"'
    return f"{kind}; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"
