"""What only a disk can do: what lies where, what somebody planted there, and all the ways in which it fails."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import json
import os
import re
import stat
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.storage.uploads import ID, NOW, completed, content, files, ids, new, stored
from tusd_py.errors import (
    StorageFailed,
    StorageFull,
    StorageUnavailable,
    UploadError,
    UploadNotFound,
)
from tusd_py.storage import completion
from tusd_py.storage.base import Store
from tusd_py.storage.disk import DiskStore
from tusd_py.storage.faults import translated
from tusd_py.storage.layout import open_regular
from tusd_py.storage.record import MAX_RECORD
from tusd_py.web.wire import MAX_HEAD

OTHER = "another-upload-0001"
LATER = datetime.now(UTC) + timedelta(days=1)

PARTIAL = {f"partial/{ID}.part", f"partial/{ID}.json", f"partial/{ID}.floor"}


def modes(folder: Path) -> set[tuple[bool, int]]:
    return {(path.is_dir(), stat.S_IMODE(path.stat().st_mode)) for path in [folder, *folder.rglob("*")]}


# ── what lies where ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_building_a_store_touches_nothing(tmp_path: Path) -> None:
    DiskStore(tmp_path / "uploads")
    assert not list(tmp_path.iterdir())


def test_a_store_that_was_never_opened_is_empty_and_opens_itself(tmp_path: Path) -> None:
    async def scene() -> None:
        store = DiskStore(tmp_path / "deep" / "uploads")
        assert await ids(store.list()) == await ids(store.list(complete=True)) == set()
        assert await store.tidy(before=LATER) == []
        with pytest.raises(UploadNotFound):
            await store.get(ID)
        assert (await completed(store)).is_complete

    asyncio.run(scene())


def test_unfinished_uploads_lie_in_partial_and_complete_ones_in_the_open(tmp_path: Path) -> None:
    async def scene() -> None:
        store = DiskStore(tmp_path)
        upload = await stored(store, await store.create(new()), b"0123456789")
        assert files(tmp_path).keys() == PARTIAL
        assert store.data_path(ID) == tmp_path / "partial" / f"{ID}.part"
        await store.finish(replace(upload, completed_at=NOW))
        assert files(tmp_path).keys() == {f"records/{ID}.json", f"{ID}.mp4"}
        assert store.data_path(ID) == tmp_path / f"{ID}.mp4"
        await store.delete(ID)
        assert not files(tmp_path)
        assert store.data_path(ID) is None
        assert store.data_path("../etc/passwd") is None

    asyncio.run(scene())


def test_everything_is_for_its_owner_alone(tmp_path: Path) -> None:
    async def scene() -> None:
        store = DiskStore(tmp_path / "uploads")
        await store.create(new(OTHER))
        await completed(store)

    mask = os.umask(0)
    try:
        asyncio.run(scene())
    finally:
        os.umask(mask)
    assert modes(tmp_path / "uploads") == {(True, 0o700), (False, 0o600)}


def test_a_folder_that_is_there_keeps_its_mode(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    asyncio.run(DiskStore(tmp_path).open())
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755


def test_two_stores_on_one_folder_see_the_same_uploads(tmp_path: Path) -> None:
    async def scene() -> None:
        one, other = DiskStore(tmp_path), DiskStore(tmp_path)
        upload = await stored(one, await one.create(new()), b"01234")
        assert await other.get(ID) == upload
        upload = await stored(other, upload, b"56789")
        upload = await one.finish(replace(upload, completed_at=NOW))
        assert await other.finish(replace(upload, completed_at=NOW)) == upload

    asyncio.run(scene())


def test_a_complete_upload_whose_data_was_taken_away_is_still_known(tmp_path: Path) -> None:
    async def scene() -> None:
        store = DiskStore(tmp_path)
        upload = await completed(store)
        (tmp_path / f"{ID}.mp4").unlink()
        found = await store.get(ID)
        assert found == replace(upload, written_at=NOW)
        with pytest.raises(UploadNotFound):
            await content(store, found)
        # Something has to be locked all the same, or it could never be terminated.
        assert store.data_path(ID) == tmp_path / "records" / f"{ID}.json"
        await store.delete(ID)
        assert not files(tmp_path)

    asyncio.run(scene())


def test_a_finish_that_was_cut_short_behind_the_rename_is_ended_before_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name in the folder was not durable; whoever is told of it may rely on it."""
    synced: list[str] = []

    def sync(path: str) -> None:
        synced.append(path)
        if synced.count(str(tmp_path)) == 1:
            raise OSError(errno.EIO, "the disk is sick for a moment")

    async def scene() -> None:
        store = DiskStore(tmp_path)
        upload = await stored(store, await store.create(new()), b"0123456789")
        monkeypatch.setattr(completion, "sync_folder", sync)
        with pytest.raises(StorageFailed):
            await store.finish(replace(upload, completed_at=NOW))
        assert (tmp_path / f"{ID}.mp4").exists()
        assert (await store.get(ID)).is_complete
        assert synced.count(str(tmp_path)) == 2
        assert not list((tmp_path / "partial").iterdir())

    asyncio.run(scene())


