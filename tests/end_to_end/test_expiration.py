"""What becomes of uploads that nobody goes on with, and of those that are only slow."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest

from tests.end_to_end.uploads import (
    APPEND,
    KIB,
    TUS,
    append,
    assert_stored,
    create,
    id_of,
    make_recording,
    stored_size,
    wait_until,
)
from tests.server_process import ServerProcess

CHUNKS = 8
CHUNK_SIZE = 64 * KIB


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    return make_recording(tmp_path / "noise.wav", CHUNKS * CHUNK_SIZE)


@pytest.fixture(scope="module")
def upload_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("uploads")


@pytest.fixture(scope="module")
def server(upload_dir: Path) -> Iterator[ServerProcess]:
    """A server that forgets what nobody wrote to for a second."""
    flags = ("--partial-upload-expiry-seconds", "1", "--sweep-interval-seconds", "0.2")
    with ServerProcess(upload_dir, *flags) as process:
        yield process


def test_an_abandoned_upload_is_gone_and_then_forgotten(
    server: ServerProcess, upload_dir: Path, recording: Path
) -> None:
    url = create(server.url, CHUNKS * CHUNK_SIZE)
    append(url, 0, recording.read_bytes()[:CHUNK_SIZE])
    seen = [200]

    def is_forgotten() -> bool:
        status = httpx2.head(url, headers=TUS).status_code
        if status != seen[-1]:
            seen.append(status)
        return status == 404

    wait_until(is_forgotten)

    assert seen == [200, 410, 404]
    assert list(upload_dir.rglob(f"{id_of(url)}*")) == []


def test_an_upload_that_comes_slowly_does_not_expire(server: ServerProcess, upload_dir: Path, recording: Path) -> None:
    """Four times the expiry in one request, in which no second passes without some bytes."""
    content = recording.read_bytes()
    url = create(server.url, len(content))
    fields = {**APPEND, "Host": "localhost", "Upload-Offset": "0", "Content-Length": str(len(content))}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    with socket.create_connection((urlsplit(url).hostname, urlsplit(url).port), timeout=20) as connection:
        connection.sendall(f"PATCH {urlsplit(url).path} HTTP/1.1\r\n{head}\r\n".encode())
        for offset in range(0, len(content), CHUNK_SIZE):
            connection.sendall(content[offset : offset + CHUNK_SIZE])
            time.sleep(0.5)  # A slow client is slow: nothing of the server is waited for here.
        assert b" 204 " in connection.recv(4096).split(b"\r\n")[0]

    assert_stored(upload_dir, url, recording)


def test_a_finished_upload_stays(server: ServerProcess, upload_dir: Path, recording: Path) -> None:
    finished = create(server.url, CHUNKS * CHUNK_SIZE)
    append(finished, 0, recording.read_bytes())
    abandoned = create(server.url, CHUNKS * CHUNK_SIZE)
    append(abandoned, 0, b"RIFF")

    wait_until(lambda: stored_size(upload_dir, abandoned) == 0)

    assert_stored(upload_dir, finished, recording)
