"""The contract of locks: one writer for an upload, and a newcomer that is not kept waiting by a dead one.

A client that lost its network comes back while the server still waits for bytes of the old connection. So whoever
asks for a lock that is taken makes a *wish* for it, and the holder hears of the wish at once: it stores what it has,
lets go, and the newcomer proceeds. The holder polls nothing, and a lock dies with the process that held it.

Listing, downloads and a HEAD for a completed upload take no lock.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager


class Hold:
    """A lock that is held, and the word that somebody else wants it.

    An event with callbacks instead of waiters, so that the holder needs no task to watch it.
    """

    __slots__ = ("_callback", "_wanted")

    def __init__(self) -> None:
        self._wanted = False
        self._callback: Callable[[], None] | None = None

    @property
    def is_wanted(self) -> bool:
        """Whether somebody else has asked for the upload since it is held."""
        return self._wanted

    def when_wanted(self, callback: Callable[[], None]) -> None:
        """Call ``callback``, on the event loop, as soon as somebody else wants the upload; at once if so already.

        It is called at most once; a later callback takes the place of an earlier one.
        """
        self._callback = callback
        if self._wanted:
            callback()

    def want(self) -> None:
        """Note that somebody wants the upload. For implementations of locks; on the event loop only."""
        if self._wanted:
            return
        self._wanted = True
        if self._callback is not None:
            self._callback()


class Locks(ABC):
    """One lock for each upload, by id."""

    async def open(self) -> None:  # noqa: B027 (locks that need no preparation say nothing)
        """Open what wishes travel through. Called once in each process, after it was forked."""

    async def close(self) -> None:  # noqa: B027
        """Close it again. Locks that are still held stay held."""

    @abstractmethod
    def hold(self, id: str) -> AbstractAsyncContextManager[Hold]:
        """Hold the lock of upload ``id``; whoever has it is asked to let go first.

        When others wish for it already, the ``Hold`` is wanted from the start.

        Raises:
            UploadNotFound: there is nothing to lock (only where the lock is part of the data).
            UploadLocked: it was not let go in time.
        """

    @abstractmethod
    def try_hold(self, id: str) -> AbstractAsyncContextManager[bool]:
        """Hold the lock if nobody has it, and disturb nobody otherwise; gives whether it is held.

        For the sweeper, which must never end a request. Gives ``False`` when there is nothing to lock.
        """

    @abstractmethod
    def try_lead(self) -> AbstractAsyncContextManager[bool]:
        """Be the one process that sweeps while the context lasts; gives whether we are."""
