"""What crashes left behind in the folder of a disk store: found, and removed where nobody has a lock on it.

Only what is unfinished is looked at, so a pass costs what lies in ``partial/``, not what was ever uploaded.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence

from tusd_py.storage.layout import TEMPORARY_NAME, Layout, open_regular, remove, stat_regular
from tusd_py.storage.record import read_record
from tusd_py.upload import is_id

_KINDS = frozenset({"part", "json", "floor"})


def tidy_leftovers(layout: Layout, *, before: float, dry_run: bool, keep: Collection[str] = ()) -> list[str]:
    """Remove what nothing refers to if all of it was last written before ``before`` (seconds since the epoch).

    What belongs to an id of ``keep`` stays, whatever refers to it. Returns the names, relative to the folder.
    """
    removed: list[str] = []
    for paths in _leftovers(layout, before, keep):
        for path in paths:
            if not (dry_run or _remove_unlocked(path)):
                break
            removed.append(os.path.relpath(path, layout.folder))
    return removed


def _leftovers(layout: Layout, before: float, keep: Collection[str]) -> Iterator[Sequence[str]]:
    """Give the files that belong together and are left over, each time those of one upload."""
    try:
        names = os.listdir(layout.partial)
    except FileNotFoundError:
        return
    kinds: dict[str, set[str]] = defaultdict(set)
    for name in names:
        id, _, kind = name.partition(".")
        path = f"{layout.partial}/{name}"
        if TEMPORARY_NAME.fullmatch(name) and _is_old(path, before):
            yield [path]
        elif kind in _KINDS and is_id(id) and id not in keep:
            kinds[id].add(kind)
    for id, found in kinds.items():
        try:
            paths = _left_of(layout, id, found)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            continue  # nobody can tell; the disk is at fault, and nothing is removed for that
        if paths and all(_is_old(path, before) for path in paths):
            yield paths


def _left_of(layout: Layout, id: str, kinds: Collection[str]) -> Sequence[str]:
    """Return the files of an upload that nobody can go on with, in the order in which they go; none of a sound one."""
    if "part" in kinds and "json" in kinds and read_record(layout.record(id), id) is not None:
        return []
    # The data goes first: its lock tells whether somebody is still at work, and then all of it stays.
    paths = [f"{layout.partial}/{id}.{kind}" for kind in sorted(kinds, reverse=True)]
    if "part" in kinds and "json" not in kinds and _is_nameless(layout, id):
        # The data of an upload that was to be complete at once (``at_once``) did not get its name any more. Its
        # record goes first: without this data beside it, it would be believed.
        paths.insert(0, layout.complete_record(id))
    return paths


def _is_nameless(layout: Layout, id: str) -> bool:
    """Tell whether there is a record of a complete upload, and no data of its name."""
    path = layout.complete_record(id)
    if stat_regular(path) is None:
        return False
    record = read_record(path, id)
    # Where the data has its name, what lies here is a copy of it, out of a backup for example, and the record holds.
    return record is None or stat_regular(layout.complete_data(id, record.extension)) is None


def _is_old(path: str, before: float) -> bool:
    # What is no regular file was put here by somebody who should take it away as well.
    status = stat_regular(path)
    return status is not None and status.st_mtime < before


def _remove_unlocked(path: str) -> bool:
    opened = open_regular(path, os.O_RDONLY)
    if opened is None:
        return False
    descriptor, _ = opened
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        remove(path)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True
