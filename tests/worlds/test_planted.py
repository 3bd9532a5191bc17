"""Somebody has put all kinds of things into the upload folder: each spoils its own upload, and nothing hangs."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from starlette.types import Message

from tests.live import APPEND, TUS, Server
from tests.server_process import PATIENCE, ServerProcess, program, surroundings
from tests.storage.uploads import files
from tusd_py import TusApp
from tusd_py.storage.record import MAX_RECORD

FLAGS = ("--allowed-upload-extensions", "*", "--sniff", "off", "--lock-timeout-seconds", "2")


def plant_fifo(path: Path) -> None:
    os.mkfifo(path)


def plant_folder(path: Path) -> None:
    path.mkdir()


def plant_link(path: Path) -> None:
    path.symlink_to("/etc/passwd")


def plant_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def plant_loop(path: Path) -> None:
    path.symlink_to(path.name)


def plant_empty(path: Path) -> None:
    path.touch()


def plant_huge(path: Path) -> None:
    path.touch()
    os.truncate(path, 40 * MAX_RECORD)


def plant_wrong_types(path: Path) -> None:
    path.write_text('{"version":1,"id":["x"],"created_at":0,"length":"9","metadata":{},"extension":null}')


PLANTS: list[Callable[[Path], None]] = [
    plant_fifo,
    plant_folder,
    plant_link,
    plant_device,
    plant_loop,
    plant_empty,
    plant_huge,
    plant_wrong_types,
]


def ask_everything(server: Server, path: str) -> set[int]:
    answers = [
        server.ask("HEAD", path, TUS),
        server.ask("GET", path),
        server.ask("PATCH", path, f"{APPEND}Upload-Offset: 0\r\n", b"x"),
        server.ask("DELETE", path, TUS),
    ]
    return {answer.status for answer in answers}


@pytest.fixture(scope="module")
def upload_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which every plant has every place: of an upload each, and some that are nobody's."""
    folder = tmp_path_factory.mktemp("planted") / "uploads"
    with ServerProcess(folder, *FLAGS) as process:
        server = Server(process.port)
        for number, plant in enumerate(PLANTS):
            for kind in ("json", "floor", "part"):
                if kind == "json" or number < 5:
                    unfinished = server.create().removeprefix("/files/")
                    taken_by(plant, folder / "partial" / f"{unfinished}.{kind}", folder / f"spoilt-{unfinished}")
            finished = server.create().removeprefix("/files/")
            server.append(f"/files/{finished}", 0, b"0123456789")
            taken_by(plant, folder / "records" / f"{finished}.json", folder / f"spoilt-{finished}")
            plant(folder / f"plant-{number}")
            plant(folder / f"plant-of-a-long-name-{number}.mp4")
            plant(folder / "partial" / f"plant-of-a-long-name-{number}.part")
            plant(folder / ".workers" / f"{number:016x}.sock")
    return folder


def taken_by(plant: Callable[[Path], None], path: Path, note: Path) -> None:
    path.unlink()
    plant(path)
    note.touch()


def spoilt(folder: Path) -> list[str]:
    return [path.name.removeprefix("spoilt-") for path in folder.glob("spoilt-*")]


def test_a_server_starts_among_them_and_serves_others(upload_dir: Path) -> None:
    with ServerProcess(upload_dir, *FLAGS, "--sweep-interval-seconds", "0.1") as process:
        server = Server(process.port)
        path = server.create()
        assert server.append(path, 0, b"01234").status == 204
        assert server.append(path, 5, b"56789").status == 204
        assert server.ask("GET", path).body == b"0123456789"
        assert "Traceback" not in process.log


def test_what_is_spoilt_is_unknown_and_nothing_else_is_said_of_it(upload_dir: Path) -> None:
    before = files(upload_dir / "partial")
    with ServerProcess(upload_dir, *FLAGS) as process:
        server = Server(process.port)
        found = {id: ask_everything(server, f"/files/{id}") for id in spoilt(upload_dir)}
        assert len(found) == 26
        assert {id: statuses for id, statuses in found.items() if statuses != {404}} == {}
    assert files(upload_dir / "partial") == before


@pytest.mark.parametrize("command", [["sweep"], ["list"], ["list", "--complete"], ["verify"]])
def test_commands_pass_them_by(upload_dir: Path, command: list[str]) -> None:
    done = subprocess.run(
        program(*command, "--upload-dir", str(upload_dir)),
        capture_output=True,
        text=True,
        env=surroundings(),
        timeout=PATIENCE,
    )
    assert done.returncode == (1 if command == ["verify"] else 0)
    assert done.stderr == ""


def test_a_folder_that_everybody_may_write_to_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    done = subprocess.run(
        program("serve", "--port", "0", "--upload-dir", str(tmp_path)),
        capture_output=True,
        text=True,
        env=surroundings(),
        timeout=PATIENCE,
    )
    assert done.returncode == 1
    assert "everybody may write to it (chmod o-w takes that away)" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_app_says_at_its_start_why_it_cannot_use_its_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    said: list[Message] = []

    async def receive() -> Message:
        return {"type": "lifespan.startup"}

    async def send(message: Message) -> None:
        said.append(message)

    asyncio.run(TusApp(upload_dir=tmp_path)({"type": "lifespan"}, receive, send))
    assert [message["type"] for message in said] == ["lifespan.startup.failed"]
    assert "everybody may write to it" in said[0]["message"]
