"""Whether every record in an upload folder agrees with its data, and the mending of what does not.

A server that runs meanwhile is not disturbed: an upload whose lock somebody holds is in use and left alone, and what
is so young that it may still be in the making is not looked at. Data is measured, not read: records hold no checksum
of a whole file, so a bit that fell over in finished data is not found here.

Mending loses no byte that counts. What cannot be used goes to ``aside/`` in the same folder, under its own name, for
somebody to look at; only what the sweeper would remove anyway is removed.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from tusd_py.errors import ContentRefused, UploadError, UploadNotFound
from tusd_py.expiration import LEFTOVER_AGE
from tusd_py.inspection import plain
from tusd_py.lifecycle import Lifecycle
from tusd_py.locks import flock
from tusd_py.locks.channel import SOCKET_NAME
from tusd_py.protocol import rules
from tusd_py.protocol.rules import Limits
from tusd_py.storage.data import Surroundings, UnfinishedData
from tusd_py.storage.disk import DiskStore
from tusd_py.storage.floor import read_boot_id, read_bounds
from tusd_py.storage.layout import FOLDER_MODE, TEMPORARY_NAME, Layout, is_ours, stat_regular, sync_folder
from tusd_py.storage.record import EXTENSION_GRAMMAR, Record, read_record, write_record
from tusd_py.upload import is_id

ASIDE = "aside"
WORKERS = ".workers"
OUR_FOLDERS = frozenset({"partial", "records", WORKERS, ASIDE})

# In this order they are set aside: data whose record had gone first would be removed as a leftover after a crash.
UNFINISHED_KINDS = ("part", "json", "floor")

WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


@dataclass(frozen=True, slots=True)
class Kind:
    """What can be found. ``remedy`` is what mending does, ``""`` where only a person can decide.

    What is no trouble is told and changes no exit code.
    """

    name: str
    sentence: str
    remedy: str = ""
    is_trouble: bool = True


_KINDS = (
    Kind("torn-record", "the record cannot be read, so nobody knows the upload", "set aside"),
    Kind("torn-finished-record", "the record of finished data cannot be read", "set aside, and a new one made"),
    Kind("no-record", "finished data without a record", "a record made from name and size"),
    Kind("no-data", "the record of an unfinished upload without data", "set aside"),
    Kind("no-floor", "what bounds the offset is missing or torn, so no byte counts", "made anew, at offset 0"),
    Kind("short-data", "the data is shorter than what was known to be on the disk", "goes on from where it ends"),
    Kind("uncounted-tail", "behind the offset lie bytes that do not count", "cut off"),
    Kind("too-long", "the data is longer than the upload", "set aside"),
    Kind("wrong-size", "the finished data has another size than was uploaded", "set aside"),
    Kind("half-finished", "every byte is there, but completion was cut short", "completed"),
    Kind("leftover", "a crash left this behind and nothing refers to it", "removed"),
    Kind("planted", "a link, a FIFO, a folder or somebody else's file in the place of ours", "set aside"),
    Kind("stray", "not a name that we give", "set aside"),
    Kind("open-permissions", "others may write to it", "taken away from them"),
    Kind("foreign-folder", "no folder, or not of the same owner as the upload folder"),
    Kind("unreadable", "the disk does not let us look at it"),
    Kind("data-taken", "finished, and its data was taken out of the folder", is_trouble=False),
    Kind("expired", "left unfinished for too long; the next sweep removes it", is_trouble=False),
    Kind("foreign", "not ours, and in nobody's way", is_trouble=False),
    Kind("aside", "was set aside; look at it and remove it", is_trouble=False),
)

KINDS = {kind.name: kind for kind in _KINDS}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was found: at ``name`` (relative to the folder), of the upload ``id`` where it is one's.

    ``outcome`` is ``repaired``, or ``failed`` where mending was tried in vain.
    """

    kind: Kind
    name: str
    id: str = ""
    outcome: str = ""

    def line(self) -> str:
        """Tell it to people."""
        outcome = {"": "", "failed": " (could not be repaired)", "repaired": f" (repaired: {self.kind.remedy})"}
        return f"{self.kind.name} {plain(self.name)}: {self.kind.sentence}{outcome[self.outcome]}"

    def as_object(self) -> dict[str, object]:
        """Tell it to programs."""
        return {
            "kind": self.kind.name,
            "name": plain(self.name),
            "id": self.id,
            "trouble": self.kind.is_trouble,
            "sentence": self.kind.sentence,
            "outcome": self.outcome,
        }


