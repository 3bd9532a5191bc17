"""A finished upload as a download: its head, built so that a browser does nothing with it but save it."""

from __future__ import annotations

from urllib.parse import quote

from tusd_py.protocol.messages import Reply
from tusd_py.upload import Upload

# The content is somebody's upload: it is neither guessed at, nor run, nor framed (reliability: stored scripts).
_SAFETY = (
    ("Content-Type", "application/octet-stream"),
    ("X-Content-Type-Options", "nosniff"),
    ("Content-Security-Policy", "sandbox; default-src 'none'"),
)

# Unicode that turns or hides text: with it, "gpj.exe" reads as "exe.jpg".
_BIDI = {*range(0x200B, 0x2010), *range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x061C, 0xFEFF}


def build_disposition(filename: str) -> str:
    """Write ``Content-Disposition`` for a client's own name: an ASCII form for all, and the true one beside it.

    Controls, bidirectional marks and everything up to the last path separator are dropped.

    Source: RFC 6266, 4.3 and appendix D; RFC 8187, 3.2.
    """
    name = filename.replace("\\", "/").rpartition("/")[2]
    name = "".join(c for c in name if c.isprintable() and ord(c) not in _BIDI).strip()[:255]
    if not name:
        return "attachment"
    plain = "".join(c if c.isascii() and c not in '"\\%' else "_" for c in name)
    if plain == name:
        return f'attachment; filename="{name}"'
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"


def build_head(upload: Upload) -> Reply:
    """Return the head of the answer that carries the bytes of ``upload``."""
    return Reply(
        200,
        (
            *_SAFETY,
            ("Content-Length", str(upload.offset)),
            ("Content-Disposition", build_disposition(upload.metadata.filename)),
        ),
    )
