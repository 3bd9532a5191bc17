"""The body of a request on its way from the connection into an intake, past ASGI.

ASGI hands bodies over in pieces: the transport reads into memory of its own, the parser copies that, the server
collects the copies, and the application copies them once more. Where the length is known none of that is needed. The
transport is given another protocol for as long as the body lasts, one whose buffer is the slab of the intake, and the
kernel writes into it. Bytes that were read together with the head come first; the parser goes on behind the body.

Chunked bodies need the parser. They are taken from where it puts them, without the copies behind it.
"""

from __future__ import annotations

import asyncio
from typing import Protocol, cast

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle
from uvicorn.protocols.utils import is_ssl

from tusd_py.errors import ConnectionLost, UploadError
from tusd_py.intake import Sink
from tusd_py.web.reception import Arriving, Reception

# What a TLS library may hold beside what it has not looked at yet: one record. Source: RFC 8446, 5.1.
RECORD = 16 * 1024

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Connection(Protocol):
    """What has the connection before and after the body; all but the first are as in ``asyncio.Protocol``."""

    def go_on_behind(self, missing: int) -> None:
        """Go on behind the body, of which the last ``missing`` bytes are still to come."""

    def data_received(self, data: bytes) -> None: ...

    def eof_received(self) -> bool | None: ...

    def connection_lost(self, exc: Exception | None) -> None: ...

    def pause_writing(self) -> None: ...

    def resume_writing(self) -> None: ...


class Arrival(asyncio.BufferedProtocol, Arriving):
    """One body; ``size`` is its length in bytes, ``None`` where it is chunked.

    It is the protocol of the connection while it reads into the intake, and passes on whatever else happens.
    """

    def __init__(
        self, connection: Connection, cycle: RequestResponseCycle, reception: Reception, size: int | None
    ) -> None:
        self.received = 0
        self.passed = 0
        self._connection = connection
        self._cycle = cycle
        self._reception = reception
        self._size = size
        self._missing = size or 0
        self._error: UploadError | None = None
        self._aside: memoryview | None = None
        self._is_paused = False
        # Only for what is read past the parser.
        self._changed: asyncio.Event
        self._is_encrypted: bool
        self._sink: Sink

    @property
    def is_over(self) -> bool:
        return not self._cycle.more_body and not self._cycle.body

    async def feed(self, sink: Sink) -> None:
        self._error = self._aside = None
        self._is_paused = False
        if self._cycle.waiting_for_100_continue and not self._cycle.transport.is_closing():
            self._cycle.waiting_for_100_continue = False
            if self._cycle.more_body and not self._cycle.body:
                self._cycle.transport.write(CONTINUE)
        while await self._hand_over(sink):
            if self._size is None:
                await self._parsed()
            else:
                await self._read(sink)

    def at_hand(self) -> bytes | None:
        if self._cycle.more_body or self.received or self.passed or self._reception.error is not None:
            return None
        return bytes(self._taken())

    # What the parser has read

    async def _hand_over(self, sink: Sink) -> bool:
        """Give ``sink`` what the parser has put aside; tell whether more is to come.

        Raises:
            UploadError: the framing is broken, and nothing that came in it counts.
            ConnectionLost: the client is gone before the end.
        """
        while True:
            # Before we ask whether the client is gone: one that left after it sent nonsense has sent nonsense.
            self._reception.check()
            if not self._cycle.body:
                break
            await sink.put(self._taken())
        if self._cycle.more_body and self._cycle.disconnected:
            raise ConnectionLost
        return self._cycle.more_body and not self._is_through

    def _taken(self) -> bytearray:
        body, self._cycle.body = self._cycle.body, bytearray()
        self.received += len(body)
        return body

    async def _parsed(self) -> None:
        """Wait until the parser has something."""
        self._flow.resume_reading()
        await self._cycle.message_event.wait()
        self._cycle.message_event.clear()

    # What nobody has read yet

    async def _read(self, sink: Sink) -> None:
        """Let the transport read the rest into the slabs of ``sink``."""
        assert self._size is not None
        self._sink = sink
        self._changed = asyncio.Event()
        self._is_encrypted = is_ssl(self._cycle.transport)
        self._missing = self._size - self.received - self.passed
        self._connect(self)
        try:
            while self._missing and not self._cycle.disconnected:
                await self._changed.wait()
                self._changed.clear()
                self._check()
                if self._is_paused:
                    # Both slabs are full: the disk sets the pace.
                    self._is_paused = False
                    await (sink.turn() if self._aside is None else self._put_aside(sink))
                    self._flow.resume_reading()
            self._check()
            if self._aside is not None:
                await self._put_aside(sink)
        finally:
            if self._missing:
                self._leave()

    def _check(self) -> None:
        if self._error is not None:
            raise self._error

    async def _put_aside(self, sink: Sink) -> None:
        self._aside = None
        await sink.put_held()

    @property
    def _is_through(self) -> bool:
        return self._size is not None and self.received + self.passed == self._size

    @property
    def _flow(self) -> FlowControl:
        return self._cycle.flow

    def _connect(self, protocol: asyncio.BaseProtocol) -> None:
        # Paused meanwhile, because uvloop decides at the beginning of reading how it reads.
        self._flow.pause_reading()
        self._cycle.transport.set_protocol(protocol)
        self._flow.resume_reading()

    def _leave(self) -> None:
        """Let the parser go on behind what was read here."""
        if self._cycle.disconnected:
            return
        self._connect(cast(asyncio.Protocol, self._connection))
        self._connection.go_on_behind(self._missing)

    # asyncio.BufferedProtocol

    def get_buffer(self, sizehint: int) -> memoryview:
        # Never more than the rest of the body: what follows it is the next request.
        self._aside = None
        if not self._is_encrypted:
            return self._sink.buffer()[: self._missing]
        # Whatever is decrypted when the client closes has to find its place at once, or it is lost.
        needed = min(sizehint + RECORD, self._missing)
        buffer = self._sink.buffer(needed)[: self._missing]
        if len(buffer) < needed:
            buffer = self._aside = memoryview(bytearray(needed))
        return buffer

    def buffer_updated(self, nbytes: int) -> None:
        self._missing -= nbytes
        self.received += nbytes
        try:
            has_place = self._count_in(nbytes)
        except UploadError as error:
            self._error = error
            has_place = False
        if not self._missing:
            self._leave()
            self._changed.set()
        elif not has_place:
            self._pause()

    def _count_in(self, size: int) -> bool:
        """Count in what was read, and tell whether there is a place for more just now."""
        if self._aside is not None:
            self._sink.hold(self._aside[:size])
            return False
        return not self._sink.filled(size) or self._sink.try_turn()

    def _pause(self) -> None:
        """Read no more until ``_read`` has looked at what there is."""
        self._is_paused = True
        self._flow.pause_reading()
        self._changed.set()

    def eof_received(self) -> bool | None:
        return self._connection.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._connection.connection_lost(exc)
        self._changed.set()

    def pause_writing(self) -> None:
        self._connection.pause_writing()

    def resume_writing(self) -> None:
        self._connection.resume_writing()