@dataclass(slots=True)
class Report:
    """What a look at the whole folder gave."""

    findings: list[Finding] = field(default_factory=list)
    unfinished: int = 0
    finished: int = 0
    in_use: int = 0

    @property
    def exit_code(self) -> int:
        """0: everything is sound; 1: there is trouble; 3: there was, and all of it is repaired."""
        troubles = [finding for finding in self.findings if finding.kind.is_trouble]
        if not troubles:
            return 0
        return 3 if all(finding.outcome == "repaired" for finding in troubles) else 1

    def lines(self) -> list[str]:
        """Tell everything to people, the verdict last."""
        troubles = [finding for finding in self.findings if finding.kind.is_trouble]
        repaired = sum(finding.outcome == "repaired" for finding in troubles)
        verdict = f"{len(troubles)} troubles, {repaired} of them repaired" if troubles else "everything is sound"
        counts = f"{self.unfinished} unfinished, {self.finished} finished, {self.in_use} of them in use"
        return [*(finding.line() for finding in self.findings), f"{counts}: {verdict}"]

    def as_object(self) -> dict[str, object]:
        """Tell everything to programs."""
        return {
            "unfinished": self.unfinished,
            "finished": self.finished,
            "in_use": self.in_use,
            "findings": [finding.as_object() for finding in self.findings],
        }