def test_a_finish_that_was_cut_short_is_ended_by_a_look_at_the_list(tmp_path: Path) -> None:
    async def scene() -> None:
        store = DiskStore(tmp_path)
        await completed(store)
        left = tmp_path / "partial" / f"{ID}.json"
        left.write_bytes((tmp_path / "records" / f"{ID}.json").read_bytes())
        assert await ids(store.list()) == set()
        assert not left.exists()

    asyncio.run(scene())


def test_a_record_with_a_time_that_no_calendar_has_makes_its_upload_unknown_and_no_other(tmp_path: Path) -> None:
    async def scene() -> None:
        store = DiskStore(tmp_path)
        await store.create(new())
        record = tmp_path / "partial" / f"{ID}.json"
        text = json.loads(record.read_text())
        record.write_text(json.dumps({**text, "created_at": "0001-01-01T00:00:00+23:00"}))
        with pytest.raises(UploadNotFound):
            await store.get(ID)
        await store.create(new(OTHER, length=5))
        assert await ids(store.list()) == {OTHER}

    asyncio.run(scene())


def test_a_length_that_is_declared_later_has_to_fit_as_well(mounted: Callable[[str], Path]) -> None:
    folder = mounted("size=1m")

    async def scene(store: DiskStore) -> None:
        upload = await store.create(new(length=None))
        with pytest.raises(StorageFull):
            await store.save(replace(upload, length=10_000_000))
        assert (await store.get(ID)).length is None

    asyncio.run(scene(DiskStore(folder / "uploads")))


def test_a_completion_states_nothing_before_it_is_durable(tmp_path: Path) -> None:
    steps = []

    def watch(patch: pytest.MonkeyPatch, name: str) -> None:
        real: Callable[..., Any] = getattr(os, name)

        def watched(*args: Any) -> Any:
            paths = [os.readlink(f"/proc/self/fd/{arg}") if isinstance(arg, int) else arg for arg in args]
            steps.append((name, *(re.sub(r"\.[0-9a-f]{16}\.", ".", os.path.relpath(path, tmp_path)) for path in paths)))
            return real(*args)

        patch.setattr(os, name, watched)

    async def scene(store: DiskStore) -> None:
        upload = await stored(store, await store.create(new()), b"0123456789")
        with pytest.MonkeyPatch.context() as patch:
            for name in ("fdatasync", "fsync", "rename", "unlink"):
                watch(patch, name)
            await store.finish(replace(upload, completed_at=NOW))

    asyncio.run(scene(DiskStore(tmp_path)))
    assert steps == [
        ("fdatasync", f"partial/{ID}.part"),
        ("fsync", f"partial/.{ID}.tmp"),
        ("rename", f"partial/.{ID}.tmp", f"records/{ID}.json"),
        ("fsync", "records"),
        ("rename", f"partial/{ID}.part", f"{ID}.mp4"),
        ("fsync", "."),
        ("unlink", f"partial/{ID}.json"),
        ("unlink", f"partial/{ID}.part"),
        ("unlink", f"partial/{ID}.floor"),
    ]


@pytest.mark.parametrize("extension", ["/../../evil", ".mp4/x", "mp4", ".", "..", ".a\0", ".mp4\n", "." + "a" * 99])
def test_an_extension_that_is_none_never_becomes_a_path(tmp_path: Path, extension: str) -> None:
    async def scene() -> None:
        store = DiskStore(tmp_path)
        upload = await store.create(new(length=0))
        with pytest.raises(StorageFailed):
            await store.finish(replace(upload, extension=extension, completed_at=NOW))
        assert files(tmp_path).keys() == PARTIAL

    asyncio.run(scene())


# ── what somebody planted ────────────────────────────────────────────────────────────────────────────────────────────

