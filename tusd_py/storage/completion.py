"""What makes an upload complete on the disk, step by step, and what tells that it is. Blocking.

Every step may be repeated: what a crash cut short is ended by whoever touches the upload next, with the same outcome.
"""

from __future__ import annotations

import logging
import os
from contextlib import closing, suppress
from datetime import UTC, datetime

from tusd_py.errors import OffsetMismatch, UploadNotFound
from tusd_py.storage.data import Surroundings, UnfinishedData
from tusd_py.storage.layout import ASIDE, Layout, remove, set_aside, stat_regular, sync_folder
from tusd_py.storage.record import Record, read_record, write_record
from tusd_py.upload import Upload

logger = logging.getLogger("tusd_py")


def find_complete(id: str, layout: Layout) -> Upload | None:
    """Return the complete upload ``id``, ``None`` when there is none."""
    record = read_record(layout.complete_record(id), id)
    # A record whose data has not been renamed is that of a ``finish`` that was cut short: not complete yet.
    if record is None or record.completed_at is None or stat_regular(layout.data(id)) is not None:
        return None
    data = stat_regular(layout.complete_data(id, record.extension))
    if data is not None and data.st_size != (record.length or 0):
        return None  # these are not the bytes that were uploaded: the content is exact, or the upload is gone
    # Whoever the folder is for may have taken the data away. The upload was complete all the same.
    written_at = record.completed_at if data is None else written_at_of(data)
    return record.upload(offset=record.length or 0, written_at=written_at)


def finish(upload: Upload, surroundings: Surroundings) -> Upload:
    """Complete ``upload``: its data is durable, then its record, and one rename makes it visible."""
    layout, id, durable = surroundings.layout, upload.id, surroundings.durable
    record = Record.of(upload)
    try:
        data = UnfinishedData(id, surroundings)
    except UploadNotFound:
        return _finish_again(id, surroundings)
    with closing(data):
        if data.end != upload.offset:
            raise OffsetMismatch(expected=data.end, provided=upload.offset)
        data.begin(data.end, verified=True)  # a tail that never counted must not come to count now
        data.sync()
    final = layout.complete_data(id, upload.extension)
    if os.path.lexists(final):
        # A rename would overwrite it. Ids are not repeated, so whatever has this name is not ours; the name is.
        name = os.path.basename(final)
        set_aside(name, layout)
        logger.warning("%s was in the way of the upload of this name; it lies in %s/ now", name, ASIDE)
    write_record(record, layout.complete_record(id), temporary=layout.temporary(id), durable=durable)
    if durable:
        sync_folder(layout.records)
    os.rename(layout.data(id), final)
    return _finish_again(id, surroundings)


def finish_partial(partial: Upload, surroundings: Surroundings) -> None:
    """Record that a partial is complete. Its data stays where it is, for nobody but concatenations."""
    layout, id, durable = surroundings.layout, partial.id, surroundings.durable
    with closing(UnfinishedData(id, surroundings)) as data:
        if data.end != partial.offset:
            raise OffsetMismatch(expected=data.end, provided=partial.offset)
        data.begin(data.end, verified=True)
        data.checkpoint(data.end)
    write_record(Record.of(partial), layout.record(id), temporary=layout.temporary(id), durable=durable)
    if durable:
        sync_folder(layout.partial)


def _finish_again(id: str, surroundings: Surroundings) -> Upload:
    """Do what follows the rename; all of it may be repeated."""
    upload = find_complete(id, surroundings.layout)
    if upload is None:
        raise UploadNotFound
    end_finish(id, surroundings)
    return upload


def end_finish(id: str, surroundings: Surroundings) -> None:
    """Make the rename durable, and remove what is left of the upload from the time when it was unfinished."""
    if surroundings.durable:
        sync_folder(surroundings.layout.folder)
    with suppress(OSError):  # leftovers now, and no reason to deny what is complete
        remove_unfinished(id, surroundings.layout)


def remove_unfinished(id: str, layout: Layout) -> None:
    """Remove what there is of an unfinished upload: the record first, for without it the id is gone."""
    for path in (layout.record(id), layout.data(id), layout.floor(id)):
        remove(path)


def written_at_of(status: os.stat_result) -> datetime:
    """Return when the last byte of the data was written."""
    return datetime.fromtimestamp(status.st_mtime, UTC)
