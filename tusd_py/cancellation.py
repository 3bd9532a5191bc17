"""Waiting that a cancellation cannot break off, for work that must not be left half done.

A thread cannot be stopped, and bytes must not land in an upload whose lock was let go. A request may be cancelled more
than once while it waits: by the server at the end of the grace time, by the end of the event loop, and by frameworks
around us that cancel again and again until the task is gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


async def outlast(work: Awaitable[T]) -> T:
    """Wait for ``work`` to its end and return what it returns.

    Raises:
        CancelledError: we were cancelled meanwhile; ``work`` is through all the same, and its outcome is lost.
    """
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is None:
        return task.result()
    if not task.cancelled():
        task.exception()  # looked at, so that nobody complains that it was not
    raise cancelled
