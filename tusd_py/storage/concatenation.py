"""The data of partials on its way into a final, piece by piece. What waits here waits for threads alone."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from tusd_py.errors import UploadNotFound
from tusd_py.storage.appender import CHECKPOINT_SIZE
from tusd_py.storage.data import UnfinishedData
from tusd_py.storage.layout import Layout, open_regular
from tusd_py.storage.threads import Threads
from tusd_py.upload import Upload

# Bytes that are copied in one hop: after each a concatenation can be ended. Smaller ones cost nothing that could be
# measured; whether they let others wait less was hard to tell from what else the machine did.
PIECE_SIZE = 4 * 1024 * 1024


async def concatenate(
    partials: Sequence[Upload],
    *,
    open_data: Callable[[], UnfinishedData],
    threads: Threads,
    layout: Layout,
    checkpoints: bool,
) -> None:
    """Fill the data that ``open_data`` opens with that of ``partials``, in order; with all of it, or none.

    With ``checkpoints`` it is synced as it goes.
    """
    data = await threads.run(_begin, open_data)
    try:
        for partial in partials:
            for start in range(0, partial.offset, PIECE_SIZE):
                size = min(PIECE_SIZE, partial.offset - start)
                await threads.run(_copy, data, layout.data(partial.id), start, size, checkpoints)
        await threads.run(_commit, data)
    except BaseException:
        await threads.run(_give_up, data)
        raise
    await threads.run(data.close)


def _begin(open_data: Callable[[], UnfinishedData]) -> UnfinishedData:
    data = open_data()
    try:
        # Behind a ceiling: none of the bytes count before the last one is there.
        data.begin(0, verified=False)
    except BaseException:
        data.close()
        raise
    return data


def _copy(data: UnfinishedData, path: str, start: int, size: int, checkpoints: bool) -> None:
    opened = open_regular(path, os.O_RDONLY)
    if opened is None:
        raise UploadNotFound
    source, _ = opened
    try:
        data.copy(source, start, size)
    finally:
        os.close(source)
    if checkpoints and data.end - data.floor >= CHECKPOINT_SIZE:
        data.checkpoint(data.end)


def _commit(data: UnfinishedData) -> None:
    """Let all that was copied count. Durable first, so that a loss of power leaves all of it or none, too."""
    data.checkpoint(data.end)
    data.lift()


def _give_up(data: UnfinishedData) -> None:
    """Leave nothing of what was copied."""
    try:
        data.forget(0)
    finally:
        data.close()
