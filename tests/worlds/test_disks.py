"""A disk that is full, has no inodes, or is read-only: what a real server says, and that it goes on afterwards."""

from __future__ import annotations

import os
import shutil
from collections import deque
from pathlib import Path

import pytest

from tests.forms import detail, file_part, form
from tests.forms import post as post_form
from tests.live import APPEND, TUS, Answer, Server, serving
from tests.server_process import ServerProcess, wait_until
from tests.worlds.conftest import Mount, remount
from tusd_py import TusApp

FLAGS = ("--allowed-upload-extensions", "*", "--sniff", "off")
SIZE = 600_000


def fill(disk: Path) -> None:
    """Leave no byte on ``disk``."""
    with pytest.raises(OSError, match="No space left"):
        shutil.copyfile("/dev/zero", disk / "ballast")


def use_up_inodes(disk: Path) -> None:
    folder = disk / "ballast"
    folder.mkdir()
    with pytest.raises(OSError, match="No space left"):
        deque(map(Path.touch, (folder / str(number) for number in range(10_000))), maxlen=0)


def free_inodes(disk: Path) -> None:
    for path in (disk / "ballast").iterdir():
        path.unlink()


def head(server: Server, path: str) -> Answer:
    return server.ask("HEAD", path, TUS)


def post(server: Server, length: int = 10) -> Answer:
    return server.ask("POST", "/files/", f"{TUS}Upload-Length: {length}\r\n", b"")


def test_a_full_disk_is_told_and_uploads_go_on_once_there_is_room(memory_disk: Mount) -> None:
    disk = memory_disk("size=2m")
    data = os.urandom(SIZE)
    with ServerProcess(disk / "uploads", *FLAGS) as process:
        server = Server(process.port)
        finished, unfinished, other = (server.create(length=length) for length in (10, SIZE, 20))
        server.append(finished, 0, b"0123456789")
        server.append(unfinished, 0, data[:1000])
        fill(disk)

        answer = server.append(unfinished, 1000, data[1000:])
        assert answer.status == 507
        assert "retry-after" in answer.fields
        assert post(server).status == 507
        offset = server.offset(unfinished)
        assert offset >= 1000
        assert server.ask("GET", finished).body == b"0123456789"
        assert server.ask("DELETE", other, TUS).status == 204
        assert head(server, other).status == 404

        (disk / "ballast").unlink()
        assert post(server).status == 201
        assert server.append(unfinished, offset, data[offset:]).status == 204
        assert server.ask("GET", unfinished).body == data


def test_a_length_for_which_there_is_no_room_is_refused_before_its_first_byte(memory_disk: Mount) -> None:
    disk = memory_disk("size=1m")
    with ServerProcess(disk / "uploads", *FLAGS) as process:
        server = Server(process.port)
        assert post(server, SIZE).status == 201
        assert post(server, SIZE).status == 507
        assert len(list((disk / "uploads" / "partial").glob("*.part"))) == 1


@pytest.mark.parametrize("files", [1, 2])
def test_a_form_that_does_not_fit_is_told_and_leaves_nothing(memory_disk: Mount, files: int) -> None:
    disk = memory_disk("size=1m")
    with ServerProcess(disk / "uploads", *FLAGS, "--form-max-files", "2") as process:
        server = Server(process.port)
        free = shutil.disk_usage(disk).free
        answer = post_form(server, form(*[file_part(os.urandom(2 * SIZE // files))] * files))
        assert answer.status == 507
        assert "there is no space left for this file" in detail(answer)
        assert "retry-after" in answer.fields
        assert not [path for path in (disk / "uploads").rglob("*") if path.is_file()]

        # What was removed is free once its descriptor is closed, and nobody waits for that.
        wait_until(lambda: shutil.disk_usage(disk).free >= free)
        fill(disk)
        assert post_form(server, form(file_part(b"x"))).status == 507
        (disk / "ballast").unlink()
        assert post_form(server, form(file_part(os.urandom(SIZE)))).status == 200


def test_without_inodes_what_is_there_goes_on(memory_disk: Mount) -> None:
    disk = memory_disk("size=4m,nr_inodes=64")
    with ServerProcess(disk / "uploads", *FLAGS) as process:
        server = Server(process.port)
        unfinished, other = server.create(), server.create()
        use_up_inodes(disk)

        assert post(server).status == 507
        assert server.append(unfinished, 0, b"01234").status == 204
        # The record of completion is a new file. Until there is room for it, nobody is told that all is well.
        assert server.append(unfinished, 5, b"56789").status == 507
        assert head(server, unfinished).status == 423
        assert server.ask("GET", unfinished).status == 404
        assert server.ask("DELETE", other, TUS).status == 204

        free_inodes(disk)
        assert server.offset(unfinished) == 10
        assert server.ask("GET", unfinished).body == b"0123456789"
        assert post(server).status == 201


def test_a_read_only_disk_is_read_and_the_server_goes_on_when_it_is_not(memory_disk: Mount) -> None:
    disk = memory_disk("size=4m")
    with ServerProcess(disk / "uploads", *FLAGS, "--sweep-interval-seconds", "0.2") as process:
        server = Server(process.port)
        finished, unfinished = server.create(), server.create()
        server.append(finished, 0, b"0123456789")
        server.append(unfinished, 0, b"01234")
        remount(disk, "ro")

        assert server.offset(unfinished) == 5
        assert server.offset(finished) == 10
        assert server.ask("GET", finished).body == b"0123456789"
        refused = (
            post(server),
            server.append(unfinished, 5, b"56789"),
            server.ask("DELETE", unfinished, TUS),
            server.ask("DELETE", finished, TUS),
        )
        for answer in refused:
            assert answer.status in (503, 507)
            assert "retry-after" in answer.fields
            assert str(disk) not in answer.text
        assert server.offset(unfinished) == 5

        remount(disk, "rw")
        assert server.append(unfinished, 5, b"56789").status == 204
        assert server.ask("GET", unfinished).body == b"0123456789"
        assert server.ask("DELETE", finished, TUS).status == 204
        assert post(server).status == 201


def test_a_server_starts_on_a_read_only_disk_and_waits_for_it(memory_disk: Mount) -> None:
    disk = memory_disk("size=4m")
    with ServerProcess(disk / "uploads", *FLAGS) as process:
        path = Server(process.port).create()
    remount(disk, "ro")
    with serving(TusApp(upload_dir=disk / "uploads", allowed_upload_extensions="*")) as server:
        assert server.offset(path) == 0
        assert server.ask("PATCH", path, f"{APPEND}Upload-Offset: 0\r\n", b"01234").status == 503
        remount(disk, "rw")
        assert server.append(path, 0, b"01234").status == 204
