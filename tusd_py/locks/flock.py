"""The lock that the kernel keeps on a file, ``flock(2)``: taken on the data of an upload, or on a folder.

Nothing is created for a lock, so one can be had on a full disk, and the kernel frees it when its holder dies, however
it dies: there are no lock files to clean and no process ids to distrust. A lock is a descriptor here; it belongs to the
open file description, so it excludes threads as well as processes.

Plain blocking functions, which touch the disk and are for threads, but never wait for a lock. They raise:

- ``UploadNotFound`` when there are no data to lock, or something planted in their place,
- ``StorageUnavailable`` when descriptors are used up or the file system cannot lock just now,
- ``StorageFailed`` for everything else, the cause chained.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from tusd_py.errors import StorageFailed, StorageUnavailable, UploadNotFound

FindData = Callable[[], Path | None]

# How often the data may turn out to have moved during one try. They move once in their life (completion); three times
# is somebody's game, and who meets it may come back like others.
MOST_MOVES = 3

# Something planted in the place of the data must neither be followed nor keep us waiting, as a FIFO would.
DATA_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK

# What opening says of a symbolic link, and of a socket. An upload it is not.
NOT_DATA = frozenset({errno.ELOOP, errno.ENXIO})

# Trouble that passes: descriptors or memory are used up, or a network file system is at odds with itself.
PASSING = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOLCK, errno.ESTALE})


def try_lock_data(find: FindData) -> int | None:
    """Lock the file that ``find`` tells and return its descriptor; ``None`` when somebody else has the lock.

    ``find`` is asked again once the file is locked, since it may be another one by then.
    """
    with _translated():
        for _ in range(MOST_MOVES):
            with ExitStack() as undo:
                descriptor = _open_data(find)
                if descriptor is None:
                    continue
                undo.callback(close, descriptor)
                if not _flock(descriptor):
                    return None
                if _is_data(descriptor, find):
                    undo.pop_all()
                    return descriptor
    return None


def try_lock_folder(path: Path) -> int | None:
    """Lock the folder at ``path`` and return its descriptor; ``None`` when somebody else has the lock."""
    with _translated(), ExitStack() as undo:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        undo.callback(close, descriptor)
        if not _flock(descriptor):
            return None
        undo.pop_all()
        return descriptor


def unlock(descriptor: int) -> bool:
    """Let the lock go, and tell whether ``close`` is quick.

    Quick enough for an event loop, that is, as this function is itself: both are matters of the kernel's memory. But
    when the file was deleted meanwhile, closing is what frees its gigabytes on the disk.
    """
    with suppress(OSError):  # a network file system's; the lock goes with the descriptor in any case
        fcntl.flock(descriptor, fcntl.LOCK_UN)
    return os.fstat(descriptor).st_nlink > 0


def close(descriptor: int) -> None:
    """Close what a lock was held by. Nothing was written through it, so no error of it tells anything."""
    with suppress(OSError):
        os.close(descriptor)


def _open_data(find: FindData) -> int | None:
    """Open the data for locking; ``None`` when they have just moved away from where they were."""
    path = find()
    if path is None:
        raise UploadNotFound
    try:
        descriptor = os.open(path, DATA_FLAGS)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno in NOT_DATA:
            raise UploadNotFound from None
        raise
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    close(descriptor)
    raise UploadNotFound


def _flock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_data(descriptor: int, find: FindData) -> bool:
    """Tell whether what is locked is what ``find`` tells now.

    Between opening and locking the last holder may have deleted it, or another file may have come in its place, and a
    lock on what is no longer there excludes nobody. Completion only renames the data, and the lock goes with them.
    """
    path = find()
    if path is None:
        raise UploadNotFound
    try:
        return os.path.samestat(os.stat(path, follow_symlinks=False), os.fstat(descriptor))
    except FileNotFoundError:
        return False


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in PASSING:
            raise StorageUnavailable from error
        raise StorageFailed from error
