"""One request body on its way into an upload: bounded, hashed, sniffed, interruptible, in slabs.

Bytes are collected in a slab; while one slab is written in a worker thread, the next is filled; while few uploads run,
one more may be full in between, so that neither waits for the other. A slab is taken when bytes arrive and given back
when they are stored, so a silent client costs no memory, and no thread waits for the network. Whoever has the bytes of
a request (an ASGI ``receive``, or a transport that reads straight into ``Intake.buffer``) is a ``Body`` and fills the
same slabs.
"""

from __future__ import annotations

import asyncio
import mmap
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import aclosing, suppress
from typing import Protocol

from tusd_py.cancellation import outlast
from tusd_py.errors import (
    BadRequest,
    BodyTimedOut,
    BodyTooSlow,
    ChecksumMismatch,
    ContentRefused,
    UploadError,
    UploadOverrun,
    UploadTooLarge,
)
from tusd_py.protocol.digests import Checksum, Verification, bad_trailer
from tusd_py.storage.base import Appender, Buffer

SMALLEST_SLAB = 64 * 1024

# What a slab is where the budget is spent: small enough not to matter, large enough for one read of a socket.
EMERGENCY_SLAB = 16 * 1024

# Seconds after which bytes in a slab that does not fill are stored all the same: what a slow client sent is safe from
# a crash, and its slab goes to somebody who needs it.
STORE_AFTER = 1.0

# Seconds over which the rate of a body is taken: long enough for a train to pass a tunnel.
RATE_WINDOW = 10.0

# What is read on behind an interruption: bytes that are there already, of which servers hold less than this. We look so
# often whether there are more, and give them so many turns of the event loop each time to come through whatever is
# wrapped around the app.
ARRIVED_BYTES = 1024 * 1024
ARRIVED_LOOKS = 64
ARRIVED_ROUNDS = 16

# Refusals of a body that has begun: nothing of the request is kept. (A bad request: its framing contradicts itself.)
REFUSALS = (BadRequest, UploadOverrun, UploadTooLarge, ChecksumMismatch, ContentRefused)

_NOTHING = memoryview(b"")


