"""A client that lost its network comes back while the server still waits on the old connection."""

from __future__ import annotations

import time
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPResponse
from itertools import product
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

from tests.end_to_end.uploads import (
    APPEND,
    KIB,
    TUS,
    assert_stored,
    create,
    id_of,
    make_recording,
    wait_for_data,
)
from tests.server_process import ServerProcess

LENGTH = 1024 * KIB
# What fills the first buffer of the server exactly, so that it is stored at once; and what does not.
SENT = 64 * KIB
SENT_UNEVENLY = 300 * KIB
ROUNDS = 5

# The lock would be waited for much longer; the promise is one second, and a busy machine may need some more.
LOCK_SECONDS = 20
TAKEOVER_SECONDS = 5


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_recording(tmp_path_factory.mktemp("source") / "noise.wav", LENGTH)


@pytest.fixture(scope="module")
def upload_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("uploads")


@pytest.fixture(scope="module")
def lone_worker(upload_dir: Path) -> Iterator[ServerProcess]:
    with ServerProcess(upload_dir, "--lock-timeout-seconds", str(LOCK_SECONDS)) as process:
        yield process


@pytest.fixture(scope="module")
def two_workers(upload_dir: Path) -> Iterator[ServerProcess]:
    with ServerProcess(upload_dir, "--lock-timeout-seconds", str(LOCK_SECONDS), "--workers", "2") as process:
        yield process


class Line(HTTPConnection):
    """A connection that a worker has accepted, and that stays with it."""

    def __init__(self, server: ServerProcess) -> None:
        endpoint = urlsplit(server.url)
        super().__init__(str(endpoint.hostname), endpoint.port, timeout=2 * LOCK_SECONDS)
        self.request("OPTIONS", endpoint.path)
        self.getresponse().read()
        self.worker = self._accepted_by(psutil.Process(server.pid))

    def __enter__(self) -> Line:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def answer(self) -> tuple[HTTPResponse, bytes]:
        """Wait for the answer to the last request; gives it with its body."""
        response = self.getresponse()
        return response, response.read()

    def _accepted_by(self, parent: psutil.Process) -> int:
        port = self.sock.getsockname()[1]
        [pid] = [
            process.pid
            for process in (parent, *parent.children())
            for other in process.net_connections("tcp")
            if other.raddr and other.raddr.port == port
        ]
        return pid


def line_to(server: ServerProcess, worker: int) -> Line:
    """Return a line to this very worker. All of them listen, and whoever is first takes it."""
    for _ in range(1000):
        line = Line(server)
        if line.worker == worker:
            return line
        line.close()
    pytest.fail(f"worker {worker} accepts no connections")


def pairs_of(server: ServerProcess) -> Iterator[tuple[Line, Line]]:
    """Give two lines at a time, until there was a pair for every holder and every newcomer among the workers."""
    workers = [worker.pid for worker in server.workers] or [server.pid]
    for holder, other in product(workers, workers):
        with line_to(server, holder) as stalled, line_to(server, other) as newcomer:
            yield stalled, newcomer


def begin_append(line: Line, url: str, data: bytes) -> None:
    """Announce the whole upload, send ``data``, and fall silent."""
    line.putrequest("PATCH", urlsplit(url).path)
    for name, value in {**APPEND, "Upload-Offset": "0", "Content-Length": str(LENGTH)}.items():
        line.putheader(name, value)
    line.endheaders()
    line.send(data)


def stall(line: Line, server: ServerProcess, upload_dir: Path, recording: Path, sent: int = SENT) -> str:
    """Return the URL of an upload that ``line`` has sent a part of, and that it still holds."""
    url = create(server.url, LENGTH)
    begin_append(line, url, recording.read_bytes()[:sent])
    # What has come is stored even though more is awaited; from here on the server has nothing to do.
    wait_for_data(upload_dir, url, sent)
    return url


def assert_taken_over(stalled: Line, newcomer: Line, url: str, recording: Path) -> None:
    """Finish the upload on ``newcomer`` while ``stalled`` is silent, and see what each of them is answered."""
    path = urlsplit(url).path
    content = recording.read_bytes()

    began = time.perf_counter()
    newcomer.request("HEAD", path, headers=TUS)
    told, _ = newcomer.answer()
    offset = int(told.headers["Upload-Offset"])
    newcomer.request("PATCH", path, content[offset:], {**APPEND, "Upload-Offset": str(offset)})
    finished, _ = newcomer.answer()
    seconds = time.perf_counter() - began
    refused, reason = stalled.answer()

    print(f"taken over at offset {offset} in {seconds:.3f} s")
    assert (told.status, finished.status) == (200, 204)
    assert finished.headers["Upload-Offset"] == str(LENGTH)
    assert (refused.status, reason.partition(b":")[0]) == (409, b"ERR_UPLOAD_INTERRUPTED")
    assert 0 < offset <= SENT_UNEVENLY
    assert seconds < TAKEOVER_SECONDS


def test_a_stalled_append_is_taken_over_in_one_worker(
    lone_worker: ServerProcess, upload_dir: Path, recording: Path
) -> None:
    for _ in range(ROUNDS):
        for stalled, newcomer in pairs_of(lone_worker):
            url = stall(stalled, lone_worker, upload_dir, recording)

            assert_taken_over(stalled, newcomer, url, recording)

            assert_stored(upload_dir, url, recording)


def test_a_stalled_append_is_taken_over_within_and_between_workers(
    two_workers: ServerProcess, upload_dir: Path, recording: Path
) -> None:
    for stalled, newcomer in pairs_of(two_workers):
        url = stall(stalled, two_workers, upload_dir, recording)

        assert_taken_over(stalled, newcomer, url, recording)

        assert_stored(upload_dir, url, recording)


def test_all_that_a_stalled_append_sent_is_kept(two_workers: ServerProcess, upload_dir: Path, recording: Path) -> None:
    for stalled, newcomer in pairs_of(two_workers):
        url = stall(stalled, two_workers, upload_dir, recording, SENT_UNEVENLY)

        newcomer.request("HEAD", urlsplit(url).path, headers=TUS)

        assert newcomer.answer()[0].headers["Upload-Offset"] == str(SENT_UNEVENLY)
        assert stalled.answer()[0].headers["Upload-Offset"] == str(SENT_UNEVENLY)


def test_an_append_that_is_still_being_received_is_taken_over_too(
    two_workers: ServerProcess, upload_dir: Path, recording: Path
) -> None:
    """The newcomer does not wait until what is in memory would be stored by itself."""
    for stalled, newcomer in pairs_of(two_workers):
        url = create(two_workers.url, LENGTH)
        begin_append(stalled, url, recording.read_bytes()[:SENT_UNEVENLY])
        wait_for_data(upload_dir, url, 1)

        assert_taken_over(stalled, newcomer, url, recording)

        assert_stored(upload_dir, url, recording)


def test_a_termination_takes_a_stalled_append_over(
    two_workers: ServerProcess, upload_dir: Path, recording: Path
) -> None:
    for stalled, newcomer in pairs_of(two_workers):
        url = stall(stalled, two_workers, upload_dir, recording)

        newcomer.request("DELETE", urlsplit(url).path, headers=TUS)

        assert newcomer.answer()[0].status == 204
        assert stalled.answer()[0].status == 409
        assert list(upload_dir.rglob(f"{id_of(url)}*")) == []
