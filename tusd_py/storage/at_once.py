"""An upload that is there as a whole when it is created: kept on the disk complete, in one go.

Nobody knows its id yet, so nothing is locked, bounded or measured on the way: the data is written beside that of
unfinished uploads, the record of the completed upload says what it is, and the rename of the data is the commit point
as always. Until then there is data without the record of an unfinished upload, and such a thing is unknown to everybody
but to ``leftovers``, which takes away what a crash leaves of it.
"""

from __future__ import annotations

import os

from tusd_py.storage.base import Buffer
from tusd_py.storage.layout import FILE_MODE, Layout, remove, sync_folder, write_all
from tusd_py.storage.record import Record, create_record

CREATING = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW


def keep_at_once(layout: Layout, record: Record, data: Buffer, *, durable: bool) -> os.stat_result:
    """Keep ``data`` as the upload that ``record`` says is complete, and return the status of its file. Blocking.

    With ``durable``, data, record and names are on the disk before this returns. An error leaves nothing behind.
    """
    part, kept = layout.data(record.id), layout.complete_record(record.id)
    final = layout.complete_data(record.id, record.extension)
    # A rename would overwrite it. Ids are not repeated, so whatever has this name is not ours.
    if os.path.lexists(final):
        raise FileExistsError("something else has the name of this upload's data")
    ours: list[str] = []
    try:
        descriptor = os.open(part, CREATING, FILE_MODE)
        ours.append(part)
        try:
            write_all(descriptor, data, 0)
            if durable:
                os.fsync(descriptor)
            status = os.fstat(descriptor)
        finally:
            os.close(descriptor)
        # Under its name at once: it counts from the rename on, so nobody can meet it half written.
        create_record(record, kept, durable=durable)
        ours.append(kept)
        if durable:
            sync_folder(layout.records)
        os.rename(part, final)
        ours.append(final)
        if durable:
            sync_folder(layout.folder)
    except OSError:
        for path in reversed(ours):
            remove(path)
        raise
    return status
