"""Whose turn it is with an upload, within one process and one event loop.

The part that ``MemoryLocks`` and ``FileLocks`` share. No system calls: requests queue for an id here and are handed it
by events, so that a hand-over within a process waits for nothing.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress

from tusd_py.errors import UploadLocked
from tusd_py.locks.base import Hold


class _Line:
    """The hold of whoever has the id, and the requests in line behind."""

    __slots__ = ("hold", "waiting")

    def __init__(self) -> None:
        self.hold = Hold()
        self.waiting: deque[asyncio.Future[Hold]] = deque()


class Turns:
    """One turn at a time for each id; the others wait in line.

    First come, first served. Each turn that has somebody behind it is wanted from its start and so ends soon, hence a
    newcomer does not wait long for those that came before, and nobody is passed over for ever as with newest-first.

    An id that nobody has or waits for takes no memory.
    """

    def __init__(self) -> None:
        self._lines: dict[str, _Line] = {}

    def __len__(self) -> int:
        """How many ids are taken."""
        return len(self._lines)

    def try_take(self, id: str) -> Hold | None:
        """Take the turn if nobody has it; ``None``, and no word to the holder, otherwise."""
        if id in self._lines:
            return None
        line = self._lines[id] = _Line()
        return line.hold

    async def take(self, id: str, deadline: float) -> Hold:
        """Take the turn, after asking whoever has it to let go.

        Wherever it is cancelled, the turn is either ours to ``give_back`` (it returned) or somebody else's.

        Raises:
            UploadLocked: our turn did not come before ``deadline``, in seconds of the event loop's clock.
        """
        hold = self.try_take(id)
        if hold is not None:
            return hold
        try:
            async with asyncio.timeout_at(deadline):
                return await self._wait(id, self._lines[id])
        except TimeoutError:
            raise UploadLocked from None

    async def _wait(self, id: str, line: _Line) -> Hold:
        turn: asyncio.Future[Hold] = asyncio.get_running_loop().create_future()
        line.waiting.append(turn)
        line.hold.want()
        try:
            return await turn
        except BaseException:
            if turn.done() and not turn.cancelled():
                # The turn came in the very moment in which we gave up. Kept, it would be lost for ever.
                self.give_back(id)
            else:
                with suppress(ValueError):  # give_back may have met our cancelled future and dropped it
                    line.waiting.remove(turn)
            raise

    def give_back(self, id: str) -> None:
        """End the turn; the next in line has it when this returns. Never waits, so that no cancellation gets in."""
        line = self._lines[id]
        waiting = line.waiting
        # A waiter that was cancelled stays in line until its task runs; it must not be handed anything.
        while waiting and waiting[0].done():
            waiting.popleft()
        if not waiting:
            del self._lines[id]
            return
        turn = waiting.popleft()
        line.hold = Hold()
        if not all(other.done() for other in waiting):
            line.hold.want()
        turn.set_result(line.hold)
