"""The server's descriptors are used up: who is there goes on, others are told to come back, and it passes."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from tests.live import APPEND, TUS, Connection, Server
from tests.server_process import ServerProcess, wait_until

FLAGS = ("--allowed-upload-extensions", "*", "--sniff", "off")


@contextmanager
def no_descriptors(process: ServerProcess) -> Iterator[None]:
    """Let the server open nothing more."""
    soft, hard = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
    used = max(map(int, os.listdir(f"/proc/{process.pid}/fd"))) + 1
    # Numbers below the highest one that are free could still be had.
    assert used <= psutil.Process(process.pid).num_fds() + 20
    resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (3, hard))
    try:
        yield
    finally:
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (soft, hard))


def request(connection: Connection, method: str, path: str, fields: str, length: int = 0) -> Connection:
    return connection.send(f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{fields}Content-Length: {length}\r\n\r\n")


def test_without_descriptors_open_requests_go_on_and_others_come_back(tmp_path: Path) -> None:
    data = os.urandom(300_000)
    with ServerProcess(tmp_path / "uploads", *FLAGS) as process:
        server = Server(process.port)
        finished, unfinished, running = server.create(), server.create(), server.create(length=len(data))
        server.append(finished, 0, b"0123456789")
        part = tmp_path / "uploads" / "partial" / f"{running.removeprefix('/files/')}.part"
        with server.connect() as writer, server.connect() as asker:
            request(asker, "OPTIONS", "/files/", "")
            assert asker.answer().status == 204
            request(writer, "PATCH", running, f"{APPEND}Upload-Offset: 0\r\n", len(data))
            writer.send(data[:100_000])
            wait_until(lambda: part.stat().st_size == 100_000)

            with no_descriptors(process):
                writer.send(data[100_000:200_000])
                wait_until(lambda: part.stat().st_size == 200_000)
                for method, path, fields in (
                    ("POST", "/files/", f"{TUS}Upload-Length: 10\r\n"),
                    ("DELETE", unfinished, TUS),
                    ("GET", finished, ""),
                ):
                    answer = request(asker, method, path, fields).answer(method)
                    assert answer.status == 503, (method, answer)
                    assert "retry-after" in answer.fields
                answer = request(asker, "HEAD", unfinished, TUS).answer("HEAD")
                assert answer.status == 423

            writer.send(data[200_000:])
            assert writer.answer().status == 204
        assert server.ask("GET", running).body == data
        assert server.append(unfinished, 0, b"0123456789").status == 204


def test_a_client_that_finds_no_descriptor_is_served_once_there_is_one(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "uploads", *FLAGS) as process:
        server = Server(process.port)
        with no_descriptors(process):
            waiting = server.connect()
            request(waiting, "POST", "/files/", f"{TUS}Upload-Length: 10\r\n")
        with waiting:
            assert waiting.answer().status == 201
        assert process.log.count("\n") < 50
