"""Plain forms against tus, and forms that mean harm: ``python -m benchmarks.form``.

Uploads the same file by PATCH and by form, in turns, and prints how fast each was and how much memory the server took
for it. Then come bodies that make parsers of forms slow or large; meanwhile somebody asks for ``/healthz`` again and
again, and the longest wait for its answer is how long the event loop was held. At last, a file that is one byte larger
than what is accepted is cut off, and nothing of it is left.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path

import click

from benchmarks.full_size import generate, send
from benchmarks.measured_server import (
    GIB,
    MIB,
    MeasuredServer,
    build_size,
    forget_high_water,
    high_water,
    measured_server,
)

BOUNDARY = "----------------------------8f3a1c5b7d9e2f40"
PATH = "/upload/stream"
HEAD = (
    f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="noise.wav"\r\n'
    "Content-Type: audio/x-wav\r\n\r\n"
).encode()
TAIL = f"\r\n--{BOUNDARY}--\r\n".encode()
DELIMITER = f"\r\n--{BOUNDARY}".encode()
HOSTILE = 500 * MIB
EMPTY_PARTS = 100_000


@dataclass(frozen=True)
class Outcome:
    """How a form was answered, after how many seconds."""

    status: int
    body: str
    seconds: float


def post(server: MeasuredServer, size: int, blocks: Iterator[bytes | memoryview]) -> Outcome:
    """Send a form of ``size`` bytes; a server that has answered before the end of it is listened to at once."""
    connection = server.connect()
    connection.putrequest("POST", PATH)
    connection.putheader("Content-Type", f"multipart/form-data; boundary={BOUNDARY}")
    connection.putheader("Content-Length", str(size))
    began = time.perf_counter()
    connection.endheaders()
    try:
        for block in blocks:
            connection.send(block)
    except (BrokenPipeError, ConnectionResetError):
        pass  # It has said why before.
    response = connection.getresponse()
    body = response.read().decode()
    connection.close()
    return Outcome(response.status, body, time.perf_counter() - began)


def post_file(server: MeasuredServer, size: int) -> Outcome:
    """Send a file of ``size`` bytes as a form."""

    def blocks() -> Iterator[bytes | memoryview]:
        yield HEAD
        yield from generate(size)
        yield TAIL

    return post(server, len(HEAD) + size + len(TAIL), blocks())


def repeated(pattern: bytes, size: int) -> Iterator[bytes]:
    """Give ``size`` bytes of a file that consists of ``pattern``, in a form."""
    block = pattern * (MIB // len(pattern))
    yield HEAD
    for _ in range(size // len(block)):
        yield block
    yield block[: size % len(block)]
    yield TAIL


def empty_parts(head: bytes) -> Iterator[bytes]:
    """Give a form of very many parts without content, all with this ``head``."""
    part = f"--{BOUNDARY}\r\n".encode() + head + b"\r\n\r\n"
    for _ in range(EMPTY_PARTS // 100):
        yield part * 100
    yield TAIL[2:]


class Bystander:
    """Asks the server for ``/healthz`` all the time, and remembers the longest wait in seconds."""

    def __init__(self, server: MeasuredServer) -> None:
        self._connection: HTTPConnection = server.connect()
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._ask)
        self.longest = 0.0

    def __enter__(self) -> Bystander:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._is_over.set()
        self._thread.join()
        self._connection.close()

    def _ask(self) -> None:
        while not self._is_over.wait(0.002):
            began = time.perf_counter()
            self._connection.request("GET", "/healthz")
            self._connection.getresponse().read()
            self.longest = max(self.longest, time.perf_counter() - began)


def grown(server: MeasuredServer, work: Callable[[], object]) -> int:
    """Return by how many bytes the server was larger during ``work`` than before it."""
    before = forget_high_water(server.pid)
    work()
    return high_water(server.pid) - before


def remove_uploads(server: MeasuredServer) -> None:
    """Make room again."""
    for path in server.upload_dir.glob("*.wav"):
        path.unlink()


def compare(server: MeasuredServer, size: int, rounds: int) -> None:
    """Upload by PATCH and by form in turns, and print medians."""
    seconds: dict[str, list[float]] = {"PATCH": [], "form": []}
    growth: dict[str, int] = {"PATCH": 0, "form": 0}

    def by_patch() -> None:
        seconds["PATCH"].append(send(server, server.create(size), size))

    def by_form() -> None:
        outcome = post_file(server, size)
        if outcome.status != 200:
            raise SystemExit(f"the form was not taken: {outcome}")
        seconds["form"].append(outcome.seconds)

    for _ in range(rounds):
        for name, work in (("PATCH", by_patch), ("form", by_form)):
            growth[name] = max(growth[name], grown(server, work))
            remove_uploads(server)
    for name, measured in seconds.items():
        speed = build_size(size / statistics.median(measured))
        print(f"{name:11} {speed}/s, peak +{build_size(growth[name])}")
    print(f"ratio       {statistics.median(seconds['PATCH']) / statistics.median(seconds['form']):.2f}")


def show_hostile(server: MeasuredServer) -> None:
    """Send what makes parsers slow, and print what came of it."""
    around = len(HEAD) + len(TAIL)
    named = b'Content-Disposition: form-data; name="a"\r\n'
    part = len(BOUNDARY) + 4
    bodies: dict[str, tuple[int, Callable[[], Iterator[bytes]]]] = {
        "CRLF": (HOSTILE + around, lambda: repeated(b"\r\n", HOSTILE)),
        "CR": (HOSTILE + around, lambda: repeated(b"\r", HOSTILE)),
        "near": (HOSTILE + around, lambda: repeated(DELIMITER[:-1], HOSTILE)),
        "false": (HOSTILE + around, lambda: repeated(DELIMITER + b"x", HOSTILE)),
        "padding": (HOSTILE + around, lambda: repeated(DELIMITER + b" " * 100_000, HOSTILE)),
        "parts": (EMPTY_PARTS * (part + 4) + len(TAIL) - 2, lambda: empty_parts(b"")),
        "named parts": (EMPTY_PARTS * (part + 4 + len(named)) + len(TAIL) - 2, lambda: empty_parts(named)),
    }
    for name, (size, blocks) in bodies.items():
        with Bystander(server) as bystander:
            before = forget_high_water(server.pid)
            outcome = post(server, size, blocks())
            growth = high_water(server.pid) - before
        told = (
            f"{outcome.status} after {outcome.seconds:.2f} s, loop held for {1000 * bystander.longest:.0f} ms at most"
        )
        print(f"{name:11} {told}, peak +{build_size(growth)}")
        remove_uploads(server)


def show_refusal(server: MeasuredServer, limit: int) -> None:
    """Send one byte more than what is accepted, and show the answer and that nothing came of it.

    Raises:
        SystemExit: it was not refused, or left something behind.
    """
    before = server.files()
    outcome = post_file(server, limit + 1)
    print(f"{build_size(limit)} + 1  {outcome.status} {outcome.body} after {outcome.seconds:.1f} s")
    if outcome.status != 413 or server.files() != before:
        raise SystemExit("this should have been cut off, and nothing of it kept")


@click.command()
@click.option("--size", default=600 * 1000**2, show_default=True, help="Bytes to upload.")
@click.option("--rounds", default=5, show_default=True, help="How often.")
@click.option("--limit", default=5 * GIB, show_default=True, help="The largest file that is accepted, in bytes.")
@click.option("--folder", type=click.Path(path_type=Path), help="Where the upload folder is made.")
@click.option("--fsync", default="never", show_default=True, help="How durable the uploads are to be.")
def main(size: int, rounds: int, limit: int, folder: Path | None, fsync: str) -> None:
    """Compare forms with tus, and show that no form holds the server."""
    flags = ("--fsync", fsync, "--max-file-size", str(limit), "--log-level", "warning", "--sniff", "off")
    with measured_server(folder, *flags) as server:
        print(f"size        {size} bytes, {rounds} rounds, medians")
        compare(server, size, rounds)
        show_hostile(server)
        show_refusal(server, limit)


if __name__ == "__main__":
    main()
