"""The first moments of a server, and what it asks of the system."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.live import Server
from tests.server_process import PATIENCE, ServerProcess, program, surroundings, wait_until

# What is imported at these moments: almost nothing, the settings, the server.
MOMENTS = ("click", "pydantic_settings", "uvicorn", "tusd_py.web.app")


def stopping_at(module: str, *flags: str) -> list[str]:
    """Return a command that serves, and sends itself SIGTERM when it begins to import ``module``."""
    script = f"""
import os, signal, sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGTERM)
        return None
sys.argv = ["tusd-py", *{flags!r}]
from tusd_py.__main__ import start
sys.meta_path.insert(0, Finder())
start()
"""
    return [sys.executable, "-c", script]


@pytest.mark.parametrize("module", MOMENTS)
def test_a_signal_while_it_starts_ends_it_properly(tmp_path: Path, module: str) -> None:
    command = stopping_at(module, "serve", "--port", "0", "--upload-dir", str(tmp_path / "uploads"))
    done = subprocess.run(command, capture_output=True, text=True, env=surroundings(), timeout=PATIENCE)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_signal_at_any_moment_ends_it_properly(tmp_path: Path, workers: str) -> None:
    """Also with workers that are just being started. Measured from the first line of our own code."""
    for milliseconds in (60, 150, 250, 350, 450):
        process = subprocess.Popen(
            program("serve", "--port", "0", "--upload-dir", str(tmp_path / "uploads"), "--workers", workers),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=surroundings(),
        )
        wait_until(lambda process=process: listens_to_signals(process.pid))  # type: ignore[misc]
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(milliseconds / 1000)
        process.terminate()
        _, log = process.communicate(timeout=PATIENCE)
        assert (process.returncode, log) == (0, b"")


def listens_to_signals(pid: int) -> bool:
    """Tell whether the process has a handler for SIGTERM."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, mask = line.partition(":")
        if name == "SigCgt":
            return bool(int(mask, 16) & 1 << (signal.SIGTERM - 1))
    return False


@pytest.mark.skipif(
    subprocess.run(["unshare", "--pid", "--fork", "true"], capture_output=True).returncode != 0
    if shutil.which("unshare")
    else True,
    reason="no process here may be the first one of a namespace",
)
@pytest.mark.parametrize("workers", ["1", "2"])
def test_the_first_process_of_a_container_hears_signals_too(tmp_path: Path, workers: str) -> None:
    """The kernel keeps those from it that it has no handler for."""
    flags = ("serve", "--port", "0", "--upload-dir", str(tmp_path / "uploads"), "--workers", workers)
    holder = subprocess.Popen(
        ["unshare", "--pid", "--fork", "--kill-child", *program(*flags)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=surroundings(),
    )
    wait_until(lambda: bool(psutil.Process(holder.pid).children()))
    first = psutil.Process(holder.pid).children()[0]
    wait_until(lambda: listens_to_signals(first.pid))
    first.send_signal(signal.SIGTERM)
    assert holder.wait(PATIENCE) == 0
    assert holder.stdout is not None
    holder.stdout.close()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_as_many_descriptors_as_the_system_allows(tmp_path: Path, workers: str) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with ServerProcess(tmp_path / "uploads", "--workers", workers, limit=(64, hard)) as server:
        for pid in (server.pid, *(worker.pid for worker in server.workers)):
            assert resource.prlimit(pid, resource.RLIMIT_NOFILE) == (hard, hard)
        assert Server(server.port).ask("GET", "/readyz").status == 200


def test_help_is_there_at_once_and_needs_no_handlers() -> None:
    """What takes no time to start ends by a signal as every program does."""
    script = (
        "import signal, sys; sys.argv = ['tusd-py', '--version']\n"
        "from tusd_py.__main__ import start\n"
        "try:\n    start()\n"
        "except SystemExit:\n    pass\n"
        "assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, env=surroundings(), timeout=PATIENCE)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("workers", ["1", "2"])
def test_it_serves_without_a_stdin(tmp_path: Path, workers: str) -> None:
    """Its socket would get that number, and a worker would take its parent's words for it."""
    with ServerProcess(tmp_path / "uploads", "--workers", workers, has_stdin=False) as process:
        assert Server(process.port).ask("OPTIONS", "/files/").status == 204
    assert process.log.count("ERROR") == 0


@pytest.mark.parametrize("workers", ["1", "2"])
def test_an_upload_folder_may_have_any_name(tmp_path: Path, workers: str) -> None:
    """Names are bytes; these are no UTF-8."""
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff uploads"))
    with ServerProcess(folder, "--workers", workers, "--allowed-upload-extensions", "*") as process:
        server = Server(process.port)
        path = server.create(length=3)
        assert server.append(path, 0, b"abc").status == 204
    assert (folder / f"{path.removeprefix('/files/')}.bin").read_bytes() == b"abc"
