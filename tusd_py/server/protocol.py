"""uvicorn's HTTP protocol, with limits on what a client may send that is not the body of an upload.

Its parser keeps a head for as long as it goes on, and so it does with trailers and the extensions of chunks; and nobody
counts the seconds that a head takes. Whoever sends one byte now and then holds a connection for ever, and whoever sends
much of it holds our memory. What a server in front of us limits is its own affair: these are ours.
"""

from __future__ import annotations

import asyncio
from typing import ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

# Bytes of a head as they come. The application refuses fields that hold more than half of it, in the words of its
# protocol; what is cut off here is beyond any client that means well.
MAX_HEAD = 128 * 1024

# Bytes of a chunked body in a row that belong to no chunk: sizes, extensions, trailers.
MAX_FRAMING = 16 * 1024

TOO_LARGE = b"431 Request Header Fields Too Large"
TOO_SLOW = b"408 Request Timeout"
TOO_ODD = b"400 Bad Request"


class LimitedProtocol(HttpToolsProtocol):
    """One connection. ``head_timeout`` is in seconds, ``None`` for no limit; a subclass sets it."""

    head_timeout: ClassVar[float | None] = None

    _head = 0
    _framing = 0
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first head."""
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing any more."""
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count what is neither a finished head nor content."""
        before = self.cycle
        was_in_body = self._is_in_body
        self._framing += len(data)
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self.cycle is not before:
            # A head is whole. What may follow it in the same data is less than one read of the socket.
            self._head = self._framing = 0
            self._stop_waiting()
        elif was_in_body:
            if self._framing > MAX_FRAMING:
                self._refuse(TOO_ODD)
        else:
            self._head += len(data)
            if self._head > MAX_HEAD:
                self._refuse(TOO_LARGE)
            elif self._deadline is None:
                self._await_head()

    def on_headers_complete(self) -> None:
        """Begin the request, if it is one that we can serve.

        Raises:
            ValueError: it is not; the parser takes that for a malformed request, which is answered 400.
        """
        # The parser gives no body to a request that asks for another protocol, and reads nothing behind it.
        is_last = self.parser.should_upgrade()
        if is_last and (self.parser.get_method() == b"CONNECT" or any(map(_announces_body, self.headers))):
            raise ValueError("another protocol is asked for")
        # RFC 9112, 3.2: none, or more than one, is an error of the client.
        hosts = sum(name == b"host" for name, _ in self.headers)
        if hosts > 1 or (hosts == 0 and self.parser.get_http_version() == "1.1"):
            raise ValueError("the host is missing or ambiguous")
        super().on_headers_complete()
        if is_last:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        """Take content, which is the application's to limit."""
        super().on_body(body)
        self._framing = 0

    @property
    def _is_in_body(self) -> bool:
        return self.cycle is not None and self.cycle.more_body and not self.cycle.response_complete

    def _await_head(self) -> None:
        if self.head_timeout is not None:
            self._deadline = self.loop.call_later(self.head_timeout, self._be_late)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _be_late(self) -> None:
        self._deadline = None
        if self.cycle is not None and not self.cycle.response_complete:
            # The head of a request behind one that we are still answering: its client may be waiting for us.
            self._await_head()
        elif self._head:
            self._refuse(TOO_SLOW)
        else:
            # Browsers open connections in advance; an answer to nothing would be taken for that to their next request.
            self.transport.close()

    def _refuse(self, status: bytes) -> None:
        self._stop_waiting()
        if self.cycle is None or self.cycle.response_complete:
            self.transport.write(b"HTTP/1.1 %s\r\nConnection: close\r\nContent-Length: 0\r\n\r\n" % status)
            self.transport.close()
        else:
            # The answer is the application's to give, and it may have begun: to it the client is gone.
            self.transport.abort()


def _announces_body(field: tuple[bytes, bytes]) -> bool:
    name, value = field
    return name == b"transfer-encoding" or (name == b"content-length" and value.strip(b" \t0") != b"")
