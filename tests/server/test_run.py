"""How the server starts, ends and dies. Real processes, real signals."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.live import APPEND, Connection, Server
from tests.server_process import PATIENCE, ServerProcess, program, surroundings, wait_until
from tusd_py.server.listener import CannotServe, listen
from tusd_py.server.run import Plan, local_url
from tusd_py.server.workers import Crew, supervise


@pytest.fixture
def uploads(tmp_path: Path) -> Path:
    return tmp_path / "uploads"


def start_append(server: ServerProcess, path: str, length: int) -> Connection:
    """Begin an append of ``length`` bytes, and return when the server asks for its body."""
    connection = Connection(server.port)
    connection.send(
        f"PATCH {path} HTTP/1.1\r\nHost: localhost\r\n{APPEND}"
        f"Upload-Offset: 0\r\nContent-Length: {length}\r\nExpect: 100-continue\r\n\r\n"
    )
    assert connection.interim() == 100
    return connection


def start_endless_download(server: ServerProcess) -> Connection:
    """Begin a download that never ends, because nobody reads more of it than its head."""
    size = 32 * 1024 * 1024
    path = Server(server.port).create(length=size)
    assert Server(server.port).append(path, 0, bytes(size)).status == 204
    connection = Connection(server.port)
    connection.send(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert connection.interim() == 200
    return connection


def size_on_disk(uploads: Path) -> int:
    return sum(path.stat().st_size for path in uploads.glob("partial/*.part"))


def unread_bytes(server_port: int) -> int:
    """Return how many bytes wait in the system for the server to read them. Source: proc_net_tcp.txt, rx_queue."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    is_connected = "01"
    return sum(
        int(line[4].split(":")[1], 16)
        for line in lines
        if line[3] == is_connected and int(line[1].split(":")[1], 16) == server_port
    )


def connections_of(server: ServerProcess) -> list[object]:
    """Return the connections that the server has with clients."""
    processes = [psutil.Process(server.pid), *server.workers]
    return [one for process in processes for one in process.net_connections("tcp") if one.raddr]


