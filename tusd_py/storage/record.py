"""The record of an upload on the disk: what is known about it, as JSON, and nothing that can be measured.

A record comes from outside: it may be torn by a crash, written by another version or planted by hand. One that cannot
be read makes its upload unknown, and no other.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from tusd_py.errors import BadRequest, StorageFailed, UploadNotFound
from tusd_py.protocol.fields import parse_metadata
from tusd_py.storage.layout import FILE_MODE, open_regular, remove, write_all
from tusd_py.upload import Upload, is_id

MAX_RECORD = 256 * 1024  # bytes; a head of the largest accepted size makes a record of little more than half of this

# The extension becomes part of a path, so it has a grammar like the id.
EXTENSION_GRAMMAR = r"^(\.[A-Za-z0-9_-]{1,32}){0,2}$"


Moment = Annotated[AwareDatetime, AfterValidator(lambda moment: moment.astimezone(UTC))]


class Record(BaseModel):
    """The recorded attributes of an ``Upload``; times are aware, ``metadata`` is the header field as received."""

    model_config = ConfigDict(frozen=True, strict=True)

    version: Literal[1] = 1
    id: str
    created_at: Moment
    length: Annotated[int, Field(ge=0, lt=2**63)] | None
    metadata: str
    extension: Annotated[str, Field(pattern=EXTENSION_GRAMMAR)]
    completed_at: Moment | None
    concat: str = ""
    is_partial: bool = False
    members: tuple[str, ...] = ()
    awaited_by: tuple[str, ...] = ()
    ends_by_word: bool = False
    is_ended: bool = False
    repr_digest: str = ""

    @classmethod
    def of(cls, upload: Upload) -> Record:
        """Return what is recorded of ``upload``.

        Raises:
            UploadNotFound: its id is none.
            StorageFailed: it holds what could not be read again, an extension that is none for example.
        """
        if not is_id(upload.id):
            raise UploadNotFound
        try:
            return cls(
                id=upload.id,
                created_at=upload.created_at,
                length=upload.length,
                metadata=upload.metadata.field,
                extension=upload.extension,
                completed_at=upload.completed_at,
                concat=upload.concat,
                is_partial=upload.is_partial,
                members=upload.members,
                awaited_by=upload.awaited_by,
                ends_by_word=upload.ends_by_word,
                is_ended=upload.is_ended,
                repr_digest=upload.repr_digest,
            )
        except ValidationError as error:
            raise StorageFailed from error

    def upload(self, *, offset: int, written_at: datetime) -> Upload:
        """Return the upload that this record and the measured attributes make.

        Raises:
            BadRequest: the metadata is malformed.
        """
        return Upload(
            id=self.id,
            created_at=self.created_at,
            length=self.length,
            metadata=parse_metadata(self.metadata),
            extension=self.extension,
            completed_at=self.completed_at,
            concat=self.concat,
            is_partial=self.is_partial,
            members=self.members,
            awaited_by=self.awaited_by,
            ends_by_word=self.ends_by_word,
            is_ended=self.is_ended,
            repr_digest=self.repr_digest,
            offset=offset,
            written_at=written_at,
        )


def read_record(path: str, id: str) -> Record | None:
    """Return the record of upload ``id`` at ``path``, ``None`` when there is none that can be read."""
    opened = open_regular(path, os.O_RDONLY)
    if opened is None:
        return None
    descriptor, status = opened
    try:
        if status.st_size > MAX_RECORD:
            return None
        content = os.read(descriptor, MAX_RECORD)
    finally:
        os.close(descriptor)
    try:
        record = Record.model_validate_json(content)
        parse_metadata(record.metadata)
    except (ValidationError, BadRequest, OverflowError):
        return None
    return record if record.id == id else None


def write_record(record: Record, path: str, *, temporary: str, durable: bool) -> None:
    """Put ``record`` at ``path``, whole or not at all, by way of the name ``temporary``.

    With ``durable`` its bytes are on the disk before the name is; the folder is the caller's to sync.
    """
    create_record(record, temporary, durable=durable)
    try:
        os.rename(temporary, path)
    except OSError:
        remove(temporary)
        raise


def create_record(record: Record, path: str, *, durable: bool) -> None:
    """Put ``record`` at ``path``, where nothing is. An error leaves nothing there, a crash maybe the half of it."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, FILE_MODE)
    try:
        try:
            write_all(descriptor, record.model_dump_json().encode(), 0)
            if durable:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError:
        remove(path)
        raise
