"""Locks among all processes on one disk: ``flock`` on the data of the upload itself.

A request passes two gates. Within the process it waits in line (``local``), handed on by events. The first in line then
tries to lock the data (``flock``), never blocking, in one hop to a thread. If another process has the lock, that hop
also says ``want`` to all workers (``channel``); the one that has it lets go and says ``free``, and we try again. Words
may get lost and holders may be killed, so who waits also tries again unasked, and says ``want`` again, at intervals
that grow from ``SHORTEST_PAUSE`` to ``LONGEST_PAUSE``.

``flock`` and Unix sockets are among processes of one host. Network file systems are not for these locks.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path

from tusd_py.errors import UploadLocked, UploadNotFound
from tusd_py.locks import flock
from tusd_py.locks.base import Hold, Locks
from tusd_py.locks.channel import Channel
from tusd_py.locks.local import Turns
from tusd_py.threads import ThreadPool

logger = logging.getLogger(__name__)

# Seconds between two tries of a waiter that hears nothing.
SHORTEST_PAUSE = 0.01
LONGEST_PAUSE = 0.1

# Event loops count in milliseconds: a timer may fire by as much before its moment, and that is no reason to try twice.
CLOCK_STEP = 0.001

# Nothing waits in them, but a disk may be slow for some.
MOST_THREADS = 32


class _Claim:
    """The one request of this process that has an upload's lock, or tries to get it from another process.

    ``is_wished`` says that another process wants the lock too. While we only try, that word is forgotten at each new
    try: it was meant for the last holder, and whoever still waits when we have the lock says it again. One that comes
    in the middle of the try that succeeds is meant for us.
    """

    __slots__ = ("freed", "hold", "is_held", "is_wished")

    def __init__(self, hold: Hold) -> None:
        self.hold = hold
        self.freed = asyncio.Event()
        self.is_held = False
        self.is_wished = False

    def begin_try(self) -> None:
        self.freed.clear()
        self.is_wished = False

    def succeed(self) -> None:
        self.is_held = True
        if self.is_wished:
            self.hold.want()

    def wish(self) -> None:
        self.is_wished = True
        if self.is_held:
            self.hold.want()


class FileLocks(Locks):
    """Locks among the requests of all processes that share an upload folder.

    They work before ``open``, and where no socket can be had. A wish then stays within its process, and a newcomer in
    another one waits until the holder ends by itself, or for its timeout.
    """

    def __init__(
        self,
        *,
        data_path: Callable[[str], Path | None],
        folder: Path,
        leader_path: Path,
        timeout: float = 20.0,
    ) -> None:
        """Prepare locks; nothing is touched before they are used.

        Args:
            data_path: says where the data of an upload is at the moment, ``None`` when there is none. It may look at
                the disk; it is called in threads, by several at once.
            folder: where the workers' sockets are, nothing else. ``open`` makes it, for its owner alone.
            leader_path: an existing folder, whose lock the leading process holds.
            timeout: seconds that a request waits for a holder that does not let go.
        """
        self._data_path = data_path
        self._folder = folder
        self._leader_path = leader_path
        self._timeout = timeout
        self._threads = ThreadPool(MOST_THREADS, name="tusd-py-locks")
        self._turns = Turns()
        self._claims: dict[str, _Claim] = {}
        self._channel: Channel | None = None

    @property
    def in_use(self) -> int:
        """How many ids are locked or waited for in this process just now."""
        return len(self._turns)

    async def open(self) -> None:
        """Open the channel to the other workers. Without one a warning is logged, and everything else works on."""
        if self._channel is not None:
            return
        try:
            self._channel = await self._threads.start(Channel, self._folder)
        except OSError as error:
            logger.warning(
                "no socket in %s (%s): a request cannot take over an upload from another worker process,"
                " it waits until that one is through",
                self._folder,
                error,
            )
            return
        self._channel.listen({"want": self._hear_want, "free": self._hear_free})

    async def close(self) -> None:
        """Close the channel and remove its socket."""
        channel, self._channel = self._channel, None
        if channel is not None:
            await channel.close()
        self._threads.close()

    def _hear_want(self, id: str) -> None:
        if claim := self._claims.get(id):
            claim.wish()

    def _hear_free(self, id: str) -> None:
        if claim := self._claims.get(id):
            claim.freed.set()

    @asynccontextmanager
    async def hold(self, id: str) -> AsyncIterator[Hold]:
        """Hold the lock of ``id``; see ``Locks.hold``.

        Raises:
            StorageUnavailable: descriptors are used up, or the file system cannot lock just now.
            StorageFailed: the file system failed in another way.
        """
        deadline = asyncio.get_running_loop().time() + self._timeout
        hold = await self._turns.take(id, deadline)
        with self._claimed(id, hold) as claim:
            descriptor = await self._wait(id, claim, deadline)
            with self._locked(id, claim, descriptor):
                yield hold

    @asynccontextmanager
    async def try_hold(self, id: str) -> AsyncIterator[bool]:
        """Hold the lock of ``id`` if it is free; see ``Locks.try_hold``. Fails as ``hold`` does."""
        hold = self._turns.try_take(id)
        if hold is None:
            yield False
            return
        with self._claimed(id, hold) as claim:
            descriptor = None
            with suppress(UploadNotFound):
                descriptor = await self._in_thread(partial(self._try_lock, id))
            if descriptor is not None:
                with self._locked(id, claim, descriptor):
                    yield True
                    return
        yield False

    @asynccontextmanager
    async def try_lead(self) -> AsyncIterator[bool]:
        """Lead unless another process, or another context in this one, does. Fails as ``hold`` does."""
        descriptor = await self._in_thread(partial(flock.try_lock_folder, self._leader_path))
        if descriptor is None:
            yield False
            return
        try:
            yield True
        finally:
            self._unlock(descriptor)

    @contextmanager
    def _claimed(self, id: str, hold: Hold) -> Iterator[_Claim]:
        claim = self._claims[id] = _Claim(hold)
        try:
            yield claim
        finally:
            del self._claims[id]
            self._turns.give_back(id)

    @contextmanager
    def _locked(self, id: str, claim: _Claim, descriptor: int) -> Iterator[None]:
        claim.succeed()
        try:
            yield
        finally:
            self._unlock(descriptor)
            if claim.is_wished and self._channel is not None:
                self._threads.start(self._channel.say, "free", id)

    async def _wait(self, id: str, claim: _Claim, deadline: float) -> int:
        """Try until the lock is ours, and return its descriptor. No thread is held between two tries."""
        loop = asyncio.get_running_loop()
        pause = SHORTEST_PAUSE
        while True:
            claim.begin_try()
            descriptor = await self._in_thread(partial(self._try_lock_or_wish, id))
            if descriptor is not None:
                return descriptor
            now = loop.time()
            if deadline - now < CLOCK_STEP:
                raise UploadLocked
            with suppress(TimeoutError):
                async with asyncio.timeout_at(min(now + pause, deadline)):
                    await claim.freed.wait()
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _in_thread(self, lock: Callable[[], int | None]) -> int | None:
        """Return what ``lock`` returns. If we are cancelled meanwhile, what it locks after all is unlocked again."""
        attempt = self._threads.start(lock)
        try:
            return await attempt
        except asyncio.CancelledError:
            # By now the thread is through (``Outcome``), and nobody else knows the descriptor.
            if attempt.exception() is None and (descriptor := attempt.result()) is not None:
                self._unlock(descriptor)
            raise

    def _unlock(self, descriptor: int) -> None:
        # Nothing is awaited here, so that no cancellation comes between us and letting go.
        if flock.unlock(descriptor):
            flock.close(descriptor)
        else:
            self._threads.start(flock.close, descriptor)

    def _try_lock(self, id: str) -> int | None:
        return flock.try_lock_data(partial(self._data_path, id))

    def _try_lock_or_wish(self, id: str) -> int | None:
        descriptor = self._try_lock(id)
        channel = self._channel
        if descriptor is None and channel is not None:
            channel.say("want", id)
        return descriptor
