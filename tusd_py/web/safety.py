"""Header fields that every answer carries, whoever gives it: browsers then do nothing with it that nobody meant."""

from __future__ import annotations

from collections.abc import Iterable

# Nothing of what we answer is a page. Where that needs other words, for downloads, the answer brings its own.
# The URL of an upload is all that one needs to write to it, so it is told to nobody.
SAFETY = (
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
)


def made_safe(fields: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Return the header fields of an answer with those of ``SAFETY`` that it does not bring itself."""
    lines = list(fields)
    present = {name.lower() for name, _ in lines}
    return [*lines, *(line for line in SAFETY if line[0] not in present)]
