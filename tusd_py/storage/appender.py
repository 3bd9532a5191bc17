"""One append to an upload on the disk: what the event loop sees of ``UnfinishedData``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress

from tusd_py.errors import UploadError
from tusd_py.storage.base import Appender, Buffer
from tusd_py.storage.data import UnfinishedData
from tusd_py.storage.threads import Threads
from tusd_py.upload import Upload

# How many bytes may lie between the floor and the offset of a long upload. The sync of that many runs beside the
# writing of the next ones, and the last sync of all has no more than this left to do.
CHECKPOINT_SIZE = 64 * 1024 * 1024


# Bytes that are read back at once.
READ_SIZE = 1024 * 1024


class DiskAppender(Appender):
    """Writes in threads, one hop for each call. The file is opened in the hop of the first write."""

    def __init__(
        self,
        upload: Upload,
        *,
        verified: bool,
        open_data: Callable[[], UnfinishedData],
        threads: Threads,
        checkpoints: bool,
        sync_commits: bool,
    ) -> None:
        """Prepare an append at ``upload.offset``; nothing is touched yet.

        Args:
            upload: what is appended to.
            verified: whether bytes count as they are written.
            open_data: opens the data, in a thread.
            threads: where the work is done.
            checkpoints: whether long appends are synced as they go.
            sync_commits: whether bytes are durable before ``commit`` returns.
        """
        self.offset = upload.offset
        self.counts_as_written = verified and not sync_commits
        self._start = upload.offset
        self._verified = verified
        self._open_data = open_data
        self._threads = threads
        self._checkpoints = checkpoints
        self._sync_commits = sync_commits
        self._data: UnfinishedData | None = None
        self._checkpoint: asyncio.Future[None] | None = None
        self._checkpoint_at = 0

    async def write(self, data: Buffer) -> None:
        await self._threads.run(self._write, data)
        if self._data is None or not self._checkpoints or self.offset < self._checkpoint_at:
            return
        # One checkpoint at a time: where the disk is slower than the network, it sets the pace.
        await self._end_checkpoint()
        self._checkpoint_at = self.offset + CHECKPOINT_SIZE
        self._checkpoint = self._threads.start(self._data.checkpoint, self.offset)

    async def commit(self, data: Buffer = b"") -> int:
        await self._end_checkpoint()
        if len(data) or self._data is not None or self._sync_commits:
            await self._threads.run(self._commit, data)
        return self.offset

    async def written(self) -> AsyncGenerator[bytes, None]:
        start = self._start
        while self._data is not None and start < self.offset:
            chunk = await self._threads.run(self._data.read, start, min(READ_SIZE, self.offset - start))
            start += len(chunk)
            yield chunk

    async def discard(self) -> None:
        with suppress(UploadError):  # a checkpoint that failed leaves its mark on the data, which is cut off anyway
            await self._end_checkpoint()
        if self._data is not None:
            await self._threads.run(self._discard)

    @property
    def is_open(self) -> bool:
        """Whether bytes were written that were neither committed nor discarded."""
        return self._data is not None

    async def leave(self) -> None:
        """End an open append as the contract says for one that was not committed."""
        if not self._verified:
            await self.discard()
            return
        with suppress(UploadError):
            await self._end_checkpoint()
        await self._threads.run(self._keep)

    async def _end_checkpoint(self) -> None:
        checkpoint, self._checkpoint = self._checkpoint, None
        if checkpoint is not None:
            await self._threads.outcome(checkpoint)

    def _write(self, data: Buffer) -> None:
        if self._data is None:
            self._data = self._opened()
        try:
            self._data.write(data)
        finally:
            self.offset = self._data.end

    def _opened(self) -> UnfinishedData:
        data = self._open_data()
        try:
            data.begin(self._start, verified=self._verified)
        except BaseException:
            data.close()
            raise
        self._checkpoint_at = data.floor + CHECKPOINT_SIZE
        return data

    def _commit(self, data: Buffer) -> None:
        self._write(data)
        assert self._data is not None
        self._data.commit(durable=self._sync_commits)
        self._close()

    def _keep(self) -> None:
        assert self._data is not None
        try:
            self._data.commit(durable=self._sync_commits)
        finally:
            self._close()

    def _discard(self) -> None:
        assert self._data is not None
        try:
            self._data.forget(self._start)
            self.offset = self._start
        finally:
            self._close()

    def _close(self) -> None:
        data, self._data = self._data, None
        if data is not None:
            try:
                data.close()
            finally:
                self.offset = data.end
