"""Blocking work of a store off the event loop: one hop for each operation, never one for each system call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from tusd_py.storage.faults import translated
from tusd_py.threads import ThreadPool

MOST_THREADS = 32

P = ParamSpec("P")
T = TypeVar("T")


class Threads:
    """Threads of a store's own, so that a slow disk does not hold up what others do in theirs.

    They are started at their first use: a store may be built before its process is forked.
    """

    def __init__(self, count: int | None = None) -> None:
        """Use at most ``count`` threads, ``None`` for as many as it takes that some slow syncs do not keep all."""
        self._count = count or MOST_THREADS
        self._threads = ThreadPool(self._count, name="tusd-py-disk")
        self._executor: ThreadPoolExecutor | None = None

    @property
    def executor(self) -> ThreadPoolExecutor:
        """More of them, for libraries that want to be given an executor."""
        if self._executor is None:
            self._executor = ThreadPoolExecutor(self._count, thread_name_prefix="tusd-py-read")
        return self._executor

    def close(self) -> None:
        """Let the threads end once they have nothing to do. The next use starts new ones."""
        self._threads.close()
        if self._executor is not None:
            self._executor.shutdown(wait=False)
            self._executor = None

    def start(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> asyncio.Future[T]:
        """Begin ``function`` in a thread. Somebody has to ask for the ``outcome``."""
        return self._threads.start(function, *args, **kwargs)

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run ``function`` in a thread and return what it returns; see ``outcome``."""
        try:
            return await self._threads.start(function, *args, **kwargs)
        except OSError as error:
            raise translated(error) from error

    async def outcome(self, future: asyncio.Future[T]) -> T:
        """Wait for a function that was started, errors of the system translated.

        A caller that is cancelled meanwhile learns of it only when the thread is through.
        """
        try:
            return await future
        except OSError as error:
            raise translated(error) from error
