"""Locks of a single process: for stores in memory, for tests, and where one worker serves alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tusd_py.locks.base import Hold, Locks
from tusd_py.locks.local import Turns


class MemoryLocks(Locks):
    """Locks among the requests of one event loop, handed on in the order in which they were asked for."""

    def __init__(self, *, timeout: float = 20.0) -> None:
        """``timeout`` is how many seconds a request waits for a holder that does not let go."""
        self._timeout = timeout
        self._turns = Turns()
        self._is_led = False

    @property
    def in_use(self) -> int:
        """How many ids are locked just now."""
        return len(self._turns)

    @asynccontextmanager
    async def hold(self, id: str) -> AsyncIterator[Hold]:
        """Hold the lock of ``id``; see ``Locks.hold``."""
        hold = await self._turns.take(id, asyncio.get_running_loop().time() + self._timeout)
        try:
            yield hold
        finally:
            self._turns.give_back(id)

    @asynccontextmanager
    async def try_hold(self, id: str) -> AsyncIterator[bool]:
        """Hold the lock of ``id`` if it is free; see ``Locks.try_hold``."""
        if self._turns.try_take(id) is None:
            yield False
            return
        try:
            yield True
        finally:
            self._turns.give_back(id)

    @asynccontextmanager
    async def try_lead(self) -> AsyncIterator[bool]:
        """Lead unless another context in this process does."""
        if self._is_led:
            yield False
            return
        self._is_led = True
        try:
            yield True
        finally:
            self._is_led = False
