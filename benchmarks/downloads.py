"""What a download costs, beside uvicorn's own file sending: ``python -m benchmarks.downloads``.

Uploads a file, then downloads it in turns from tusd-py and from Starlette's FileResponse under the same uvicorn. Prints
how much processor time each server took for a GiB, and how much memory.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from urllib.parse import urlsplit

import click
import psutil

from benchmarks.full_size import send
from benchmarks.measured_server import GIB, MIB, build_size, forget_high_water, high_water, measured_server
from tests.server_process import surroundings


@dataclass
class Contender:
    """A server that has the file at ``path``, and what each download from it took."""

    name: str
    port: int
    path: str
    pid: int
    cpu: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def download(self, size: int) -> None:
        """Download the file once.

        Raises:
            SystemExit: something else than ``size`` bytes came.
        """
        cpu, began = self._cpu(), time.perf_counter()
        received = receive(self.port, self.path)
        self.seconds.append(time.perf_counter() - began)
        self.cpu.append(self._cpu() - cpu)
        if received != size:
            raise SystemExit(f"{self.name} sent {received} bytes instead of {size}")

    def report(self, size: int, before: int) -> str:
        """Return one line about all downloads; ``before`` is the memory that was used before the first."""
        gibs = size / GIB
        return (
            f"{self.name:<13} {median(self.cpu) / gibs:5.2f} CPU s/GiB (least {min(self.cpu) / gibs:.2f})   "
            f"{build_size(size / median(self.seconds))}/s   memory +{build_size(high_water(self.pid) - before)}"
        )

    def _cpu(self) -> float:
        times = psutil.Process(self.pid).cpu_times()
        return float(times.user + times.system)


def receive(port: int, path: str) -> int:
    """Download ``path`` and return how many bytes of content came."""
    buffer = memoryview(bytearray(MIB))
    with socket.create_connection(("127.0.0.1", port), timeout=120) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
        head = b""
        while b"\r\n\r\n" not in head:
            head += connection.recv(65536)
        size = len(head.partition(b"\r\n\r\n")[2])
        while received := connection.recv_into(buffer):
            size += received
    return size


@contextmanager
def file_response(file: Path) -> Iterator[Contender]:
    """Serve ``file`` by Starlette's FileResponse."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        command = [sys.executable, "-m", "benchmarks.file_response", str(file), str(listener.fileno())]
        process = subprocess.Popen(command, pass_fds=[listener.fileno()], env=surroundings())
        try:
            yield Contender("FileResponse", listener.getsockname()[1], "/", process.pid)
        finally:
            process.terminate()
            process.wait(30)


@click.command()
@click.option("--size", default=GIB, show_default=True, help="Bytes of the file.")
@click.option("--rounds", default=5, show_default=True, help="How often each server sends it.")
@click.option("--folder", type=click.Path(path_type=Path), help="Where the upload folder is made.")
def main(size: int, rounds: int, folder: Path | None) -> None:
    """Download a file from tusd-py and from FileResponse, in turns."""
    with measured_server(folder, "--fsync", "never", "--max-file-size", "0") as server:
        path = server.create(size)
        send(server, path, size)
        [file] = server.upload_dir.glob("*.wav")
        ours = Contender("tusd-py", urlsplit(server.url).port or 0, path, server.pid)
        with file_response(file) as theirs:
            contenders = (ours, theirs)
            # Whatever is loaded at the first request is loaded by a few bytes.
            for contender in contenders:
                receive_head(contender.port, contender.path)
            before = [forget_high_water(contender.pid) for contender in contenders]
            for _ in range(rounds):
                for contender in contenders:
                    contender.download(size)
            print(f"{rounds} downloads of {build_size(size)} from each, in turns; medians")
            for contender, memory in zip(contenders, before, strict=True):
                print(contender.report(size, memory))
            print(f"tusd-py takes {median(ours.cpu) / median(theirs.cpu):.2f} of FileResponse's processor time")


def receive_head(port: int, path: str) -> None:
    """Ask for a single byte, and so wait until the server answers."""
    with socket.create_connection(("127.0.0.1", port), timeout=120) as connection:
        connection.sendall(f"GET {path} HTTP/1.0\r\nRange: bytes=0-0\r\n\r\n".encode())
        while connection.recv(65536):
            pass


if __name__ == "__main__":
    main()