RECORDS: dict[str, bytes] = {
    "empty": b"",
    "torn": b'{"version":1,"id":"' + ID.encode(),
    "of NULs": bytes(200),
    "no object": b"[]",
    "of wrong types": b'{"version":"1","id":7,"created_at":"soon","length":"10","metadata":[],"extension":0}',
    "huge": b" " * (MAX_RECORD + 1),
    "deep": b"[" * 100_000,
}

CHANGES: dict[str, tuple[bytes, bytes]] = {
    "of another version": (b'"version":1', b'"version":2'),
    "of another upload": (ID.encode(), OTHER.encode()),
    "with a negative length": (b'"length":10', b'"length":-10'),
    "with an endless length": (b'"length":10', b'"length":1e400'),
    "with an extension that is a path": (b".mp4", b"/../../x"),
    "with metadata that is malformed": (b'"metadata":"', b'"metadata":",,'),
    "with a time without a zone": (b"05Z", b"05"),
}


def spoil(path: Path, kind: str) -> None:
    if kind in RECORDS:
        path.write_bytes(RECORDS[kind])
        return
    before, after = CHANGES[kind]
    content = path.read_bytes()
    assert before in content
    path.write_bytes(content.replace(before, after))


@pytest.mark.parametrize("kind", [*RECORDS, *CHANGES])
@pytest.mark.parametrize("finished", [False, True])
def test_a_record_that_cannot_be_read_makes_its_upload_unknown_and_no_other(
    tmp_path: Path, kind: str, finished: bool
) -> None:
    async def scene() -> None:
        store = DiskStore(tmp_path)
        for id in (ID, OTHER):
            await (completed(store, id=id) if finished else store.create(new(id)))
        folder = tmp_path / ("records" if finished else "partial")
        spoil(folder / f"{ID}.json", kind)
        with pytest.raises(UploadNotFound):
            await store.get(ID)
        assert await ids(store.list(complete=finished)) == {OTHER}
        assert (await store.get(OTHER)).id == OTHER

    asyncio.run(scene())


def test_a_record_from_before_there_was_concatenation_is_read(tmp_path: Path) -> None:
    async def scene() -> None:
        store = DiskStore(tmp_path)
        upload = await store.create(new())
        path = tmp_path / "partial" / f"{ID}.json"
        known = json.loads(path.read_text())
        for name in ("concat", "is_partial", "members", "awaited_by"):
            del known[name]
        path.write_text(json.dumps(known))
        assert await store.get(ID) == upload

    asyncio.run(scene())


