"""What bounds the offset of an unfinished upload: the durable floor, and the ceiling of an append under test.

The length of the data is the truth after a crash of the process, because the kernel still holds every byte. After a
loss of power it is not: file systems were seen to keep a file longer than what reached the disk, the rest NULs. So
beside the data lies a small file with the *floor*, the length that is known to be on the disk, and the id of the boot
that wrote it. Under another boot, no more than the floor counts.

While an append is not verified its bytes must not count, whatever happens. The same file then holds a *ceiling*, set
before its first byte and lifted by its commit. One write lifts it, so that a crash leaves all of the append or none.

The file has two slots that are written in turn, in place: that needs no room, no rename and no new inode. Each has a
sequence number and a CRC, so a torn slot costs one step, never more. They lie a page apart because a disk may tear
all of the 4 KiB sector it was writing.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from struct import Struct
from zlib import crc32

from tusd_py.storage.layout import FILE_MODE, open_regular, write_all

PAGE = 4096  # bytes from the start of one slot to that of the other

# sequence, floor, ceiling (-1: none), boot id; then the CRC of these. The version is part of what the CRC is taken of.
_FIELDS = Struct("<QQq36s")
_CRC = Struct("<I")
_VERSION = b"tusd-py floor 1"

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def read_boot_id() -> str:
    """Return the kernel's id of this boot. Where it has none, all boots look alike and the length is trusted."""
    with suppress(OSError):
        return _BOOT_ID.read_text("ascii").strip()
    return "unknown"


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one slot says. ``floor`` and ``ceiling`` are bytes from the start of the data.

    The one without a boot id is what we go by when no slot can be read: nothing counts then.
    """

    floor: int = 0
    ceiling: int | None = None
    boot_id: str = ""
    sequence: int = 0

    def offset(self, size: int, boot_id: str) -> int:
        """Return how many bytes of ``size`` stored ones count in the boot ``boot_id``."""
        counted = size if self.ceiling is None else min(size, self.ceiling)
        return counted if self.boot_id == boot_id else min(counted, self.floor)

    def next(self, *, floor: int, ceiling: int | None, boot_id: str) -> Bounds:
        """Return the bounds to be written after these."""
        return replace(self, floor=floor, ceiling=ceiling, boot_id=boot_id, sequence=self.sequence + 1)


def create_bounds(path: str, bounds: Bounds, *, durable: bool) -> None:
    """Make the file with both slots. Their room is taken now, so that no later change can lack it."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, FILE_MODE)
    try:
        write_all(descriptor, _build(bounds).ljust(2 * PAGE, b"\0"), 0)
        if durable:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_bounds(path: str) -> Bounds:
    """Return what the newest whole slot says, ``Bounds()`` when there is none."""
    opened = open_regular(path, os.O_RDONLY)
    if opened is None:
        return Bounds()
    descriptor, _ = opened
    try:
        content = os.pread(descriptor, PAGE + _FIELDS.size + _CRC.size, 0)
    finally:
        os.close(descriptor)
    slots = (_parse(content), _parse(content[PAGE:]))
    return max((slot for slot in slots if slot), key=lambda slot: slot.sequence, default=Bounds())


def write_bounds(path: str, bounds: Bounds, *, durable: bool) -> None:
    """Write ``bounds`` over the older slot; with ``durable`` they are on the disk when this returns.

    A file that went missing is made anew: without it nothing of the upload would count.
    """
    opened = open_regular(path, os.O_WRONLY | os.O_CREAT)
    if opened is None:
        raise OSError("what should hold the durable floor is not a regular file")
    descriptor, _ = opened
    try:
        write_all(descriptor, _build(bounds), bounds.sequence % 2 * PAGE)
        if durable:
            os.fdatasync(descriptor)
    finally:
        os.close(descriptor)


def _build(bounds: Bounds) -> bytes:
    ceiling = -1 if bounds.ceiling is None else bounds.ceiling
    fields = _FIELDS.pack(bounds.sequence, bounds.floor, ceiling, bounds.boot_id.encode("ascii", "replace"))
    return fields + _CRC.pack(crc32(fields + _VERSION))


def _parse(content: bytes) -> Bounds | None:
    fields = content[: _FIELDS.size]
    if content[_FIELDS.size : _FIELDS.size + _CRC.size] != _CRC.pack(crc32(fields + _VERSION)):
        return None
    sequence, floor, ceiling, boot_id = _FIELDS.unpack(fields)
    return Bounds(
        floor=floor,
        ceiling=None if ceiling < 0 else ceiling,
        boot_id=boot_id.rstrip(b"\0").decode("ascii", "replace"),
        sequence=sequence,
    )
