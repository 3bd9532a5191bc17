"""Whether every record in an upload folder agrees with its data, and the mending of what does not.

A server that runs meanwhile is not disturbed: an upload whose lock somebody holds is in use and left alone, and what
is so young that it may still be in the making is not looked at. Data is measured, not read: records hold no checksum
of a whole file, so a bit that fell over in finished data is not found here.

``repairs.py`` mends it. Beside that, only what the sweeper would remove anyway is removed.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from tusd_py.errors import ContentRefused, UploadError, UploadNotFound
from tusd_py.expiration import LEFTOVER_AGE
from tusd_py.findings import KINDS, OUR_FOLDERS, UNFINISHED_KINDS, WORKERS, WRITABLE_BY_OTHERS, Finding, Report
from tusd_py.lifecycle import Lifecycle
from tusd_py.locks import flock
from tusd_py.locks.channel import SOCKET_NAME
from tusd_py.protocol import rules
from tusd_py.protocol.rules import Limits
from tusd_py.repairs import Repairs
from tusd_py.storage.disk import DiskStore
from tusd_py.storage.floor import read_boot_id, read_bounds
from tusd_py.storage.layout import ASIDE, TEMPORARY_NAME, Layout, is_ours, stat_regular
from tusd_py.storage.record import EXTENSION_GRAMMAR, Record, read_record
from tusd_py.upload import is_id


class Verifier:
    """Looks at the folder of ``store``, and mends it. Blocks; nothing else should wait on its event loop."""

    def __init__(
        self, store: DiskStore, lifecycle: Lifecycle, limits: Limits, *, is_durable: bool, now: Callable[[], datetime]
    ) -> None:
        self._store = store
        self._lifecycle = lifecycle
        self._limits = limits
        self._now = now
        self._layout = Layout(str(store.folder))
        self._boot_id = read_boot_id()
        self._repairs = Repairs(self._layout, is_durable=is_durable, look_in_the_open=self._look_in_the_open)

    async def verify(self, *, repair: bool) -> Report:
        """Look at everything once; with ``repair`` mend what can be mended."""
        report = Report()
        for finding in self._folders():
            report.findings.append(self._repairs.mend(finding) if repair else finding)
        for id in _ids(self._names("partial")):
            report.unfinished += 1
            await self._verify_upload(report, partial(self._unfinished, id), id, repair=repair)
        for id in _ids(self._names("records")):
            report.finished += 1
            await self._verify_upload(report, partial(self._finished, id), id, repair=repair)
        for finding in self._strays():
            report.findings.append(self._repairs.mend(finding) if repair else finding)
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
                        report.findings.append(self._repairs.mend(finding) if repair else finding)
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
        is_unnamed = stat_regular(self._layout.data(id)) is not None
        if is_unnamed and not os.path.lexists(self._layout.record(id)):
            return  # in the making, or left over
        record = read_record(self._path(name), id)
        if record is None or record.completed_at is None:
            yield Finding(KINDS["torn-finished-record"], name, id)
            return
        yield from self._open_files(id, name)
        if is_unnamed:
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
            yield from self._look_in_the_open(name)
        for name in self._names(ASIDE):
            yield Finding(KINDS["aside"], f"{ASIDE}/{name}")

    def _look_in_the_open(self, name: str) -> Iterator[Finding]:
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

    async def _completed(self, finding: Finding) -> Finding:
        try:
            await self._lifecycle.complete(finding.id)
        except ContentRefused:
            return self._repairs.set_upload_aside(finding)
        except UploadError:
            return replace(finding, outcome="failed")
        return replace(finding, outcome="repaired")

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
