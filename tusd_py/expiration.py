"""The sweeper: removes what was left unfinished for too long, and what crashes left behind.

A pass costs what is unfinished, not what was ever uploaded. It takes the lock of each upload that it removes, and
skips one that somebody holds: an upload that is being written never expires, and no request is ever disturbed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from tusd_py.errors import UploadError
from tusd_py.lifecycle import Lifecycle, utc_now
from tusd_py.locks.base import Locks
from tusd_py.protocol import rules
from tusd_py.protocol.rules import Limits
from tusd_py.storage.base import Store
from tusd_py.upload import Upload

logger = logging.getLogger("tusd_py")

# Leftovers are judged by age alone; nothing that is still being made is this old, however slow the disk.
LEFTOVER_AGE = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Swept:
    """What one pass removed (or would have): ids of unfinished and of complete uploads, names of leftovers."""

    expired: list[str] = field(default_factory=list)
    completed: list[str] = field(default_factory=list)
    leftovers: list[str] = field(default_factory=list)


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
    ) -> None:
        self._store = store
        self._locks = locks
        self._lifecycle = lifecycle
        self._limits = limits
        self._interval = interval
        self._completed_expiry = completed_expiry
        self._now = now
        self._suspects: dict[str, datetime] = {}

    async def run(self) -> None:
        """Sweep until cancelled, whenever no other process does.

        What looks expired is removed by the pass after the one that saw it first, so that a clock that jumps forward
        takes nothing from a client that comes back within an interval.
        """
        while True:
            async with self._locks.try_lead() as is_leading:
                while is_leading:
                    await self._pass()
                    await asyncio.sleep(self._interval)
            await asyncio.sleep(self._interval)

    async def sweep(self, *, dry_run: bool = False) -> Swept:
        """Make one pass that removes all that is expired by now; ``dry_run``: only tell."""
        return await self._sweep(lambda upload: True, dry_run=dry_run)

    async def _pass(self) -> None:
        seen: dict[str, datetime] = {}

        def is_confirmed(upload: Upload) -> bool:
            seen[upload.id] = upload.written_at
            return self._suspects.get(upload.id) == upload.written_at

        try:
            swept = await self._sweep(is_confirmed, dry_run=False)
        except Exception as error:
            # Whatever it was, a disk that is away or a fault of ours: the sweeper must still be there afterwards.
            logger.warning("the sweep was broken off: %s", error, exc_info=error)
            return
        self._suspects = seen
        if swept.leftovers:
            logger.info("leftovers removed: %d", len(swept.leftovers))

    async def _sweep(self, is_confirmed: Callable[[Upload], bool], *, dry_run: bool) -> Swept:
        swept = Swept()
        now = self._now()
        async for upload in self._store.list():
            if upload.is_whole:
                await self._complete(upload, dry_run=dry_run)
            elif (
                rules.is_expired(upload, self._limits, now)
                and is_confirmed(upload)
                and (dry_run or await self._expire(upload))
            ):
                swept.expired.append(upload.id)
        swept.completed.extend(await self._sweep_completed(now, dry_run=dry_run))
        swept.leftovers.extend(await self._store.tidy(before=now - self._leftover_age(), dry_run=dry_run))
        return swept

    async def _complete(self, upload: Upload, *, dry_run: bool) -> None:
        if not dry_run:
            await self._expire(upload)

    async def _expire(self, upload: Upload) -> bool:
        async with self._locks.try_hold(upload.id) as is_held:
            if not is_held:
                return False
            try:
                return await self._lifecycle.expire(upload.id) is not None
            except UploadError as error:
                logger.warning("upload %s could not be swept: %s", upload.id, error)
                return False

    async def _sweep_completed(self, now: datetime, *, dry_run: bool) -> list[str]:
        if self._completed_expiry is None:
            return []
        removed = []
        async for upload in self._store.list(complete=True):
            assert upload.completed_at is not None, "the store was asked for complete uploads"
            if upload.completed_at + self._completed_expiry < now:
                removed.append(upload.id)
                if not dry_run:
                    await self._store.delete(upload.id)
                    logger.info("upload removed id=%s", upload.id)
        return removed

    def _leftover_age(self) -> timedelta:
        return max(LEFTOVER_AGE, self._limits.partial_expiry or LEFTOVER_AGE)
