"""Blocking work off the event loop, at the least that a hop into a thread can cost.

The executor of the standard library makes two futures, a condition and two hand-overs of each job; that costs more than
most of ours do. Here the jobs stand in one queue, and each has one future, which the event loop itself settles.
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Callable
from queue import SimpleQueue
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_Job = Callable[[], None]


class Outcome(asyncio.Future[T]):
    """What a thread will give.

    It cannot be cancelled, as little as the thread can be stopped. A task that is cancelled while it waits hears of it
    when the thread is through, however often it is cancelled: asyncio delivers a cancellation that nothing would take
    as soon as the task runs again.
    """

    def cancel(self, msg: object = None) -> bool:
        """Tell that nothing was cancelled."""
        return False


class ThreadPool:
    """Up to ``most`` threads, started when they are needed. For one event loop at a time.

    Nothing is started before the first job, so that a pool may be made before its process is forked.
    """

    def __init__(self, most: int, *, name: str) -> None:
        self._most = most
        self._name = name
        # Jobs that are not settled yet; looked at by the event loop alone.
        self._open = 0
        self._threads = 0
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        weakref.finalize(self, _end, self._jobs, most)

    def start(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Outcome[T]:
        """Begin ``function`` in a thread, and return what gives its outcome."""
        loop = asyncio.get_running_loop()
        outcome: Outcome[T] = Outcome(loop=loop)

        def job() -> None:
            try:
                result = function(*args, **kwargs)
            except BaseException as error:
                _tell(loop, self._fail, outcome, error)
            else:
                _tell(loop, self._succeed, outcome, result)

        self._open += 1
        self._jobs.put(job)
        if self._threads < min(self._open, self._most):
            self._threads += 1
            # Daemons, because an interpreter that ends would wait for ever for threads that wait for jobs. Whoever
            # waits for a job waits for its thread, so none that matters is cut off.
            threading.Thread(target=_work, args=(self._jobs,), name=self._name, daemon=True).start()
        return outcome

    def close(self) -> None:
        """Let the threads end once they have nothing to do. The next job starts new ones."""
        _end(self._jobs, self._threads)
        self._threads = 0
        self._jobs = SimpleQueue()
        weakref.finalize(self, _end, self._jobs, self._most)

    def _succeed(self, outcome: Outcome[T], result: T) -> None:
        self._open -= 1
        outcome.set_result(result)

    def _fail(self, outcome: Outcome[T], error: BaseException) -> None:
        self._open -= 1
        outcome.set_exception(error)
        outcome.exception()  # looked at, so that nobody complains where whoever waited was cancelled


def _work(jobs: SimpleQueue[_Job | None]) -> None:
    while (job := jobs.get()) is not None:
        job()
        del job  # what it holds is not to be kept while there is nothing to do


def _end(jobs: SimpleQueue[_Job | None], threads: int) -> None:
    for _ in range(threads):
        jobs.put(None)


def _tell(loop: asyncio.AbstractEventLoop, settle: Callable[..., None], *facts: object) -> None:
    try:
        loop.call_soon_threadsafe(settle, *facts)
    except RuntimeError:
        return  # the event loop is closed, and nobody waits any more
