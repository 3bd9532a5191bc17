"""A real server on loopback whose memory is watched, and plain tus requests to it."""

from __future__ import annotations

import resource
import tempfile
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from tests.server_process import ServerProcess

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB

TUS = {"Tus-Resumable": "1.0.0"}
APPEND = {**TUS, "Content-Type": "application/offset+octet-stream"}
NAMED = {**TUS, "Upload-Metadata": f"filename {b64encode(b'noise.wav').decode()}"}

# RIFF/WAVE with 8-bit mono PCM whose length nobody knows yet, as a recorder writes it that is still recording.
WAVE_BEGINNING = (
    b"RIFF\xff\xff\xff\xffWAVEfmt \x10\x00\x00\x00\x01\x00\x01\x00\x80\xbb\x00\x00\x80\xbb\x00\x00\x01\x00\x08\x00"
    b"data\xff\xff\xff\xff"
)


@dataclass(frozen=True)
class MeasuredServer:
    """Where the server is, and what its processes hold in memory."""

    url: str
    upload_dir: Path
    pid: int

    def connect(self) -> HTTPConnection:
        """Return a new connection to the server."""
        endpoint = urlsplit(self.url)
        return HTTPConnection(str(endpoint.hostname), endpoint.port, timeout=120)

    def create(self, length: int) -> str:
        """Create an upload and return the path of its URL."""
        connection = self.connect()
        connection.request("POST", urlsplit(self.url).path, headers={**NAMED, "Upload-Length": str(length)})
        response = connection.getresponse()
        body = response.read()
        connection.close()
        if response.status != 201:
            raise SystemExit(f"no upload was created: {response.status} {body.decode()}")
        return urlsplit(str(response.headers["Location"])).path

    def memory(self) -> int:
        """Return the resident bytes of all processes of the server."""
        return sum(process.memory_info().rss for process in self._processes())

    def peak_memory(self) -> int:
        """Return the most bytes that each process was ever resident with, all together."""
        return sum(high_water(process.pid) for process in self._processes())

    def processor_seconds(self) -> float:
        """Return the user and system time of all processes of the server, also of those that ended."""
        times = [process.cpu_times() for process in self._processes()]
        return sum(it.user + it.system + it.children_user + it.children_system for it in times)

    def forget_peak_memory(self) -> int:
        """Let ``peak_memory`` begin anew, and return what all processes hold now."""
        return sum(forget_high_water(process.pid) for process in self._processes())

    def files(self) -> list[str]:
        """Return the names of all files in the upload folder."""
        return sorted(str(path.relative_to(self.upload_dir)) for path in self.upload_dir.rglob("*") if path.is_file())

    def _processes(self) -> list[psutil.Process]:
        parent = psutil.Process(self.pid)
        return [parent, *parent.children(recursive=True)]


@contextmanager
def measured_server(folder: Path | None, *flags: str) -> Iterator[MeasuredServer]:
    """Start a server with a new folder below ``folder`` (default: where temporary files go) that goes away with it."""
    with (
        tempfile.TemporaryDirectory(dir=folder, prefix="tusd_py_benchmark_") as upload_dir,
        ServerProcess(Path(upload_dir), *flags) as process,
    ):
        yield MeasuredServer(process.url, Path(upload_dir), process.pid)


def allow_open_files(count: int) -> None:
    """Let this process and the server that it starts have so many files open.

    Raises:
        SystemExit: the system does not allow that.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < count:
        raise SystemExit(f"{count} open files are needed and {hard} are allowed; raise it with: ulimit -Hn {count}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, count), hard))


def build_size(size: float) -> str:
    """Write a number of bytes for people."""
    return f"{size / GIB:.2f} GiB" if abs(size) >= GIB else f"{size / MIB:.2f} MiB"


def forget_high_water(pid: int) -> int:
    """Let ``high_water`` begin anew, and return the bytes that the process is resident with now."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")  # proc_pid_clear_refs(5)
    return high_water(pid)


def high_water(pid: int) -> int:
    """Return the most bytes that a process was ever resident with."""
    # "VmHWM:     41234 kB" (proc_pid_status(5))
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * KIB
    return 0
