"""One way to send requests over HTTP/1.1 and HTTP/2, a piece at a time: head, some of the body, the end or none."""

from __future__ import annotations

import socket
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field

import h2.config
import h2.connection
import h2.events
import h2.exceptions

from tests.live import Answer, Connection

TUS = {"Tus-Resumable": "1.0.0"}
APPEND = {**TUS, "Content-Type": "application/offset+octet-stream"}


class Request(ABC):
    """A request whose head is under way."""

    @abstractmethod
    def send(self, data: bytes) -> Request:
        """Send some of the body. A server that has ended the request already gets nothing of it."""

    @abstractmethod
    def finish(self) -> Request:
        """End a body whose length the head did not tell."""

    @abstractmethod
    def first_status(self) -> int:
        """Wait for the next status, an interim one or that of the answer."""

    @abstractmethod
    def answer(self) -> Answer:
        """Wait for the answer; interim ones are skipped."""


class Wire(ABC):
    """A connection to a server."""

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @abstractmethod
    def begin(self, method: str, path: str, fields: Mapping[str, str] = TUS, *, size: int | None = 0) -> Request:
        """Send a head for a body of ``size`` bytes; ``None``: nobody knows yet."""

    def ask(self, method: str, path: str, fields: Mapping[str, str] = TUS, body: bytes = b"") -> Answer:
        """Send a whole request and return its answer."""
        request = self.begin(method, path, fields, size=len(body))
        if body:
            request.send(body)
        return request.answer()

    @abstractmethod
    def together(self) -> AbstractContextManager[None]:
        """Hold back what is sent while the context lasts, and send it in one piece at its end."""

    @abstractmethod
    def close(self) -> None:
        """End the connection as programs do that are done (FIN)."""

    @abstractmethod
    def reset(self, request: Request) -> None:
        """Break ``request`` off: with RST, of the connection or, where it carries others too, of its stream."""


class Http1(Wire):
    """A connection of HTTP/1.1."""

    def __init__(self, opened: socket.socket) -> None:
        self.connection = Connection(opened)
        self._held: list[bytes] | None = None

    def begin(self, method: str, path: str, fields: Mapping[str, str] = TUS, *, size: int | None = 0) -> Request:
        lines = [
            f"{method} {path} HTTP/1.1",
            "Host: localhost",
            *(f"{name}: {value}" for name, value in fields.items()),
        ]
        if size is None:
            lines.append("Transfer-Encoding: chunked")
        elif size or method in ("POST", "PATCH"):
            lines.append(f"Content-Length: {size}")
        self.write("".join(f"{line}\r\n" for line in (*lines, "")).encode("latin-1"))
        return Http1Request(self, method, is_chunked=size is None)

    def write(self, data: bytes) -> None:
        if self._held is None:
            self.connection.send(data)
        else:
            self._held.append(data)

    @contextmanager
    def together(self) -> Iterator[None]:
        self._held = []
        yield
        held, self._held = self._held, None
        self.write(b"".join(held))

    def close(self) -> None:
        self.connection.close()

    def reset(self, request: Request) -> None:
        self.connection.reset()


class Http1Request(Request):
    """A request in the row of its connection, whose answers have to be read in the same order."""

    def __init__(self, wire: Http1, method: str, *, is_chunked: bool) -> None:
        self._wire = wire
        self._method = method
        self._is_chunked = is_chunked

    def send(self, data: bytes) -> Request:
        self._wire.write(b"%x\r\n%s\r\n" % (len(data), data) if self._is_chunked else data)
        return self

    def finish(self) -> Request:
        self._wire.write(b"0\r\n\r\n")
        return self

    def first_status(self) -> int:
        return self._wire.connection.interim()

    def answer(self) -> Answer:
        return self._wire.connection.answer(self._method)


