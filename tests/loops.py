"""Event loops for tests: one whose clock jumps, so that no test waits for time to pass."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class JumpingSelector(selectors.DefaultSelector):
    """Never waits for a timer: where nothing is ready, the clock of the loop jumps to the moment it would wait for."""

    skipped = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            return super().select(None)
        ready = super().select(0)
        if not ready:
            self.skipped += max(timeout, 0)
        return ready


class JumpingLoop(asyncio.SelectorEventLoop):
    """A loop on which a minute without events takes no time. Not for tests that wait for threads."""

    def __init__(self) -> None:
        self._jumping = JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return super().time() + self._jumping.skipped


def run(main: Coroutine[object, object, T]) -> T:
    """Run ``main`` on a ``JumpingLoop`` and return what it returns."""
    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        return runner.run(main)


def on_a_jumping_loop(test: Callable[P, Coroutine[object, object, None]]) -> Callable[P, None]:
    """Make a test of a coroutine function; time that it waits for does not pass."""

    @wraps(test)
    def run_test(*args: P.args, **kwargs: P.kwargs) -> None:
        run(test(*args, **kwargs))

    return run_test


def on_a_plain_loop(test: Callable[P, Coroutine[object, object, None]]) -> Callable[P, None]:
    """Make a test of a coroutine function that waits for threads."""

    @wraps(test)
    def run_test(*args: P.args, **kwargs: P.kwargs) -> None:
        asyncio.run(test(*args, **kwargs))

    return run_test