def test_the_record_of_a_final_with_the_longest_list_is_read(tmp_path: Path) -> None:
    async def scene() -> None:
        store = DiskStore(tmp_path)
        members = tuple(f"{number:016}" for number in range(MAX_HEAD // 17))
        final = await store.create(replace(new(), concat="final;" + " ".join(members), members=members))
        assert await store.get(ID) == final
        final = await store.create(replace(new(OTHER), concat='"' * MAX_HEAD, members=members[:1]))
        assert await store.get(OTHER) == final

    asyncio.run(scene())


def plant_fifo(path: Path) -> None:
    os.mkfifo(path)


def plant_folder(path: Path) -> None:
    path.mkdir()


def plant_link(path: Path) -> None:
    target = path.parent.parent.parent / "outside"
    target.write_bytes(b"secret")
    path.symlink_to(target)


def plant_dangling_link(path: Path) -> None:
    path.symlink_to(path.parent.parent.parent / "to-be-made")


def plant_hard_link(path: Path) -> None:
    target = path.parent.parent.parent / "outside"
    target.write_bytes(b"secret")
    path.hardlink_to(target)


PLANTS: list[Callable[[Path], None]] = [plant_fifo, plant_folder, plant_link, plant_dangling_link]


@pytest.mark.parametrize("plant", PLANTS)
@pytest.mark.parametrize("kind", ["part", "json"])
def test_what_is_no_regular_file_is_not_there_and_is_left_alone(
    tmp_path: Path, plant: Callable[[Path], None], kind: str
) -> None:
    async def scene() -> None:
        store = DiskStore(tmp_path / "uploads")
        upload = await stored(store, await store.create(new()), b"01234")
        planted = tmp_path / "uploads" / "partial" / f"{ID}.{kind}"
        planted.unlink()
        plant(planted)
        with pytest.raises(UploadNotFound):
            await store.get(ID)
        with pytest.raises(UploadNotFound):
            await store.save(upload)
        assert await ids(store.list()) == set()
        assert await store.tidy(before=LATER) == []

    asyncio.run(scene())
    assert os.path.lexists(tmp_path / "uploads" / "partial" / f"{ID}.{kind}")
    assert files(tmp_path).get("outside", b"secret") == b"secret"
    assert "to-be-made" not in files(tmp_path)


@pytest.mark.parametrize("plant", [*PLANTS, plant_hard_link])
def test_an_upload_whose_floor_is_not_our_own_file_is_unknown(tmp_path: Path, plant: Callable[[Path], None]) -> None:
    """Never begun anew: what its floor said is not known any more."""

    async def scene() -> None:
        store = DiskStore(tmp_path / "uploads")
        await stored(store, await store.create(new()), b"01234")
        floor = tmp_path / "uploads" / "partial" / f"{ID}.floor"
        floor.unlink()
        plant(floor)
        with pytest.raises(UploadNotFound):
            await store.get(ID)
        assert await ids(store.list()) == set()

    asyncio.run(scene())
    assert (tmp_path / "uploads" / "partial" / f"{ID}.part").read_bytes() == b"01234"


@pytest.mark.parametrize("kind", ["part", "json"])
def test_a_file_with_a_second_name_is_not_an_upload_of_ours(tmp_path: Path, kind: str) -> None:
    """Whoever planted it means us to write into another file."""

    async def scene() -> None:
        store = DiskStore(tmp_path / "uploads")
        upload = await stored(store, await store.create(new()), b"01234")
        (tmp_path / "second").hardlink_to(tmp_path / "uploads" / "partial" / f"{ID}.{kind}")
        with pytest.raises(UploadNotFound):
            await store.get(ID)
        if kind == "part":
            with pytest.raises(UploadNotFound):
                await stored(store, upload, b"56789")

    asyncio.run(scene())


def test_finished_data_may_be_linked_by_those_who_use_it(tmp_path: Path) -> None:
    async def scene() -> None:
        store = DiskStore(tmp_path / "uploads")
        upload = await completed(store)
        (tmp_path / "taken.mp4").hardlink_to(tmp_path / "uploads" / f"{ID}.mp4")
        assert await store.get(ID) == upload
        assert await content(store, upload) == b"0123456789"

    asyncio.run(scene())


@pytest.mark.parametrize("change", [b"0123", b"0123456789ab"])
def test_a_finished_upload_whose_data_has_another_size_is_gone(tmp_path: Path, change: bytes) -> None:
    async def scene() -> None:
        store = DiskStore(tmp_path)
        await completed(store)
        (tmp_path / f"{ID}.mp4").write_bytes(change)
        with pytest.raises(UploadNotFound):
            await store.get(ID)
        assert await ids(store.list(complete=True)) == set()
        await store.delete(ID)
        assert not files(tmp_path)

    asyncio.run(scene())


@pytest.mark.parametrize("name", ["", "partial", "records"])
def test_a_folder_that_everybody_may_write_to_is_refused(tmp_path: Path, name: str) -> None:
    asyncio.run(DiskStore(tmp_path).open())
    (tmp_path / name).chmod(0o707)
    with pytest.raises(StorageUnavailable):
        asyncio.run(DiskStore(tmp_path).open())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a folder away")
@pytest.mark.parametrize("name", ["", "partial", "records"])
def test_a_folder_of_somebody_else_is_refused(tmp_path: Path, name: str) -> None:
    asyncio.run(DiskStore(tmp_path).open())
    os.chown(tmp_path / name, 12345, -1)
    with pytest.raises(StorageUnavailable):
        asyncio.run(DiskStore(tmp_path).open())


def test_a_link_in_the_place_of_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "uploads").mkdir()
    (tmp_path / "uploads" / "partial").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StorageFailed):
        asyncio.run(DiskStore(tmp_path / "uploads").open())


def test_a_record_that_we_may_not_read_makes_its_upload_unknown_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scene(store: DiskStore) -> None:
        await store.create(new())
        await store.create(new(OTHER))
        real = os.open

        def refusing(path: str, *args: Any) -> int:
            if str(path).endswith(f"partial/{ID}.json"):
                raise PermissionError(errno.EACCES, "no")
            return real(path, *args)

        monkeypatch.setattr(os, "open", refusing)
        with pytest.raises(UploadNotFound):
            await store.get(ID)
        assert await ids(store.list()) == {OTHER}

    asyncio.run(scene(DiskStore(tmp_path)))


