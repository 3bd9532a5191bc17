"""Uploads on the local disk. ``layout.py`` shows where everything lies.

A record says what is known of an upload, the length of its data says how much of it there is, and one rename makes it
complete. Between any two system calls the process may end: what is found afterwards is the state before or the state
after, never something in between, and nothing has to be repaired before the next start.

How sure bytes are before they are acknowledged is a choice, ``fsync``:

- ``never``: they survive the process. After a loss of power unfinished uploads begin anew.
- ``completion``: a completed upload survives a loss of power as well. Long uploads are synced as they go.
- ``request``: so does everything else that was acknowledged.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import datetime
from functools import cached_property, partial
from pathlib import Path
from typing import Literal

import aiofiles

from tusd_py.cancellation import outlast
from tusd_py.errors import StorageFailed, UploadNotFound
from tusd_py.storage.appender import DiskAppender
from tusd_py.storage.at_once import keep_at_once
from tusd_py.storage.base import Appender, Buffer, Store
from tusd_py.storage.completion import (
    end_finish,
    find_complete,
    finish,
    finish_partial,
    remove_unfinished,
    written_at_of,
)
from tusd_py.storage.concatenation import concatenate
from tusd_py.storage.data import Surroundings, UnfinishedData
from tusd_py.storage.faults import translated
from tusd_py.storage.floor import Bounds, create_bounds, read_boot_id, read_bounds
from tusd_py.storage.layout import FILE_MODE, Layout, is_ours, open_regular, remove, stat_regular, sync_folder
from tusd_py.storage.leftovers import tidy_leftovers
from tusd_py.storage.listing import found_if_sound, found_next, ids_of_records
from tusd_py.storage.record import Record, read_record, write_record
from tusd_py.storage.space import Space
from tusd_py.storage.threads import Threads
from tusd_py.upload import Upload, is_id

Fsync = Literal["never", "completion", "request"]

READ_SIZE = 256 * 1024  # bytes of one chunk of ``read``

# Copying has threads of its own, so that nobody who only wants to know an offset waits behind it.
COPYING_THREADS = 2


class DiskStore(Store):
    """Keeps uploads in a folder. Several processes may use the same one.

    ``failed_syncs`` counts the syncs that failed in this process; each cost an upload what was not on the disk yet.
    """

    def __init__(
        self,
        folder: Path | str,
        *,
        fsync: Fsync = "completion",
        space_reserve: int = 0,
        threads: int | None = None,
        boot_id: str | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Describe the store; the disk is not touched before ``open`` or the first creation.

        Args:
            folder: where uploads are kept; it is made, for its owner alone, if it is missing.
            fsync: how sure bytes are before they are acknowledged.
            space_reserve: bytes that creations leave free on the disk.
            threads: how many threads work for the store at most.
            boot_id: what tells a start of the machine from the others; asked of the kernel by default.
            monotonic: gives seconds that never go back.
        """
        self.failed_syncs = 0
        self._layout = Layout(os.path.abspath(folder))
        self._fsync = fsync
        self._boot_id_given = boot_id
        self._threads = Threads(threads)
        self._copying_threads = Threads(COPYING_THREADS)
        self._is_made = False
        self._space = Space(self._layout.folder, reserve=space_reserve, add_up=self._claims, monotonic=monotonic)

    async def open(self) -> None:
        await self._threads.run(self._make)

    async def close(self) -> None:
        self._threads.close()
        self._copying_threads.close()

    async def check_ready(self) -> None:
        await self._threads.run(self._check_ready)

    async def create(self, upload: Upload) -> Upload:
        return await self._threads.run(self._create, upload)

    async def create_complete(self, upload: Upload, data: Buffer) -> Upload:
        if upload.is_partial:
            # It stays among the unfinished, in need of all that these have.
            return await super().create_complete(upload, data)
        return await self._threads.run(self._create_complete, upload, data)

    async def get(self, id: str) -> Upload:
        return await self._threads.run(self._get, id)

    async def save(self, upload: Upload) -> None:
        await self._threads.run(self._save, upload)

    @asynccontextmanager
    async def append(self, upload: Upload, *, verified: bool = True) -> AsyncIterator[Appender]:
        appender = DiskAppender(
            upload,
            verified=verified,
            open_data=partial(self._open_data, upload.id),
            threads=self._threads,
            checkpoints=self._fsync != "never",
            sync_commits=self._fsync == "request",
        )
        try:
            yield appender
        finally:
            if appender.is_open:
                await outlast(appender.leave())

    async def finish(self, upload: Upload) -> Upload:
        return await self._threads.run(self._finish, upload)

    async def concatenate(self, final: Upload, partials: Sequence[Upload]) -> Upload:
        await concatenate(
            partials,
            open_data=partial(self._open_data, final.id),
            threads=self._copying_threads,
            layout=self._layout,
            checkpoints=self._fsync != "never",
        )
        return await self.get(final.id)

    async def read(self, upload: Upload, start: int = 0, stop: int | None = None) -> AsyncGenerator[bytes, None]:
        stop = upload.offset if stop is None else stop
        if start >= stop:
            return
        path = self._path_to_read(upload)
        if stop - start <= READ_SIZE:
            chunk = await self._threads.run(_read_short, path, start, stop - start)
            yield chunk
            if len(chunk) < stop - start:
                raise StorageFailed
            return
        opener = partial(_open_at, start)
        try:
            async with aiofiles.open(path, "rb", buffering=0, opener=opener, executor=self._threads.executor) as data:
                while start < stop:
                    chunk = await data.read(min(READ_SIZE, stop - start))
                    if not chunk:
                        raise StorageFailed
                    start += len(chunk)
                    yield chunk
        except FileNotFoundError:
            raise UploadNotFound from None
        except OSError as error:
            raise translated(error) from error

    async def path(self, upload: Upload) -> str | None:
        return await self._threads.run(self._path_to_send, upload)

    async def delete(self, id: str) -> None:
        await self._threads.run(self._delete, id)

    async def list(self, *, complete: bool = False) -> AsyncIterator[Upload]:
        find = partial(find_complete, layout=self._layout) if complete else self._find_listed
        ids = ids_of_records(self._layout.records if complete else self._layout.partial)
        while (found := await self._threads.run(found_next, ids, find)) is not None:
            for upload in found:
                yield upload

    async def tidy(self, *, before: datetime, dry_run: bool = False, keep: Collection[str] = ()) -> Sequence[str]:
        seconds = before.timestamp()
        return await self._threads.run(tidy_leftovers, self._layout, before=seconds, dry_run=dry_run, keep=keep)

    def data_path(self, id: str) -> Path | None:
        """Return the file that holds the data of the upload now, ``None`` when there is none. Blocking; for locks."""
        if not is_id(id):
            return None
        data = self._layout.data(id)
        if stat_regular(data) is not None:
            return Path(data)
        record = read_record(self._layout.complete_record(id), id)
        if record is None:
            return None
        # Whoever the folder is for may have taken the data away; the record can still be terminated.
        data = self._layout.complete_data(id, record.extension)
        return Path(data if stat_regular(data) is not None else self._layout.complete_record(id))

    @property
    def folder(self) -> Path:
        """Where the uploads are, as an absolute path."""
        return Path(self._layout.folder)

    @cached_property
    def _surroundings(self) -> Surroundings:
        return Surroundings(
            layout=self._layout,
            boot_id=self._boot_id_given or read_boot_id(),
            durable=self._fsync != "never",
            suspected=self._count_failed_sync,
        )

    # From here on everything is blocking and runs in a thread.

    def _make(self) -> None:
        if self._is_made:
            return
        self._layout.make()
        if self._fsync != "never":
            sync_folder(self._layout.folder)
        self._is_made = True

    def _check_ready(self) -> None:
        self._make()
        self._space.check_reserve()
        # A temporary file like any other: should we die here, ``tidy`` finds it.
        probe = self._layout.temporary(os.urandom(16).hex())
        descriptor = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, FILE_MODE)
        try:
            os.write(descriptor, bytes(1))
        finally:
            os.close(descriptor)
            remove(probe)

    def _create(self, upload: Upload) -> Upload:
        self._make()
        layout, id, durable = self._layout, upload.id, self._fsync == "request"
        record = Record.of(upload)
        if os.path.lexists(layout.complete_record(id)):
            raise FileExistsError("an upload of this id is complete already")
        self._space.claim(upload.length)
        written_at = _create_empty(layout.data(id), durable=durable)
        try:
            create_bounds(layout.floor(id), Bounds(boot_id=self._surroundings.boot_id), durable=durable)
            # The record comes last: without it there is no upload.
            write_record(record, layout.record(id), temporary=layout.temporary(id), durable=durable)
            if durable:
                sync_folder(layout.partial)
        except OSError:
            with suppress(OSError):
                remove_unfinished(id, self._layout)
            raise
        return record.upload(offset=0, written_at=written_at)

    def _create_complete(self, upload: Upload, data: Buffer) -> Upload:
        self._make()
        record = Record.of(upload)
        self._space.claim(len(data))
        status = keep_at_once(self._layout, record, data, durable=self._fsync != "never")
        return replace(upload, offset=len(data), written_at=written_at_of(status))

    def _get(self, id: str) -> Upload:
        # In this order, because uploads move in this order.
        upload = self._find_unfinished(id) or self._find_ended(id)
        if upload is None:
            raise UploadNotFound
        return upload

    def _find_ended(self, id: str) -> Upload | None:
        """Return a complete upload; if its ``finish`` was cut short after the rename, once the rest of it is done.

        Until then it must not be told as complete: its name in the folder may not be durable.
        """
        upload = find_complete(id, self._layout)
        if upload is not None and os.path.lexists(self._layout.record(id)):
            end_finish(id, self._surroundings)
        return upload

    def _find_unfinished(self, id: str) -> Upload | None:
        record = read_record(self._layout.record(id), id)
        if record is None:
            return None
        data = stat_regular(self._layout.data(id))
        if data is None or not is_ours(data):
            return None
        # Bounds after the size: bytes that are still to be verified came behind a ceiling that was there before them.
        bounds = read_bounds(self._layout.floor(id))
        # What could be read is ours.
        if not bounds.boot_id and _is_planted(self._layout.floor(id)):
            return None
        offset = bounds.offset(data.st_size, self._surroundings.boot_id)
        if record.completed_at is not None and offset != record.length:
            # A loss of power took bytes of a partial that nothing had synced.
            record = record.model_copy(update={"completed_at": None})
        return record.upload(offset=offset, written_at=written_at_of(data))

    def _find_listed(self, id: str) -> Upload | None:
        """Return an unfinished upload, ``None`` when it cannot be read; ends a ``finish`` that was cut short."""
        upload = self._find_unfinished(id)
        if upload is None:
            self._find_ended(id)
        return upload

    def _save(self, upload: Upload) -> None:
        layout, id, durable = self._layout, upload.id, self._fsync == "request"
        known = self._find_unfinished(id)
        if known is None:
            raise UploadNotFound  # a record must not bring a removed upload back
        if known.length is None and upload.length is not None:
            self._space.claim(upload.length - known.offset)
        write_record(Record.of(upload), layout.record(id), temporary=layout.temporary(id), durable=durable)
        if durable:
            sync_folder(layout.partial)

    def _open_data(self, id: str) -> UnfinishedData:
        return UnfinishedData(id, self._surroundings)

    def _finish(self, upload: Upload) -> Upload:
        if upload.is_partial:
            finish_partial(upload, self._surroundings)
            return self._get(upload.id)
        return finish(upload, self._surroundings)

    def _delete(self, id: str) -> None:
        if not is_id(id):
            return
        record = read_record(self._layout.complete_record(id), id)
        if record is not None:
            # Data before record, unlike below: a record without its data is harmless and can be deleted again, while
            # data without a record would lie in the open for ever, where nobody looks for leftovers.
            if stat_regular(self._layout.data(id)) is None:
                remove(self._layout.complete_data(id, record.extension))
            remove(self._layout.complete_record(id))
        remove_unfinished(id, self._layout)
        if self._fsync == "request":
            for folder in (self._layout.folder, self._layout.records, self._layout.partial):
                with suppress(FileNotFoundError):
                    sync_folder(folder)

    def _claims(self) -> int:
        claims = 0
        for id in ids_of_records(self._layout.partial):
            upload = found_if_sound(id, self._find_listed)
            if upload is not None and upload.length is not None:
                claims += max(0, upload.length - upload.offset)
        return claims

    def _path_to_read(self, upload: Upload) -> str:
        if upload.is_complete and not upload.is_partial:
            return self._layout.complete_data(upload.id, upload.extension)
        return self._layout.data(upload.id)

    def _path_to_send(self, upload: Upload) -> str | None:
        path = self._layout.complete_data(upload.id, upload.extension)
        status = stat_regular(path)
        return path if status is not None and status.st_size == upload.offset else None

    def _count_failed_sync(self) -> None:
        self.failed_syncs += 1


def _create_empty(path: str, *, durable: bool) -> datetime:
    """Make an empty file where there is none, and return when."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, FILE_MODE)
    try:
        if durable:
            os.fsync(descriptor)
        return written_at_of(os.fstat(descriptor))
    finally:
        os.close(descriptor)


def _read_short(path: str, start: int, size: int) -> bytes:
    """Read what is read in one piece, in one hop."""
    opened = open_regular(path, os.O_RDONLY, is_shared=True)
    if opened is None:
        raise UploadNotFound
    descriptor, _ = opened
    try:
        return os.pread(descriptor, size, start)
    finally:
        os.close(descriptor)


def _open_at(start: int, path: str, flags: int) -> int:
    """Open a regular file to be read from ``start`` on: an opener for ``open``, which spares the hop of a seek."""
    opened = open_regular(path, flags, is_shared=True)
    if opened is None:
        raise FileNotFoundError("the data is not there")
    descriptor, _ = opened
    os.lseek(descriptor, start, os.SEEK_SET)
    return descriptor


def _is_planted(path: str) -> bool:
    """Tell whether something that we did not make has the place of a file of ours."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return False
    return not (stat.S_ISREG(status.st_mode) and is_ours(status))
