"""Starts whichever server is measured, in a new folder, and ends it by the ids of its processes."""

from __future__ import annotations

import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import psutil

from benchmarks.contenders import Contender
from benchmarks.measured_server import MeasuredServer

# Seconds that a server may take to answer, and to end.
STARTING = 60.0
ENDING = 20.0


class NotStarted(Exception):
    """A server does not answer; the message says what it said."""


@contextmanager
def started_server(contender: Contender, folder: Path) -> Iterator[MeasuredServer]:
    """Start a server with a new folder below ``folder``, and remove it with all data at the end.

    Raises:
        NotStarted: it ended at once, or is not there in time.
    """
    with tempfile.TemporaryDirectory(dir=folder, prefix="tusd_py_benchmark_") as home:
        uploads, log = Path(home) / "uploads", Path(home) / "log"
        uploads.mkdir(mode=0o700)
        port = _free_port()
        with log.open("wb") as output:
            process = subprocess.Popen(
                contender.words(port, uploads),
                env=contender.environment(uploads),
                cwd=home,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            _await(process, port, log)
            yield MeasuredServer(f"http://127.0.0.1:{port}/files/", uploads, process.pid)
        finally:
            _end(process)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _await(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + STARTING
    while process.poll() is None and time.monotonic() < deadline:
        with suppress(OSError, HTTPException):
            connection = HTTPConnection("127.0.0.1", port, timeout=STARTING)
            connection.request("OPTIONS", "/files/", headers={"Tus-Resumable": "1.0.0"})
            connection.getresponse().read()
            connection.close()
            return
        time.sleep(0.02)
    said = log.read_text(errors="replace").strip().splitlines()
    raise NotStarted(said[-1] if said else "it does not answer")


def _end(process: subprocess.Popen[bytes]) -> None:
    children: list[psutil.Process] = []
    with suppress(psutil.NoSuchProcess):
        children = psutil.Process(process.pid).children(recursive=True)
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(ENDING)
    # psutil compares start times, so that nobody is killed who was given the number of one that has ended.
    for child in psutil.wait_procs(children, timeout=1)[1]:
        child.kill()
    if process.poll() is None:
        process.kill()
        process.wait(ENDING)
