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

# Seconds in which not one job begins although some wait: then the threads wait for the disk, and not for the
# interpreter, which changes hands every 5 ms at least (``sys.getswitchinterval``).
STUCK_AFTER = 0.01

# Seconds without that, after which there is a thread too many.
LONGER_THAN_NEEDED = 1.0

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
    """Up to ``most`` threads. For one event loop at a time.

    There is one as long as jobs get on, however many wait: they are short, and only one thread runs Python code at any
    time, so that others would cost hand-overs and gain nothing. More come when the disk lets them wait, and go again
    one by one. Nothing is started before the first job: a pool may be made before its process is forked.
    """

    def __init__(self, most: int, *, name: str) -> None:
        self._most = most
        self._name = name
        self._threads = 0
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._given = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_watching = False
        self._hired_at = 0.0
        weakref.finalize(self, _end, self._jobs, most)

    def start(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Outcome[T]:
        """Begin ``function`` in a thread, and return what gives its outcome."""
        loop = asyncio.get_running_loop()
        outcome: Outcome[T] = Outcome(loop=loop)

        def job() -> None:
            try:
                result = function(*args, **kwargs)
            except BaseException as error:
                _tell(loop, _fail, outcome, error)
            else:
                _tell(loop, outcome.set_result, result)

        self._give(job)
        if loop is not self._loop:
            self._loop, self._is_watching = loop, False
        if not self._threads:
            self._hire(1)
        elif not self._is_watching and not self._jobs.empty():
            self._watch(loop)
        return outcome

    def close(self) -> None:
        """Let the threads end once they have nothing to do. The next job starts new ones."""
        _end(self._jobs, self._threads)
        self._threads = self._given = 0
        self._jobs = SimpleQueue()
        weakref.finalize(self, _end, self._jobs, self._most)

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        self._is_watching = True
        loop.call_later(STUCK_AFTER, self._look, loop, self._jobs, self._begun)

    def _look(self, loop: asyncio.AbstractEventLoop, jobs: SimpleQueue[_Job | None], begun: int) -> None:
        """Look whether jobs get on since so many of them had begun."""
        self._is_watching = False
        waiting = self._jobs.qsize()
        if waiting and jobs is self._jobs and self._begun == begun:
            self._hire(min(waiting, self._most - self._threads))
            self._hired_at = loop.time()
        elif self._threads > 1 and loop.time() - self._hired_at > LONGER_THAN_NEEDED:
            self._threads -= 1
            self._give(None)
            self._hired_at = loop.time()
        if waiting:
            self._watch(loop)

    @property
    def _begun(self) -> int:
        return self._given - self._jobs.qsize()

    def _give(self, job: _Job | None) -> None:
        self._given += 1
        self._jobs.put(job)

    def _hire(self, count: int) -> None:
        for _ in range(count):
            self._threads += 1
            # Daemons, because an interpreter that ends would wait for ever for threads that wait for jobs. Whoever
            # waits for a job waits for its thread, so none that matters is cut off.
            threading.Thread(target=_work, args=(self._jobs,), name=self._name, daemon=True).start()


def _work(jobs: SimpleQueue[_Job | None]) -> None:
    while (job := jobs.get()) is not None:
        job()
        del job  # what it holds is not to be kept while there is nothing to do


def _end(jobs: SimpleQueue[_Job | None], threads: int) -> None:
    for _ in range(threads):
        jobs.put(None)


def _fail(outcome: Outcome[T], error: BaseException) -> None:
    outcome.set_exception(error)
    outcome.exception()  # looked at, so that nobody complains where whoever waited was cancelled


def _tell(loop: asyncio.AbstractEventLoop, settle: Callable[..., None], *facts: object) -> None:
    try:
        loop.call_soon_threadsafe(settle, *facts)
    except RuntimeError:
        return  # the event loop is closed, and nobody waits any more
