"""``tusd-py verify``: every fault is planted for real, found, mended where it can be, and the upload goes on."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import socket
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.live import Server
from tests.server_process import PATIENCE, ServerProcess, program, surroundings
from tests.storage.uploads import files
from tusd_py.build import assemble
from tusd_py.findings import KINDS, Report
from tusd_py.protocol.fields import parse_metadata
from tusd_py.protocol.rules import Limits
from tusd_py.settings import Settings
from tusd_py.storage.data import Surroundings, UnfinishedData
from tusd_py.storage.disk import DiskStore
from tusd_py.storage.floor import PAGE, read_boot_id
from tusd_py.storage.layout import Layout
from tusd_py.upload import Upload
from tusd_py.verification import Verifier

ID = "an-unfinished-upload-1"
FINISHED = "a-finished-upload-0001"
OTHER = "another-upload-000001"
DATA = bytes(range(1, 101))  # no NULs: those are what a file system leaves for bytes that it lost
HALF = 50
LONG_AGO = 1_000_000_000


@dataclass(frozen=True)
class Folder:
    """An upload folder with an unfinished upload, at half of its bytes, and a finished one."""

    path: Path

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    @property
    def part(self) -> Path:
        return self.path / "partial" / f"{ID}.part"

    @property
    def record(self) -> Path:
        return self.path / "partial" / f"{ID}.json"

    @property
    def floor(self) -> Path:
        return self.path / "partial" / f"{ID}.floor"

    @property
    def finished(self) -> Path:
        return self.path / f"{FINISHED}.bin"

    @property
    def finished_record(self) -> Path:
        return self.path / "records" / f"{FINISHED}.json"

    def names(self) -> set[str]:
        return set(files(self.path))


async def upload(store: DiskStore, id: str, data: bytes) -> Upload:
    now = datetime.now(UTC)
    metadata = parse_metadata("filename d29ybGQubXA0")
    new = Upload(id=id, created_at=now, written_at=now, length=len(DATA), metadata=metadata, extension=".bin")
    found = await store.create(new)
    async with store.append(found) as appender:
        await appender.commit(data)
    return await store.get(id)


async def finish(store: DiskStore, id: str) -> None:
    await store.finish(replace(await store.get(id), completed_at=datetime.now(UTC)))


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    path = tmp_path / "uploads"

    async def scene(store: DiskStore) -> None:
        await upload(store, ID, DATA[:HALF])
        await upload(store, FINISHED, DATA)
        await finish(store, FINISHED)

    asyncio.run(scene(DiskStore(path)))
    return Folder(path)


def look(folder: Folder, *, repair: bool = False) -> Report:
    settings = Settings(upload_dir=folder.path, allowed_upload_extensions="*", partial_upload_expiry_seconds=None)
    parts = assemble(settings)
    assert isinstance(parts.store, DiskStore)
    limits = Limits(max_size=None, partial_expiry=None)
    verifier = Verifier(parts.store, parts.lifecycle, limits, is_durable=True, now=lambda: datetime.now(UTC))
    return asyncio.run(verifier.verify(repair=repair))


def kinds(report: Report, *, notes: bool = False) -> list[str]:
    return [finding.kind.name for finding in report.findings if notes or finding.kind.is_trouble]


def verify(folder: Folder, *flags: str) -> tuple[int, dict[str, Any]]:
    """Verify in a process of its own; return exit code and the object on stdout."""
    done = subprocess.run(
        program("verify", "--upload-dir", str(folder.path), "--allowed-upload-extensions", "*", "--json", *flags),
        capture_output=True,
        text=True,
        env=surroundings(),
        timeout=PATIENCE,
    )
    assert done.stderr == ""
    return done.returncode, json.loads(done.stdout)


# ── the faults ───────────────────────────────────────────────────────────────────────────────────────────────────────


def age(path: Path) -> None:
    os.utime(path, (LONG_AGO, LONG_AGO))


def plant_torn_record(folder: Folder) -> None:
    folder.record.write_bytes(folder.record.read_bytes()[:20])


def plant_huge_record(folder: Folder) -> None:
    folder.record.write_bytes(b" " * 10_000_000)


def plant_foreign_record(folder: Folder) -> None:
    folder.record.write_text(folder.record.read_text().replace(ID, OTHER))


def plant_torn_finished_record(folder: Folder) -> None:
    folder.finished_record.write_bytes(b"")


def plant_record_without_data(folder: Folder) -> None:
    folder.part.unlink()


def plant_data_without_record(folder: Folder) -> None:
    folder.finished_record.unlink()


def plant_torn_floor(folder: Folder) -> None:
    folder.floor.write_bytes(b"\xff" * 2 * PAGE)


def plant_lost_floor(folder: Folder) -> None:
    folder.floor.unlink()


def plant_lost_bytes(folder: Folder) -> None:
    asyncio.run(checkpoint(folder))
    os.truncate(folder.part, 20)


async def checkpoint(folder: Folder) -> None:
    store = DiskStore(folder.path, fsync="request")
    async with store.append(await store.get(ID)) as appender:
        await appender.commit(b"")


def plant_tail(folder: Folder) -> None:
    """What a crash in the middle of an append under a checksum leaves."""
    surroundings = Surroundings(
        layout=Layout(str(folder.path)), boot_id=read_boot_id(), durable=True, suspected=lambda: None
    )
    data = UnfinishedData(ID, surroundings)
    data.begin(HALF, verified=False)
    data.write(b"unverified")
    data.close()


def plant_surplus(folder: Folder) -> None:
    with folder.part.open("ab") as data:
        data.write(bytes(200))


def plant_wrong_size(folder: Folder) -> None:
    os.truncate(folder.finished, 7)


def plant_unmarked(folder: Folder) -> None:
    """What a crash between the last byte and the mark leaves."""
    with folder.part.open("ab") as data:
        data.write(DATA[HALF:])


def plant_half_renamed(folder: Folder) -> None:
    """What a crash between the record of completion and the rename leaves."""
    plant_unmarked(folder)
    record = json.loads(folder.record.read_text()) | {"completed_at": "2026-01-02T03:04:05Z"}
    (folder / f"records/{ID}.json").write_text(json.dumps(record))


def plant_temporary_file(folder: Folder) -> None:
    path = folder / f"partial/.{ID}.0123456789abcdef.tmp"
    path.write_bytes(b'{"ver')
    age(path)


def plant_sidecars(folder: Folder) -> None:
    """What a crash between the rename and the removal of the old record leaves."""
    for kind in ("json", "floor"):
        path = folder / f"partial/{FINISHED}.{kind}"
        path.write_bytes((folder / f"partial/{ID}.{kind}").read_bytes().replace(ID.encode(), FINISHED.encode()))
        age(path)


def plant_orphan(folder: Folder) -> None:
    path = folder / f"partial/{OTHER}.part"
    path.write_bytes(DATA)
    age(path)


def plant_unnamed(folder: Folder) -> None:
    """What a crash before the rename of data that was to be complete at once leaves."""
    plant_orphan(folder)
    record = json.loads(folder.finished_record.read_text()) | {"id": OTHER}
    path = folder / f"records/{OTHER}.json"
    path.write_text(json.dumps(record))
    age(path)


def plant_unnamed_with_a_torn_record(folder: Folder) -> None:
    plant_unnamed(folder)
    path = folder / f"records/{OTHER}.json"
    path.write_bytes(b'{"ver')
    age(path)


def plant_stray(folder: Folder) -> None:
    path = folder / "partial/notes\x1b[2J.txt"
    path.write_text("hello")
    age(path)


def plant_link(folder: Folder) -> None:
    folder.part.unlink()
    folder.part.symlink_to("/etc/passwd")


def plant_hard_link(folder: Folder) -> None:
    (folder.path.parent / "second").hardlink_to(folder.part)


def plant_fifo(folder: Folder) -> None:
    folder.record.unlink()
    os.mkfifo(folder.record)


def plant_folder(folder: Folder) -> None:
    folder.finished_record.unlink()
    folder.finished_record.mkdir()


def plant_fifo_in_the_open(folder: Folder) -> None:
    os.mkfifo(folder / "fifo")


def plant_link_for_finished_data(folder: Folder) -> None:
    folder.finished.unlink()
    folder.finished.symlink_to("/etc/passwd")


def plant_file_among_sockets(folder: Folder) -> None:
    (folder / ".workers").mkdir(mode=0o700)
    (folder / ".workers/0123456789abcdef.sock").write_text("no socket")


def plant_open_folder(folder: Folder) -> None:
    folder.path.chmod(0o777)


def plant_open_record(folder: Folder) -> None:
    folder.record.chmod(0o666)


@dataclass(frozen=True)
class Fault:
    """What is planted, what it is found as, and what is left of the uploads when it is repaired.

    ``offset`` is where the unfinished upload goes on: ``None`` where it is gone (404), -1 where it is finished.
    """

    plant: Callable[[Folder], None]
    kind: str
    offset: int | None = HALF
    is_finished_there: bool = True


FAULTS = [
    Fault(plant_torn_record, "torn-record", offset=None),
    Fault(plant_huge_record, "torn-record", offset=None),
    Fault(plant_foreign_record, "torn-record", offset=None),
    Fault(plant_torn_finished_record, "torn-finished-record"),
    Fault(plant_record_without_data, "no-data", offset=None),
    Fault(plant_data_without_record, "no-record"),
    Fault(plant_torn_floor, "no-floor", offset=0),
    Fault(plant_lost_floor, "no-floor", offset=0),
    Fault(plant_lost_bytes, "short-data", offset=20),
    Fault(plant_tail, "uncounted-tail"),
    Fault(plant_surplus, "too-long", offset=None),
    Fault(plant_wrong_size, "wrong-size", is_finished_there=False),
    Fault(plant_unmarked, "half-finished", offset=-1),
    Fault(plant_half_renamed, "half-finished", offset=-1),
    Fault(plant_temporary_file, "leftover"),
    Fault(plant_sidecars, "leftover"),
    Fault(plant_orphan, "leftover"),
    Fault(plant_unnamed, "leftover"),
    Fault(plant_unnamed_with_a_torn_record, "leftover"),
    Fault(plant_stray, "stray"),
    Fault(plant_link, "planted", offset=None),
    Fault(plant_hard_link, "planted", offset=None),
    Fault(plant_fifo, "planted", offset=None),
    Fault(plant_folder, "planted"),
    Fault(plant_fifo_in_the_open, "planted"),
    Fault(plant_link_for_finished_data, "planted", is_finished_there=False),
    Fault(plant_file_among_sockets, "stray"),
    Fault(plant_open_folder, "open-permissions"),
    Fault(plant_open_record, "open-permissions"),
]


@pytest.fixture
def fault(request: pytest.FixtureRequest) -> Fault:
    fault: Fault = request.param
    return fault


every_fault = pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.plant.__name__, indirect=True)


def test_a_sound_folder_is_sound(folder: Folder) -> None:
    before = files(folder.path)
    report = look(folder, repair=True)
    assert (report.findings, report.exit_code) == ([], 0)
    assert (report.unfinished, report.finished, report.in_use) == (1, 1, 0)
    assert files(folder.path) == before


def test_what_is_just_being_created_complete_is_no_fault(folder: Folder) -> None:
    plant_unnamed_with_a_torn_record(folder)
    for name in (f"partial/{OTHER}.part", f"records/{OTHER}.json"):
        os.utime(folder / name)
    before = files(folder.path)
    assert look(folder, repair=True).findings == []
    assert files(folder.path) == before


@every_fault
def test_a_fault_is_found_and_looking_changes_nothing(folder: Folder, fault: Fault) -> None:
    fault.plant(folder)
    before = files(folder.path)
    report = look(folder)
    assert set(kinds(report)) == {fault.kind}
    assert report.exit_code == 1
    assert files(folder.path) == before


@every_fault
def test_a_repair_leaves_a_sound_folder_and_loses_no_byte_that_counts(folder: Folder, fault: Fault) -> None:
    fault.plant(folder)
    assert look(folder, repair=True).exit_code == 3
    assert look(folder).exit_code == 0

    async def scene(store: DiskStore) -> None:
        there = {found.id: found async for found in store.list()}
        finished = {found.id: found async for found in store.list(complete=True)}
        assert (there[ID].offset if ID in there else None) == (None if fault.offset == -1 else fault.offset)
        assert (ID in finished) == (fault.offset == -1)
        data = store.data_path(FINISHED)
        assert (FINISHED in finished and data is not None and data.suffix != ".json") == fault.is_finished_there
        if ID in there:
            async with store.append(there[ID]) as appender:
                await appender.commit(DATA[there[ID].offset :])
            await finish(store, ID)
            assert (folder / f"{ID}.bin").read_bytes() == DATA
        if ID in finished:
            assert (folder / f"{ID}.bin").read_bytes() == DATA
        if fault.is_finished_there:
            assert b"".join([chunk async for chunk in store.read(finished[FINISHED])]) == DATA

    asyncio.run(scene(DiskStore(folder.path)))


@pytest.mark.parametrize("plant", [plant_torn_record, plant_surplus, plant_fifo, plant_hard_link])
def test_what_cannot_be_used_is_set_aside_with_all_its_bytes(folder: Folder, plant: Callable[[Folder], None]) -> None:
    plant(folder)
    data = folder.part.read_bytes()
    look(folder, repair=True)
    assert (folder / f"aside/partial-{ID}.part").read_bytes() == data
    assert not list((folder / "partial").iterdir())
    assert kinds(look(folder), notes=True) == ["aside"] * 3


def test_a_second_thing_of_the_same_name_is_set_aside_beside_the_first(folder: Folder) -> None:
    for _ in range(2):
        plant_stray(folder)
        assert look(folder, repair=True).exit_code == 3
    assert len(list((folder / "aside").iterdir())) == 2


def test_nothing_is_set_aside_to_another_place(folder: Folder) -> None:
    (folder.path.parent / "elsewhere").mkdir()
    (folder / "aside").symlink_to(folder.path.parent / "elsewhere")
    plant_stray(folder)
    report = look(folder, repair=True)
    assert [finding.outcome for finding in report.findings] == ["", "failed"]
    assert not list((folder.path.parent / "elsewhere").iterdir())


@pytest.mark.parametrize("renames", range(3))
def test_a_repair_that_is_cut_short_loses_nothing(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, renames: int
) -> None:
    plant_torn_record(folder)
    for path in (folder / "partial").iterdir():
        age(path)
    contents = set(files(folder.path).values())
    real, left = os.rename, renames

    def ending(*args: Any) -> None:
        nonlocal left
        if not left:
            raise KeyboardInterrupt
        left -= 1
        real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", ending)
        with pytest.raises(KeyboardInterrupt):
            look(folder, repair=True)
    assert look(folder, repair=True).exit_code == 3
    assert folder.part.name not in {path.name for path in (folder / "partial").iterdir()}
    assert DATA[:HALF] in set(files(folder / "aside").values())
    assert contents >= set(files(folder / "aside").values())


def test_ten_faults_at_once_are_found_and_repaired_and_a_server_goes_on(folder: Folder) -> None:
    ten = [
        plant_torn_finished_record,
        plant_tail,
        plant_temporary_file,
        plant_sidecars,
        plant_orphan,
        plant_stray,
        plant_fifo_in_the_open,
        plant_file_among_sockets,
        plant_open_folder,
        plant_open_record,
    ]
    for plant in ten:
        plant(folder)
    code, told = verify(folder)
    assert code == 1
    assert len({finding["name"] for finding in told["findings"]}) >= len(ten)
    assert "\x1b" not in json.dumps(told, ensure_ascii=False)
    code, told = verify(folder, "--repair")
    assert code == 3
    assert all(finding["outcome"] == "repaired" for finding in told["findings"] if finding["trouble"])
    assert verify(folder)[0] == 0
    flags = ("--allowed-upload-extensions", "*", "--sniff", "off")
    with ServerProcess(folder.path, *flags) as process:
        server = Server(process.port)
        assert server.offset(f"/files/{ID}") == HALF
        assert server.append(f"/files/{ID}", HALF, DATA[HALF:]).status == 204
        for id in (ID, FINISHED):
            assert server.ask("GET", f"/files/{id}").body == DATA


# ── what is no trouble ───────────────────────────────────────────────────────────────────────────────────────────────


def test_finished_data_that_was_taken_away_is_ordinary(folder: Folder) -> None:
    folder.finished.unlink()
    report = look(folder, repair=True)
    assert (kinds(report, notes=True), report.exit_code) == (["data-taken"], 0)
    assert folder.finished_record.exists()


def test_what_others_keep_in_the_folder_is_told_and_left_alone(folder: Folder) -> None:
    (folder / "lost+found").mkdir()
    (folder / "readme.txt").write_text("hello")
    before = files(folder.path)
    report = look(folder, repair=True)
    assert (kinds(report, notes=True), report.exit_code) == (["foreign", "foreign"], 0)
    assert files(folder.path) == before


def test_what_may_still_be_in_the_making_is_not_looked_at(folder: Folder) -> None:
    (folder / f"partial/{OTHER}.part").touch()
    (folder / f"partial/.{OTHER}.0123456789abcdef.tmp").touch()
    (folder / f"partial/.{OTHER}.something-new").touch()
    before = files(folder.path)
    assert look(folder, repair=True).exit_code == 0
    assert files(folder.path) == before


@pytest.mark.parametrize("plant", [plant_tail, plant_unmarked, plant_torn_record, plant_surplus])
def test_an_upload_that_somebody_is_busy_with_is_left_alone(folder: Folder, plant: Callable[[Folder], None]) -> None:
    plant(folder)
    before = files(folder.path)
    with folder.part.open("rb") as data:
        fcntl.flock(data, fcntl.LOCK_EX)
        report = look(folder, repair=True)
    assert (report.findings, report.in_use) == ([], 1)
    assert files(folder.path) == before


def test_an_upload_that_is_marked_as_complete_where_it_lies_is_not_half_finished(folder: Folder) -> None:
    """As partials of a concatenation are: they are never shown in the folder."""
    plant_unmarked(folder)
    record = json.loads(folder.record.read_text()) | {"completed_at": "2026-01-02T03:04:05Z"}
    folder.record.write_text(json.dumps(record))
    assert look(folder).exit_code == 0


def test_sockets_of_workers_are_no_strays(folder: Folder) -> None:
    (folder / ".workers").mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one:
        descriptor = os.open(folder / ".workers", os.O_RDONLY)
        one.bind(f"/proc/self/fd/{descriptor}/0123456789abcdef.sock")
        os.close(descriptor)
        assert look(folder).findings == []


# ── trouble that only a person can end ───────────────────────────────────────────────────────────────────────────────


def test_a_link_in_the_place_of_a_folder_is_told_and_not_followed(folder: Folder) -> None:
    (folder / "partial").rename(folder.path.parent / "elsewhere")
    (folder / "partial").symlink_to(folder.path.parent / "elsewhere")
    plant_orphan(folder)
    report = look(folder, repair=True)
    assert (folder.path.parent / f"elsewhere/{OTHER}.part").exists()
    assert (kinds(report), report.exit_code) == (["foreign-folder"], 1)


def test_a_disk_that_fails_spoils_one_upload_and_not_the_look(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open

    def failing(path: Any, *args: Any, **options: Any) -> int:
        if str(path) == str(folder.record):
            raise OSError(5, "Input/output error")
        return real(path, *args, **options)

    monkeypatch.setattr(os, "open", failing)
    plant_wrong_size(folder)
    report = look(folder)
    assert sorted(kinds(report)) == ["unreadable", "wrong-size"]


def test_a_repair_that_fails_is_told_as_such(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    plant_stray(folder)

    def failing(*args: Any) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(os, "rename", failing)
    report = look(folder, repair=True)
    assert [finding.outcome for finding in report.findings] == ["failed"]
    assert report.exit_code == 1


def test_a_floor_of_another_boot_counts_what_was_durable_and_no_more(folder: Folder) -> None:
    """As after a loss of power: the record of the boot is one of a machine that is gone."""
    asyncio.run(relabel(folder))
    assert kinds(look(folder)) == ["uncounted-tail"]
    assert look(folder, repair=True).exit_code == 3
    assert folder.part.stat().st_size == 0
    assert look(folder).exit_code == 0


async def relabel(folder: Folder) -> None:
    store = DiskStore(folder.path, boot_id="00000000-0000-0000-0000-000000000000", fsync="never")
    found = await store.get(ID)
    async with store.append(found) as appender:
        await appender.commit(DATA[found.offset : HALF])


# ── the command ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_kind_has_a_sentence_and_what_is_mended_says_how() -> None:
    assert all(kind.sentence for kind in KINDS.values())
    assert {kind.name for kind in KINDS.values() if kind.is_trouble and not kind.remedy} == {
        "foreign-folder",
        "unreadable",
    }


def test_the_page_on_verifying_names_every_kind() -> None:
    page = (Path(__file__).parents[1] / "docs" / "verify.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| `") and "tusd-py" not in line]
    assert [row.split("`")[1] for row in rows] == list(KINDS)
    assert all(kind.sentence in row and kind.remedy in row for kind, row in zip(KINDS.values(), rows, strict=True))


def test_a_report_for_people_ends_with_a_verdict(folder: Folder) -> None:
    plant_temporary_file(folder)
    command = program("verify", "--upload-dir", str(folder.path))
    done = subprocess.run(command, capture_output=True, text=True, env=surroundings(), timeout=PATIENCE)
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        f"leftover partial/.{ID}.0123456789abcdef.tmp: a crash left this behind and nothing refers to it",
        "1 unfinished, 1 finished, 0 of them in use: 1 troubles, 0 of them repaired",
    ]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a folder away")
def test_a_repair_by_another_user_than_the_owner_is_refused(folder: Folder) -> None:
    os.chown(folder.path, 12345, -1)
    command = program("verify", "--repair", "--upload-dir", str(folder.path))
    done = subprocess.run(command, capture_output=True, text=True, env=surroundings(), timeout=PATIENCE)
    assert done.returncode == 2
    assert "belongs to user number 12345; run this as that user" in done.stderr


def test_a_repair_sets_aside_what_the_rules_for_content_refuse(folder: Folder) -> None:
    """They may be stricter now than when the upload was made; to remove it is not for a repair."""
    plant_unmarked(folder)
    folder.part.write_bytes(b"%PDF-1.7\n".ljust(len(DATA), b"x"))
    code, told = verify(folder, "--repair", "--sniff", "strict", "--allowed-upload-extensions", ".mp4")
    assert (code, told["findings"][0]["kind"]) == (3, "half-finished")
    assert [path.name for path in (folder.path / "aside").rglob(f"*{ID}.part")]


def test_what_cannot_be_set_aside_is_not_removed_instead(folder: Folder) -> None:
    folder.record.write_text("{")
    (folder.path / "aside").write_text("in the way")
    for path in folder.path.glob(f"partial/{ID}.*"):
        os.utime(path, (0, 0))
    report = look(folder, repair=True)
    assert report.exit_code == 1
    assert folder.part.exists()
