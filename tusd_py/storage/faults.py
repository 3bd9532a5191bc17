"""What the system's error numbers mean to a client. A table, so that every store on a file system says the same."""

from __future__ import annotations

import errno

from tusd_py.errors import StorageFailed, StorageFull, StorageUnavailable, UploadError

FAULTS: dict[int, type[StorageFull] | type[StorageUnavailable]] = {
    errno.ENOSPC: StorageFull,
    errno.EDQUOT: StorageFull,
    errno.EFBIG: StorageFull,
    # The disk may be mounted read-only for a repair, or the folder be given to somebody else for a moment.
    errno.EROFS: StorageUnavailable,
    errno.EACCES: StorageUnavailable,
    errno.EPERM: StorageUnavailable,
    # Too much is going on at once; it passes.
    errno.EMFILE: StorageUnavailable,
    errno.ENFILE: StorageUnavailable,
    errno.ENOMEM: StorageUnavailable,
    # Network file systems say these while their server is away.
    errno.ESTALE: StorageUnavailable,
    errno.ENOLCK: StorageUnavailable,
}


def translated(error: OSError) -> UploadError:
    """Return the error of ours that says what ``error`` of the system means; ``StorageFailed`` when we know no better.

    The caller chains the two (``raise translated(error) from error``), so that the operator sees the cause.
    """
    return FAULTS.get(error.errno or 0, StorageFailed)()
