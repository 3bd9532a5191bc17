"""Checksum algorithms, and the ``Upload-Checksum`` field that announces one.

The algorithms are a fixed table: no name from a request ever reaches a library's own look-up. Those of the extra
``checksums`` are in the table only where their library is installed, so what is announced is what works.
"""

from __future__ import annotations

import hashlib
import hmac
import zlib
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Protocol

from tusd_py.errors import BadRequest, ChecksumMismatch

Buffer = bytes | bytearray | memoryview


class Digest(Protocol):
    """A running digest, as ``hashlib`` has them. ``update`` releases the GIL for what is worth a thread."""

    @property
    def digest_size(self) -> int: ...

    def update(self, data: Buffer, /) -> object: ...

    def digest(self) -> bytes: ...


class Crc32:
    """CRC-32 (ISO 3309) with the shape of a hashlib digest: four bytes, the most significant first."""

    digest_size = 4

    def __init__(self) -> None:
        self._value = 0

    def update(self, data: Buffer, /) -> None:
        self._value = zlib.crc32(data, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(4, "big")


class Crc32c:
    """CRC-32C (Castagnoli) with the shape of a hashlib digest: four bytes, the most significant first."""

    digest_size = 4

    def __init__(self) -> None:
        import google_crc32c

        self._extend: Callable[[int, bytes], int] = google_crc32c.extend
        self._value = 0

    def update(self, data: Buffer, /) -> None:
        # The library takes bytes alone.
        self._value = self._extend(self._value, bytes(data))

    def digest(self) -> bytes:
        return self._value.to_bytes(4, "big")


def _xxh3() -> Digest:
    import xxhash

    return xxhash.xxh3_64()


def _blake3() -> Digest:
    import blake3

    return blake3.blake3()


# Announced in this order; sha1 is the one that every server must know (tus 1.0.0, Checksum).
_ALWAYS: Mapping[str, Callable[[], Digest]] = {
    "sha1": hashlib.sha1,
    "md5": hashlib.md5,
    "sha256": hashlib.sha256,
    "sha512": hashlib.sha512,
    "crc32": Crc32,
}
_EXTRA: Mapping[str, tuple[str, Callable[[], Digest]]] = {
    "crc32c": ("google_crc32c", Crc32c),
    "xxh3": ("xxhash", _xxh3),
    "blake3": ("blake3", _blake3),
}


def algorithms() -> Mapping[str, Callable[[], Digest]]:
    """Return what can be computed here, by its name on the wire, in the order in which it is announced.

    xxh3 is the 64-bit variant, eight bytes, the most significant first; blake3 has 32 bytes.
    """
    extra = {name: start for name, (library, start) in _EXTRA.items() if find_spec(library) is not None}
    return {**_ALWAYS, **extra}


@dataclass(frozen=True, slots=True)
class Checksum:
    """What the client says the digest of one request's content is: algorithm as on the wire, digest as raw bytes."""

    algorithm: str
    digest: bytes


def parse_checksum(text: str) -> Checksum:
    """Return what ``Upload-Checksum`` announces: the name of an algorithm, one space, the digest in base64.

    Whether the algorithm is known is a question for ``Verification``.

    Source: tus 1.0.0, Checksum.
    """
    algorithm, _, encoded = text.partition(" ")
    try:
        digest = b64decode(encoded, validate=True)
    except (Base64Error, ValueError):
        digest = b""
    if not algorithm or not digest:
        raise _bad_checksum("is not an algorithm, a space and a digest in base64")
    return Checksum(algorithm, digest)


def build_checksum(checksum: Checksum) -> str:
    """Write ``Upload-Checksum``."""
    return f"{checksum.algorithm} {b64encode(checksum.digest).decode()}"


class Verification:
    """The digest of a request's content as it arrives, to be held against what was announced.

    ``has_passed`` tells whether ``check`` found them equal.

    Raises:
        BadRequest: the algorithm is not known here, or the digest cannot be one of it; both before a byte is read.
    """

    def __init__(self, checksum: Checksum, known: Mapping[str, Callable[[], Digest]]) -> None:
        start = known.get(checksum.algorithm)
        if start is None:
            raise _bad_checksum(f"names an algorithm that is not known here; use one of {', '.join(known)}")
        self._digest = start()
        self.has_passed = False
        self._expected = checksum.digest
        if len(self._expected) != self._digest.digest_size:
            raise _bad_checksum(f"does not hold a {checksum.algorithm} digest of {self._digest.digest_size} bytes")

    def update(self, data: Buffer) -> None:
        """Count ``data`` in; costs time in proportion to it, so call it off the event loop for much."""
        self._digest.update(data)

    def check(self) -> None:
        """Raise ``ChecksumMismatch`` unless what was counted in has the announced digest."""
        if not hmac.compare_digest(self._digest.digest(), self._expected):
            raise ChecksumMismatch
        self.has_passed = True


def bad_trailer(trouble: str) -> BadRequest:
    """Return the error for a checksum behind the body that ``trouble`` says something of."""
    return BadRequest("ERR_INVALID_CHECKSUM", f"Upload-Checksum behind the body {trouble}")


def _bad_checksum(trouble: str) -> BadRequest:
    return BadRequest("ERR_INVALID_CHECKSUM", f"Upload-Checksum {trouble}; send for example: sha1 and a base64 digest")
