"""An upload from creation to completion or expiration: asks the rules, holds the lock, moves the bytes.

Whatever goes wrong is raised as an error that says so; what was stored before stays stored. A refusal changes
nothing: neither offset nor length nor expiration.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial

from tusd_py.concatenation import Concatenation
from tusd_py.errors import (
    BodyTimedOut,
    ConnectionLost,
    ContentRefused,
    FinalUpload,
    ServerStopping,
    StorageFailed,
    StorageFull,
    StorageUnavailable,
    UploadError,
    UploadExpired,
    UploadInterrupted,
    UploadLocked,
    UploadNotFound,
    UploadTooLarge,
)
from tusd_py.intake import REFUSALS, Beginning, Body, Intake, SlabPool
from tusd_py.locks.base import Hold, Locks
from tusd_py.media import SNIFF_SIZE, MediaRules
from tusd_py.protocol import rules
from tusd_py.protocol.digests import Checksum, Digest, Verification
from tusd_py.protocol.messages import Append, Create
from tusd_py.protocol.rules import Limits
from tusd_py.storage.base import Appender, Buffer, Store
from tusd_py.upload import Upload

logger = logging.getLogger("tusd_py")

# Gives the bytes of an upload from one offset to before another one, in chunks.
Reader = Callable[[int, int], AsyncGenerator[bytes, None]]
# Finals that one partial tells of its completion. Those beyond it learn of it when somebody asks, or from the sweeper:
# a record must not grow with every request that names it.
MAX_AWAITING = 64

# The largest upload, in bytes, that is kept at once where all of it came with its creation: hashing it takes no longer
# than a hop into a thread would.
AT_ONCE = 64 * 1024

_STORAGE_TROUBLE = (StorageFull, StorageUnavailable, StorageFailed)
_BROKEN_OFF = (UploadInterrupted, BodyTimedOut, ServerStopping, ConnectionLost)
_PASSING_TROUBLE = (ServerStopping, BodyTimedOut, *_STORAGE_TROUBLE)


def utc_now() -> datetime:
    """Return the moment, aware and in UTC."""
    return datetime.now(UTC)


def random_id() -> str:
    """Return a new id: 128 random bits in letters and digits that no shell, URL or file system misreads."""
    return secrets.token_hex(16)


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a lifecycle works with besides its store and locks.

    ``algorithms`` are the checksums that can be verified, by name; ``body_idle_timeout`` is in seconds, ``None`` for
    no bound on silence; ``remove_partials`` says whether partials go as soon as a final was made of them.
    """

    limits: Limits
    media: MediaRules
    algorithms: Mapping[str, Callable[[], Digest]]
    pool: SlabPool
    body_idle_timeout: float | None = None
    remove_partials: bool = False
    now: Callable[[], datetime] = utc_now
    new_id: Callable[[], str] = random_id


