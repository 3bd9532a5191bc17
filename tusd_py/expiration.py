"""The sweeper: removes what was left unfinished for too long, and what crashes left behind.

A pass costs what is unfinished, not what was ever uploaded. It takes the lock of each upload that it removes, and
skips one that somebody holds: an upload that is being written never expires, and no request is ever disturbed. Only
where the operator bounds the lifetime of unfinished uploads, a request that goes beyond it is ended.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from tusd_py.errors import UploadError, UploadNotFound
from tusd_py.lifecycle import Lifecycle, utc_now
from tusd_py.locks.base import Locks
from tusd_py.protocol import rules
from tusd_py.protocol.rules import Limits
from tusd_py.storage.base import Store
from tusd_py.upload import Upload

logger = logging.getLogger("tusd_py")

# Leftovers are judged by age alone; nothing that is still being made is this old, however slow the disk.
LEFTOVER_AGE = timedelta(hours=1)


# What is done to an upload whose lock is held; tells whether the upload was removed.
End = Callable[[Upload], Awaitable[bool]]


@dataclass(frozen=True, slots=True)
class Swept:
    """What one pass removed (or would have): ids of unfinished and of complete uploads, names of leftovers.

    ``failed`` are the ids of those that it should have removed and could not.
    """

    expired: list[str] = field(default_factory=list)
    completed: list[str] = field(default_factory=list)
    leftovers: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


class Sweeper:
    """Removes expired uploads every ``interval`` seconds, in one of the processes that share a store.

    ``completed_expiry`` is how long complete uploads stay; ``None``: for ever.
    """

    def __init__(
        self,
        store: Store,
        locks: Locks,
        lifecycle: Lifecycle,
        limits: Limits,
        *,
        interval: float,
        completed_expiry: timedelta | None = None,
        now: Callable[[], datetime] = utc_now,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._locks = locks
        self._lifecycle = lifecycle
        self._limits = limits
        self._interval = interval
        self._completed_expiry = completed_expiry
        self._now = now
        self._monotonic = monotonic
        self._suspects: dict[str, datetime] = {}
        self._watched: dict[str, tuple[datetime, float]] = {}
        self._believed: tuple[datetime, float] | None = None

    async def run(self) -> None:
        """Sweep until cancelled, whenever no other process does.

        What looks expired is removed by the pass after the one that saw it first, so that a clock that jumps forward
        takes nothing from a client that comes back within an interval. After one that jumps back, what was written in
        the future is removed when a monotonic clock has seen it unchanged for the time that it may be left.
        """
        while True:
            try:
                async with self._locks.try_lead() as is_leading:
                    while is_leading:
                        await self._pass()
                        await asyncio.sleep(self._interval)
            except Exception as error:
                # Whatever it was, a disk that is away or a fault of ours: the sweeper must still be there afterwards.
                logger.warning("the sweep was broken off: %s", error, exc_info=error)
            await asyncio.sleep(self._interval)

    async def sweep(self, *, dry_run: bool = False) -> Swept:
        """Make one pass that removes all that is expired by now; ``dry_run``: only tell."""
        return await self._sweep(lambda upload: True, dry_run=dry_run)

    async def _pass(self) -> None:
        seen: dict[str, datetime] = {}

        def is_confirmed(upload: Upload) -> bool:
            seen[upload.id] = upload.written_at
            if rules.has_outlived(upload, self._limits, self._now()):
                return upload.id in self._suspects  # bytes that came meanwhile make no difference
            return self._suspects.get(upload.id) == upload.written_at

        swept = await self._sweep(is_confirmed, dry_run=False)
        self._suspects = seen
        if swept.leftovers:
            logger.info("leftovers removed: %d", len(swept.leftovers))

    async def _sweep(self, is_confirmed: Callable[[Upload], bool], *, dry_run: bool) -> Swept:
        swept = Swept()
        now = self._now()
        before, self._watched = self._watched, {}
        async for upload in self._store.list():
            if upload.is_pending:
                # Whether a final that waits goes or completes is for its partials to say.
                if not dry_run:
                    await self._end(upload, self._expire, swept.expired, swept, dry_run=dry_run)
                continue
            is_left = rules.is_expired(upload, self._limits, now) or self._is_stale(upload, now, before)
            if upload.is_unmarked:
                await self._end(upload, self._complete, swept.expired, swept, dry_run=dry_run)
            elif is_left and is_confirmed(upload):
                await self._end(upload, self._expire, swept.expired, swept, dry_run=dry_run)
        if self._completed_expiry is not None:
            async for upload in self._store.list(complete=True):
                if _completed_before(upload, now - self._completed_expiry) and is_confirmed(upload):
                    await self._end(upload, self._remove, swept.completed, swept, dry_run=dry_run)
        leftovers_before = self._believable(now) - self._leftover_age()
        swept.leftovers.extend(await self._store.tidy(before=leftovers_before, dry_run=dry_run))
        return swept

    async def _end(self, upload: Upload, end: End, ended: list[str], swept: Swept, *, dry_run: bool) -> None:
        """Let ``end`` do its work on an upload that nobody holds, and note what came of it."""
        if dry_run:
            if not upload.is_unmarked:
                ended.append(upload.id)
            return
        try:
            async with self._lock(upload) as is_held:
                if is_held and await end(upload):
                    ended.append(upload.id)
        except UploadNotFound:
            return
        except UploadError as error:
            logger.warning("upload %s could not be swept: %s", upload.id, error)
            swept.failed.append(upload.id)

    @asynccontextmanager
    async def _lock(self, upload: Upload) -> AsyncIterator[bool]:
        """Hold the lock if nobody does; of an upload that has outlived its time, also against who writes to it."""
        if rules.has_outlived(upload, self._limits, self._now()):
            async with self._locks.hold(upload.id):
                yield True
            return
        async with self._locks.try_hold(upload.id) as is_held:
            yield is_held

    async def _expire(self, upload: Upload) -> bool:
        return await self._lifecycle.expire(upload.id, left_at=upload.written_at) is not None

    async def _complete(self, upload: Upload) -> bool:
        # Whoever completes it finds out whether it is one that expires all the same, a partial for example.
        return await self._lifecycle.expire(upload.id) is not None

    async def _remove(self, upload: Upload) -> bool:
        await self._store.delete(upload.id)
        logger.info("upload removed id=%s", upload.id)
        return True

    def _is_stale(self, upload: Upload, now: datetime, before: Mapping[str, tuple[datetime, float]]) -> bool:
        """Tell whether an upload from the future has not changed for as long as one may be left unfinished.

        ``before`` is what earlier passes saw of such uploads: their last write, and since when by the monotonic clock.
        """
        expiry = self._limits.partial_expiry
        if upload.written_at <= now or expiry is None:
            return False
        written_at, since = before.get(upload.id, (None, 0.0))
        if written_at != upload.written_at:
            since = self._monotonic()
        self._watched[upload.id] = (upload.written_at, since)
        return self._monotonic() - since > expiry.total_seconds()

    def _believable(self, now: datetime) -> datetime:
        """Return the moment, or the one before a jump forward: that is believed an hour later at the earliest.

        Leftovers are told from what is being made by their age alone, and a jump would make everything old.
        """
        seconds = self._monotonic()
        if self._believed is None or seconds - self._believed[1] > LEFTOVER_AGE.total_seconds():
            self._believed = (now, seconds)
        moment, since = self._believed
        return min(now, moment + timedelta(seconds=seconds - since))

    def _leftover_age(self) -> timedelta:
        return max(LEFTOVER_AGE, self._limits.partial_expiry or LEFTOVER_AGE)


def _completed_before(upload: Upload, moment: datetime) -> bool:
    return upload.completed_at is not None and upload.completed_at < moment
