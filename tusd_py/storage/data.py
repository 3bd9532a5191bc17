"""The data of one unfinished upload, open for writing. Blocking: everything here runs in a thread.

Three rules keep the bytes right:

- Writes go to explicit offsets. "At the end of the file" could be behind a tail that a crash left.
- Data is cut under a ceiling: first the ceiling is set, then the tail is cut off, then the ceiling is lifted. So the
  offset is the new one from the first step on, and a floor above it is lowered before other bytes take its place.
- A sync that failed is never tried again: the kernel marks the pages clean although they are not on the disk, and the
  second try would succeed. The data is cut back to its floor instead.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass

from tusd_py.errors import OffsetMismatch, StorageFailed, UploadNotFound
from tusd_py.storage.copying import copy_range
from tusd_py.storage.floor import read_bounds, write_bounds
from tusd_py.storage.layout import Layout, open_regular, write_all


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What the data of every upload needs to know.

    ``durable`` says whether anything is ever synced; ``suspected`` is called, in a thread, when a sync failed.
    """

    layout: Layout
    boot_id: str
    durable: bool
    suspected: Callable[[], None]


class UnfinishedData:
    """The data of an unfinished upload and its bounds; ``end`` is where the next byte goes.

    One thread at a time, except that ``checkpoint`` may run beside ``write``.
    """

    def __init__(self, id: str, surroundings: Surroundings) -> None:
        """Open the data.

        Raises:
            UploadNotFound: there is none.
        """
        opened = open_regular(surroundings.layout.data(id), os.O_RDWR)
        if opened is None:
            raise UploadNotFound
        self._descriptor, status = opened
        self._size = status.st_size
        self._times = (status.st_atime_ns, status.st_mtime_ns)
        self._bounds_path = surroundings.layout.floor(id)
        self._surroundings = surroundings
        self._is_suspect = False
        try:
            self._bounds = read_bounds(self._bounds_path)
        except OSError:
            os.close(self._descriptor)
            raise
        self.end = self._bounds.offset(self._size, surroundings.boot_id)

    @property
    def floor(self) -> int:
        """Bytes known to be on the disk."""
        return self._bounds.floor

    def begin(self, offset: int, *, verified: bool) -> None:
        """Make ready to write at ``offset``, nothing behind it. Unless ``verified``, bytes then count from ``lift`` on.

        Raises:
            OffsetMismatch: fewer bytes count; writing there would leave a hole.
        """
        if offset > self.end:
            raise OffsetMismatch(expected=self.end, provided=offset)
        if offset < self._size or not self._is_settled or not verified:
            self._lower(offset)
        if verified:
            self.lift()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Write at ``end`` and move it, also by what was written before an error."""
        self._check_sound()
        write_all(self._descriptor, data, self.end, self._move)

    def read(self, start: int, size: int) -> bytes:
        """Return bytes that were written, at least one of ``size``."""
        chunk = os.pread(self._descriptor, size, start)
        if not chunk:
            raise OSError(errno.EIO, "the file does not hold what was written to it")
        return chunk

    def copy(self, source: int, start: int, size: int) -> None:
        """Write ``size`` bytes of the open file ``source``, from ``start`` on, at ``end``, and move it as they come."""
        self._check_sound()
        copy_range(source, start, self._descriptor, self.end, size, self._move)

    def sync(self) -> None:
        """Make all bytes durable, unless nothing ever is."""
        self._check_sound()
        if not self._surroundings.durable:
            return
        try:
            os.fdatasync(self._descriptor)
        except OSError:
            self._is_suspect = True
            self._surroundings.suspected()
            raise

    def checkpoint(self, end: int) -> None:
        """Make the bytes before ``end`` durable, and let the floor say so."""
        self.sync()
        if self._surroundings.durable:
            self._note(floor=end, ceiling=self._bounds.ceiling, durable=True)

    def commit(self, *, durable: bool) -> None:
        """Let every byte written count, and with ``durable`` also after a loss of power.

        One write says both at once: a slot on the disk that lifts the ceiling but not the floor, or the floor but not
        the ceiling, would take back what was acknowledged.
        """
        if durable:
            self.sync()
            self._note(floor=self.end, ceiling=None, durable=True)
        else:
            self.lift()

    def lift(self) -> None:
        """Let every byte written count: this one write is the commit of an append that was not verified."""
        if self._bounds.ceiling is not None:
            self._note(floor=self._bounds.floor, ceiling=None)

    def cut(self, offset: int) -> None:
        """Drop what lies behind ``offset``, for good."""
        self._lower(offset)
        self.lift()

    def forget(self, offset: int) -> None:
        """Drop what was written behind ``offset``, as if it had never been: the time of the last byte goes back too."""
        self.cut(offset)
        os.utime(self._descriptor, ns=self._times)

    def close(self) -> None:
        """Close the data; cut it back to its floor first if a sync failed. Errors of the close are errors."""
        try:
            if self._is_suspect:
                self.cut(min(self.end, self._bounds.floor))
        finally:
            os.close(self._descriptor)

    def _lower(self, offset: int) -> None:
        floor = self._bounds.floor
        lowered = offset < floor and self._surroundings.durable
        self._note(floor=min(floor, offset), ceiling=offset, durable=lowered)
        if self._size > offset or self.end > offset:
            os.ftruncate(self._descriptor, offset)
        self._size = self.end = offset

    @property
    def _is_settled(self) -> bool:
        return self._bounds.ceiling is None and self._bounds.boot_id == self._surroundings.boot_id

    def _note(self, *, floor: int, ceiling: int | None, durable: bool = False) -> None:
        bounds = self._bounds.next(floor=floor, ceiling=ceiling, boot_id=self._surroundings.boot_id)
        write_bounds(self._bounds_path, bounds, durable=durable)
        self._bounds = bounds

    def _move(self, end: int) -> None:
        self.end = end

    def _check_sound(self) -> None:
        if self._is_suspect:
            raise StorageFailed