class Lifecycle:
    """What can be done with uploads. Every method may be called at any time, from any number of tasks."""

    def __init__(self, store: Store, locks: Locks, surroundings: Surroundings) -> None:
        self._store = store
        self._locks = locks
        self._limits = surroundings.limits
        self._media = surroundings.media
        self._algorithms = surroundings.algorithms
        self._pool = surroundings.pool
        self._body_idle_timeout = surroundings.body_idle_timeout
        self._now = surroundings.now
        self._new_id = surroundings.new_id
        self._remove_partials = surroundings.remove_partials
        self._concatenation = Concatenation(store, surroundings.limits, surroundings.media, surroundings.now)
        self._running: set[Intake] = set()
        self._is_stopping = False

    def start(self) -> None:
        """Take bodies again after ``stop``."""
        self._is_stopping = False
        self._concatenation.start()

    def stop(self) -> None:
        """End every running body, now and from now on: what was received is kept, and the answer is 503."""
        self._is_stopping = True
        for intake in tuple(self._running):
            intake.interrupt(ServerStopping())
        self._concatenation.stop()

    async def create(self, create: Create, body: Body) -> Upload:
        """Make a new upload, with the first bytes of it if the request has some; complete if that is all of it.

        Where a body ends early because the server stops, the client falls silent or the disk is full, the upload is
        returned as far as it came: the client learns its URL and goes on with an append. A small upload whose bytes
        are all there already is kept as a whole or refused.

        Raises, and leaves nothing behind:
            UploadTooLarge, UploadOverrun: the length or the body is above what is accepted (413).
            ExtensionRefused: the name says that it is not an accepted file (400).
            ContentRefused: the content says so (415).
            ChecksumMismatch, BadRequest: the body is not what the checksum announces; no such checksum (460, 400).
            StorageFull: there is no room for an upload of this length (507).
            ServerStopping: nothing new is begun any more (503).
        """
        if self._is_stopping:
            raise ServerStopping
        rules.check_create(create, self._limits)
        # The name and content of a partial say nothing; those of the final do.
        extension = "" if create.is_partial else self._media.check_name(create.metadata)
        verification = self._verification(create.checksum)
        if verification is not None and not create.has_body:
            verification.check()
        now = self._now()
        upload = Upload(
            id=self._new_id(),
            created_at=now,
            written_at=now,
            length=create.length,
            metadata=create.metadata,
            extension=extension,
            concat=create.concat,
            is_partial=create.is_partial,
        )
        whole = _whole_at_hand(create, body)
        if whole is not None:
            return await self._create_complete(upload, whole, verification)
        upload = await self._store.create(upload)
        _log("created", upload, length=upload.length)
        if not create.has_body and not upload.is_whole:
            return upload
        async with self._locks.hold(upload.id) as hold:
            try:
                return await self._receive(upload, create, upload.length, body, hold, verification)
            except UploadInterrupted:
                raise
            except UploadError as error:
                left = await self._left_of(upload, error)
                if left is None:
                    raise
                return left

    async def concatenate(self, create: Create, members: Sequence[str]) -> Upload:
        """Make a final of the uploads ``members``, in this order; complete if they are, else it waits for them.

        Raises, and leaves nothing behind:
            UploadNotFound, UploadExpired: a member is not there (404, 410).
            BadRequest: a member is no partial (400).
            UploadTooLarge: together they are above the maximum (413).
            ExtensionRefused, ContentRefused: the name or the content is not accepted (400, 415).
            UploadLocked: somebody is busy with an unfinished member for too long (423).
            StorageFull, ServerStopping: see ``create``.
        """
        if self._is_stopping:
            raise ServerStopping
        extension = self._media.check_name(create.metadata)
        partials, length = await self._concatenation.check(members)
        now = self._now()
        final = await self._store.create(
            Upload(
                id=self._new_id(),
                created_at=now,
                written_at=now,
                length=length,
                metadata=create.metadata,
                extension=extension,
                concat=create.concat,
                members=tuple(members),
            )
        )
        _log("created", final, length=length, members=len(members))
        try:
            for partial in partials:
                if not partial.is_complete:
                    await self._await(final, partial.id)
            return await self._settled_if_free(final)
        except UploadError as error:
            await self._remove_refused(final, error)
            raise

    async def append(self, id: str, append: Append, body: Body) -> Upload:
        """Add bytes to an upload, and complete it with the last of them.

        Raises:
            UploadNotFound, UploadExpired: there is nothing to add to (404, 410).
            FinalUpload: it is written by concatenation alone (403).
            UploadLocked: somebody else is busy with it for too long (423).
            OffsetMismatch, BadRequest, UploadTooLarge, UploadOverrun: see ``rules.check_append``.
            ChecksumMismatch: the content is damaged; nothing of it was kept (460).
            ContentRefused: the content is not what the name says; the upload is removed (415).
            UploadInterrupted, BodyTimedOut, ServerStopping, ConnectionLost: the body ended early; what was received
                is kept.
            StorageFull: what fitted is kept (507).
        """
        if self._is_stopping:
            raise ServerStopping
        if self._concatenation.is_running(id):
            raise FinalUpload
        async with self._locks.hold(id) as hold:
            upload = await self._store.get(id)
            if upload.is_final:
                raise FinalUpload
            upload = await self._completed(upload, None)
            try:
                upload = await self._append(upload, append, body, hold)
            except (ContentRefused, UploadExpired):
                raise
            except UploadError as error:
                if not isinstance(error, _BROKEN_OFF):
                    _log("refused", upload, error=error.code)
                error.upload = await self._measured(upload)
                raise
        if upload.is_complete:
            await self._tell_finals(upload)
        return upload

    async def status(self, id: str) -> Upload:
        """Return the upload as it is; a request that is writing to it is ended first, so that the offset holds.

        Trouble that passes is told as ``UploadLocked``: clients give the upload up for anything else.

        Raises:
            UploadNotFound, UploadExpired, UploadLocked.
            ContentRefused: a crash left it whole but unmarked, and its content is not what its name says; removed.
            UploadTooLarge: the partials of this final turned out to be larger than what is accepted; removed.
        """
        try:
            upload = await self._store.get(id)
            if upload.is_pending:
                # No offset is told, so nobody has to be disturbed for it.
                async with self._locks.try_hold(id) as is_held:
                    if is_held:
                        upload = await self._settled(id)
            elif not upload.is_complete:
                async with self._locks.hold(id):
                    upload = await self._settled(id)
                if upload.is_complete:
                    await self._tell_finals(upload)
        except (*_STORAGE_TROUBLE, ServerStopping) as error:
            logger.warning("upload %s cannot be told of: %s", id, error, exc_info=error)
            raise UploadLocked from error
        self._check_expiration(upload)
        return upload

    async def terminate(self, id: str) -> None:
        """Remove an upload, finished or not; a request that is writing to it is ended first.

        Raises:
            UploadNotFound, UploadExpired, UploadLocked.
        """
        async with self._locks.hold(id):
            upload = await self._store.get(id)
            self._check_expiration(upload)
            await self._store.delete(id)
        _log("terminated", upload, offset=upload.offset)
        await self._tell_finals(upload)

    async def read(self, id: str) -> tuple[Upload, Reader]:
        """Return a complete upload and what gives its bytes. Takes no lock.

        Raises:
            UploadNotFound: there is no such upload, it is not complete, it is a partial, or its content is no longer as
                long as it was.
        """
        upload = await self._store.get(id)
        # Somebody may have cut or lengthened the data where it lies. That is not what was uploaded any more.
        if not upload.is_complete or upload.is_partial or not upload.is_whole:
            raise UploadNotFound
        return upload, partial(self._store.read, upload)

    async def path(self, upload: Upload) -> str | None:
        """Return the file that holds a complete upload, for a server that sends files itself; ``None`` without one."""
        return await self._store.path(upload)

    async def complete(self, id: str) -> Upload:
        """Complete an upload that a crash left whole but unmarked; the caller holds its lock.

        Raises:
            ContentRefused: its content is not what its name says. It is left as it is, for whoever looks after the
                folder to decide.
        """
        return await self._completed(await self._store.get(id), None, keeps_refused=True)

    async def expire(self, id: str, *, left_at: datetime | None = None) -> Upload | None:
        """Remove an upload that was left unfinished for too long, and return what was removed.

        Whoever knows by a better clock than ours says by ``left_at`` that an upload whose last byte came then is
        expired. One that a crash left whole but unmarked is completed instead. The caller holds the lock, for it
        decides whether somebody who has it is to be disturbed.
        """
        upload = await self._store.get(id)
        if upload.is_pending:
            return await self._expire_final(upload)
        upload = await self._completed(upload, None)
        is_left = upload.written_at == left_at and (upload.is_partial or not upload.is_complete)
        if not is_left and not rules.is_expired(upload, self._limits, self._now()):
            return None
        await self._store.delete(id)
        _log("expired", upload, offset=upload.offset)
        return upload

    async def _create_complete(self, upload: Upload, data: bytes, verification: Verification | None) -> Upload:
        """Make a new upload of all its bytes: judged before anything of it exists, and kept in one go.

        Nobody else knows it before it is complete, so it needs no lock.
        """
        try:
            if verification is not None:
                verification.update(data)
                verification.check()
            self._media.check_content(upload.extension, data[:SNIFF_SIZE], whole=True)
        except UploadError as error:
            _log("refused", upload, error=error.code)
            raise
        extension = upload.extension or self._media.extension_from_content(data[:SNIFF_SIZE])
        upload = replace(upload, length=len(data), extension=extension, completed_at=self._now())
        completed = await self._store.create_complete(upload, data)
        _log("created", completed, length=completed.length)
        if data:
            _log("received", completed, bytes=len(data), offset=completed.offset)
        _log("completed", completed, length=completed.length)
        return completed

    async def _left_of(self, upload: Upload, error: UploadError) -> Upload | None:
        """Return what is left of a creation that ``error`` ended, ``None`` where it is nothing: then it is removed."""
        if isinstance(error, _PASSING_TROUBLE):
            left = await self._measured(upload)
            if left is not None and (left.offset or not isinstance(error, _STORAGE_TROUBLE)):
                return left
        await self._remove_refused(upload, error)
        return None

    async def _expire_final(self, final: Upload) -> Upload | None:
        """Complete a final whose partials are there, and remove one that lost some of them."""
        try:
            await self._completed(final, None)
        except (UploadNotFound, UploadTooLarge, ContentRefused):
            return final
        except UploadExpired:
            pass  # it goes with its partial, and that is removed by whoever confirms the expiration
        return None

    async def _settled_if_free(self, final: Upload) -> Upload:
        """Return a new final, complete if its partials are and nobody is filling it already: then it is pending."""
        async with self._locks.try_hold(final.id) as is_held:
            return await self._settled(final.id) if is_held else final

    async def _await(self, final: Upload, id: str) -> None:
        """Let the partial ``id`` tell ``final`` when it completes."""
        async with self._locks.hold(id):
            partial = await self._settled(id)
            if not partial.is_complete and len(partial.awaited_by) < MAX_AWAITING:
                await self._store.save(replace(partial, awaited_by=(*partial.awaited_by, final.id)))

    async def _tell_finals(self, partial: Upload) -> None:
        """Settle the finals that wait for ``partial``, which is complete or gone. Its lock must not be held."""
        for id in partial.awaited_by:
            try:
                async with self._locks.hold(id):
                    await self._settled(id)
            except UploadNotFound:
                continue  # it is gone, or has gone with the partial
            except UploadError as error:
                # That is between the final and its client; whoever asks for the final next is told.
                logger.warning("final %s cannot be completed: %s", id, error)

    async def _append(self, upload: Upload, append: Append, body: Body, hold: Hold) -> Upload:
        settled = rules.check_append(upload, append, self._limits, self._now())
        verification = self._verification(append.checksum)
        if settled is upload or verification is not None:
            # With a checksum, a length that is declared counts only together with bytes that were verified.
            return await self._receive(upload, append, settled.length, body, hold, verification)
        await self._store.save(settled)
        try:
            return await self._receive(settled, append, settled.length, body, hold, None)
        except REFUSALS as error:
            if not isinstance(error, ContentRefused):
                await self._store.save(upload)
            raise

    async def _receive(
        self,
        upload: Upload,
        request: Create | Append,
        length: int | None,
        body: Body,
        hold: Hold,
        verification: Verification | None,
    ) -> Upload:
        """Store the body behind ``upload``, whose length is ``length`` from then on, and complete it if that is all."""
        beginning = await self._beginning(upload)
        room = rules.room(upload.offset, length, self._limits)
        try:
            async with self._appender(upload, room, verification) as appender:
                intake = Intake(
                    appender,
                    self._pool,
                    room=room,
                    overrun=lambda: rules.overrun(length, self._limits),
                    verification=verification,
                    beginning=beginning,
                    idle_timeout=self._body_idle_timeout,
                )
                offset = await self._take(intake, body, hold)
        except _BROKEN_OFF as error:
            _log("broken off", upload, reason=error.code, bytes=intake.received, offset=appender.offset)
            raise
        except ContentRefused as error:
            if verification is None or verification.has_passed:
                await self._remove_refused(upload, error)
            # Otherwise it may be damage: what was stored before stays, and the right bytes may still come.
            raise
        if length is None and request.is_last:
            length = offset
        received = replace(upload, offset=offset, length=length)
        if intake.received:
            _log("received", received, bytes=intake.received, offset=offset)
        if length != upload.length:
            await self._store.save(received)
        if received.is_whole or not intake.received:
            return await self._completed(received, beginning)
        # The client is told when the upload expires, and that is measured: its last byte may have come long ago.
        return await self._store.get(upload.id)

    async def _take(self, intake: Intake, body: Body, hold: Hold) -> int:
        self._running.add(intake)
        hold.when_wanted(lambda: intake.interrupt(UploadInterrupted()))
        if self._is_stopping:
            intake.interrupt(ServerStopping())
        try:
            return await intake.take(body)
        finally:
            self._running.discard(intake)

    def _appender(
        self, upload: Upload, room: int | None, verification: Verification | None
    ) -> AbstractAsyncContextManager[Appender]:
        if room == 0:
            return nullcontext(_NoRoom(upload.offset))
        return self._store.append(upload, verified=verification is None)

    async def _settled(self, id: str) -> Upload:
        """Return the upload, completed first if a crash left it whole but unmarked."""
        return await self._completed(await self._store.get(id), None)

    async def _completed(self, upload: Upload, beginning: Beginning | None, *, keeps_refused: bool = False) -> Upload:
        if upload.is_pending and not upload.is_whole:
            upload = await self._filled(upload)
        if upload.is_complete or not upload.is_whole:
            return upload
        if upload.is_partial:
            completed = await self._store.finish(replace(upload, completed_at=self._now()))
            _log("completed", completed, length=completed.length)
            return completed
        first_bytes = beginning.bytes if beginning is not None else await self._first_bytes(upload)
        try:
            self._media.check_content(upload.extension, first_bytes, whole=True)
        except ContentRefused as error:
            if not keeps_refused:
                await self._remove_refused(upload, error)
            raise
        extension = upload.extension or self._media.extension_from_content(first_bytes)
        completed = await self._store.finish(replace(upload, completed_at=self._now(), extension=extension))
        _log("completed", completed, length=completed.length)
        if self._remove_partials:
            await self._remove_members(completed)
        return completed

    async def _filled(self, final: Upload) -> Upload:
        try:
            return await self._concatenation.fill(final)
        except (UploadNotFound, UploadTooLarge, ContentRefused) as error:
            # None of this will ever be otherwise.
            await self._remove_refused(final, error)
            raise

    async def _remove_members(self, final: Upload) -> None:
        for id in sorted(set(final.members)):
            with suppress(UploadError):
                async with self._locks.try_hold(id) as is_held:
                    if is_held:
                        await self._store.delete(id)

    async def _beginning(self, upload: Upload) -> Beginning | None:
        """Return what is needed to judge the content of this upload; ``None`` where it was judged before."""
        if upload.offset >= SNIFF_SIZE or upload.is_complete or upload.is_partial:
            return None
        return Beginning(
            await self._first_bytes(upload),
            SNIFF_SIZE,
            lambda data: self._media.check_content(upload.extension, data, whole=False),
        )

    async def _first_bytes(self, upload: Upload) -> bytes:
        if not upload.offset:
            return b""
        stop = min(upload.offset, SNIFF_SIZE)
        return b"".join([chunk async for chunk in self._store.read(upload, 0, stop)])

    async def _remove_refused(self, upload: Upload, error: UploadError) -> None:
        _log("refused", upload, error=error.code)
        await self._store.delete(upload.id)

    async def _measured(self, upload: Upload) -> Upload | None:
        """Return the upload as it stands after trouble; ``None`` where it may not be told or cannot be read."""
        with suppress(UploadError):
            upload = await self._store.get(upload.id)
            # Whole but not complete: its end is still to be decided, and clients take the offset for success.
            return None if upload.is_whole and not upload.is_complete else upload
        return None

    def _check_expiration(self, upload: Upload) -> None:
        if rules.is_expired(upload, self._limits, self._now()):
            raise UploadExpired

    def _verification(self, checksum: Checksum | None) -> Verification | None:
        return None if checksum is None else Verification(checksum, self._algorithms)


