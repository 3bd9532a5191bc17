"""A bad network: a TCP proxy on loopback that cuts or silences connections after so many bytes."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto
from urllib.parse import SplitResult, urlsplit

READ_SIZE = 64 * 1024
MAX_CONNECTIONS = 16


class Trouble(Enum):
    """What happens to a connection: it is cut on both sides, or it stays open and carries nothing any more."""

    CUT = auto()
    SILENCE = auto()


@dataclass(frozen=True, slots=True)
class Fault:
    """Trouble for the connection that is the first to send ``after`` bytes to the server."""

    after: int
    trouble: Trouble


class BadNetwork:
    """What lies between a client and the server. Every fault happens once, in order; then the network is good.

    ``url`` is the endpoint as clients see it through this network; ``happened`` is set when the last fault came.
    """

    def __init__(self, target: SplitResult, faults: list[Fault]) -> None:
        assert target.hostname == "127.0.0.1", "this never leaves the machine"
        self._target = target
        self._faults = deque(faults)
        self._tasks: set[asyncio.Task[None]] = set()
        self._slots = asyncio.Semaphore(MAX_CONNECTIONS)
        self.url = ""
        self.happened = threading.Event()

    async def run(self, opened: threading.Event, closed: asyncio.Event) -> None:
        """Carry bytes until ``closed``; ``opened`` tells that ``url`` is known and connections are taken."""
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        self.url = self._target._replace(netloc=f"127.0.0.1:{port}").geturl()
        opened.set()
        await closed.wait()
        server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._carry(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with self._slots:
            try:
                server_reader, server_writer = await asyncio.open_connection(self._target.hostname, self._target.port)
            except OSError:
                writer.transport.abort()
                return
            try:
                async with asyncio.TaskGroup() as directions:
                    directions.create_task(self._upstream(reader, server_writer))
                    directions.create_task(_copy(server_reader, writer))
            except* ConnectionError:
                pass  # One side is gone; the other one learns it now.
            finally:
                writer.transport.abort()
                server_writer.transport.abort()

    async def _upstream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sent = 0
        while data := await reader.read(READ_SIZE):
            fault = self._faults[0] if self._faults else None
            if fault is None or sent + len(data) < fault.after:
                sent += len(data)
                writer.write(data)
                await writer.drain()
                continue
            self._faults.popleft()
            writer.write(data[: max(fault.after - sent, 0)])
            await writer.drain()
            if not self._faults:
                self.happened.set()
            if fault.trouble is Trouble.SILENCE:
                await _until_gone(reader)
            break
        raise ConnectionResetError


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(READ_SIZE):
        writer.write(data)
        await writer.drain()
    raise ConnectionResetError


async def _until_gone(reader: asyncio.StreamReader) -> None:
    while await reader.read(READ_SIZE):
        pass


@contextlib.contextmanager
def bad_network(url: str, *faults: Fault) -> Iterator[BadNetwork]:
    """Put a bad network before the endpoint at ``url`` while the context lasts."""
    network = BadNetwork(urlsplit(url), list(faults))
    opened = threading.Event()
    ready: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def run() -> None:
        closed = asyncio.Event()
        ready.append((asyncio.get_running_loop(), closed))
        await network.run(opened, closed)

    thread = threading.Thread(target=asyncio.run, args=[run()], daemon=True)
    thread.start()
    assert opened.wait(10), "the proxy did not start"
    try:
        yield network
    finally:
        [(loop, closed)] = ready
        loop.call_soon_threadsafe(closed.set)
        thread.join(10)
        assert not thread.is_alive(), "the proxy did not end"
