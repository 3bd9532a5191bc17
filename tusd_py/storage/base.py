"""The contract of a store: what every way of keeping uploads promises.

Two invariants carry everything:

- *The offset is measured, never recorded.* Whatever tells how many bytes count is the bytes themselves, so a crash
  can lose no truth.
- *Completion is recorded, never inferred.* An upload is complete when its record says so. One that is found whole but
  unmarked after a crash is finished by whoever touches it next; finishing twice is harmless.

A store knows nothing of HTTP, of limits or of locks. Its caller makes sure that one request at a time writes to an
upload; reading and listing may happen at any time beside it. Ids reach a store only after ``is_id`` said yes; it
refuses others as unknown all the same.

Errors of the library or the system underneath never leave a store. It raises:

- ``UploadNotFound`` for an id without a (readable) record,
- ``StorageFull`` when there is no room (ENOSPC, EDQUOT, EFBIG),
- ``StorageUnavailable`` when it cannot write just now (EROFS, EMFILE),
- ``StorageFailed`` for everything else, the cause chained.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from datetime import datetime

from tusd_py.upload import Upload

Buffer = bytes | bytearray | memoryview


class Appender(ABC):
    """The bytes of one append on their way into an upload.

    ``offset`` is where the next byte goes. It moves with every write, and is told to nobody before it counts.

    A call that is cancelled returns only once it touches nothing any more: the buffer is the caller's again, and no
    byte lands after the lock is let go.

    ``counts_as_written`` tells whether bytes count for good as soon as ``write`` returns. Where they are verified, or
    made durable before they are acknowledged, they count from ``commit`` on.
    """

    offset: int
    counts_as_written: bool = True

    @abstractmethod
    async def write(self, data: Buffer) -> None:
        """Store ``data`` at ``offset``. The buffer is the caller's again when this returns.

        Raises:
            StorageFull: ``offset`` tells how many bytes were stored before the room ran out.
        """

    @abstractmethod
    async def commit(self, data: Buffer = b"") -> int:
        """Store ``data`` too, make everything written count, and return the offset that it gives.

        At the fsync level ``request`` the bytes are durable before this returns. Called at most once.
        """

    @abstractmethod
    def written(self) -> AsyncGenerator[bytes, None]:
        """Give what this append has written so far, in chunks. Before ``commit``, and beside no other call.

        Who does not read to the end closes the generator (``contextlib.aclosing``).
        """

    @abstractmethod
    async def discard(self) -> None:
        """Put the upload back to the offset before this append, and ``written_at`` too, as if it had never begun.

        May be called at any time, also after a failed ``write``, and more than once; not after ``commit``.
        """


class Store(ABC):
    """Where uploads are kept."""

    async def open(self) -> None:  # noqa: B027 (a store that needs no preparation says nothing)
        """Prepare the store. Called once before its first use; calling it again is harmless."""

    async def close(self) -> None:  # noqa: B027
        """Release what ``open`` took. Uploads stay."""

    async def check_ready(self) -> None:  # noqa: B027 (a store that can always write says nothing)
        """Return when bytes of new uploads can be kept just now; quick, and leaves nothing behind.

        Raises:
            StorageFull, StorageUnavailable, StorageFailed: they cannot.
        """

    @abstractmethod
    async def create(self, upload: Upload) -> Upload:
        """Keep a new upload with no bytes, and return it as ``get`` would.

        After a crash in the middle the upload exists whole or not at all (a leftover of it is for ``tidy``).

        Raises:
            StorageFull: the declared length does not fit beside what other unfinished uploads may still claim.
        """

    async def create_complete(self, upload: Upload, data: Buffer) -> Upload:
        """Keep a new upload with all of its bytes, complete already, and return it as ``get`` would.

        ``upload`` is what ``finish`` would be told (``completed_at`` and ``extension`` are set), and its length is that
        of ``data``. It is as durable then as after ``finish``. An error leaves nothing of it. A crash in the middle
        leaves it complete or nothing (a leftover is for ``tidy``), at worst an unfinished upload that nobody knows of
        and that expires. Stores that can do all of this in one step do so.

        Raises:
            StorageFull: there is no room, or it is claimed by other unfinished uploads.
        """
        created = await self.create(replace(upload, completed_at=None))
        try:
            async with self.append(created) as appender:
                offset = await appender.commit(data)
            return await self.finish(replace(upload, offset=offset))
        except BaseException:
            await self.delete(upload.id)
            raise

    @abstractmethod
    async def get(self, id: str) -> Upload:
        """Return the upload with its offset and the time of its last byte as they are now.

        Cheap, changes nothing, and needs no room on the disk. A completed upload is found as well.
        """

    @abstractmethod
    async def save(self, upload: Upload) -> None:
        """Replace the record of an unfinished upload or a partial, whole: a crash leaves the old one or the new one.

        The measured attributes are not part of the record.
        """

    @abstractmethod
    def append(self, upload: Upload, *, verified: bool = True) -> AbstractAsyncContextManager[Appender]:
        """Open the upload for writing at ``upload.offset``; whatever lies beyond it is cut off first.

        Bytes of a ``verified`` append count as they are written: leaving the context without ``commit`` (an
        exception, a cancelled task) keeps them, and so does a crash. Bytes of an append that is not verified count
        only from ``commit`` on: leaving without it drops them, and a crash at any moment leaves either none or all
        of them counted.
        """

    @abstractmethod
    async def finish(self, upload: Upload) -> Upload:
        """Record that ``upload`` is complete (``completed_at`` and ``extension`` are set), and make its data visible.

        May be repeated: after a crash in the middle the same call, or the next ``get`` and ``finish``, ends it. At
        the fsync levels ``completion`` and ``request`` everything is durable before this returns.

        A partial stays among the unfinished uploads, out of sight: completion is recorded of it, and nothing else.
        """

    @abstractmethod
    async def concatenate(self, final: Upload, partials: Sequence[Upload]) -> Upload:
        """Give ``final``, which has no bytes, those of ``partials`` in this order, and return it as ``get`` would.

        ``partials`` are complete; one that is there twice adds its bytes twice. All of the bytes count or none does,
        at any moment and after a crash, also when the call fails or is cancelled. Nothing is completed by it.

        Raises:
            UploadNotFound: the final or a partial is not there any more.
            StorageFull: there is no room; none is taken.
        """

    @abstractmethod
    def read(self, upload: Upload, start: int = 0, stop: int | None = None) -> AsyncGenerator[bytes, None]:
        """Give the bytes from ``start`` to before ``stop`` (default: ``upload.offset``), in chunks.

        Who does not read to the end closes the generator (``contextlib.aclosing``), so that the data is closed too.
        Raises ``UploadNotFound`` when the data went away.
        """

    async def path(self, upload: Upload) -> str | None:
        """Return where a file holds the bytes of a complete upload, and nothing else, for who can send it faster.

        ``None`` when there is no such file; then there is only ``read``.
        """
        return None

    @abstractmethod
    async def delete(self, id: str) -> None:
        """Remove the upload, record and data. An unknown id is no error.

        After a crash in the middle the upload is there as before, without its data, or not at all; never with a part of
        its bytes. Deleting it again ends what was begun.
        """

    @abstractmethod
    def list(self, *, complete: bool = False) -> AsyncIterator[Upload]:
        """Give the unfinished uploads, or the complete ones; what comes or goes meanwhile may be seen or not.

        Partials are always among the unfinished ones.

        An upload whose record cannot be read is left out.
        """

    @abstractmethod
    async def tidy(self, *, before: datetime, dry_run: bool = False, keep: Collection[str] = ()) -> Sequence[str]:
        """Remove what crashes left behind and nothing refers to, if last written before ``before``.

        Temporary files, data without a record, the partial side of an upload that is complete. Returns a name for
        each, relative to the store; with ``dry_run`` nothing is removed. What belongs to an id of ``keep`` stays.
        """