class Verifier:
    """Looks at the folder of ``store``, and mends it. Blocks; nothing else should wait on its event loop."""

    def __init__(
        self, store: DiskStore, lifecycle: Lifecycle, limits: Limits, *, is_durable: bool, now: Callable[[], datetime]
    ) -> None:
        self._store = store
        self._lifecycle = lifecycle
        self._limits = limits
        self._is_durable = is_durable
        self._now = now
        self._layout = Layout(str(store.folder))
        self._boot_id = read_boot_id()
        self._remedies: dict[str, Callable[[Finding], None]] = {
            "torn-record": self._set_upload_aside,
            "torn-finished-record": self._renew_record,
            "no-record": self._make_record,
            "no-data": self._set_upload_aside,
            "no-floor": self._cut,
            "short-data": self._cut,
            "uncounted-tail": self._cut,
            "too-long": self._set_upload_aside,
            "wrong-size": self._set_finished_aside,
            "planted": self._set_planted_aside,
            "stray": self._set_aside,
            "open-permissions": self._close_permissions,
        }

    async def verify(self, *, repair: bool) -> Report:
        """Look at everything once; with ``repair`` mend what can be mended."""
        report = Report()
        for finding in self._folders():
            report.findings.append(self._mended(finding) if repair else finding)
        for id in _ids(self._names("partial")):
            report.unfinished += 1
            await self._verify_upload(report, partial(self._unfinished, id), id, repair=repair)
        for id in _ids(self._names("records")):
            report.finished += 1
            await self._verify_upload(report, partial(self._finished, id), id, repair=repair)
        for finding in self._strays():
            report.findings.append(self._mended(finding) if repair else finding)
        # A link in the place of partial/ leads to leftovers that are not ours.
        if not any(finding.kind.name == "foreign-folder" for finding in report.findings):
            report.findings.extend(await self._leftovers(report.findings, repair=repair))
        return report

    async def _verify_upload(
        self, report: Report, look: Callable[[], Iterator[Finding]], id: str, *, repair: bool
    ) -> None:
        try:
            with self._locked(id) as is_locked:
                if not is_locked:
                    report.in_use += 1
                    return
                # All of it is found before any of it is mended.
                for finding in tuple(look()):
                    if repair and finding.kind.name == "half-finished":
                        report.findings.append(await self._completed(finding))
                    else:
                        report.findings.append(self._mended(finding) if repair else finding)
        except (OSError, UploadError):
            report.findings.append(Finding(KINDS["unreadable"], id, id))

    @contextmanager
    def _locked(self, id: str) -> Iterator[bool]:
        """Hold the lock of the upload if nobody has it; where there is nothing to lock there is nobody to disturb."""
        with ExitStack() as undo:
            is_locked = True
            try:
                descriptor = flock.try_lock_data(partial(self._store.data_path, id))
            except UploadNotFound:
                pass
            else:
                is_locked = descriptor is not None
                if descriptor is not None:
                    undo.callback(flock.close, descriptor)
            yield is_locked

    # What is looked at

    def _folders(self) -> Iterator[Finding]:
        owner = os.stat(self._layout.folder).st_uid
        # The folder itself may be shared with a group that takes finished uploads out of it.
        for name, forbidden in (("", stat.S_IWOTH), *((name, WRITABLE_BY_OTHERS) for name in sorted(OUR_FOLDERS))):
            try:
                path = self._path(name)
                status = os.lstat(path) if name else os.stat(path)
            except FileNotFoundError:
                continue
            if not stat.S_ISDIR(status.st_mode) or status.st_uid != owner:
                yield Finding(KINDS["foreign-folder"], name or ".")
            elif status.st_mode & forbidden:
                yield Finding(KINDS["open-permissions"], name or ".")

    def _unfinished(self, id: str) -> Iterator[Finding]:
        names = {kind: f"partial/{id}.{kind}" for kind in UNFINISHED_KINDS}
        there = {kind for kind, name in names.items() if os.path.lexists(self._path(name))}
        for kind in sorted(there):
            if not self._is_file_of_ours(names[kind]):
                yield Finding(KINDS["planted"], names[kind], id)
                return
        if "json" not in there:
            return  # in the making, or left over
        record = read_record(self._layout.record(id), id)
        if record is None:
            yield Finding(KINDS["torn-record"], names["json"], id)
        elif "part" not in there:
            if read_record(self._layout.complete_record(id), id) is None:
                yield Finding(KINDS["no-data"], names["json"], id)
        else:
            yield from self._open_files(id, *(names[kind] for kind in sorted(there)))
            yield from self._measured(id, record)

    def _measured(self, id: str, record: Record) -> Iterator[Finding]:
        name = f"partial/{id}.part"
        status = os.lstat(self._path(name))
        bounds = read_bounds(self._layout.floor(id))
        offset = bounds.offset(status.st_size, self._boot_id)
        if record.length is not None and offset > record.length:
            yield Finding(KINDS["too-long"], name, id)
            return
        if not bounds.boot_id:
            yield Finding(KINDS["no-floor"], f"partial/{id}.floor", id)
        elif bounds.floor > status.st_size:
            yield Finding(KINDS["short-data"], name, id)
        elif status.st_size > offset:
            yield Finding(KINDS["uncounted-tail"], name, id)
        upload = record.upload(offset=offset, written_at=datetime.fromtimestamp(status.st_mtime, UTC))
        if upload.is_unmarked:
            yield Finding(KINDS["half-finished"], name, id)
        elif rules.is_expired(upload, self._limits, self._now()):
            yield Finding(KINDS["expired"], name, id)

    def _finished(self, id: str) -> Iterator[Finding]:
        name = f"records/{id}.json"
        if not os.path.lexists(self._path(name)):
            return  # it was removed just now
        if not self._is_file_of_ours(name):
            yield Finding(KINDS["planted"], name, id)
            return
        record = read_record(self._path(name), id)
        if record is None or record.completed_at is None:
            yield Finding(KINDS["torn-finished-record"], name, id)
            return
        yield from self._open_files(id, name)
        if stat_regular(self._layout.data(id)) is not None:
            return  # half finished, and told as such
        data = f"{id}{record.extension}"
        try:
            status = os.lstat(self._path(data))
        except FileNotFoundError:
            yield Finding(KINDS["data-taken"], data, id)
            return
        if not stat.S_ISREG(status.st_mode):
            yield Finding(KINDS["planted"], data, id)
        elif status.st_size != record.length:
            yield Finding(KINDS["wrong-size"], data, id)

    def _open_files(self, id: str, *names: str) -> Iterator[Finding]:
        for name in names:
            if os.lstat(self._path(name)).st_mode & WRITABLE_BY_OTHERS:
                yield Finding(KINDS["open-permissions"], name, id)

    def _strays(self) -> Iterator[Finding]:
        for name in self._names("partial"):
            id, _, kind = name.partition(".")
            is_known = TEMPORARY_NAME.fullmatch(name) or (is_id(id) and kind in UNFINISHED_KINDS)
            if not is_known and self._is_old(f"partial/{name}"):
                yield Finding(KINDS["stray"], f"partial/{name}")
        for name in self._names("records"):
            id, _, kind = name.partition(".")
            if not (is_id(id) and kind == "json") and self._is_old(f"records/{name}"):
                yield Finding(KINDS["stray"], f"records/{name}")
        for name in self._names(WORKERS):
            if not SOCKET_NAME.fullmatch(name.removesuffix(".new")) or not self._is_socket(f"{WORKERS}/{name}"):
                yield Finding(KINDS["stray"], f"{WORKERS}/{name}")
        for name in self._names(""):
            yield from self._in_the_open(name)
        for name in self._names(ASIDE):
            yield Finding(KINDS["aside"], f"{ASIDE}/{name}")

    def _in_the_open(self, name: str) -> Iterator[Finding]:
        """Look at a name beside the folders: finished data, or something that only lies there."""
        if name in OUR_FOLDERS:
            return
        id, dot, rest = name.partition(".")
        is_our_form = is_id(id) and re.fullmatch(EXTENSION_GRAMMAR, dot + rest) is not None
        if is_our_form and os.path.lexists(self._layout.complete_record(id)):
            record = read_record(self._layout.complete_record(id), id)
            if record is None or name == f"{id}{record.extension}":
                return  # looked at with its record
        try:
            mode = os.lstat(self._path(name)).st_mode
        except FileNotFoundError:
            return  # it was removed, or taken, just now
        if is_our_form and stat.S_ISREG(mode) and not os.path.lexists(self._layout.complete_record(id)):
            yield Finding(KINDS["no-record"], name, id)
        elif stat.S_ISREG(mode) or (stat.S_ISDIR(mode) and not is_our_form):
            yield Finding(KINDS["foreign"], name)
        else:
            yield Finding(KINDS["planted"], name)

    async def _leftovers(self, findings: Sequence[Finding], *, repair: bool) -> Sequence[Finding]:
        told = {finding.id for finding in findings}
        # What could not be set aside is not to be removed instead.
        failed = {finding.id for finding in findings if finding.outcome == "failed"}
        age = max(LEFTOVER_AGE, self._limits.partial_expiry or LEFTOVER_AGE)
        names = await self._store.tidy(before=self._now() - age, dry_run=not repair, keep=failed)
        outcome = "repaired" if repair else ""
        # What is told of already is not told again: tidying knows less of what an upload lacks.
        return [
            Finding(KINDS["leftover"], name, id, outcome)
            for name in names
            if (id := _id_of(name)) not in told or TEMPORARY_NAME.fullmatch(os.path.basename(name))
        ]

    # How it is mended

    def _mended(self, finding: Finding) -> Finding:
        remedy = self._remedies.get(finding.kind.name)
        return finding if remedy is None else self._tried(remedy, finding)

    def _tried(self, remedy: Callable[[Finding], None], finding: Finding) -> Finding:
        try:
            remedy(finding)
        except (OSError, UploadError):
            return replace(finding, outcome="failed")
        return replace(finding, outcome="repaired")

    async def _completed(self, finding: Finding) -> Finding:
        try:
            await self._lifecycle.complete(finding.id)
        except ContentRefused:
            return self._tried(self._set_upload_aside, finding)
        except UploadError:
            return replace(finding, outcome="failed")
        return replace(finding, outcome="repaired")

    def _cut(self, finding: Finding) -> None:
        """Let the data end where its offset is, and its bounds say so."""
        surroundings = Surroundings(
            layout=self._layout, boot_id=self._boot_id, durable=self._is_durable, suspected=lambda: None
        )
        with closing(UnfinishedData(finding.id, surroundings)) as data:
            data.forget(data.end)

    def _close_permissions(self, finding: Finding) -> None:
        forbidden = stat.S_IWOTH if finding.name == "." else WRITABLE_BY_OTHERS
        descriptor = os.open(self._path(finding.name), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            os.fchmod(descriptor, stat.S_IMODE(os.fstat(descriptor).st_mode) & ~forbidden)
        finally:
            os.close(descriptor)

    def _set_upload_aside(self, finding: Finding) -> None:
        """Set aside all that there is of an unfinished upload: without the rest its data would soon be removed."""
        for kind in UNFINISHED_KINDS:
            if os.path.lexists(self._path(name := f"partial/{finding.id}.{kind}")):
                self._move_aside(name)

    def _set_finished_aside(self, finding: Finding) -> None:
        self._move_aside(finding.name)
        self._move_aside(f"records/{finding.id}.json")

    def _set_planted_aside(self, finding: Finding) -> None:
        if finding.name.startswith("partial/"):
            self._set_upload_aside(finding)
        elif finding.name.startswith("records/"):
            self._renew_record(finding)
        else:
            self._move_aside(finding.name)

    def _set_aside(self, finding: Finding) -> None:
        self._move_aside(finding.name)

    def _renew_record(self, finding: Finding) -> None:
        self._move_aside(finding.name)
        for name in self._names(""):
            if name.partition(".")[0] == finding.id:
                for found in self._in_the_open(name):
                    if found.kind.name == "no-record":
                        self._make_record(found)

    def _make_record(self, finding: Finding) -> None:
        """Write down what finished data tells of itself. The client's name for it and the rest are lost."""
        status = os.lstat(self._path(finding.name))
        written_at = datetime.fromtimestamp(status.st_mtime, UTC)
        record = Record(
            id=finding.id,
            created_at=written_at,
            length=status.st_size,
            metadata="",
            extension=finding.name.removeprefix(finding.id),
            completed_at=written_at,
        )
        path = self._layout.complete_record(finding.id)
        write_record(record, path, temporary=self._layout.temporary(finding.id), durable=True)
        sync_folder(self._layout.records)

    def _move_aside(self, name: str) -> None:
        Path(self._path(ASIDE)).mkdir(mode=FOLDER_MODE, exist_ok=True)
        if Path(self._path(ASIDE)).is_symlink():
            raise NotADirectoryError("what is set aside would leave the folder")
        target = f"{ASIDE}/{name.replace('/', '-')}"
        if os.path.lexists(self._path(target)):
            target += f".{os.urandom(8).hex()}"
        os.rename(self._path(name), self._path(target))

    # What is asked of the disk

    def _path(self, name: str) -> str:
        return f"{self._layout.folder}/{name}"

    def _names(self, folder: str) -> list[str]:
        path = self._path(folder)
        is_there = stat.S_ISDIR(os.lstat(path).st_mode) if os.path.lexists(path) else False
        return sorted(os.listdir(path)) if is_there else []

    def _is_file_of_ours(self, name: str) -> bool:
        try:
            status = os.lstat(self._path(name))
        except FileNotFoundError:
            return True  # removed just now
        return stat.S_ISREG(status.st_mode) and is_ours(status)

    def _is_old(self, name: str) -> bool:
        """Tell whether it is too old to be still in the making."""
        try:
            return os.lstat(self._path(name)).st_mtime < (self._now() - LEFTOVER_AGE).timestamp()
        except FileNotFoundError:
            return False

    def _is_socket(self, name: str) -> bool:
        try:
            return stat.S_ISSOCK(os.lstat(self._path(name)).st_mode)
        except FileNotFoundError:
            return True  # its worker has ended just now


def _ids(names: Sequence[str]) -> list[str]:
    """Return the ids that have a file in ``partial/`` or ``records/``, each once."""
    parts = (name.partition(".") for name in names)
    return sorted({id for id, _, kind in parts if is_id(id) and kind in UNFINISHED_KINDS})


def _id_of(name: str) -> str:
    return Path(name).name.lstrip(".").partition(".")[0]