def test_a_record_that_the_disk_cannot_read_hides_no_other_and_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scene(store: DiskStore) -> None:
        await store.create(new())
        await store.create(new(OTHER))
        real = os.open

        def failing(path: str, *args: Any) -> int:
            if str(path).endswith(f"partial/{ID}.json"):
                raise OSError(errno.EIO, "no")
            return real(path, *args)

        monkeypatch.setattr(os, "open", failing)
        with pytest.raises(StorageFailed):
            await store.get(ID)
        assert await ids(store.list()) == {OTHER}
        assert await store.tidy(before=LATER) == []

    asyncio.run(scene(DiskStore(tmp_path)))


@pytest.mark.parametrize("plant", PLANTS)
def test_a_place_that_is_taken_is_not_written_through(tmp_path: Path, plant: Callable[[Path], None]) -> None:
    async def scene() -> None:
        store = DiskStore(tmp_path / "uploads")
        await store.open()
        plant(tmp_path / "uploads" / "partial" / f"{ID}.part")
        with pytest.raises(StorageFailed):
            await store.create(new())

    asyncio.run(scene())
    assert not files(tmp_path / "uploads")
    assert files(tmp_path).get("outside", b"secret") == b"secret"


@pytest.mark.parametrize("plant", PLANTS)
def test_what_has_the_name_of_a_finished_upload_is_set_aside_and_overwritten_by_nothing(
    tmp_path: Path, plant: Callable[[Path], None]
) -> None:
    async def scene() -> None:
        store = DiskStore(tmp_path / "uploads")
        upload = await stored(store, await store.create(new()), b"0123456789")
        (tmp_path / "uploads" / "aside").mkdir()
        (tmp_path / "uploads" / "aside" / f"{ID}.mp4").write_bytes(b"set aside before")
        plant(tmp_path / "uploads" / f"{ID}.mp4")
        planted = (tmp_path / "uploads" / f"{ID}.mp4").lstat()
        finished = await store.finish(replace(upload, completed_at=NOW))
        assert await content(store, finished) == b"0123456789"
        [found] = (tmp_path / "uploads" / "aside").glob(f"{ID}.mp4.*")
        assert (found.lstat().st_ino, found.lstat().st_mode) == (planted.st_ino, planted.st_mode)
        assert (tmp_path / "uploads" / "aside" / f"{ID}.mp4").read_bytes() == b"set aside before"

    asyncio.run(scene())
    assert files(tmp_path).get("outside", b"secret") == b"secret"


def test_nothing_is_set_aside_out_of_the_folder(tmp_path: Path) -> None:
    async def scene() -> None:
        store = DiskStore(tmp_path / "uploads")
        upload = await stored(store, await store.create(new()), b"0123456789")
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "uploads" / "aside").symlink_to(tmp_path / "elsewhere")
        (tmp_path / "uploads" / f"{ID}.mp4").write_bytes(b"foreign")
        with pytest.raises(StorageFailed):
            await store.finish(replace(upload, completed_at=NOW))
        assert await store.get(ID) == upload
        assert (tmp_path / "uploads" / f"{ID}.mp4").read_bytes() == b"foreign"
        (tmp_path / "uploads" / "aside").unlink()
        assert (await store.finish(replace(upload, completed_at=NOW))).is_complete

    asyncio.run(scene())
    assert not list((tmp_path / "elsewhere").iterdir())


# ── leftovers ────────────────────────────────────────────────────────────────────────────────────────────────────────


def leave(folder: Path, *names: str) -> None:
    """Make files that were last written a day ago."""
    for name in names:
        path = folder / name
        path.write_bytes(b"left")
        yesterday = path.stat().st_mtime - 86400
        os.utime(path, (yesterday, yesterday))


LEFTOVERS = {
    f"partial/.{ID}.0123456789abcdef.tmp",
    f"partial/{ID}.part",
    f"partial/{ID}.floor",
    f"partial/{OTHER}.floor",
    "partial/a-torn-upload-0001.json",
    "partial/a-torn-upload-0001.part",
}
FOREIGN = {"partial/notes.txt", "partial/.hidden.tmp", "partial/short.part", "partial/an-upload-with-an-id.part.old"}


@pytest.fixture
def untidy(tmp_path: Path) -> DiskStore:
    store = DiskStore(tmp_path)
    asyncio.run(store.open())
    leave(tmp_path, *LEFTOVERS, *FOREIGN, f"{ID}.mp4")
    return store


def test_tidying_removes_what_nothing_refers_to(untidy: DiskStore, tmp_path: Path) -> None:
    removed = asyncio.run(untidy.tidy(before=datetime.now(UTC) - timedelta(hours=1)))
    assert set(removed) == LEFTOVERS
    assert files(tmp_path).keys() == FOREIGN | {f"{ID}.mp4"}


