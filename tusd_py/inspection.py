"""Looking at uploads and removing them without a server, or beside one: what ``tusd-py list`` and its like do."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime
from typing import TypedDict

from tusd_py.build import Parts
from tusd_py.errors import UploadNotFound
from tusd_py.protocol import rules
from tusd_py.protocol.rules import Limits
from tusd_py.storage.disk import DiskStore
from tusd_py.upload import Upload


class Row(TypedDict):
    """What is told of an upload. Sizes are in bytes, times are ISO 8601; ``None`` where there is none."""

    id: str
    state: str
    offset: int
    length: int | None
    filename: str
    metadata: dict[str, str]
    created_at: str
    written_at: str
    completed_at: str | None
    expires_at: str | None
    path: str | None


async def rows(store: DiskStore, limits: Limits, *, complete: bool) -> AsyncIterator[Row]:
    """Give the unfinished uploads, or the complete ones."""
    async for upload in store.list(complete=complete):
        yield build_row(store, upload, limits)


async def row(store: DiskStore, limits: Limits, id: str) -> Row:
    """Return what is told of the upload ``id``.

    Raises:
        UploadNotFound: there is none.
    """
    return build_row(store, await store.get(id), limits)


def build_row(store: DiskStore, upload: Upload, limits: Limits) -> Row:
    path = store.data_path(upload.id)
    return Row(
        id=upload.id,
        state="complete" if upload.is_complete else "unfinished",
        offset=upload.offset,
        length=upload.length,
        filename=upload.metadata.filename,
        metadata={name: value.decode("utf-8", "replace") for name, value in upload.metadata.pairs},
        created_at=upload.created_at.isoformat(),
        written_at=upload.written_at.isoformat(),
        completed_at=_written(upload.completed_at),
        expires_at=_written(rules.expires_at(upload, limits)),
        path=str(path) if path else None,
    )


def build_line(row: Row) -> str:
    """Return an upload in one line for people."""
    length = "?" if row["length"] is None else row["length"]
    return f"{row['id']}  {row['offset']}/{length}  {plain(row['filename'])}"


def row_lines(row: Row) -> list[str]:
    """Return everything that is told of an upload, for people."""
    lines: list[str] = []
    for name, value in row.items():
        lines.append(_told(name, "" if name == "metadata" else value))
        if name == "metadata":
            lines.extend(_told(f"  {key}", text) for key, text in row["metadata"].items())
    return lines


def _told(name: str, value: object) -> str:
    return f"{plain(name)}: {'-' if value is None else plain(str(value))}".rstrip()


def plain(text: str) -> str:
    """Return ``text`` without what would do something to a terminal: names in a folder and of clients may hold it."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


async def terminate(parts: Parts, id: str) -> None:
    """Remove an upload; a request that is writing to it is ended first, in whatever process it runs.

    Finals that wait for it hear of it at once, and go too.

    Raises:
        UploadNotFound: there is none.
        UploadLocked: it was not let go in time.
    """
    await parts.locks.open()  # without it nobody in another process would hear us
    try:
        await parts.store.get(id)
        try:
            await parts.lifecycle.terminate(id, even_expired=True)
        except UploadNotFound:
            # Of a finished upload whose data was taken away there is nothing to lock, and only a record to remove. A
            # form that is ended has removed its upload by itself.
            await parts.store.delete(id)
    finally:
        await parts.locks.close()


def _written(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
