"""A worker process for the tests: ``python -m tests.locks.holder FOLDER ID MANNER``.

It says on its output what happens to it, a word a line. Manners: ``yields`` lets go when asked, ``keeps`` never does,
``counts`` adds one to the number in the data, again and again.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

from tests.locks.workers import UploadFolder, wanted
from tusd_py.locks.file import FileLocks

COUNTS = 40

Manner = Callable[[UploadFolder, FileLocks, str], Awaitable[None]]


def say(word: str) -> None:
    print(word, flush=True)


async def yields(folder: UploadFolder, locks: FileLocks, id: str) -> None:
    async with locks.hold(id) as hold:
        say("held")
        await wanted(hold)
        say("wanted")
    say("free")


async def keeps(folder: UploadFolder, locks: FileLocks, id: str) -> None:
    async with locks.hold(id) as hold:
        say("held")
        await wanted(hold)
        say("wanted")
        await asyncio.Event().wait()


async def counts(folder: UploadFolder, locks: FileLocks, id: str) -> None:
    data = folder.partial(id)
    for _ in range(COUNTS):
        async with locks.hold(id):
            number = int(data.read_text() or "0")
            await asyncio.sleep(0)
            data.write_text(str(number + 1))


MANNERS: dict[str, Manner] = {"yields": yields, "keeps": keeps, "counts": counts}


async def main(path: str, id: str, manner: str) -> None:
    folder = UploadFolder(Path(path))
    async with folder.worker() as locks:
        await MANNERS[manner](folder, locks, id)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