def test_a_dry_run_tells_the_same_and_removes_nothing(untidy: DiskStore, tmp_path: Path) -> None:
    before = files(tmp_path)
    removed = asyncio.run(untidy.tidy(before=datetime.now(UTC) - timedelta(hours=1), dry_run=True))
    assert set(removed) == LEFTOVERS
    assert files(tmp_path) == before


def test_what_is_young_may_belong_to_an_upload_that_is_being_created(untidy: DiskStore, tmp_path: Path) -> None:
    before = files(tmp_path)
    assert asyncio.run(untidy.tidy(before=datetime.now(UTC) - timedelta(days=2))) == []
    assert files(tmp_path) == before


def test_data_that_somebody_has_locked_stays(untidy: DiskStore, tmp_path: Path) -> None:
    with (tmp_path / "partial" / f"{ID}.part").open("rb") as data:
        fcntl.flock(data, fcntl.LOCK_EX)
        removed = asyncio.run(untidy.tidy(before=LATER))
    assert set(removed) == LEFTOVERS - {f"partial/{ID}.part", f"partial/{ID}.floor"}


def test_the_record_of_a_finished_upload_outlives_a_copy_of_its_data(tmp_path: Path) -> None:
    """A backup that was made meanwhile has both. Without its record, the upload would be gone with its name."""

    async def scene() -> None:
        store = DiskStore(tmp_path)
        upload = await completed(store)
        leave(tmp_path, f"partial/{ID}.part")
        yesterday = datetime.now(UTC).timestamp() - 86400
        os.utime(tmp_path / "records" / f"{ID}.json", (yesterday, yesterday))
        assert await store.tidy(before=datetime.now(UTC) - timedelta(hours=1)) == [f"partial/{ID}.part"]
        assert (await store.get(ID)).metadata == upload.metadata
        assert await content(store, upload) == b"0123456789"

    asyncio.run(scene())


# ── how a disk fails ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.ENOSPC, StorageFull),
        (errno.EDQUOT, StorageFull),
        (errno.EFBIG, StorageFull),
        (errno.EROFS, StorageUnavailable),
        (errno.EACCES, StorageUnavailable),
        (errno.EMFILE, StorageUnavailable),
        (errno.ENFILE, StorageUnavailable),
        (errno.ESTALE, StorageUnavailable),
        (errno.EIO, StorageFailed),
        (errno.ENOENT, StorageFailed),
        (None, StorageFailed),
    ],
)
def test_error_numbers_become_errors_of_ours_that_tell_no_path(number: int | None, expected: type[UploadError]) -> None:
    error = translated(OSError(number, "no", "/srv/uploads/secret") if number else OSError("/srv/uploads/secret"))
    assert type(error) is expected
    assert "/srv" not in str(error)


def fail(monkeypatch: pytest.MonkeyPatch, name: str, number: int, *, after: int = 0) -> None:
    """Let calls of ``os.<name>`` fail once ``after`` of them have been made."""
    real: Callable[..., Any] = getattr(os, name)
    calls = 0

    def failing(*args: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > after:
            raise OSError(number, os.strerror(number))
        return real(*args, **options)

    monkeypatch.setattr(os, name, failing)


def test_a_write_that_takes_less_than_it_is_given_is_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda descriptor, data, offset: real(descriptor, data[:3], offset))

    async def scene() -> None:
        store = DiskStore(tmp_path)
        upload = await completed(store)
        assert await content(store, upload) == b"0123456789"

    asyncio.run(scene())


@pytest.mark.parametrize(("number", "expected"), [(errno.EDQUOT, StorageFull), (errno.EIO, StorageFailed)])
def test_a_write_that_fails_in_the_middle_keeps_what_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, expected: type[UploadError]
) -> None:
    async def scene(store: DiskStore) -> None:
        upload = await stored(store, await store.create(new()), b"01")
        real = os.pwrite
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "pwrite", lambda descriptor, data, offset: real(descriptor, data[:3], offset))
            fail(patch, "pwrite", number, after=2)
            async with store.append(upload) as appender:
                with pytest.raises(expected):
                    await appender.write(b"23456789")
                assert appender.offset == 8
        upload = await store.get(ID)
        assert upload.offset == 8
        assert await content(store, await stored(store, upload, b"89")) == b"0123456789"

    asyncio.run(scene(DiskStore(tmp_path)))


