"""An upload folder in small, and the workers that share it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tusd_py.locks.base import Hold
from tusd_py.locks.file import FileLocks

ID = "an-upload-with-a-long-id"
OTHER_ID = "another-upload-with-an-id"

# Runs a coroutine to its end, on one kind of event loop.
Run = Callable[[Coroutine[object, object, None]], None]


@dataclass(frozen=True, slots=True)
class UploadFolder:
    """What the locks need to know of a disk store: data, unfinished and complete."""

    path: Path

    def prepare(self) -> UploadFolder:
        """Make the folders, and the data of ``ID`` and ``OTHER_ID``."""
        (self.path / "partial").mkdir(parents=True)
        self.partial(ID).touch()
        self.partial(OTHER_ID).touch()
        return self

    def partial(self, id: str) -> Path:
        return self.path / "partial" / f"{id}.part"

    def complete(self, id: str) -> Path:
        return self.path / f"{id}.mp3"

    @property
    def sockets(self) -> Path:
        return self.path / ".workers"

    def data_path(self, id: str) -> Path | None:
        return next((place for place in (self.partial(id), self.complete(id)) if os.path.lexists(place)), None)

    def locks(self, patience: float = 20.0) -> FileLocks:
        """The locks of one worker, not opened yet."""
        return FileLocks(
            data_path=self.data_path, folder=self.sockets, leader_path=self.path / "partial", timeout=patience
        )

    @asynccontextmanager
    async def worker(self, patience: float = 20.0) -> AsyncIterator[FileLocks]:
        """The locks of one worker while it runs. Two of them are apart like two processes."""
        locks = self.locks(patience)
        await locks.open()
        try:
            yield locks
        finally:
            await locks.close()


async def wanted(hold: Hold) -> None:
    """Wait until somebody else wants what is held."""
    heard = asyncio.Event()
    hold.when_wanted(heard.set)
    await heard.wait()
