"""One upload of the full 5 GiB in one request, and one byte more that is refused: ``python -m benchmarks.full_size``.

Prints how fast it was and how much memory the server took for it. The bytes are made on the way, so that only the
server's copy of them needs room on the disk; the folder is removed at the end.
"""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import click

from benchmarks.measured_server import (
    APPEND,
    GIB,
    MIB,
    NAMED,
    WAVE_BEGINNING,
    MeasuredServer,
    build_size,
    measured_server,
)

BLOCK_SIZE = MIB
LARGEST = 5 * GIB


def generate(size: int) -> Iterator[memoryview]:
    """Give ``size`` bytes of a WAV file, in blocks of which no two are alike. A block is valid until the next one."""
    block = bytearray(random.Random(440).randbytes(BLOCK_SIZE))
    for start in range(0, size, BLOCK_SIZE):
        block[-16:] = start.to_bytes(16)
        block[: len(WAVE_BEGINNING)] = WAVE_BEGINNING if start == 0 else bytes(len(WAVE_BEGINNING))
        yield memoryview(block)[: min(BLOCK_SIZE, size - start)]


def send(server: MeasuredServer, path: str, size: int) -> float:
    """Send the upload in one PATCH and return how many seconds that took, up to the answer."""
    connection = server.connect()
    connection.putrequest("PATCH", path)
    for name, value in {**APPEND, "Upload-Offset": "0", "Content-Length": str(size)}.items():
        connection.putheader(name, value)
    began = time.perf_counter()
    connection.endheaders()
    for block in generate(size):
        connection.send(block)
    response = connection.getresponse()
    body = response.read()
    seconds = time.perf_counter() - began
    connection.close()
    if response.status != 204 or response.headers["Upload-Offset"] != str(size):
        raise SystemExit(f"the upload was not taken: {response.status} {body.decode()}")
    return seconds


def check_content(stored: Path, size: int) -> None:
    """Compare the digest of the file with that of what was sent.

    Raises:
        SystemExit: they differ.
    """
    sent = hashlib.sha256()
    for block in generate(size):
        sent.update(block)
    with stored.open("rb") as file:
        kept = hashlib.file_digest(file, "sha256")
    if kept.digest() != sent.digest():
        raise SystemExit("the stored file is not what was sent")
    print(f"sha256      {kept.hexdigest()} on both sides")


def show_refusal(server: MeasuredServer) -> None:
    """Ask for one byte more than the limit, and show the answer and that nothing came of it.

    Raises:
        SystemExit: it was not refused, or left something behind.
    """
    before = server.files()
    connection = server.connect()
    fields = {**NAMED, "Upload-Length": str(LARGEST + 1)}
    connection.request("POST", urlsplit(server.url).path, headers=fields)
    response = connection.getresponse()
    body = response.read().decode().strip()
    connection.close()
    print(f"5 GiB + 1   {response.status} {body}")
    if response.status != 413 or server.files() != before:
        raise SystemExit("this should have been refused before anything was made of it")


@click.command()
@click.option("--size", default=LARGEST, show_default=True, help="Bytes to upload.")
@click.option("--folder", type=click.Path(path_type=Path), help="Where the upload folder is made.")
@click.option("--fsync", default="completion", show_default=True, help="How durable the upload is to be.")
@click.option("--check/--no-check", default=True, show_default=True, help="Compare the stored bytes with those sent.")
def main(size: int, folder: Path | None, fsync: str, check: bool) -> None:
    """Upload the largest file that is accepted by default, and one that is a byte larger."""
    with measured_server(folder, "--fsync", fsync) as server:
        path = server.create(size)
        before = server.peak_memory()
        seconds = send(server, path, size)
        after = server.peak_memory()
        [stored] = server.upload_dir.glob("*.wav")
        if stored.stat().st_size != size:
            raise SystemExit(f"{stored.stat().st_size} bytes are stored instead of {size}")
        print(f"size        {size} bytes ({build_size(size)}), stored as large")
        print(f"throughput  {build_size(size / seconds)}/s ({seconds:.1f} s)")
        print(
            f"memory      {build_size(before)} before, {build_size(after)} at its peak: +{build_size(after - before)}"
        )
        if check:
            check_content(stored, size)
        show_refusal(server)


if __name__ == "__main__":
    main()
