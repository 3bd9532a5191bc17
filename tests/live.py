"""A real server in a thread of this process, and raw requests to it: for tests that care what the wire carries."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import uvicorn
from starlette.types import ASGIApp

TUS = "Tus-Resumable: 1.0.0\r\n"
APPEND = TUS + "Content-Type: application/offset+octet-stream\r\n"


@dataclass(frozen=True)
class Answer:
    """One response: status, header fields by lower-case name (the last line wins), body as it came."""

    status: int
    fields: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()


class Connection:
    """A connection to the server that sends exactly the bytes it is given."""

    def __init__(self, reached: int | socket.socket) -> None:
        """Connect to a port of this machine, or speak over a socket that is connected already."""
        if isinstance(reached, int):
            reached = socket.create_connection(("127.0.0.1", reached), timeout=20)
        self._socket = reached
        self._read = b""

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def send(self, data: bytes | str) -> Connection:
        self._socket.sendall(data.encode("latin-1") if isinstance(data, str) else data)
        return self

    def answer(self, method: str = "GET") -> Answer:
        """Read one response to a request with ``method``; interim ones are skipped."""
        while True:
            status, fields = self._head()
            if status >= 200:
                return self._with_body(method, status, fields)

    def final(self, method: str = "GET") -> Answer:
        """Read one response, which must not be an interim one."""
        status, fields = self._head()
        assert status >= 200, f"{status} came first"
        return self._with_body(method, status, fields)

    def _head(self) -> tuple[int, dict[str, str]]:
        first, *lines = self._until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
        return int(first.split(" ")[1]), fields

    def _with_body(self, method: str, status: int, fields: dict[str, str]) -> Answer:
        has_body = method != "HEAD" and status not in (204, 304)
        body = self._exactly(int(fields.get("content-length", 0))) if has_body else b""
        return Answer(status, fields, body)

    def interim(self) -> int:
        """Read one interim response and return its status."""
        return self._head()[0]

    def interim_fields(self) -> tuple[int, Mapping[str, str]]:
        """Read one interim response and return its status and fields."""
        return self._head()

    def is_ended_by_server(self) -> bool:
        """Wait for the end of the connection; ``False`` when more bytes come instead."""
        try:
            return not self._read and self._socket.recv(1) == b""
        except ConnectionResetError:
            return True

    def read_all(self) -> bytes:
        """Read whatever comes until the server ends the connection."""
        while data := self._socket.recv(65536):
            self._read += data
        return self._read

    def wait_for_the_end(self) -> None:
        """Wait until the server has ended the connection, whatever it says before."""
        with contextlib.suppress(OSError):
            while self._socket.recv(65536):
                pass

    def finish_sending(self) -> None:
        self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self._socket.close()

    def reset(self) -> None:
        """End the connection with RST instead of FIN."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        self._socket.close()

    def _until(self, mark: bytes) -> bytes:
        while mark not in self._read:
            self._more()
        head, _, self._read = self._read.partition(mark)
        return head

    def _exactly(self, size: int) -> bytes:
        while len(self._read) < size:
            self._more()
        body, self._read = self._read[:size], self._read[size:]
        return body

    def _more(self) -> None:
        data = self._socket.recv(65536)
        if not data:
            raise ConnectionError("the server closed the connection before it answered")
        self._read += data


@dataclass(frozen=True)
class Certificate:
    """A certificate with its chain, its key, and what trusts it."""

    chain: Path
    key: Path
    trust: ssl.SSLContext


@dataclass(frozen=True)
class Server:
    """Where the app is served: on a port, or at the ``path`` of a Unix socket; ``tls`` is what its clients trust."""

    port: int
    tls: ssl.SSLContext | None = None
    path: Path | None = None

    @property
    def scheme(self) -> str:
        return "http" if self.tls is None else "https"

    def connect(self) -> Connection:
        return Connection(self.open())

    def open(self) -> socket.socket:
        """Return a socket that is connected, and encrypted where the server asks for that."""
        if self.path is not None:
            opened = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            opened.settimeout(20)
            opened.connect(str(self.path))
            return opened
        opened = socket.create_connection(("127.0.0.1", self.port), timeout=20)
        # What is sent in two pieces shall come in two.
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return opened if self.tls is None else self.tls.wrap_socket(opened, server_hostname="127.0.0.1")

    def ask(self, method: str, path: str, fields: str = "", body: bytes | None = None) -> Answer:
        """Send one request with exactly these fields (lines ending in CRLF) and return the answer.

        With a ``body`` its length is added.
        """
        length = "" if body is None else f"Content-Length: {len(body)}\r\n"
        with self.connect() as connection:
            connection.send(f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\n{fields}{length}\r\n")
            if body:
                connection.send(body)
            return connection.answer(method)

    def create(self, fields: str = "", length: int | None = 10) -> str:
        """Create an upload and return the path of its URL."""
        told = "" if length is None else f"Upload-Length: {length}\r\n"
        answer = self.ask("POST", "/files/", TUS + told + fields, b"")
        assert answer.status == 201, answer
        return "/" + answer.fields["location"].split("/", 3)[3]

    def append(self, path: str, offset: int, body: bytes, fields: str = "") -> Answer:
        return self.ask("PATCH", path, f"{APPEND}Upload-Offset: {offset}\r\n{fields}", body)

    def offset(self, path: str) -> int:
        """Return the offset that HEAD tells."""
        answer = self.ask("HEAD", path, TUS)
        assert answer.status == 200, answer
        return int(answer.fields["upload-offset"])


@contextlib.contextmanager
def serving(
    app: ASGIApp,
    *,
    root_path: str = "",
    loop: str = "asyncio",
    http: type[asyncio.Protocol] | Literal["auto"] = "auto",
    certificate: Certificate | None = None,
) -> Iterator[Server]:
    """Serve ``app`` on a free loopback port while the context lasts.

    ``http`` speaks HTTP, by default plain uvicorn, and with a ``certificate`` TLS is around it.
    """
    listener = socket.create_server(("127.0.0.1", 0), backlog=512)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    config = uvicorn.Config(
        app,
        log_level="error",
        root_path=root_path,
        ws="none",
        loop=loop,
        lifespan="on",
        http=http,
        ssl_certfile=certificate.chain if certificate else None,
        ssl_keyfile=certificate.key if certificate else None,
    )
    server = uvicorn.Server(config)
    started = threading.Event()
    startup = server.startup

    async def startup_and_tell(sockets: list[socket.socket] | None = None) -> None:
        await startup(sockets=sockets)
        started.set()

    server.startup = startup_and_tell  # type: ignore[method-assign]
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    assert started.wait(20), "the server did not start"
    try:
        yield Server(listener.getsockname()[1], certificate.trust if certificate else None)
    finally:
        server.should_exit = True
        thread.join(20)
        listener.close()
        assert not thread.is_alive(), "the server did not end"