class SlabPool:
    """Buffers for bodies, each between 64 KiB and ``largest`` bytes, ``budget`` bytes together.

    Where the budget is spent slabs are smaller, never absent: so many bodies at once that 64 KiB for each are too much
    get 16 KiB each, beyond the budget. A slab is anonymous memory of its own: pages that no byte was written to cost
    nothing, and a slab that is dropped goes back to the system at once.
    """

    def __init__(self, budget: int, largest: int) -> None:
        self.budget = budget
        self.largest = max(largest, SMALLEST_SLAB)
        self._taken = 0
        self._kept = 0
        self._free: dict[int, list[memoryview]] = {}

    @property
    def taken(self) -> int:
        """Bytes of all slabs that are out."""
        return self._taken

    @property
    def is_roomy(self) -> bool:
        """Whether so little is out that a body may have one slab more than it needs."""
        return self._taken + self.largest <= self.budget // 4

    def take(self, size: int) -> memoryview:
        """Return a slab of ``size`` bytes, or a smaller one where the budget does not allow that."""
        size = min(size, self.largest)
        while size > SMALLEST_SLAB and self._taken + size > self.budget:
            size //= 2
        if self._taken + size > self.budget:
            size = EMERGENCY_SLAB
        self._taken += size
        free = self._free.get(size)
        if free:
            self._kept -= size
            return free.pop()
        if self._taken + self._kept > self.budget:
            self._shrink(max(self.budget - self._taken, 0))
        return memoryview(mmap.mmap(-1, size))

    def give(self, slab: memoryview) -> None:
        """Take a slab back. It is kept at hand within the budget, and a quarter of that when nobody has one any more.

        What comes anew from the system is cleared page by page first, which costs more than the bytes that it takes.
        """
        size = len(slab)
        self._taken -= size
        if self._taken + self._kept + size <= self.budget:
            self._kept += size
            self._free.setdefault(size, []).append(slab)
        if not self._taken:
            self._shrink(self.budget // 4)

    def _shrink(self, most: int) -> None:
        """Give slabs that are at hand back to the system, the smallest first, until they hold ``most`` bytes."""
        for size in sorted(self._free):
            slabs = self._free[size]
            while slabs and self._kept > most:
                slabs.pop()
                self._kept -= size


class Sink(Protocol):
    """What a body is handed to: an ``Intake``, or what stands before one. See there."""

    async def put(self, chunk: Buffer) -> None: ...

    def hold(self, chunk: Buffer) -> None: ...

    async def put_held(self) -> None: ...

    def buffer(self, expected: int = 0) -> memoryview: ...

    def filled(self, size: int) -> bool: ...

    async def turn(self) -> None: ...

    def try_turn(self) -> bool: ...


class Enough(UploadError):
    """No error: a sink wants no more of this body. What follows can be read otherwise."""


class Body(ABC):
    """The body of one request.

    ``size`` is its length in bytes, ``None`` where the request does not say it (chunked).
    """

    size: int | None

    def at_hand(self) -> bytes | None:
        """Return the whole body if all of it has arrived already; ``None`` where it has not, or nobody can tell.

        Asked at most once, and before ``feed``, which has nothing more to give then.

        Raises:
            UploadError: what the server says is wrong with it.
        """
        return None

    def trailing_checksum(self) -> Checksum | None:
        """Return the checksum that came behind the body, if one did; asked once the body has ended.

        Raises:
            BadRequest: it is malformed.
        """
        return None

    @abstractmethod
    async def feed(self, intake: Intake) -> None:
        """Hand every byte to ``intake`` and return at the end of the body.

        May be cancelled at any wait; what was handed over until then is kept.

        Raises:
            ConnectionLost: the client is gone before the end.
        """


class Beginning:
    """The first bytes of an upload, collected across requests until they can be judged.

    ``stored`` is what earlier requests brought; ``check`` raises ``ContentRefused`` for what is not allowed, and is
    asked again whenever there are twice as many bytes, until ``size`` of them were seen: a client that sends them one
    by one must not make us look at each.
    """

    def __init__(self, stored: bytes, size: int, check: Callable[[bytes], None]) -> None:
        self.bytes = stored
        self._size = size
        self._check = check
        self._next_check = len(stored) + 1

    def extend(self, data: memoryview) -> None:
        """Count in what follows; what lies beyond the first ``size`` bytes does not matter.

        Raises:
            ContentRefused: the bytes so far are positively something that is not allowed.
        """
        missing = self._size - len(self.bytes)
        if missing <= 0:
            return
        self.bytes += bytes(data[:missing])
        if len(self.bytes) >= self._next_check:
            self._next_check = min(2 * len(self.bytes), self._size)
            self._check(self.bytes)


class Intake:
    """What one request adds to an upload.

    Fed by a ``Body`` through ``put``, or through ``buffer`` and ``filled`` by one that can read into memory of ours.
    ``room`` bounds the bytes (``None``: nothing does), and ``overrun`` makes the error for what goes beyond.
    ``idle_timeout`` is how many seconds the client may be silent, ``min_rate`` how many bytes a second it has to send.
    ``late`` makes the verification for a checksum that comes behind the body; with ``is_checksum_due`` one has to come.
    ``stored`` is told the offset after each slab that was written before the last one.
    """

    def __init__(
        self,
        appender: Appender,
        pool: SlabPool,
        *,
        room: int | None,
        overrun: Callable[[], UploadError],
        verification: Verification | None = None,
        late: Callable[[Checksum], Verification] | None = None,
        is_checksum_due: bool = False,
        beginning: Beginning | None = None,
        idle_timeout: float | None = None,
        min_rate: float = 0,
        stored: Callable[[int], None] | None = None,
    ) -> None:
        self._appender = appender
        self._pool = pool
        self._room = room
        self._overrun = overrun
        self._verification = verification
        self._late = late
        self._is_checksum_due = is_checksum_due
        self._beginning = beginning
        self._idle_timeout = idle_timeout
        self._min_rate = min_rate
        self._rate_timer: asyncio.TimerHandle | None = None
        self._has_waited = False
        self._stored = stored
        self._loop = asyncio.get_running_loop()
        self._deadline: asyncio.Timeout | None = None
        self._interruption: BaseException | None = None
        self._rest = _NOTHING
        self._slab: memoryview | None = None
        self._filled = 0
        self._next_size = SMALLEST_SLAB
        self._writing: asyncio.Task[None] | None = None
        self._earlier: asyncio.Task[None] | None = None
        self._store_timer: asyncio.TimerHandle | None = None
        self._is_committed = False
        self.received = 0

    async def take(self, body: Body) -> int:
        """Store the whole body and return the offset that it gives.

        Whatever ends the body early (the client is gone or silent, somebody else wants the upload, the server stops,
        this task is cancelled) is raised once everything received is stored. A refusal (too many bytes, a wrong
        checksum, content that is not allowed) is raised once everything of this request is dropped.
        """
        try:
            await self._receive(body)
            return await self._complete(body)
        except REFUSALS:
            await outlast(self._drop())
            raise
        except BaseException:
            await outlast(self._keep())
            raise
        finally:
            self._release()

    def interrupt(self, error: BaseException) -> None:
        """End the body now: ``take`` stores what was received and raises ``error``. The first one counts."""
        if self._interruption is not None:
            return
        self._interruption = error
        self._set_deadline(0)

    async def put(self, chunk: Buffer) -> None:
        """Take ``chunk`` in, and wait while both slabs are full."""
        self.hold(chunk)
        await self.put_held()

    def hold(self, chunk: Buffer) -> None:
        """Take ``chunk`` over without waiting; ``put_held`` is to follow, before anything else comes.

        Where the body ends before that, the chunk has been received all the same.
        """
        self._rest = memoryview(chunk)

    async def put_held(self) -> None:
        """Take in what ``hold`` was given, and wait while both slabs are full."""
        while self._rest:
            buffer = self.buffer(len(self._rest))
            size = min(len(self._rest), len(buffer))
            buffer[:size] = self._rest[:size]
            self._rest = self._rest[size:]
            if self.filled(size):
                await self.turn()
        # Not even an empty part of the chunk: it would hold the whole of it while the client is silent.
        self._rest = _NOTHING

    def buffer(self, expected: int = 0) -> memoryview:
        """Return memory for the next bytes, at least one; ``expected`` tells how many are known to come."""
        if self._slab is None:
            size = self._next_size
            while size < expected and size < self._pool.largest:
                size *= 2
            self._slab = self._pool.take(size)
            self._filled = 0
            self._store_timer = self._loop.call_later(STORE_AFTER, self._store_unfilled)
        return self._slab[self._filled :]

    def filled(self, size: int) -> bool:
        """Count in ``size`` bytes that were written to ``buffer()``; tells whether the slab is full now.

        Raises the error of ``overrun`` when they go beyond the room.
        """
        self.received += size
        if self._room is not None and self.received > self._room:
            raise self._overrun()
        self._filled += size
        if self._interruption is None:
            self._set_deadline(self._idle_timeout)
        return self._slab is not None and self._filled == len(self._slab)

    async def _receive(self, body: Body) -> None:
        # A task of its own, because a wait for bytes that is broken off may lose those that were just coming: what
        # follows them must never be read then, or there would be a gap. So the task ends with its first wait broken.
        feeding = self._loop.create_task(body.feed(self))
        self._watch_rate(received=self.received)
        try:
            async with asyncio.timeout(0 if self._interruption else self._idle_timeout) as self._deadline:
                await asyncio.shield(feeding)
        except TimeoutError:
            # What has arrived counts as received, and if it is all of the body, nothing was interrupted.
            await self._catch_up(feeding)
            if not feeding.done():
                raise self._interruption or BodyTimedOut(seconds=self._idle_timeout or 0) from None
            feeding.result()
        finally:
            self._deadline = None
            if self._rate_timer is not None:
                self._rate_timer.cancel()
            await self._end(feeding)

    def _watch_rate(self, *, received: int) -> None:
        """End the body unless it brings enough beyond ``received`` bytes before we look the next time."""
        if not self._min_rate:
            return

        def look() -> None:
            # Time in which the client had to wait for the disk says nothing about it.
            if self.received - received < self._min_rate * RATE_WINDOW and not self._has_waited:
                self.interrupt(BodyTooSlow(rate=self._min_rate, seconds=RATE_WINDOW))
                return
            self._watch_rate(received=self.received)

        self._has_waited = False
        self._rate_timer = self._loop.call_later(RATE_WINDOW, look)

    async def _catch_up(self, feeding: asyncio.Task[None]) -> None:
        """Let the feeding go on with bytes that are there, for as long as that gives any, within a bound."""
        bound = self.received + ARRIVED_BYTES
        before = -1
        for _ in range(ARRIVED_LOOKS):
            if feeding.done() or not before < self.received < bound:
                return
            before = self.received
            for _ in range(ARRIVED_ROUNDS):
                await asyncio.sleep(0)
            if self._writing is not None:
                await asyncio.wait([self._writing])

    async def _end(self, feeding: asyncio.Task[None]) -> None:
        if not feeding.done():
            feeding.cancel()
            await outlast(asyncio.wait([feeding]))
        # From here on the last slab is written by whoever waits for the write before it, and by nobody else.
        self._stop_timer()

    def _set_deadline(self, seconds: float | None) -> None:
        """Cancel the feeding after so many seconds, ``None`` for never."""
        if self._deadline is not None and not self._deadline.expired():
            self._deadline.reschedule(None if seconds is None else self._loop.time() + seconds)

    @property
    def is_proven(self) -> bool:
        """Whether nothing has to be verified any more: what was received is what was sent."""
        return not self._is_checksum_due and (self._verification is None or self._verification.has_passed)

    async def _complete(self, body: Body) -> int:
        await self._written()
        data = self._pending()
        if self._verification is not None:
            await asyncio.to_thread(self._verification.update, data)
            self._verification.check()
        await self._verify_late(body.trailing_checksum(), data)
        # Only now, because damaged content is a wrong checksum and not a wrong file.
        self._inspect(data)
        return await self._commit(data)

    async def _verify_late(self, checksum: Checksum | None, data: memoryview) -> None:
        """Hold everything received against a checksum that came behind it, which nobody could count along for."""
        if checksum is None:
            if self._is_checksum_due:
                raise bad_trailer("was announced and did not come; send it, or leave Trailer out")
            return
        if self._verification is not None:
            raise bad_trailer("comes beside what was told before the body; send one of them")
        if self._late is None:
            return
        # Announced or not, it came: whatever breaks off the verification leaves nothing that could be kept.
        self._is_checksum_due = True
        verification = self._late(checksum)
        async with aclosing(self._appender.written()) as chunks:
            async for chunk in chunks:
                await asyncio.to_thread(verification.update, chunk)
        await asyncio.to_thread(verification.update, data)
        verification.check()
        self._is_checksum_due = False

    async def _commit(self, data: memoryview) -> int:
        self._is_committed = True
        return await self._appender.commit(data)

    async def _keep(self) -> None:
        if self._is_committed:
            return
        try:
            await self._store_all()
        except REFUSALS:
            # What was received goes too far only with what nobody had looked at yet.
            await self._drop()
            raise

    async def _store_all(self) -> None:
        await self._written()
        if self._verification is not None or self._is_checksum_due:
            # Nothing can verify a part of what the digest was announced for.
            await self._appender.discard()
            return
        # The wait for the disk may have been broken off in the middle of a chunk.
        await self.put_held()
        await self._written()
        self._inspect(self._pending())
        await self._commit(self._pending())

    async def _drop(self) -> None:
        with suppress(Exception):  # the write that failed is dropped, too
            await self._written()
        await self._appender.discard()

    def _pending(self) -> memoryview:
        return _NOTHING if self._slab is None else self._slab[: self._filled]

    def _release(self) -> None:
        self._stop_timer()
        if self._slab is not None:
            self._pool.give(self._slab)
            self._slab = None
            self._filled = 0

    async def turn(self) -> None:
        """Write the full slab after those before it, and go on with an empty one."""
        if self.try_turn():
            return
        # A slow disk is no silence of the client.
        self._has_waited = True
        self._set_deadline(None if self._interruption is None else 0)
        while not self.try_turn():
            under_way = self._earlier or self._writing
            assert under_way is not None, "nothing else keeps a turn waiting"
            await outlast(under_way)
        self._set_deadline(self._idle_timeout if self._interruption is None else 0)

    def try_turn(self) -> bool:
        """Do what ``turn`` does if that needs no waiting; tells whether it was done."""
        # The slab is to be written by a turn, so its timer must not: it could fire before the turn comes.
        self._stop_timer()
        if self._earlier is not None and self._earlier.done():
            self._earlier = None
        if self._writing is not None and self._writing.done():
            if self._writing.cancelled() or self._writing.exception() is not None:
                return False
            self._writing = None
        if self._writing is not None and (self._earlier is not None or not self._pool.is_roomy):
            return False
        self._start_writing()
        self._next_size = min(self._next_size * 2, self._pool.largest)
        return True

    async def _written(self) -> None:
        """Wait until no write is under way, and raise what the last one raised."""
        if self._writing is not None:
            await outlast(self._writing)
            self._writing = self._earlier = None

    def _start_writing(self) -> None:
        slab, data = self._slab, self._pending()
        assert slab is not None
        self._slab = None
        self._filled = 0
        self._stop_timer()
        self._earlier = self._writing
        self._writing = self._loop.create_task(self._write(slab, data, self._earlier))
        self._writing.add_done_callback(self._notice_failure)

    async def _write(self, slab: memoryview, data: memoryview, earlier: asyncio.Task[None] | None) -> None:
        try:
            if earlier is not None:
                await earlier  # what follows a failed write must not be stored: there would be a gap before it
            self._inspect(data)
            if self._verification is None:
                await self._appender.write(data)
            else:
                hashing = asyncio.to_thread(self._verification.update, data)
                await asyncio.gather(self._appender.write(data), hashing)
        finally:
            self._pool.give(slab)
        if self._stored is not None:
            self._stored(self._appender.offset)

    def _notice_failure(self, writing: asyncio.Task[None]) -> None:
        if not writing.cancelled() and (error := writing.exception()) is not None:
            self.interrupt(error)

    def _store_unfilled(self) -> None:
        if self._writing is not None and not self._writing.done():
            self._store_timer = self._loop.call_later(STORE_AFTER, self._store_unfilled)
            return
        if self._writing is not None and self._writing.exception() is not None:
            # What follows a failed write must not be stored: there would be a gap before it.
            return
        self._next_size = SMALLEST_SLAB
        if self._filled:
            self._start_writing()
        else:
            # Somebody asked for memory and had nothing for it: over TLS, half a record.
            self._release()

    def _stop_timer(self) -> None:
        if self._store_timer is not None:
            self._store_timer.cancel()
            self._store_timer = None

    def _inspect(self, data: memoryview) -> None:
        """Judge the beginning of the upload before any of ``data`` is stored."""
        if self._beginning is not None:
            self._beginning.extend(data)
