"""An upload from creation to completion or expiration: asks the rules, holds the lock, moves the bytes.

Whatever goes wrong is raised as an error that says so; what was stored before stays stored. A refusal changes
nothing: neither offset nor length nor expiration.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial

from tusd_py.cancellation import outlast
from tusd_py.concatenation import Concatenation
from tusd_py.errors import (
    BodyTimedOut,
    ConnectionLost,
    ContentRefused,
    DigestMismatch,
    FinalUpload,
    InconsistentLength,
    ServerStopping,
    StorageFailed,
    StorageFull,
    StorageUnavailable,
    UploadError,
    UploadExpired,
    UploadInterrupted,
    UploadLocked,
    UploadNotFound,
    UploadOverrun,
    UploadTooLarge,
    UploadTooSmall,
    WrongRepresentation,
)
from tusd_py.intake import REFUSALS, Beginning, Body, Intake, SlabPool
from tusd_py.locks.base import Hold, Locks
from tusd_py.media import SNIFF_SIZE, MediaRules
from tusd_py.protocol import rules
from tusd_py.protocol.digest_fields import ContentVerification, parse_digests
from tusd_py.protocol.digests import Digest, Verification
from tusd_py.protocol.messages import Append, Create
from tusd_py.protocol.rules import Limits
from tusd_py.storage.base import Appender, Buffer, Store
from tusd_py.upload import Metadata, Upload

logger = logging.getLogger("tusd_py")

# Is told of an upload as soon as it exists, before its body is read.
Announce = Callable[[Upload], Awaitable[None]]
# Is told how far an upload is while its body comes; only of bytes that count, whatever becomes of the rest.
Follow = Callable[[int], None]
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
    no bound on silence; ``min_body_rate`` is in bytes a second; ``remove_partials`` says whether partials go as soon as
    a final was made of them.
    """

    limits: Limits
    media: MediaRules
    algorithms: Mapping[str, Callable[[], Digest]]
    pool: SlabPool
    body_idle_timeout: float | None = None
    min_body_rate: float = 0
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
        self._min_body_rate = surroundings.min_body_rate
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

    async def create(
        self, create: Create, body: Body, *, announce: Announce | None = None, follow: Follow | None = None
    ) -> Upload:
        """Make a new upload, with the first bytes of it if the request has some; complete if that is all of it.

        Where a body ends early because the server stops, the client falls silent or the disk is full, the upload is
        returned as far as it came: the client learns its URL and goes on with an append. If the body was to be the
        whole upload, the trouble is raised, for the client would take anything else for success; the upload stays. A
        small upload whose bytes are all there already is kept as a whole or refused.

        Raises, and leaves nothing behind:
            UploadTooLarge, UploadTooSmall, UploadOverrun: the length or the body is not accepted (413, 400).
            AppendTooLarge, AppendTooSmall: one request may not hold so much, or so little (413, 400).
            InconsistentLength: the body is not as long as the upload was to be (400).
            ExtensionRefused: the name says that it is not an accepted file (400).
            ContentRefused, WrongRepresentation: the content says so (415), or is not what its digest says (400).
            ChecksumMismatch, DigestMismatch, BadRequest: the body is not what the checksum announces; no such
                checksum (460, 400).
            StorageFull: there is no room for an upload of this length (507).
            ServerStopping: nothing new is begun any more (503).
        """
        if self._is_stopping:
            raise ServerStopping
        rules.check_create(create, self._limits)
        # The name and content of a partial say nothing; those of the final do.
        extension = "" if create.is_partial else self._media.check_name(create.metadata)
        verification = self._verification(create)
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
            ends_by_word=create.ends_by_word,
            is_ended=create.ends_by_word and create.is_last and create.size is not None,
            repr_digest=create.repr_digest,
        )
        whole = _whole_at_hand(create, body)
        if whole is not None:
            return await self._create_complete(upload, whole, verification)
        upload = await self._store.create(upload)
        _log("created", upload, length=upload.length)
        if not create.has_body and not upload.is_unmarked:
            return upload
        async with self._locks.hold(upload.id) as hold:
            try:
                if announce is not None and create.has_body:
                    await announce(upload)
                return await self._receive(upload, create, upload, body, hold, verification, follow)
            except UploadInterrupted as error:
                error.upload = await self._measured(upload)
                raise
            except UploadError as error:
                left = await self._left_of(upload, error)
                if left is None or create.is_last:
                    error.upload = left
                    raise
                return left

    @asynccontextmanager
    async def provisional(self, create: Create, body: Body) -> AsyncIterator[Upload]:
        """Hold a new upload with the bytes of ``body``, for as long as the context lasts: ``complete_as`` is its end.

        For requests that count as a whole or not at all, and whose last word on an upload comes behind its bytes.
        Nobody is told of it before, so that whatever ends the context with an error removes it, complete or not. The
        creation itself says nothing of a body.

        Raises:
            UploadTooLarge, ExtensionRefused, ContentRefused, BadRequest: see ``create``.
            UploadInterrupted, BodyTimedOut, ServerStopping, ConnectionLost: the body ended early.
            StorageFull: there is no room for it (507).
        """
        upload = await self.create(create, body)
        async with self._locks.hold(upload.id) as hold:
            try:
                yield await self._receive(upload, create, upload, body, hold, None, None)
            except BaseException as error:
                _log("given up", upload, reason=getattr(error, "code", type(error).__name__))
                await outlast(self._give_up(upload))
                raise

    async def complete_as(self, upload: Upload, metadata: Metadata) -> Upload:
        """Complete a provisional upload with the bytes that it has, and with ``metadata``.

        Raises:
            BadRequest, ExtensionRefused: there is too much metadata, or the name is not accepted (400).
            UploadTooSmall: it has fewer bytes than are accepted (400).
            ContentRefused: the content is not what the name says (415).
        """
        rules.check_metadata(metadata)
        extension = self._media.check_name(metadata)
        ended = rules.end(replace(upload, metadata=metadata, extension=extension), self._limits)
        # Nothing is saved in between: after a crash it must not be whole and completed by somebody else.
        return await self._completed(ended, None)

    async def concatenate(self, create: Create, members: Sequence[str]) -> Upload:
        """Make a final of the uploads ``members``, in this order; complete if they are, else it waits for them.

        Raises, and leaves nothing behind:
            UploadNotFound, UploadExpired: a member is not there (404, 410).
            BadRequest: a member is no partial (400).
            UploadTooLarge: together they are above the maximum (413).
            ExtensionRefused, ContentRefused: the name or the content is not accepted (400, 415).
            WrongRepresentation: together they have another digest than was announced (400).
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
                repr_digest=create.repr_digest,
            )
        )
        _log("created", final, length=length, members=len(members))
        try:
            for partial in partials:
                if self._remove_partials or not partial.is_complete:
                    await self._await(final, partial.id)
            return await self._settled_if_free(final)
        except UploadError as error:
            await self._remove_refused(final, error)
            raise

    async def append(self, id: str, append: Append, body: Body, *, follow: Follow | None = None) -> Upload:
        """Add bytes to an upload, and complete it with the last of them.

        Raises:
            UploadNotFound, UploadExpired: there is nothing to add to (404, 410).
            FinalUpload: it is written by concatenation alone (403).
            UploadLocked: somebody else is busy with it for too long (423).
            OffsetMismatch, CompletedUpload, BadRequest, UploadTooLarge, UploadOverrun: see ``rules.check_append``.
            InconsistentLength: what is to be the end is not at the upload's length; the bytes are kept (400).
            ChecksumMismatch, DigestMismatch: the content is damaged; nothing of it was kept (460, 400).
            ContentRefused, WrongRepresentation: the content is not what the name, or the digest of the whole, says;
                the upload is removed (415, 400).
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
                upload = await self._append(upload, append, body, hold, follow)
            except (ContentRefused, UploadExpired):
                raise
            except UploadError as error:
                if isinstance(error, UploadOverrun) and append.removes_overrun and not upload.is_complete:
                    await self._remove_refused(upload, error)
                    raise
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

    async def terminate(self, id: str, *, even_expired: bool = False) -> None:
        """Remove an upload, finished or not; a request that is writing to it is ended first.

        Raises:
            UploadNotFound, UploadExpired, UploadLocked: the second not where ``even_expired`` says so.
        """
        async with self._locks.hold(id):
            upload = await self._store.get(id)
            if not even_expired:
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
        """Let the partial ``id`` tell ``final`` when it completes, and stay until then where others remove it."""
        async with self._locks.hold(id):
            partial = await self._settled(id)
            is_of_use = self._remove_partials or not partial.is_complete
            if is_of_use and len(partial.awaited_by) < MAX_AWAITING:
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

    async def _append(self, upload: Upload, append: Append, body: Body, hold: Hold, follow: Follow | None) -> Upload:
        settled = rules.check_append(upload, append, self._limits, self._now())
        verification = self._verification(append)
        if settled == upload or verification is not None or append.checksum_follows:
            # With a checksum, what is declared counts only together with bytes that were verified.
            return await self._receive(upload, append, settled, body, hold, verification, follow)
        await self._store.save(settled)
        try:
            return await self._receive(settled, append, settled, body, hold, None, follow)
        except REFUSALS as error:
            # Of what was too short for its end, the bytes are kept, and the length was known.
            if not isinstance(error, ContentRefused | InconsistentLength | UploadTooSmall):
                await self._store.save(upload)
            raise

    async def _receive(
        self,
        upload: Upload,
        request: Create | Append,
        settled: Upload,
        body: Body,
        hold: Hold,
        verification: Verification | None,
        follow: Follow | None,
    ) -> Upload:
        """Store the body behind ``upload``, and complete it if that is all; what is ``settled`` of it holds then."""
        beginning = await self._beginning(upload)
        room, overrun = rules.bound(upload.offset, settled.length, request, self._limits)
        try:
            is_verified = verification is None and not request.checksum_follows
            async with self._appender(upload, room, verified=is_verified) as appender:
                intake = Intake(
                    appender,
                    self._pool,
                    room=room,
                    overrun=overrun,
                    verification=verification,
                    late=lambda checksum: Verification(checksum, self._algorithms),
                    is_checksum_due=request.checksum_follows,
                    beginning=beginning,
                    idle_timeout=self._body_idle_timeout,
                    min_rate=self._min_body_rate,
                    # A body of unknown size may still turn out to be too long, and be put back.
                    stored=follow if appender.counts_as_written and request.size is not None else None,
                )
                offset = await self._take(intake, body, hold)
        except _BROKEN_OFF as error:
            _log("broken off", upload, reason=error.code, bytes=intake.received, offset=appender.offset)
            raise
        except ContentRefused as error:
            if intake.is_proven:
                await self._remove_refused(upload, error)
            # Otherwise it may be damage: what was stored before stays, and the right bytes may still come.
            raise
        received = replace(settled, offset=offset)
        if intake.received:
            _log("received", received, bytes=intake.received, offset=offset)
        if request.is_last and not upload.is_complete:
            received = rules.end(received, self._limits)
        if received != replace(upload, offset=offset):
            await self._store.save(received)
        if received.is_unmarked or not intake.received:
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

    def _appender(self, upload: Upload, room: int | None, *, verified: bool) -> AbstractAsyncContextManager[Appender]:
        if room == 0:
            return nullcontext(_NoRoom(upload.offset))
        return self._store.append(upload, verified=verified)

    async def _settled(self, id: str) -> Upload:
        """Return the upload, completed first if a crash left it whole but unmarked."""
        return await self._completed(await self._store.get(id), None)

    async def _completed(self, upload: Upload, beginning: Beginning | None, *, keeps_refused: bool = False) -> Upload:
        if upload.is_pending and not upload.is_whole:
            upload = await self._filled(upload)
        if not upload.is_unmarked:
            return upload
        if upload.is_partial:
            completed = await self._store.finish(replace(upload, completed_at=self._now()))
            _log("completed", completed, length=completed.length)
            return completed
        first_bytes = beginning.bytes if beginning is not None else await self._first_bytes(upload)
        try:
            self._media.check_content(upload.extension, first_bytes, whole=True)
            await self._check_representation(upload)
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

    async def _check_representation(self, upload: Upload) -> None:
        """Raise ``WrongRepresentation`` unless the whole upload has the digests that its client told of it.

        They are of all its bytes, of which earlier requests brought some: so everything is read once more.
        """
        if not upload.repr_digest:
            return
        try:
            verification = ContentVerification(parse_digests(upload.repr_digest), self._algorithms)
            async with aclosing(self._store.read(upload)) as chunks:
                async for chunk in chunks:
                    await asyncio.to_thread(verification.update, chunk)
            verification.check()
        except DigestMismatch:
            raise WrongRepresentation from None

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
                    if is_held and not await self._is_awaited(id):
                        await self._store.delete(id)

    async def _is_awaited(self, id: str) -> bool:
        """Tell whether a final waits for the partial ``id``; the last one of them removes it."""
        partial = await self._store.get(id)
        for final in partial.awaited_by:
            with suppress(UploadNotFound):
                if (await self._store.get(final)).is_pending:
                    return True
        # A list that is full may lack some. Such a partial is left to expire.
        return len(partial.awaited_by) >= MAX_AWAITING

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

    async def _give_up(self, upload: Upload) -> None:
        # What cannot be removed just now expires, as nobody goes on with it.
        with suppress(UploadError):
            await self._store.delete(upload.id)

    async def _measured(self, upload: Upload) -> Upload | None:
        """Return the upload as it stands after trouble; ``None`` where it may not be told or cannot be read."""
        with suppress(UploadError):
            upload = await self._store.get(upload.id)
            # Whole but not complete: its end is still to be decided, and clients take the offset for success.
            return None if upload.is_unmarked else upload
        return None

    def _check_expiration(self, upload: Upload) -> None:
        if rules.is_expired(upload, self._limits, self._now()):
            raise UploadExpired

    def _verification(self, request: Create | Append) -> Verification | None:
        checksum = None if request.checksum is None else Verification(request.checksum, self._algorithms)
        if not request.content_digests:
            return checksum
        return ContentVerification(request.content_digests, self._algorithms, checksum)


def _whole_at_hand(create: Create, body: Body) -> bytes | None:
    """Return all bytes of a small upload that ends with its creation, if they are there; ``None`` where they are not.

    Not of a partial, which is not complete for good before its final is made, nor of one that a digest is told of.
    """
    if create.size is None or create.size > AT_ONCE or create.is_partial or create.repr_digest:
        return None
    if not create.is_last and (create.ends_by_word or create.length != create.size):
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

    async def written(self) -> AsyncGenerator[bytes, None]:
        nothing: tuple[bytes, ...] = ()
        for chunk in nothing:
            yield chunk

    async def discard(self) -> None:
        """Nothing was added."""


def _log(event: str, upload: Upload, **facts: object) -> None:
    """Write one line about ``upload``: ids, numbers and codes alone, so that no client writes into the log."""
    if logger.isEnabledFor(logging.INFO):
        told = "".join(f" {name}={value}" for name, value in facts.items())
        known = {"event": f"upload {event}", "facts": {"id": upload.id, **facts}}
        logger.info("upload %s id=%s%s", event, upload.id, told, extra=known)
