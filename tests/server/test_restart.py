"""SIGHUP puts a fresh server in the place of the old one; nobody is refused, and no byte is lost."""

from __future__ import annotations

import os
import random
import signal
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import psutil
import pytest

from tests.live import TUS, Server
from tests.server.test_listener import HEALTH, connect_unix, exchange, socket_path  # noqa: F401 (a fixture)
from tests.server_process import ServerProcess, wait_until
from tusd_py.server.listener import listen

WORKERS = pytest.mark.parametrize("workers", ["1", "2"])
RESTARTS = 2


@pytest.fixture
def uploads(tmp_path: Path) -> Path:
    return tmp_path / "uploads"


def hang_up(server: ServerProcess) -> None:
    """Restart the server and wait until the fresh one has taken over."""
    count = server.announcements
    os.kill(server.pid, signal.SIGHUP)
    wait_until(lambda: server.announcements > count)


def upload(server: Server, data: bytes, seed: int) -> str:
    """Upload ``data`` as clients do, in pieces of any size, asking for the offset after every trouble."""
    dice = random.Random(seed)
    path = ""
    while not path:
        answer = server.ask("POST", "/files/", f"{TUS}Upload-Length: {len(data)}\r\n", b"")
        assert answer.status in (201, 503)
        if answer.status == 201:
            path = "/" + answer.fields["location"].split("/", 3)[3]
    offset = 0
    while offset < len(data):
        piece = data[offset : offset + dice.randrange(1, 300_000)]
        try:
            answer = server.append(path, offset, piece)
            assert answer.status in (204, 503), answer
        except ConnectionRefusedError:
            raise
        except ConnectionError:
            # A cut is what resumable uploads are for. To be refused is something else.
            pass
        offset = server.offset(path)
    return path.removeprefix("/files/")


@contextmanager
def restarting(server: ServerProcess) -> Iterator[None]:
    """Restart a few times, while the context lasts at least."""
    done = threading.Event()

    def restart() -> None:
        for _ in range(RESTARTS):
            hang_up(server)
        done.set()

    thread = threading.Thread(target=restart)
    thread.start()
    try:
        yield
    finally:
        thread.join()
        assert done.is_set()


@WORKERS
def test_uploads_go_on_across_restarts_byte_by_byte(uploads: Path, workers: str) -> None:
    """Connections are never refused; the test would fail with the first one that is."""
    flags = ("--allowed-upload-extensions", "*", "--sniff", "off", "--workers", workers)
    with ServerProcess(uploads, *flags) as server, ThreadPoolExecutor(4) as pool:
        sent: dict[str, str] = {}
        is_over = threading.Event()

        def keep_uploading(number: int) -> None:
            round = 0
            while not is_over.is_set():
                round += 1
                data = random.Random(number * 1000 + round).randbytes(2_000_000)
                sent[upload(Server(server.port), data, number)] = sha256(data).hexdigest()

        running = [pool.submit(keep_uploading, number) for number in range(4)]
        try:
            with restarting(server):
                pass
        finally:
            is_over.set()
        for each in running:
            each.result()
        assert server.stop() == 0
        assert "Traceback" not in server.log
    kept = {path.stem: sha256(path.read_bytes()).hexdigest() for path in uploads.glob("*.bin")}
    assert kept == sent
    assert sent


def test_a_restart_keeps_the_process_and_reads_the_settings_anew(uploads: Path, tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text('max_file_size = "1KiB"\n')
    with ServerProcess(uploads, "--config", str(file)) as server:
        assert Server(server.port).ask("OPTIONS", "/files/").fields["tus-max-size"] == "1024"
        file.write_text('max_file_size = "2KiB"\n')
        hang_up(server)
        assert Server(server.port).ask("OPTIONS", "/files/").fields["tus-max-size"] == "2048"
        assert psutil.Process(server.pid).is_running()
        assert server.stop() == 0


def test_workers_read_the_settings_anew_too(uploads: Path, tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text('max_file_size = "1KiB"\nworkers = 2\n')
    with ServerProcess(uploads, "--config", str(file)) as server:
        old = server.workers
        file.write_text('max_file_size = "2KiB"\nworkers = 2\n')
        hang_up(server)
        psutil.wait_procs(old, 20)
        assert Server(server.port).ask("OPTIONS", "/files/").fields["tus-max-size"] == "2048"
        assert len(server.workers) == 2
        assert not set(old) & set(server.workers)
        assert server.stop() == 0


@WORKERS
def test_settings_that_are_wrong_by_now_restart_nothing(uploads: Path, tmp_path: Path, workers: str) -> None:
    file = tmp_path / "settings.toml"
    file.write_text("")
    with ServerProcess(uploads, "--config", str(file), "--workers", workers) as server:
        file.write_text("sniff = 'no'\n")
        os.kill(server.pid, signal.SIGHUP)
        wait_until(lambda: "no restart, everything stays as it is" in server.log)
        assert Server(server.port).ask("OPTIONS", "/files/").status == 204
        assert server.stop() == 0


@WORKERS
def test_a_unix_socket_outlives_restarts_and_goes_with_the_end(
    uploads: Path,
    socket_path: Path,  # noqa: F811
    workers: str,
) -> None:
    with ServerProcess(uploads, "--unix-sock", str(socket_path), "--workers", workers) as server:
        inode = socket_path.stat().st_ino
        for _ in range(2):
            hang_up(server)
            assert exchange(connect_unix(socket_path), HEALTH).startswith(b"HTTP/1.1 200")
        assert socket_path.stat().st_ino == inode
        assert server.stop() == 0
    assert not socket_path.exists()


@WORKERS
def test_an_end_in_the_middle_of_a_restart_is_an_end(uploads: Path, workers: str) -> None:
    with ServerProcess(uploads, "--workers", workers) as server:
        os.kill(server.pid, signal.SIGHUP)
        wait_until(lambda: "restarting" in server.log)
        assert server.stop() == 0
        assert "Traceback" not in server.log


@pytest.mark.parametrize("flags", [("--fd", "3"), ()], ids=["named", "handed over"])
@WORKERS
def test_a_socket_of_somebody_else_outlives_restarts(uploads: Path, flags: tuple[str, ...], workers: str) -> None:
    with listen("127.0.0.2", 0) as listener:
        variables = {} if flags else {"LISTEN_FDS": "1"}
        flags = (*flags, "--workers", workers)
        with ServerProcess(uploads, *flags, handed=listener.fileno(), variables=variables) as server:
            hang_up(server)
            port = listener.getsockname()[1]
            assert set(server.output.splitlines()) == {f"You can now upload files to: http://127.0.0.2:{port}/files/"}
            with socket.create_connection(("127.0.0.2", port)) as connection:
                assert exchange(connection, HEALTH).startswith(b"HTTP/1.1 200")
            assert server.stop() == 0