@pytest.mark.parametrize("call", ["pwrite", "rename", "open"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_creation_that_finds_no_room_leaves_nothing(tmp_path: Path, call: str, number: int) -> None:
    async def scene(store: DiskStore) -> None:
        await store.open()
        for after in range(3 if call == "open" else 1):
            with pytest.MonkeyPatch.context() as patch:
                fail(patch, call, number, after=after)
                with pytest.raises(StorageFull):
                    await store.create(new())
            assert not files(tmp_path)

    asyncio.run(scene(DiskStore(tmp_path)))


def test_a_sync_that_fails_is_not_tried_again_and_costs_what_was_not_durable(tmp_path: Path) -> None:
    async def scene(store: DiskStore) -> None:
        upload = await stored(store, await store.create(new()), b"0123")
        with pytest.MonkeyPatch.context() as patch:
            fail(patch, "fdatasync", errno.EIO)
            with pytest.raises(StorageFailed):
                await stored(store, upload, b"4567")
        assert store.failed_syncs == 1
        upload = await store.get(ID)
        assert upload.offset == 4
        assert await content(store, await stored(store, upload, b"456789")) == b"0123456789"

    asyncio.run(scene(DiskStore(tmp_path, fsync="request")))


def test_a_finish_whose_sync_fails_leaves_the_upload_unfinished_at_its_floor(tmp_path: Path) -> None:
    async def scene(store: DiskStore) -> None:
        upload = await stored(store, await store.create(new()), b"0123456789")
        with pytest.MonkeyPatch.context() as patch:
            fail(patch, "fdatasync", errno.EIO)
            with pytest.raises(StorageFailed):
                await store.finish(replace(upload, completed_at=NOW))
        upload = await store.get(ID)
        assert (upload.offset, upload.is_complete) == (0, False)
        assert (await completed_from(store, b"0123456789")).is_complete

    async def completed_from(store: Store, data: bytes) -> Any:
        upload = await stored(store, await store.get(ID), data)
        return await store.finish(replace(upload, completed_at=NOW))

    asyncio.run(scene(DiskStore(tmp_path)))


def test_a_checkpoint_that_fails_ends_the_append_at_the_floor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tusd_py.storage.appender.CHECKPOINT_SIZE", 1000)

    async def append(store: DiskStore) -> None:
        async with store.append(await store.create(new(length=None))) as appender:
            for _ in range(100):
                await appender.write(b"x" * 100)
            await appender.commit()

    async def scene(store: DiskStore) -> None:
        with pytest.MonkeyPatch.context() as patch:
            fail(patch, "fdatasync", errno.EIO, after=4)
            with pytest.raises(StorageFailed):
                await append(store)
        assert (await store.get(ID)).offset == 2000

    asyncio.run(scene(DiskStore(tmp_path)))


@pytest.mark.parametrize("number", [errno.EROFS, errno.EMFILE])
def test_a_store_that_cannot_write_says_so_and_recovers(tmp_path: Path, number: int) -> None:
    async def scene(store: DiskStore) -> None:
        upload = await store.create(new())
        with pytest.MonkeyPatch.context() as patch:
            fail(patch, "open", number)
            for attempt in (store.create(new(OTHER)), stored(store, upload, b"x"), store.save(upload)):
                with pytest.raises(StorageUnavailable):
                    await attempt
        assert (await stored(store, upload, b"x")).offset == 1

    asyncio.run(scene(DiskStore(tmp_path)))


def test_a_read_that_fails_in_the_middle_fails_aloud(tmp_path: Path) -> None:
    async def scene(store: DiskStore) -> None:
        upload = await completed(store)
        os.truncate(tmp_path / f"{ID}.mp4", 4)
        chunks = store.read(upload)
        assert await anext(chunks) == b"0123"
        with pytest.raises(StorageFailed):
            await anext(chunks)

    asyncio.run(scene(DiskStore(tmp_path)))


# ── a disk that is full ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts a small file system in memory, with the options that it is given."""
    folder = tmp_path / "mounted"
    folder.mkdir()

    def mount(options: str) -> Path:
        if os.geteuid() != 0:
            pytest.skip("only root may mount the small disk that this test fills")
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        if subprocess.run(command, capture_output=True, check=False).returncode != 0:
            pytest.skip("the small disk that this test fills cannot be mounted here")
        return folder

    yield mount
    if folder.is_mount():
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_an_upload_on_a_full_disk_keeps_what_fitted_and_goes_on_once_there_is_room(
    mounted: Callable[[str], Path],
) -> None:
    folder = mounted("size=1m")
    data = os.urandom(600_000)

    async def scene(store: DiskStore) -> None:
        await store.create(new(OTHER, length=None))
        upload = await store.create(new(length=None))
        ballast = folder / "ballast"
        ballast.write_bytes(bytes(700_000))
        async with store.append(upload) as appender:
            with pytest.raises(StorageFull):
                await appender.write(data)
            assert 0 < appender.offset < len(data)
            told = appender.offset
        upload = await store.get(ID)
        assert upload.offset == told
        with pytest.raises(StorageFull):
            await store.create(new("one-upload-too-many", length=None))
        assert await content(store, upload) == data[:told]
        await store.delete(OTHER)
        assert await ids(store.list()) == {ID}
        ballast.unlink()
        upload = await stored(store, upload, data[told:])
        upload = await store.finish(replace(upload, length=len(data), completed_at=NOW))
        assert await content(store, upload) == data

    asyncio.run(scene(DiskStore(folder / "uploads")))


def test_an_unverified_append_on_a_full_disk_leaves_the_upload_as_it_was(mounted: Callable[[str], Path]) -> None:
    folder = mounted("size=256k")

    async def scene(store: DiskStore) -> None:
        upload = await stored(store, await store.create(new(length=None)), b"0123")
        with pytest.raises(StorageFull):
            await stored(store, upload, bytes(500_000), verified=False)
        upload = await store.get(ID)
        assert upload.offset == 4
        assert await content(store, await stored(store, upload, b"4567", verified=False)) == b"01234567"

    asyncio.run(scene(DiskStore(folder / "uploads")))


def test_a_creation_without_inodes_left_leaves_nothing(mounted: Callable[[str], Path]) -> None:
    folder = mounted("size=1m,nr_inodes=12")

    async def scene(store: DiskStore) -> None:
        for number in range(2):  # of the twelve inodes four are folders, and each upload has three
            await store.create(new(f"one-of-many-uploads-{number}"))
        with pytest.raises(StorageFull):
            await store.create(new())
        assert await ids(store.list()) == {"one-of-many-uploads-0", "one-of-many-uploads-1"}
        assert len(files(folder)) == 6

    asyncio.run(scene(DiskStore(folder / "uploads")))


def test_a_length_that_does_not_fit_beside_the_other_claims_is_refused_at_once(
    mounted: Callable[[str], Path],
) -> None:
    folder = mounted("size=1m")
    seconds = 0.0

    async def scene(store: DiskStore) -> None:
        await store.create(new(length=600_000))
        with pytest.raises(StorageFull):
            await store.create(new(OTHER, length=400_000))  # 100,000 bytes are reserved
        assert await ids(store.list()) == {ID}
        await store.create(new(OTHER, length=200_000))
        # Bytes that arrived are no longer claimed, and what is gone claims nothing.
        await stored(store, await store.get(ID), bytes(600_000))
        await store.delete(OTHER)
        nonlocal seconds
        seconds = 1.0
        await store.create(new(OTHER, length=200_000))

    asyncio.run(scene(DiskStore(folder / "uploads", space_reserve=100_000, monotonic=lambda: seconds)))


def test_claims_of_other_processes_are_seen_after_a_few_seconds(mounted: Callable[[str], Path]) -> None:
    folder = mounted("size=1m")
    seconds = 0.0

    async def scene(one: DiskStore, other: DiskStore) -> None:
        nonlocal seconds
        await one.create(new("one-of-many-uploads-1", length=1))
        await other.create(new("one-of-many-uploads-2", length=700_000))
        seconds = 6.0
        with pytest.raises(StorageFull):
            await one.create(new("one-of-many-uploads-3", length=700_000))

    one, other = (DiskStore(folder / "uploads", monotonic=lambda: seconds) for _ in range(2))
    asyncio.run(scene(one, other))


def test_a_record_that_is_replaced_while_it_is_opened_is_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever asks for the offset in that moment would be told 404, and begin again from byte 0."""
    record, newer = tmp_path / "record", tmp_path / "newer"
    record.write_bytes(b"old")
    newer.write_bytes(b"new")
    really_open = os.open

    def open_and_replace(path: str, flags: int, mode: int) -> int:
        descriptor = really_open(path, flags, mode)
        if newer.exists():
            newer.rename(record)
        return descriptor

    monkeypatch.setattr(os, "open", open_and_replace)
    opened = open_regular(str(record), os.O_RDONLY)
    assert opened is not None
    assert os.read(opened[0], 10) == b"new"
    os.close(opened[0])
