"""Bounds: the floor, the ceiling, the boot, and slots that were torn."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.storage.uploads import ID, abandoned, content, files, new, stored
from tusd_py.storage.disk import DiskStore
from tusd_py.storage.floor import PAGE, Bounds, create_bounds, read_boot_id, read_bounds, write_bounds
from tusd_py.upload import Upload

SIZES = st.integers(0, 2**63 - 1)


@pytest.mark.parametrize(
    ("bounds", "size", "offset"),
    [
        (Bounds(boot_id="this"), 70, 70),
        (Bounds(boot_id="this", floor=50), 70, 70),
        (Bounds(boot_id="this", floor=90), 70, 70),
        (Bounds(boot_id="this", ceiling=60), 70, 60),
        (Bounds(boot_id="this", ceiling=0), 70, 0),
        (Bounds(boot_id="this", ceiling=80), 70, 70),
        (Bounds(boot_id="other"), 70, 0),
        (Bounds(boot_id="other", floor=50), 70, 50),
        (Bounds(boot_id="other", floor=90), 70, 70),
        (Bounds(boot_id="other", floor=50, ceiling=40), 70, 40),
        (Bounds(boot_id="other", floor=50, ceiling=60), 70, 50),
        (Bounds(), 70, 0),
    ],
)
def test_the_offset_is_the_size_within_its_bounds(bounds: Bounds, size: int, offset: int) -> None:
    assert bounds.offset(size, "this") == offset


@given(st.lists(st.tuples(SIZES, st.none() | SIZES), min_size=1, max_size=5))
def test_what_was_written_last_is_what_is_read(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int, int | None]]
) -> None:
    path = str(tmp_path_factory.mktemp("bounds") / "floor")
    bounds = Bounds(boot_id=read_boot_id())
    create_bounds(path, bounds, durable=False)
    for floor, ceiling in steps:
        assert read_bounds(path) == bounds
        bounds = bounds.next(floor=floor, ceiling=ceiling, boot_id=bounds.boot_id)
        write_bounds(path, bounds, durable=False)
    assert read_bounds(path) == bounds


def test_a_slot_torn_anywhere_costs_one_step_and_no_more(tmp_path: Path) -> None:
    path = tmp_path / "floor"
    bounds = Bounds(boot_id="boot")
    create_bounds(str(path), bounds, durable=False)
    for floor in range(1, 4):
        before, bounds = bounds, bounds.next(floor=floor * 1000, ceiling=None, boot_id="boot")
        old = path.read_bytes()
        write_bounds(str(path), bounds, durable=True)
        new = path.read_bytes()
        start = bounds.sequence % 2 * PAGE
        for end in range(start, start + 72):
            path.write_bytes(new[:end] + old[end:])
            assert read_bounds(str(path)) in (before, bounds)
        path.write_bytes(new)
        assert read_bounds(str(path)) == bounds


@pytest.mark.parametrize("content", [b"", b"\0" * 2 * PAGE, b"\xff" * 2 * PAGE, b"short"])
def test_bounds_that_cannot_be_read_let_nothing_count(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "floor"
    path.write_bytes(content)
    assert read_bounds(str(path)).offset(10, "boot") == 0


def test_bounds_need_no_room_after_their_creation(tmp_path: Path) -> None:
    path = tmp_path / "floor"
    create_bounds(str(path), Bounds(), durable=False)
    before = path.stat()
    for sequence in range(1, 5):
        write_bounds(str(path), Bounds(sequence=sequence), durable=True)
    after = path.stat()
    assert (after.st_ino, after.st_size, after.st_blocks) == (before.st_ino, before.st_size, before.st_blocks)


# ── in a store ───────────────────────────────────────────────────────────────────────────────────────────────────────


def store_in(folder: Path, boot_id: str, level: str = "completion") -> DiskStore:
    return DiskStore(folder, boot_id=boot_id, fsync="request" if level == "request" else "completion")


async def begin(store: DiskStore, data: bytes) -> Upload:
    return await stored(store, await store.create(new(length=None)), data)


def test_in_the_same_boot_the_length_is_the_truth(tmp_path: Path) -> None:
    async def scene() -> None:
        await begin(store_in(tmp_path, "first"), b"01234")
        assert (await store_in(tmp_path, "first").get(ID)).offset == 5

    asyncio.run(scene())


@pytest.mark.parametrize(("level", "offset"), [("completion", 0), ("request", 5)])
def test_after_another_boot_only_what_was_synced_counts(tmp_path: Path, level: str, offset: int) -> None:
    async def scene() -> None:
        await begin(store_in(tmp_path, "first", level), b"01234")
        after = store_in(tmp_path, "second", level)
        upload = await after.get(ID)
        assert upload.offset == offset
        upload = await stored(after, upload, b"abc")
        assert upload.offset == offset + 3
        assert await content(after, upload) == b"01234"[:offset] + b"abc"
        assert (await store_in(tmp_path, "second").get(ID)).offset == offset + 3

    asyncio.run(scene())


def test_looking_an_upload_up_after_another_boot_changes_nothing(tmp_path: Path) -> None:
    async def scene() -> None:
        await begin(store_in(tmp_path, "first"), b"01234")
        before = files(tmp_path)
        await store_in(tmp_path, "second").get(ID)
        assert files(tmp_path) == before

    asyncio.run(scene())


def test_a_floor_above_the_new_end_is_lowered_before_other_bytes_take_its_place(tmp_path: Path) -> None:
    async def scene() -> None:
        store = store_in(tmp_path, "first", "request")
        upload = await begin(store, b"0123456789")
        await abandoned_quietly(store_in(tmp_path, "first"), replace(upload, offset=4))
        assert (await store_in(tmp_path, "second").get(ID)).offset == 4

    async def abandoned_quietly(store: DiskStore, upload: Upload) -> None:
        with pytest.raises(RuntimeError):
            await abandoned(store, upload, b"xxxxxx", RuntimeError("cut"))

    asyncio.run(scene())


def test_a_lost_floor_costs_the_bytes_but_not_the_upload(tmp_path: Path) -> None:
    async def scene() -> None:
        store = store_in(tmp_path, "first")
        await begin(store, b"01234")
        (tmp_path / "partial" / f"{ID}.floor").unlink()
        upload = await store.get(ID)
        assert upload.offset == 0
        upload = await stored(store, upload, b"abc")
        assert (upload.offset, await content(store, upload)) == (3, b"abc")

    asyncio.run(scene())


def test_long_uploads_are_synced_as_they_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tusd_py.storage.appender.CHECKPOINT_SIZE", 1000)

    async def scene() -> None:
        store = store_in(tmp_path, "first")
        upload = await store.create(new(length=None))
        async with store.append(upload) as appender:
            for _ in range(25):
                await appender.write(b"x" * 100)
            await appender.commit()
        assert (await store_in(tmp_path, "second").get(ID)).offset == 2000

    asyncio.run(scene())
