"""The power goes while a server has uploads of every kind: what a real file system holds then, and what is told."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.live import TUS, Server, serving
from tests.server_process import ServerProcess
from tests.worlds.conftest import Image
from tusd_py import TusApp
from tusd_py.storage.disk import DiskStore

SIZE = 300_000
PIECE = 70_000


@pytest.mark.parametrize("level", ["completion", "request"])
def test_finished_uploads_are_exact_and_others_never_tell_more_than_is_there(image: Image, level: str) -> None:
    disk = image.mounted()
    contents = {}
    acknowledged = {}
    with ServerProcess(disk / "uploads", "--allowed-upload-extensions", "*", "--fsync", level) as process:
        server = Server(process.port)
        for number in range(8):
            path = server.create(length=SIZE)
            contents[path] = os.urandom(SIZE)
            acknowledged[path] = 0
            for start in range(0, SIZE if number % 2 else number * PIECE // 2, PIECE):
                answer = server.append(path, start, contents[path][start : start + PIECE])
                assert answer.status == 204
                acknowledged[path] = int(answer.fields["upload-offset"])
        after = image.after_loss_of_power()

    lost = 0
    for path, offset in acknowledged.items():
        told = goes_on(after / "uploads", path, contents[path])
        lost += offset - (told or 0)
        if offset == SIZE or level == "request":
            assert told == offset
        else:
            assert told is None or told <= offset
    assert (lost > 0) == (level == "completion"), "the power was not really gone"


def goes_on(folder: Path, path: str, content: bytes) -> int | None:
    """Return the offset that is told under another boot, ``None`` for an upload that is unknown; and end the upload.

    Nothing but what was sent may be told, stored or sent back.
    """
    store = DiskStore(folder, boot_id="another boot", fsync="never")
    with serving(TusApp(upload_dir=folder, allowed_upload_extensions="*", store=store)) as server:
        answer = server.ask("HEAD", path, TUS)
        if answer.status == 404:
            return None
        told = int(answer.fields["upload-offset"])
        if told < len(content):
            part = folder / "partial" / f"{path.removeprefix('/files/')}.part"
            assert part.read_bytes()[:told] == content[:told]
            assert server.append(path, told, content[told:]).status == 204
        assert server.ask("GET", path).body == content
        return told
