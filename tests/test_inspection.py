"""``tusd-py list``, ``show`` and ``terminate``, as people see them, beside a server that runs."""

from __future__ import annotations

import json
import os
import subprocess
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import forms
from tests.live import APPEND, Server
from tests.server_process import PATIENCE, ServerProcess, program, surroundings, wait_until

NAME = "two words\x1b[2J.bin"
METADATA = f"Upload-Metadata: filename {b64encode(NAME.encode()).decode()}, empty\r\n"
FLAGS = ("--allowed-upload-extensions", "*", "--sniff", "off")


@pytest.fixture(scope="module")
def upload_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("inspected")


@pytest.fixture(scope="module")
def server(upload_dir: Path) -> Iterator[Server]:
    """A server with two workers."""
    with ServerProcess(upload_dir, *FLAGS, "--workers", "2") as process:
        yield Server(process.port)


@pytest.fixture
def unfinished(server: Server) -> str:
    path = server.create(METADATA)
    assert server.append(path, 0, b"01234").status == 204
    return path.removeprefix("/files/")


@pytest.fixture
def finished(server: Server) -> str:
    path = server.create(METADATA)
    assert server.append(path, 0, b"0123456789").status == 204
    return path.removeprefix("/files/")


def run(upload_dir: Path, *arguments: str) -> tuple[int, str]:
    """Return exit code, and stdout or stderr."""
    done = subprocess.run(
        program(*arguments, "--upload-dir", str(upload_dir)),
        capture_output=True,
        text=True,
        env=surroundings(),
        timeout=PATIENCE,
    )
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout or done.stderr


def test_unfinished_uploads_are_listed(upload_dir: Path, unfinished: str, finished: str) -> None:
    code, output = run(upload_dir, "list")
    assert code == 0
    assert f"{unfinished}  5/10  two words\\x1b[2J.bin" in output.splitlines()
    assert finished not in output


def test_finished_uploads_are_listed_as_objects(upload_dir: Path, unfinished: str, finished: str) -> None:
    code, output = run(upload_dir, "list", "--complete", "--json")
    rows = {row["id"]: row for row in map(json.loads, output.splitlines())}
    assert code == 0
    assert unfinished not in rows
    assert rows[finished]["state"] == "complete"
    assert rows[finished]["offset"] == rows[finished]["length"] == 10
    assert rows[finished]["path"] == str(upload_dir / f"{finished}.bin")
    assert rows[finished]["expires_at"] is None


def test_everything_about_an_upload_is_shown(upload_dir: Path, unfinished: str) -> None:
    code, output = run(upload_dir, "show", unfinished)
    assert code == 0
    lines = dict(line.strip().split(": ", 1) for line in output.splitlines() if ": " in line)
    assert (lines["id"], lines["state"], lines["offset"]) == (unfinished, "unfinished", "5")
    assert "\x1b" not in output
    assert "metadata:\n  filename: two words\\x1b[2J.bin\n  empty:\ncreated_at: " in output
    code, output = run(upload_dir, "show", unfinished, "--json")
    row = json.loads(output)
    assert row["metadata"] == {"filename": NAME, "empty": ""}
    assert row["expires_at"] > row["written_at"]


@pytest.mark.parametrize("command", ["show", "terminate"])
@pytest.mark.parametrize("id", ["an-unknown-upload-001", "../../../etc/passwd", "x"])
def test_an_unknown_id_is_told_as_such(upload_dir: Path, server: Server, command: str, id: str) -> None:
    assert run(upload_dir, command, id) == (1, "Error: there is no such upload\n")


@pytest.mark.parametrize("command", [["list"], ["show", "x"], ["terminate", "x"], ["verify"]])
def test_a_folder_without_uploads_is_not_made_one(tmp_path: Path, command: list[str]) -> None:
    code, output = run(tmp_path, *command)
    assert (code, list(tmp_path.iterdir())) == (2, [])
    assert "there are no uploads in" in output


