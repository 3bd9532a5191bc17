"""A thousand slow uploads at once: ``python -m benchmarks.slow_uploads``.

Prints what they cost the server in memory.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from urllib.parse import urlsplit

import click

from benchmarks.measured_server import (
    APPEND,
    KIB,
    NAMED,
    WAVE_BEGINNING,
    MeasuredServer,
    allow_open_files,
    build_size,
    measured_server,
)

SECONDS_BETWEEN_PIECES = 0.5

# Connections that are opened at the same time; the backlog of a server is short.
OPENING = 50

# An upload needs a connection, a data file and a lock at most; the rest is for the programs themselves.
FILES_PER_UPLOAD = 4


class SlowUploads:
    """``count`` uploads that begin together, send ``piece`` bytes twice a second for ``seconds``, and end together."""

    def __init__(self, server: MeasuredServer, count: int, seconds: float, piece: int) -> None:
        self._server = server
        self._piece = bytes(piece)
        self._count = count
        self._pieces = max(round(seconds / SECONDS_BETWEEN_PIECES), 1)
        self._opening = asyncio.Semaphore(OPENING)
        self._are_open = asyncio.Barrier(count)
        self.peak = 0

    async def run(self) -> None:
        """Upload, and note in ``peak`` the most memory that the server had meanwhile."""
        watching = asyncio.create_task(self._watch())
        async with asyncio.TaskGroup() as uploads:
            for _ in range(self._count):
                uploads.create_task(self._upload())
        watching.cancel()

    async def _upload(self) -> None:
        endpoint = urlsplit(self._server.url)
        length = len(WAVE_BEGINNING) + self._pieces * len(self._piece)
        async with self._opening:
            reader, writer = await asyncio.open_connection(endpoint.hostname, endpoint.port)
            writer.write(_head("POST", endpoint.path, {**NAMED, "Upload-Length": str(length), "Content-Length": "0"}))
            path = urlsplit(await _answer(reader, "201", "location")).path
            fields = {**APPEND, "Upload-Offset": "0", "Content-Length": str(length)}
            writer.write(_head("PATCH", path, fields) + WAVE_BEGINNING)
        await self._are_open.wait()
        for _ in range(self._pieces):
            writer.write(self._piece)
            await writer.drain()
            await asyncio.sleep(SECONDS_BETWEEN_PIECES)
        told = await _answer(reader, "204", "upload-offset")
        if told != str(length):
            raise SystemExit(f"an upload of {length} bytes ended at offset {told}")
        writer.close()

    async def _watch(self) -> None:
        while True:
            self.peak = max(self.peak, self._server.memory())
            await asyncio.sleep(0.25)


def _head(method: str, path: str, fields: dict[str, str]) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in {"Host": "localhost", **fields}.items())
    return f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode()


async def _answer(reader: asyncio.StreamReader, status: str, field: str) -> str:
    """Read an answer and return one of its fields."""
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").splitlines()
    fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if first.split()[1] != status:
        raise SystemExit(f"the server answered: {first}")
    # An answer without content may still be chunked.
    if "transfer-encoding" in fields:
        await reader.readuntil(b"0\r\n\r\n")
    else:
        await reader.readexactly(int(fields.get("content-length", 0)))
    return fields[field]


@click.command()
@click.option("--count", default=1000, show_default=True, help="Uploads at once.")
@click.option("--seconds", default=15.0, show_default=True, help="How long they drip.")
@click.option("--piece", default=2 * KIB, show_default=True, help="Bytes that each of them sends twice a second.")
@click.option("--workers", default=1, show_default=True, help="Processes that serve them.")
@click.option("--folder", type=click.Path(path_type=Path), help="Where the upload folder is made.")
def main(count: int, seconds: float, piece: int, workers: int, folder: Path | None) -> None:
    """Upload slowly and many times at once."""
    allow_open_files(count * FILES_PER_UPLOAD + 512)
    with measured_server(folder, "--workers", str(workers), "--log-level", "warning") as server:
        asyncio.run(_measure(server, count, seconds, piece))


async def _measure(server: MeasuredServer, count: int, seconds: float, piece: int) -> None:
    before = server.memory()
    began = time.perf_counter()
    uploads = SlowUploads(server, count, seconds, piece)
    await uploads.run()
    print(f"uploads     {count} at once, all complete after {time.perf_counter() - began:.1f} s")
    growth = uploads.peak - before
    print(f"memory      {build_size(before)} before, {build_size(uploads.peak)} at its peak: +{build_size(growth)}")
    print(f"each        {growth / count / KIB:.1f} KiB")


if __name__ == "__main__":
    main()
