"""Uploads for the tests of stores, and the usual things that are done with them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from tusd_py.protocol.fields import parse_metadata
from tusd_py.storage.base import Store
from tusd_py.upload import Upload

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
ID = "an-upload-with-an-id"


def new(id: str = ID, *, length: int | None = 10, extension: str = ".mp4") -> Upload:
    return Upload(
        id=id,
        created_at=NOW,
        written_at=NOW,
        length=length,
        metadata=parse_metadata("filename d29ybGQubXA0, empty"),
        extension=extension,
    )


async def stored(store: Store, upload: Upload, data: bytes, *, verified: bool = True) -> Upload:
    """Append ``data`` and return the upload as it is then."""
    async with store.append(upload, verified=verified) as appender:
        await appender.commit(data)
    return await store.get(upload.id)


async def abandoned(store: Store, upload: Upload, data: bytes, error: BaseException, *, verified: bool = True) -> None:
    """Append ``data`` and leave the append by ``error``."""
    async with store.append(upload, verified=verified) as appender:
        await appender.write(data)
        raise error


async def completed(store: Store, data: bytes = b"0123456789", id: str = ID) -> Upload:
    upload = await stored(store, await store.create(new(id, length=len(data))), data)
    return await store.finish(replace(upload, completed_at=NOW))


async def content(store: Store, upload: Upload, start: int = 0, stop: int | None = None) -> bytes:
    return b"".join([chunk async for chunk in store.read(upload, start, stop)])


async def ids(uploads: AsyncIterator[Upload]) -> set[str]:
    return {upload.id async for upload in uploads}


def files(folder: Path) -> dict[str, bytes]:
    """Return the content of every regular file below ``folder``, by its relative path."""
    paths = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}