def test_an_upload_is_terminated(upload_dir: Path, server: Server, unfinished: str, finished: str) -> None:
    for id in (unfinished, finished):
        assert run(upload_dir, "terminate", id) == (0, f"terminated {id}\n")
        assert server.ask("HEAD", f"/files/{id}", "Tus-Resumable: 1.0.0\r\n").status == 404
        assert not list(upload_dir.rglob(f"{id}*"))


def test_uploads_that_wait_for_a_partial_go_with_it_at_once(upload_dir: Path, server: Server) -> None:
    path = server.create("Upload-Concat: partial\r\n")
    final = server.create(f"Upload-Concat: final;{path}\r\n", length=None)
    assert run(upload_dir, "terminate", path.removeprefix("/files/"))[0] == 0
    assert not list(upload_dir.rglob(f"{final.removeprefix('/files/')}*"))
    assert server.ask("HEAD", final, "Tus-Resumable: 1.0.0\r\n").status == 404


@pytest.mark.parametrize("kind", ["", "Upload-Concat: partial\r\n"])
def test_an_upload_that_is_expired_is_terminated_too(upload_dir: Path, server: Server, kind: str) -> None:
    id = server.create(kind).removeprefix("/files/")
    os.utime(upload_dir / f"partial/{id}.part", (1, 1))
    assert run(upload_dir, "terminate", id) == (0, f"terminated {id}\n")
    assert not list(upload_dir.rglob(f"{id}*"))


def test_a_finished_upload_without_its_data_is_forgotten(upload_dir: Path, finished: str) -> None:
    (upload_dir / f"{finished}.bin").unlink()
    assert run(upload_dir, "terminate", finished)[0] == 0
    assert not list(upload_dir.rglob(f"{finished}*"))


def test_an_upload_that_is_being_written_in_a_server_is_taken_over(upload_dir: Path, server: Server) -> None:
    """The lock timeout is 20 seconds; the wish is heard at once."""
    path = server.create()
    id = path.removeprefix("/files/")
    with server.connect() as connection:
        fields = f"Host: localhost\r\n{APPEND}Upload-Offset: 0\r\nContent-Length: 10\r\n"
        connection.send(f"PATCH {path} HTTP/1.1\r\n{fields}\r\n01234")
        part = upload_dir / f"partial/{id}.part"
        wait_until(lambda: part.stat().st_size == 5)
        assert run(upload_dir, "terminate", id, "--lock-timeout-seconds", "15") == (0, f"terminated {id}\n")
        assert connection.answer().status in (404, 409)
    assert not list(upload_dir.rglob(f"{id}*"))
    assert len(list((upload_dir / ".workers").iterdir())) == 2, "the command leaves no socket behind"


def test_a_form_that_comes_is_ended_and_counts_as_terminated(upload_dir: Path, server: Server) -> None:
    """Its request takes the upload away by itself, before the command can."""
    before = set((upload_dir / "partial").glob("*.part"))

    def came() -> list[Path]:
        parts = set((upload_dir / "partial").glob("*.part")) - before
        return [part for part in parts if part.stat().st_size]

    with server.connect() as connection:
        forms.begin(connection, length=1000).send(forms.file_part(bytes(500), "sound.bin"))
        wait_until(lambda: came() != [])
        id = came()[0].stem
        assert run(upload_dir, "terminate", id) == (0, f"terminated {id}\n")
        assert connection.answer().status == 409
    assert not list(upload_dir.rglob(f"{id}*"))


def test_a_look_at_the_folder_does_not_disturb_a_server(upload_dir: Path, server: Server) -> None:
    path = server.create()
    with server.connect() as connection:
        fields = f"Host: localhost\r\n{APPEND}Upload-Offset: 0\r\nContent-Length: 10\r\n"
        connection.send(f"PATCH {path} HTTP/1.1\r\n{fields}\r\n01234")
        part = upload_dir / f"partial/{path.removeprefix('/files/')}.part"
        wait_until(lambda: part.stat().st_size == 5)
        code, output = run(upload_dir, "verify", "--repair")
        assert code == 0
        assert "1 of them in use" in output
        connection.send("56789")
        assert connection.answer().status == 204
