"""Bytes from one file to another by the kernel alone, or by way of us where it cannot. Blocking.

``copy_file_range`` shares the blocks where the file system can (XFS, Btrfs) and copies within the kernel where not, so
that no byte of it passes through Python.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

from tusd_py.errors import StorageFailed
from tusd_py.storage.layout import write_all

READ_SIZE = 1024 * 1024  # bytes of one read where the kernel does not copy

# What copy_file_range(2) says where it cannot: on two file systems, on an old kernel, in a sandbox, on a file system
# without it.
_INCAPABLE = frozenset({errno.EXDEV, errno.ENOSYS, errno.EINVAL, errno.EPERM, errno.EOPNOTSUPP})


def copy_range(source: int, start: int, target: int, offset: int, size: int, moved: Callable[[int], None]) -> None:
    """Copy ``size`` bytes of the open file ``source`` from ``start`` on into ``target`` at ``offset``.

    ``moved`` is called with the new end of ``target`` whenever some of them were copied.

    Raises:
        StorageFailed: ``source`` ends before.
    """
    done = _copy_in_kernel(source, start, target, offset, size, moved)
    while done < size:
        data = os.pread(source, min(READ_SIZE, size - done), start + done)
        if not data:
            raise StorageFailed
        write_all(target, data, offset + done, moved)
        done += len(data)


def _copy_in_kernel(source: int, start: int, target: int, offset: int, size: int, moved: Callable[[int], None]) -> int:
    """Return how many bytes were copied so: fewer than ``size`` where the kernel cannot go on."""
    copy = getattr(os, "copy_file_range", None)  # Linux alone has it
    done = 0
    while copy is not None and done < size:
        try:
            copied = copy(source, target, size - done, start + done, offset + done)
        except OSError as error:
            if error.errno in _INCAPABLE:
                break
            raise
        # Some file systems copy nothing and say so without an error; at the end of the file reading will tell.
        if copied == 0:
            break
        done += copied
        moved(offset + done)
    return done