def is_refused(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def test_it_prints_one_line_when_clients_are_served(uploads: Path) -> None:
    with ServerProcess(uploads) as server:
        assert Server(server.port).ask("OPTIONS", "/files/").status == 204
        assert server.stop() == 0
        assert server.output == f"You can now upload files to: http://127.0.0.1:{server.port}/files/\n"


def test_the_log_has_a_line_for_each_event_with_time_and_level(uploads: Path) -> None:
    with ServerProcess(uploads) as server:
        path = Server(server.port).create()
        server.stop()
        lines = server.log.splitlines()
    assert len(lines) == 2
    time, level, message = lines[0].split(" ", 2)
    assert len(time) == len("2025-01-31T12:00:00.000Z")
    assert level == "INFO"
    assert message.startswith(f"upload created id={path.removeprefix('/files/')} length=10 request=")


def test_the_server_does_not_tell_what_it_is_made_of(uploads: Path) -> None:
    with ServerProcess(uploads) as server:
        assert "server" not in Server(server.port).ask("OPTIONS", "/files/").fields


def test_settings_reach_the_application_from_flags_and_variables(uploads: Path) -> None:
    """A flag counts more than a variable."""
    variables = {"TUSD_PY_MAX_FILE_SIZE": "1KiB", "TUSD_PY_BASE_PATH": "/from-variable/"}
    with ServerProcess(uploads, "--base-path", "up", variables=variables) as server:
        assert server.url.endswith("/up/")
        assert Server(server.port).ask("OPTIONS", "/up").fields["tus-max-size"] == "1024"


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_signal_ends_a_slow_append_with_503_and_keeps_its_bytes(uploads: Path, workers: str) -> None:
    with ServerProcess(uploads, "--workers", workers) as server:
        path = Server(server.port).create(length=1000)
        with start_append(server, path, 1000) as connection:
            connection.send(bytes(300))
            wait_until(lambda: size_on_disk(uploads) == 300)
            connection.send(bytes(200))
            wait_until(lambda: unread_bytes(server.port) == 0)
            server.terminate()
            answer = connection.answer("PATCH")
            assert (answer.status, answer.fields["upload-offset"]) == (503, "500")
            assert connection.is_ended_by_server()
        assert server.wait(10) == 0
        assert "Traceback" not in server.log
    with ServerProcess(uploads) as server:
        assert Server(server.port).offset(path) == 500


def test_an_idle_connection_does_not_hold_up_the_end(uploads: Path) -> None:
    with ServerProcess(uploads) as server, Connection(server.port) as connection:
        connection.send("OPTIONS /files/ HTTP/1.1\r\nHost: localhost\r\n\r\n").answer("OPTIONS")
        server.terminate()
        assert connection.is_ended_by_server()
        assert server.wait(5) == 0


@pytest.mark.parametrize("workers", ["1", "2"])
def test_what_does_not_end_in_time_is_cancelled(uploads: Path, workers: str) -> None:
    flags = ("--allowed-upload-extensions", "*", "--shutdown-timeout-seconds", "1", "--workers", workers)
    with ServerProcess(uploads, *flags) as server, start_endless_download(server):
        server.terminate()
        assert server.wait(10) == 0
        assert "Traceback" not in server.log


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_download_that_nobody_reads_is_cut_with_its_connection(uploads: Path, workers: str) -> None:
    """Closing alone would wait for the client to take the rest, for ever."""
    flags = ("--allowed-upload-extensions", "*", "--send-timeout-seconds", "500ms", "--workers", workers)
    with ServerProcess(uploads, *flags) as server, start_endless_download(server) as connection:
        wait_until(lambda: not connections_of(server))
        assert len(connection.read_all()) < 32 * 1024 * 1024
    assert "takes nothing" in server.log
    assert "ERROR" not in server.log


def test_a_download_that_nobody_reads_holds_the_end_up_no_longer_than_it_may(uploads: Path) -> None:
    flags = ("--allowed-upload-extensions", "*", "--send-timeout-seconds", "500ms", "--shutdown-timeout-seconds", "1h")
    with ServerProcess(uploads, *flags) as server, start_endless_download(server):
        server.terminate()
        assert server.wait() == 0
    assert "ERROR" not in server.log


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_waits_for_nobody(uploads: Path, workers: str, number: signal.Signals) -> None:
    flags = ("--allowed-upload-extensions", "*", "--shutdown-timeout-seconds", "1h", "--workers", workers)
    with ServerProcess(uploads, *flags) as server, start_endless_download(server):
        os.kill(server.pid, number)
        wait_until(lambda: is_refused(server.port))
        os.kill(server.pid, number)
        assert server.wait(10) == 0
        assert "Traceback" not in server.log


def test_every_worker_serves(uploads: Path) -> None:
    with ServerProcess(uploads, "--workers", "2") as server:
        for worker in server.workers:
            worker.suspend()
            assert Server(server.port).ask("OPTIONS", "/files/").status == 204
            worker.resume()


def test_a_worker_that_dies_is_replaced(uploads: Path) -> None:
    with ServerProcess(uploads, "--workers", "2") as server:
        dead, other = server.workers
        dead.kill()
        wait_until(lambda: len(server.workers) == 2 and dead not in server.workers)
        other.suspend()
        assert Server(server.port).ask("OPTIONS", "/files/").status == 204
        other.resume()
        assert server.stop() == 0
        assert "another one takes its place" in server.log


def test_signals_to_workers_themselves_are_harmless(uploads: Path) -> None:
    """A service manager sends its signal to all processes of a group, and the parent passes it on as well."""
    with ServerProcess(uploads, "--workers", "2") as server:
        path = Server(server.port).create(length=1000)
        with start_append(server, path, 1000) as connection:
            for worker in server.workers:
                worker.terminate()
            server.terminate()
            assert connection.answer("PATCH").status == 503
        assert server.wait(10) == 0
        assert "Traceback" not in server.log


def test_workers_end_with_a_parent_that_is_killed(uploads: Path) -> None:
    with ServerProcess(uploads, "--workers", "2") as server:
        workers = server.workers
        os.kill(server.pid, signal.SIGKILL)
        _, alive = psutil.wait_procs(workers, PATIENCE)
        assert not alive


def test_workers_run_nothing_that_lies_in_the_current_folder(
    uploads: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("click", "puremagic", "uvicorn", "json"):
        (tmp_path / f"{module}.py").write_text("raise SystemExit('planted')")
    code = "import sys; sys.path.remove(''); from tusd_py.cli import main; main()"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tests.server_process.program", lambda *flags: [sys.executable, "-c", code, *flags])
    with ServerProcess(uploads, "--workers", "2") as server:
        assert Server(server.port).ask("OPTIONS", "/files/").status == 204


def test_workers_that_never_start_are_an_error() -> None:
    crew = Crew(count=2, command=(sys.executable, "-c", "pass"), order=lambda: "{}", shutdown_timeout=1)
    with listen("127.0.0.1", 0) as listener, pytest.raises(CannotServe, match="could not be started"):
        asyncio.run(supervise(crew, listener, lambda: None))


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        pytest.param(["--port", "{taken}"], "something else is listening there", id="port in use"),
        pytest.param(["--host", "192.0.2.1"], "this machine does not have that address", id="address of others"),
        pytest.param(["--host", "no such host"], "no address of this machine", id="no address"),
        pytest.param(["--upload-dir", "{file}"], "File exists; choose another folder", id="a file in its place"),
        pytest.param(["--upload-dir", "{file}/sub"], "Not a directory; choose another folder", id="below a file"),
    ],
)
def test_trouble_at_the_start_is_one_sentence(tmp_path: Path, flags: list[str], sentence: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        file = tmp_path / "file"
        file.touch()
        told = [flag.format(taken=taken.getsockname()[1], file=file) for flag in flags]
        done = subprocess.run(
            program("serve", "--port", "0", "--upload-dir", str(tmp_path / "uploads"), *told),
            capture_output=True,
            text=True,
            env=surroundings(),
            timeout=PATIENCE,
        )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("Error: cannot ")
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1


def test_an_ipv6_address_is_printed_in_brackets() -> None:
    plan = Plan(host="::1", port=0, base_path="/", root_path="", shutdown_timeout=1)
    with listen("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        assert local_url(plan, listener) == f"http://[::1]:{port}/"
