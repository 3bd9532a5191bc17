"""Bytes from file to file, with the kernel's help and without."""

from __future__ import annotations

import asyncio
import errno
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.storage.test_conformance import partial, pending
from tests.storage.uploads import ID, content
from tusd_py.errors import StorageFailed, StorageFull
from tusd_py.storage import concatenation
from tusd_py.storage.copying import copy_range
from tusd_py.storage.disk import DiskStore

DATA = bytes(range(256)) * 20


def copied(folder: Path, start: int, size: int, *, offset: int = 0) -> tuple[bytes, list[int]]:
    """Return what is in the target then, and the ends that were told."""
    source, target, ends = folder / "source", folder / "target", list[int]()
    source.write_bytes(DATA)
    target.write_bytes(b"-" * offset)
    reading, writing = os.open(source, os.O_RDONLY), os.open(target, os.O_WRONLY)
    try:
        copy_range(reading, start, writing, offset, size, ends.append)
    finally:
        os.close(reading)
        os.close(writing)
    return target.read_bytes(), ends


def test_a_range_is_copied_to_its_place(tmp_path: Path) -> None:
    content, ends = copied(tmp_path, 100, 2000, offset=7)
    assert content == b"-" * 7 + DATA[100:2100]
    assert ends[-1] == 2007


def test_no_byte_passes_through_us_where_the_kernel_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "pread")
    assert copied(tmp_path, 0, len(DATA))[0] == DATA


@pytest.mark.parametrize("number", [errno.EXDEV, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP])
@pytest.mark.parametrize("after", [0, 1])
def test_what_the_kernel_does_not_copy_is_read_and_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, after: int
) -> None:
    copy, calls = os.copy_file_range, list[int]()

    def incapable(source: int, target: int, count: int, *offsets: int) -> int:
        calls.append(count)
        if len(calls) > after:
            raise OSError(number, "not here")
        return copy(source, target, 1000, *offsets)

    monkeypatch.setattr(os, "copy_file_range", incapable)
    assert copied(tmp_path, 5, 5000)[0] == DATA[5:5005]


def test_a_kernel_that_copies_nothing_and_says_so_without_an_error_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "copy_file_range", lambda *args: 0)
    assert copied(tmp_path, 0, 5000)[0] == DATA[:5000]


def test_where_there_is_no_such_call_bytes_are_copied_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "copy_file_range")
    assert copied(tmp_path, 0, 5000)[0] == DATA[:5000]


def test_a_source_that_is_shorter_than_it_was_is_noticed(tmp_path: Path) -> None:
    with pytest.raises(StorageFailed):
        copied(tmp_path, 0, len(DATA) + 1)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_is_full_in_the_middle_keeps_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    copy, calls = os.copy_file_range, list[int]()

    def full(*args: Any) -> int:
        calls.append(1)
        if len(calls) > 2:
            raise OSError(number, "full")
        return copy(*args)

    async def scene() -> None:
        store = DiskStore(tmp_path / "uploads")
        member = await partial(store, "the-only-partial", DATA)
        final = await pending(store, member)
        monkeypatch.setattr(concatenation, "PIECE_SIZE", 1000)
        with monkeypatch.context() as patch:
            patch.setattr(os, "copy_file_range", full)
            with pytest.raises(StorageFull):
                await store.concatenate(final, [member])
        assert (tmp_path / "uploads" / "partial" / f"{ID}.part").stat().st_size == 0
        assert await store.get(ID) == final
        final = await store.concatenate(final, [member])
        assert await content(store, final) == DATA
        await store.close()

    asyncio.run(scene())


def test_a_concatenation_that_is_cancelled_keeps_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene() -> None:
        store = DiskStore(tmp_path / "uploads")
        member = await partial(store, "the-only-partial", DATA)
        final = await pending(store, member, member)
        monkeypatch.setattr(concatenation, "PIECE_SIZE", 1000)
        begun, loop, copy = asyncio.Event(), asyncio.get_running_loop(), os.copy_file_range

        def telling(*args: Any) -> int:
            loop.call_soon_threadsafe(begun.set)
            return copy(*args)

        monkeypatch.setattr(os, "copy_file_range", telling)
        copying = asyncio.create_task(store.concatenate(final, [member, member]))
        data = tmp_path / "uploads" / "partial" / f"{ID}.part"
        await begun.wait()
        copying.cancel()
        with pytest.raises(asyncio.CancelledError):
            await copying
        assert data.stat().st_size == 0
        assert await store.get(ID) == replace(final, written_at=(await store.get(ID)).written_at)
        await store.close()

    asyncio.run(scene())


def test_descriptors_are_given_back(tmp_path: Path) -> None:
    async def scene() -> None:
        store = DiskStore(tmp_path / "uploads")
        member = await partial(store, "the-only-partial", DATA)
        final = await pending(store, *[member] * 50)
        before = os.listdir("/proc/self/fd")
        await store.concatenate(final, [member] * 50)
        assert len(os.listdir("/proc/self/fd")) == len(before)
        await store.close()

    asyncio.run(scene())
