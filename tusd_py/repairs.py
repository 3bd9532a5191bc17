"""How what ``tusd-py verify`` finds is mended. Blocking; whoever mends an upload holds its lock.

No byte that counts is lost. What cannot be used goes to ``aside/`` in the same folder, under its own name, for
somebody to look at.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime

from tusd_py.errors import UploadError
from tusd_py.findings import UNFINISHED_KINDS, WRITABLE_BY_OTHERS, Finding
from tusd_py.storage.data import Surroundings, UnfinishedData
from tusd_py.storage.floor import read_boot_id
from tusd_py.storage.layout import Layout, set_aside, sync_folder
from tusd_py.storage.record import Record, write_record


class Repairs:
    """Mends what was found in the folder of ``layout``.

    ``look_in_the_open`` tells what there is to say of a name beside our folders.
    """

    def __init__(
        self, layout: Layout, *, is_durable: bool, look_in_the_open: Callable[[str], Iterable[Finding]]
    ) -> None:
        self._layout = layout
        self._is_durable = is_durable
        self._look_in_the_open = look_in_the_open
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

    def mend(self, finding: Finding) -> Finding:
        """Mend it if it can be, and return it with what came of it."""
        remedy = self._remedies.get(finding.kind.name)
        return finding if remedy is None else _tried(remedy, finding)

    def set_upload_aside(self, finding: Finding) -> Finding:
        """Set aside an unfinished upload that cannot be completed."""
        return _tried(self._set_upload_aside, finding)

    def _cut(self, finding: Finding) -> None:
        """Let the data end where its offset is, and its bounds say so."""
        surroundings = Surroundings(
            layout=self._layout, boot_id=read_boot_id(), durable=self._is_durable, suspected=lambda: None
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
        for name in sorted(os.listdir(self._layout.folder)):
            if name.partition(".")[0] == finding.id:
                for found in self._look_in_the_open(name):
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
        set_aside(name, self._layout)

    def _path(self, name: str) -> str:
        return f"{self._layout.folder}/{name}"


def _tried(remedy: Callable[[Finding], None], finding: Finding) -> Finding:
    try:
        remedy(finding)
    except (OSError, UploadError):
        return replace(finding, outcome="failed")
    return replace(finding, outcome="repaired")
