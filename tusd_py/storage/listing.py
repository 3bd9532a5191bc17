"""Which uploads have a record in a folder: looked up a few at a time, so that a long list holds nobody up. Blocking."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import islice

from tusd_py.upload import Upload, is_id

logger = logging.getLogger("tusd_py")

LIST_SIZE = 128  # uploads that are looked up in one hop


def ids_of_records(folder: str) -> Iterator[str]:
    """Give the ids that have a record in ``folder``, read bit by bit."""
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            id, _, kind = entry.name.partition(".")
            if kind == "json" and is_id(id):
                yield id


def found_next(ids: Iterator[str], find: Callable[[str], Upload | None]) -> list[Upload] | None:
    """Look the next few ids up; ``None`` when there are no more."""
    batch = list(islice(ids, LIST_SIZE))
    if not batch:
        return None
    found = (found_if_sound(id, find) for id in batch)
    return [upload for upload in found if upload is not None]


def found_if_sound(id: str, find: Callable[[str], Upload | None]) -> Upload | None:
    """Look one upload up; a disk that cannot read it any more does not hide all others."""
    try:
        return find(id)
    except OSError as error:
        if error.errno not in (errno.EIO, errno.EACCES):
            raise
        logger.error("upload %s cannot be read and is left out: %s", id, error.strerror)
        return None
