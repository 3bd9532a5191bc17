"""Blocking work off the event loop: one hop into a thread for each operation, never one for each system call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

from tusd_py.cancellation import outlast
from tusd_py.storage.faults import translated

MOST_THREADS = 32

P = ParamSpec("P")
T = TypeVar("T")


class Threads:
    """A pool of threads of a store's own, so that a slow disk does not hold up what others do in theirs.

    The pool is made at its first use: a store may be built before its process is forked.
    """

    def __init__(self, count: int | None = None) -> None:
        """Use at most ``count`` threads, ``None`` for as many as it takes that some slow syncs do not keep all."""
        self._count = count
        self._pool: ThreadPoolExecutor | None = None

    @property
    def pool(self) -> ThreadPoolExecutor:
        """The pool itself, for libraries that want to be given one."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._count or MOST_THREADS, thread_name_prefix="tusd-py-disk")
        return self._pool

    def close(self) -> None:
        """Let the threads end once they have nothing to do. The next use starts new ones."""
        if self._pool is not None:
            self._pool.shutdown(wait=False)
            self._pool = None

    def start(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> asyncio.Future[T]:
        """Begin ``function`` in a thread. Somebody has to ask for the ``outcome``."""
        return asyncio.get_running_loop().run_in_executor(self.pool, partial(function, *args, **kwargs))

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run ``function`` in a thread and return what it returns; see ``outcome``."""
        return await self.outcome(self.start(function, *args, **kwargs))

    async def outcome(self, future: asyncio.Future[T]) -> T:
        """Wait for a function that was started, errors of the system translated.

        A caller that is cancelled meanwhile learns of it only when the thread is through.
        """
        try:
            return await outlast(future)
        except OSError as error:
            raise translated(error) from error
