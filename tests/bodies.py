"""Bodies of requests as tests need them: given at once, or sent chunk by chunk by the test itself."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from tusd_py.intake import Body, Intake
from tusd_py.storage.base import Buffer


class Chunks(Body):
    """A body that is all there, and that may end with an error."""

    def __init__(self, *chunks: bytes, error: BaseException | None = None) -> None:
        self.size = None
        self._left = iter(chunks)
        self._error = error

    async def feed(self, intake: Intake) -> None:
        for chunk in self._left:
            await intake.put(chunk)
        if self._error is not None:
            raise self._error


class AtHand(Body):
    """A body that has arrived whole; nothing feeds it bit by bit."""

    def __init__(self, content: bytes) -> None:
        self.size = len(content)
        self._content = content

    def at_hand(self) -> bytes | None:
        return self._content

    async def feed(self, intake: Intake) -> None:
        raise AssertionError("it is at hand")


class Sent(Body):
    """A body whose chunks the test sends, one by one."""

    def __init__(self) -> None:
        self.size = None
        self._waiting: asyncio.Queue[bytes | BaseException | None] = asyncio.Queue()

    async def feed(self, intake: Intake) -> None:
        while (chunk := await self._waiting.get()) is not None:
            if isinstance(chunk, BaseException):
                raise chunk
            await intake.put(chunk)
            self._waiting.task_done()

    async def send(self, chunk: bytes) -> None:
        """Send ``chunk`` and wait until it was taken in."""
        self._waiting.put_nowait(chunk)
        await self._waiting.join()

    def post(self, *chunks: bytes) -> None:
        """Send ``chunks`` and wait for nothing."""
        for chunk in chunks:
            self._waiting.put_nowait(chunk)

    def end(self, error: BaseException | None = None) -> None:
        """End the body, with ``error`` if there is one."""
        self._waiting.put_nowait(error)


class SmallSlabs:
    """Takes a body as an intake does, into slabs of ``size`` bytes; ``content`` is what came."""

    def __init__(self, size: int) -> None:
        self._slab = memoryview(bytearray(size))
        self._filled = 0
        self._held = memoryview(b"")
        self._stored = bytearray()

    @property
    def content(self) -> bytes:
        return bytes(self._stored + self._slab[: self._filled])

    async def put(self, chunk: Buffer) -> None:
        self.hold(chunk)
        await self.put_held()

    def hold(self, chunk: Buffer) -> None:
        assert not self._held, "what was held is not put in"
        self._held = memoryview(chunk)

    async def put_held(self) -> None:
        while self._held:
            buffer = self.buffer()
            size = min(len(buffer), len(self._held))
            buffer[:size] = self._held[:size]
            self._held = self._held[size:]
            if self.filled(size):
                await self.turn()
        self._held = memoryview(b"")

    def buffer(self, expected: int = 0) -> memoryview:
        return self._slab[self._filled :]

    def filled(self, size: int) -> bool:
        self._filled += size
        assert self._filled <= len(self._slab)
        return self._filled == len(self._slab)

    async def turn(self) -> None:
        assert self.try_turn()

    def try_turn(self) -> bool:
        self._stored += self._slab[: self._filled]
        # Whoever still has a buffer of it must not read what was there.
        self._slab = memoryview(bytearray(len(self._slab)))
        self._filled = 0
        return True


def cut(data: bytes, size: int) -> Iterator[bytes]:
    """Give ``data`` in chunks of ``size`` bytes."""
    return (data[start : start + size] for start in range(0, len(data), size))