@dataclass
class Incoming:
    """What came on a stream."""

    statuses: list[int] = field(default_factory=list)
    fields: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    is_over: bool = False

    @property
    def is_whole(self) -> bool:
        """Whether the answer is there; its stream may stay open, for what we still send to be dropped."""
        return self.is_over or len(self.body) == int(self.fields.get("content-length", -1))


class Http2(Wire):
    """A connection of HTTP/2, whose requests have a stream each."""

    def __init__(self, opened: socket.socket) -> None:
        self.socket = opened
        self.state = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="latin-1"))
        self.state.initiate_connection()
        self.streams: dict[int, Incoming] = {}
        self._is_held = False
        self.flush()

    def begin(self, method: str, path: str, fields: Mapping[str, str] = TUS, *, size: int | None = 0) -> Request:
        stream = self.state.get_next_available_stream_id()
        head = [(":method", method), (":scheme", "https"), (":authority", "localhost"), (":path", path)]
        head += [(name.lower(), value) for name, value in fields.items()]
        if size or (size == 0 and method in ("POST", "PATCH")):
            head.append(("content-length", str(size)))
        self.streams[stream] = Incoming()
        self.state.send_headers(stream, head, end_stream=size == 0)
        self.flush()
        return Http2Request(self, stream, size)

    def flush(self) -> None:
        if not self._is_held:
            self.push()

    def push(self) -> None:
        self.socket.sendall(self.state.data_to_send())

    @contextmanager
    def together(self) -> Iterator[None]:
        self._is_held = True
        yield
        self._is_held = False
        self.flush()

    def close(self) -> None:
        self.socket.close()

    def reset(self, request: Request) -> None:
        assert isinstance(request, Http2Request)
        self.state.reset_stream(request.stream, 8)  # CANCEL
        self.flush()

    def take(self) -> None:
        """Wait for bytes from the server, and note what they say."""
        data = self.socket.recv(65536)
        if not data:
            raise ConnectionError("the server closed the connection before it answered")
        for event in self.state.receive_data(data):
            self._note(event)
        self.flush()

    def _note(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.InformationalResponseReceived | h2.events.ResponseReceived):
            found = self.streams[event.stream_id or 0]
            found.fields = {str(name): str(value) for name, value in event.headers or ()}
            found.statuses.append(int(found.fields.pop(":status")))
        elif isinstance(event, h2.events.DataReceived):
            self.streams[event.stream_id or 0].body += event.data or b""
            self.state.acknowledge_received_data(event.flow_controlled_length or 0, event.stream_id or 0)
        elif isinstance(event, h2.events.StreamEnded | h2.events.StreamReset):
            self.streams[event.stream_id or 0].is_over = True


class Http2Request(Request):
    """A request on its own stream."""

    def __init__(self, wire: Http2, stream: int, size: int | None) -> None:
        self.stream = stream
        self._wire = wire
        self._left = size
        self._incoming = wire.streams[stream]

    def send(self, data: bytes) -> Request:
        state = self._wire.state
        while data and not self._incoming.is_over:
            size = min(len(data), state.local_flow_control_window(self.stream), state.max_outbound_frame_size)
            if size == 0:
                # What is held back has to go after all, or the server never gives more room.
                self._wire.push()
                self._wire.take()
                continue
            if self._left is not None:
                self._left -= size
            state.send_data(self.stream, data[:size], end_stream=self._left == 0)
            data = data[size:]
            self._wire.flush()
        return self

    def finish(self) -> Request:
        if not self._incoming.is_over:
            self._wire.state.end_stream(self.stream)
            self._wire.flush()
        return self

    def first_status(self) -> int:
        while not self._incoming.statuses:
            self._wire.take()
        return self._incoming.statuses[0]

    def answer(self) -> Answer:
        while not self._incoming.is_whole:
            self._wire.take()
        assert self._incoming.statuses, "the server broke the request off without an answer"
        return Answer(self._incoming.statuses[-1], self._incoming.fields, self._incoming.body)