def _whole_at_hand(create: Create, body: Body) -> bytes | None:
    """Return all bytes of a small upload that ends with its creation, if they are there; ``None`` where they are not.

    Not of a partial, which is not complete for good before its final is made.
    """
    is_all = create.length == create.size or (create.length is None and create.is_last)
    if create.size is None or create.size > AT_ONCE or not is_all or create.is_partial:
        return None
    return body.at_hand()


class _NoRoom(Appender):
    """The appender of an upload that takes no more: an empty body passes through it, and no other reaches it."""

    def __init__(self, offset: int) -> None:
        self.offset = offset

    async def write(self, data: Buffer) -> None:
        assert not data, "an intake without room writes nothing"

    async def commit(self, data: Buffer = b"") -> int:
        await self.write(data)
        return self.offset

    async def discard(self) -> None:
        """Nothing was added."""


def _log(event: str, upload: Upload, **facts: object) -> None:
    """Write one line about ``upload``: ids, numbers and codes alone, so that no client writes into the log."""
    if logger.isEnabledFor(logging.INFO):
        told = "".join(f" {name}={value}" for name, value in facts.items())
        known = {"event": f"upload {event}", "facts": {"id": upload.id, **facts}}
        logger.info("upload %s id=%s%s", event, upload.id, told, extra=known)
