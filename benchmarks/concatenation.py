"""Eight partials of 512 MiB become one upload of 4 GiB: ``python -m benchmarks.concatenation``.

Prints how long the answer took and how much of the processors the server used for it, and the longest delay of other
requests meanwhile. Where strace is installed, a second final over the same partials is made under its eyes, to show who
moved the bytes. The folder needs room for three times the upload and is removed at the end.
"""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import threading
import time
from http.client import HTTPConnection
from itertools import cycle
from pathlib import Path
from urllib.parse import urlsplit

import click

from benchmarks.full_size import generate
from benchmarks.measured_server import APPEND, MIB, NAMED, TUS, MeasuredServer, build_size, measured_server

PAUSE_SECONDS = 0.002
IDLE_SECONDS = 3.0
BLOCK_SIZE = MIB
MOVING = "copy_file_range,read,pread64,write,pwrite64,sendfile,splice"


class Bystander(threading.Thread):
    """A client that asks for the offset of another upload, and what the server can do, again and again."""

    def __init__(self, server: MeasuredServer, path: str) -> None:
        super().__init__()
        self.delays: list[float] = []
        self._connection = server.connect()
        self._requests = cycle((("HEAD", path, 200), ("OPTIONS", urlsplit(server.url).path, 204)))
        self._is_over = threading.Event()

    def run(self) -> None:
        while not self._is_over.wait(PAUSE_SECONDS):
            method, path, expected = next(self._requests)
            began = time.perf_counter()
            status = _ask(self._connection, method, path, TUS)[0]
            self.delays.append(time.perf_counter() - began)
            if status != expected:
                raise SystemExit(f"{method} {path} was answered with {status}")
        self._connection.close()

    def stop(self) -> None:
        self._is_over.set()
        self.join()


def create_partial(server: MeasuredServer, size: int) -> str:
    """Upload one partial in one request, and return the path of its URL."""
    connection = server.connect()
    connection.putrequest("POST", urlsplit(server.url).path)
    fields = {**APPEND, "Upload-Concat": "partial", "Upload-Length": str(size), "Content-Length": str(size)}
    for name, value in fields.items():
        connection.putheader(name, value)
    connection.endheaders()
    for block in generate(size):
        connection.send(block)
    response = connection.getresponse()
    body = response.read()
    connection.close()
    if response.status != 201 or response.headers["Upload-Offset"] != str(size):
        raise SystemExit(f"a partial was not taken: {response.status} {body.decode()}")
    return urlsplit(str(response.headers["Location"])).path


def concatenate(server: MeasuredServer, partials: list[str], size: int) -> float:
    """Make a final of ``partials`` and return how many seconds that took."""
    connection = server.connect()
    fields = {**NAMED, "Upload-Concat": f"final;{' '.join(partials)}"}
    began = time.perf_counter()
    status, offset = _ask(connection, "POST", urlsplit(server.url).path, fields)
    seconds = time.perf_counter() - began
    connection.close()
    if status != 201 or offset != str(size):
        raise SystemExit(f"the final is not complete: {status}, offset {offset}")
    return seconds


def check_content(server: MeasuredServer, partials: list[str]) -> None:
    """Compare the final with its partials.

    Raises:
        SystemExit: they differ.
    """
    [final] = server.upload_dir.glob("*.wav")
    with final.open("rb") as whole:
        for partial in partials:
            data = server.upload_dir / "partial" / f"{partial.rpartition('/')[2]}.part"
            with data.open("rb") as part:
                while block := part.read(BLOCK_SIZE):
                    if whole.read(len(block)) != block:
                        raise SystemExit("the final does not consist of its partials")
        if whole.read(1):
            raise SystemExit("the final is longer than its partials")
    print("content     that of the partials, byte for byte")


def show_delays(name: str, delays: list[float]) -> None:
    """Print how long the requests of a bystander took."""
    usual, longest = sorted(delays)[-1 - len(delays) // 100], max(delays)
    print(f"{name:11} {len(delays)} others, 99% within {usual * 1000:.1f} ms, all within {longest * 1000:.1f} ms")


def show_calls(server: MeasuredServer, partials: list[str], size: int) -> None:
    """Make another final and print how many bytes each system call moved meanwhile."""
    strace = shutil.which("strace")
    if strace is None:
        print("strace      is not installed")
        return
    log = server.upload_dir / "strace.log"
    command = [strace, "-f", "-qq", "-e", f"trace={MOVING}", "-o", str(log), "-p", str(server.pid)]
    with subprocess.Popen(command) as tracer:
        while f"TracerPid:\t{tracer.pid}" not in Path(f"/proc/{server.pid}/status").read_text():
            if tracer.poll() is not None:
                print("strace      may not look at the server here")
                return
            time.sleep(0.01)
        concatenate(server, partials, size)
        tracer.send_signal(signal.SIGINT)
    moved: dict[str, int] = {}
    # A call that another one interrupts in the log is on two lines, of which the second has the result.
    for call, result in re.findall(r"^\d+ +(?:<\.\.\. )?(\w+).*= (\d+)$", log.read_text(), re.MULTILINE):
        moved[call] = moved.get(call, 0) + int(result)
    told = ", ".join(f"{call} {build_size(count)}" for call, count in sorted(moved.items(), key=lambda item: -item[1]))
    print(f"strace      {told}")


def _ask(connection: HTTPConnection, method: str, path: str, fields: dict[str, str]) -> tuple[int, str | None]:
    connection.request(method, path, headers=fields)
    response = connection.getresponse()
    response.read()
    return response.status, response.headers["Upload-Offset"]


@click.command()
@click.option("--count", default=8, show_default=True, help="How many partials.")
@click.option("--size", default=512 * MIB, show_default=True, help="Bytes of each.")
@click.option("--folder", type=click.Path(path_type=Path), help="Where the upload folder is made.")
@click.option("--fsync", default="completion", show_default=True, help="How durable the upload is to be.")
@click.option("--check/--no-check", default=True, show_default=True, help="Compare the final with its partials.")
def main(count: int, size: int, folder: Path | None, fsync: str, check: bool) -> None:
    """Concatenate COUNT partials of SIZE bytes while others ask for something else."""
    whole = count * size
    with measured_server(folder, "--fsync", fsync) as server:
        unfinished = server.create(1000)
        partials = [create_partial(server, size) for _ in range(count)]
        idle, bystander = Bystander(server, unfinished), Bystander(server, unfinished)
        idle.start()
        time.sleep(IDLE_SECONDS)
        idle.stop()
        before, memory = server.processor_seconds(), server.peak_memory()
        bystander.start()
        seconds = concatenate(server, partials, whole)
        bystander.stop()
        used = server.processor_seconds() - before
        print(f"size        {count} x {build_size(size)} = {build_size(whole)}")
        print(f"time        {seconds:.2f} s ({build_size(whole / seconds)}/s)")
        print(f"processor   {used:.2f} s, the other requests included")
        print(f"memory      +{build_size(server.peak_memory() - memory)} at its peak")
        show_delays("meanwhile", bystander.delays)
        show_delays("idle", idle.delays)
        if check:
            check_content(server, partials)
        show_calls(server, partials, whole)


if __name__ == "__main__":
    main()
