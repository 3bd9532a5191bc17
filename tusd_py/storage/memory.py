"""Uploads in memory, for tests and for programs that keep nothing."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from tusd_py.errors import OffsetMismatch, StorageFailed, StorageFull, UploadNotFound
from tusd_py.storage.base import Appender, Buffer, Store
from tusd_py.upload import Upload, is_id

READ_SIZE = 256 * 1024  # bytes of one chunk of ``read``


@dataclass(slots=True)
class _Kept:
    """An upload and its bytes; ``counted`` of them are told."""

    record: Upload
    written_at: datetime
    data: bytearray = field(default_factory=bytearray)
    counted: int = 0

    @property
    def upload(self) -> Upload:
        return replace(self.record, offset=self.counted, written_at=self.written_at)

    @property
    def claim(self) -> int:
        """Bytes that are or may yet come to be in memory."""
        return len(self.data) if self.record.is_complete else max(len(self.data), self.record.length or 0)


class MemoryStore(Store):
    """Keeps uploads in a dictionary. Whatever crashes takes them with it."""

    def __init__(self, *, capacity: int | None = None, now: Callable[[], datetime] | None = None) -> None:
        """Keep at most ``capacity`` bytes of data (default: all there are); ``now`` gives the time in UTC."""
        self._capacity = capacity
        self._now = now or (lambda: datetime.now(UTC))
        self._kept: dict[str, _Kept] = {}

    async def create(self, upload: Upload) -> Upload:
        if not is_id(upload.id):
            raise UploadNotFound
        if upload.id in self._kept:
            raise StorageFailed
        claims = sum(kept.claim for kept in self._kept.values())
        if self._capacity is not None and upload.length and upload.length > self._capacity - claims:
            raise StorageFull
        kept = self._kept[upload.id] = _Kept(upload, self._now())
        return kept.upload

    async def get(self, id: str) -> Upload:
        return self._find(id).upload

    async def save(self, upload: Upload) -> None:
        kept = self._find(upload.id)
        if kept.record.is_complete and not kept.record.is_partial:
            raise UploadNotFound
        kept.record = upload

    @asynccontextmanager
    async def append(self, upload: Upload, *, verified: bool = True) -> AsyncIterator[Appender]:
        appender = _MemoryAppender(self, upload, verified=verified)
        try:
            yield appender
        finally:
            if not verified and not appender.is_committed:
                await appender.discard()

    async def finish(self, upload: Upload) -> Upload:
        kept = self._find(upload.id)
        if kept.record.is_complete:
            return kept.upload
        if kept.counted != upload.offset:
            raise OffsetMismatch(expected=kept.counted, provided=upload.offset)
        kept.record = upload
        return kept.upload

    async def concatenate(self, final: Upload, partials: Sequence[Upload]) -> Upload:
        kept = self._find_unfinished(final.id)
        data = b"".join([bytes(self._find(partial.id).data[: partial.offset]) for partial in partials])
        self._begin(replace(final, offset=0))
        written_before = kept.written_at
        if self._write(final.id, data) < len(data):
            self._forget(replace(final, offset=0), written_before)
            raise StorageFull
        kept.counted = len(data)
        return kept.upload

    async def read(self, upload: Upload, start: int = 0, stop: int | None = None) -> AsyncGenerator[bytes, None]:
        stop = upload.offset if stop is None else stop
        while start < stop:
            chunk = bytes(self._find(upload.id).data[start : min(start + READ_SIZE, stop)])
            if not chunk:
                raise StorageFailed
            start += len(chunk)
            yield chunk

    async def delete(self, id: str) -> None:
        self._kept.pop(id, None)

    async def list(self, *, complete: bool = False) -> AsyncIterator[Upload]:
        for kept in tuple(self._kept.values()):
            is_finished = kept.record.is_complete and not kept.record.is_partial
            if is_finished == complete and kept.record.id in self._kept:
                yield kept.upload

    async def tidy(self, *, before: datetime, dry_run: bool = False, keep: Collection[str] = ()) -> Sequence[str]:
        return []

    def _find(self, id: str) -> _Kept:
        kept = self._kept.get(id)
        if kept is None:
            raise UploadNotFound
        return kept

    def _find_unfinished(self, id: str) -> _Kept:
        kept = self._find(id)
        if kept.record.is_complete:
            raise UploadNotFound
        return kept

    def _begin(self, upload: Upload) -> datetime:
        """Cut what lies behind the offset, and return when the last byte before it came."""
        kept = self._find_unfinished(upload.id)
        if upload.offset > kept.counted:
            raise OffsetMismatch(expected=kept.counted, provided=upload.offset)
        del kept.data[upload.offset :]
        kept.counted = upload.offset
        return kept.written_at

    def _forget(self, upload: Upload, written_at: datetime) -> None:
        self._begin(upload)
        self._find(upload.id).written_at = written_at

    def _write(self, id: str, data: Buffer) -> int:
        """Store what fits of ``data`` and return how many bytes that is."""
        kept = self._find_unfinished(id)
        room = len(data)
        if self._capacity is not None:
            room = min(room, self._capacity - sum(len(other.data) for other in self._kept.values()))
        with memoryview(data) as view:
            kept.data += view[:room]
        if room:
            kept.written_at = self._now()
        return room

    def _count(self, id: str, offset: int) -> None:
        self._find_unfinished(id).counted = offset


class _MemoryAppender(Appender):
    def __init__(self, store: MemoryStore, upload: Upload, *, verified: bool) -> None:
        self.offset = upload.offset
        self.counts_as_written = verified
        self.is_committed = False
        self._store = store
        self._upload = upload
        self._verified = verified
        self._written_before: datetime | None = None

    async def write(self, data: Buffer) -> None:
        if self._written_before is None:
            self._written_before = self._store._begin(self._upload)
        stored = self._store._write(self._upload.id, data)
        self.offset += stored
        if self._verified:
            self._store._count(self._upload.id, self.offset)
        if stored < len(data):
            raise StorageFull

    async def commit(self, data: Buffer = b"") -> int:
        if len(data):
            await self.write(data)
        if self._written_before is not None:
            self._store._count(self._upload.id, self.offset)
        self.is_committed = True
        return self.offset

    async def written(self) -> AsyncGenerator[bytes, None]:
        if self._written_before is not None:
            yield bytes(self._store._find_unfinished(self._upload.id).data[self._upload.offset : self.offset])

    async def discard(self) -> None:
        if self._written_before is not None:
            with suppress(UploadNotFound):  # what was deleted meanwhile is back where it began, too
                self._store._forget(self._upload, self._written_before)
            self._written_before = None
        self.offset = self._upload.offset
