"""Finals out of partials: what is asked of the members, and the one moment in which their bytes become one upload.

Members are looked at without their locks: a complete partial never changes, it can only go away, and then the copy
finds that out. So any number of them costs no descriptors, and finals over the same members cannot block each other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime

from tusd_py.errors import ServerStopping
from tusd_py.media import SNIFF_SIZE, MediaRules
from tusd_py.protocol import rules
from tusd_py.protocol.rules import Limits
from tusd_py.storage.base import Store
from tusd_py.upload import Upload


class Concatenation:
    """Looks members up and fills finals with them. Who fills one holds its lock."""

    def __init__(self, store: Store, limits: Limits, media: MediaRules, now: Callable[[], datetime]) -> None:
        self._store = store
        self._limits = limits
        self._media = media
        self._now = now
        self._running: dict[str, asyncio.Task[Upload]] = {}
        self._is_stopping = False

    def is_running(self, id: str) -> bool:
        """Tell whether the final ``id`` is being filled in this process."""
        return id in self._running

    def start(self) -> None:
        """Fill finals again after ``stop``."""
        self._is_stopping = False

    def stop(self) -> None:
        """End what is being filled, now and from now on; it is as it was before."""
        self._is_stopping = True
        for task in self._running.values():
            task.cancel()

    async def check(self, ids: Sequence[str]) -> tuple[list[Upload], int | None]:
        """Return the members ``ids``, each once, and the length of them all as listed; ``None`` while it is deferred.

        Raises:
            UploadNotFound, UploadExpired, BadRequest, UploadTooLarge: see ``rules.check_members``.
        """
        members = {id: await self._store.get(id) for id in sorted(set(ids))}
        length = rules.check_members([members[id] for id in ids], self._limits, self._now())
        return list(members.values()), length

    async def fill(self, final: Upload) -> Upload:
        """Give ``final`` the bytes of its members once all of them are complete, and return it as it is then.

        Raises:
            ServerStopping: it was ended in the middle.
            ContentRefused: together they are not what the name of the final says; nothing was copied.
            UploadNotFound, UploadExpired, UploadTooLarge, StorageFull: nothing was copied either.
        """
        members, length = await self.check(final.members)
        if length != final.length:
            final = replace(final, length=length)
            await self._store.save(final)
        if not all(member.is_complete for member in members):
            return final
        by_id = {member.id: member for member in members}
        partials = [by_id[id] for id in final.members]
        first_bytes = await self._first_bytes(partials)
        self._media.check_content(final.extension, first_bytes, whole=len(first_bytes) == length)
        return await self._run(final, partials)

    async def _run(self, final: Upload, partials: Sequence[Upload]) -> Upload:
        if self._is_stopping:
            raise ServerStopping
        task = asyncio.ensure_future(self._store.concatenate(final, partials))
        self._running[final.id] = task
        try:
            return await task
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if task.cancelled() and current is not None and not current.cancelling():
                raise ServerStopping from None
            raise
        finally:
            del self._running[final.id]

    async def _first_bytes(self, partials: Sequence[Upload]) -> bytes:
        first = b""
        for partial in partials:
            missing = min(SNIFF_SIZE - len(first), partial.offset)
            first += b"".join([chunk async for chunk in self._store.read(partial, 0, missing)])
            if len(first) == SNIFF_SIZE:
                break
        return first
