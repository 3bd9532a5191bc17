"""The disk fails in the middle of a system call of a real server (strace puts the error there)."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.live import APPEND, Server
from tests.server_process import ServerProcess

FLAGS = ("--allowed-upload-extensions", "*", "--sniff", "off", "--fsync", "request")
SIZE = 300_000


@contextmanager
def failing(process: ServerProcess, call: str, error: str) -> Iterator[None]:
    """Let every ``call`` of the server fail with ``error``."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is missing; install it with: apt-get install strace")
    command = [strace, "-f", "-o", "/dev/null", "-e", f"trace={call}", "-e", f"inject={call}:error={error}"]
    with subprocess.Popen([*command, "-p", str(process.pid)], stderr=subprocess.PIPE, text=True) as tracer:
        assert tracer.stderr is not None
        line = tracer.stderr.readline()
        if "attached" not in line:
            tracer.kill()
            pytest.skip(f"strace cannot attach to a process here: {line.strip()}")
        try:
            yield
        finally:
            tracer.terminate()


@pytest.mark.parametrize(
    ("call", "error", "status"),
    [
        ("fdatasync", "EIO", 500),
        ("pwrite64", "EIO", 500),
        ("pwrite64", "EDQUOT", 507),
        ("pwrite64", "EFBIG", 507),
        ("flock", "ENOLCK", 503),
    ],
)
def test_an_append_that_fails_is_told_and_goes_on_from_what_is_durable(
    tmp_path: Path, call: str, error: str, status: int
) -> None:
    data = os.urandom(SIZE)
    with ServerProcess(tmp_path / "uploads", *FLAGS) as process:
        server = Server(process.port)
        path = server.create(length=SIZE)
        assert server.append(path, 0, data[:100_000]).status == 204
        with failing(process, call, error):
            answer = server.ask("PATCH", path, f"{APPEND}Upload-Offset: 100000\r\n", data[100_000:])
        assert answer.status == status
        assert str(tmp_path) not in answer.text
        assert "Traceback" not in answer.text
        assert server.offset(path) == 100_000
        assert server.append(path, 100_000, data[100_000:]).status == 204
        assert server.ask("GET", path).body == data


@pytest.mark.parametrize("call", ["fsync", "rename", "fdatasync"])
def test_an_upload_whose_end_fails_is_not_told_as_finished(tmp_path: Path, call: str) -> None:
    data = os.urandom(SIZE)
    with ServerProcess(tmp_path / "uploads", *FLAGS) as process:
        server = Server(process.port)
        path = server.create(length=SIZE)
        with failing(process, call, "EIO"):
            assert server.append(path, 0, data).status == 500
            assert server.ask("GET", path).status == 404
            assert not list((tmp_path / "uploads").glob("*.bin"))
        offset = server.offset(path)
        if offset < SIZE:
            assert server.append(path, offset, data[offset:]).status == 204
        assert server.ask("GET", path).body == data
