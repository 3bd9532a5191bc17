"""One exchange over ASGI: the head of a request, its body on the way in, and the answer on the way out."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing, suppress
from functools import lru_cache
from urllib.parse import quote

from starlette.types import Message, Receive, Scope, Send

from tusd_py.errors import BadRequest, ConnectionLost, FieldTooLarge, HeadTooLarge, UnsupportedCoding
from tusd_py.intake import Body, Enough, Sink
from tusd_py.protocol.digests import Checksum
from tusd_py.protocol.fields import Fields, parse_number
from tusd_py.protocol.forwarded import parse_host
from tusd_py.protocol.messages import Reply
from tusd_py.web.reception import INTERIM, Reception, reception_of

logger = logging.getLogger("tusd_py")

# Header fields of one request together. Real metadata has a few KiB at most; what is kept per upload is bounded too.
MAX_HEAD = 64 * 1024

# The line of one field. Those that tus made for much have rules of their own: 32 KiB of metadata, and as many partials
# as the head holds.
MAX_LINE = 16 * 1024
LONG_FIELDS = frozenset({b"upload-metadata", b"upload-concat"})

# A refusal must reach a client that is still sending: closing at once would make the kernel reset the connection and
# the client lose the answer. So we go on reading for so many seconds and bytes, and drop what comes.
DRAIN_SECONDS = 2.0
DRAIN_BYTES = 64 * 1024 * 1024


class RequestBody(Body):
    """The body of a request as any ASGI server hands it over."""

    def __init__(self, receive: Receive, size: int | None, reception: Reception) -> None:
        self.size = size
        self._reception = reception
        self._receive = receive
        self._received = 0
        self.is_read = size == 0
        self.parse_trailers: Callable[[Fields], Checksum | None] | None = None
        self._ahead: Message | None = None

    def trailing_checksum(self) -> Checksum | None:
        """Return what ``parse_trailers`` finds behind the body."""
        trailers = self._reception.trailers
        return self.parse_trailers(Fields(trailers)) if trailers and self.parse_trailers is not None else None

    def at_hand(self) -> bytes | None:
        """Return the whole body if it has arrived; only a server that knows us can tell."""
        if self.is_read:
            return b""
        self._reception.check()
        body = None if self._reception.arriving is None else self._reception.arriving.at_hand()
        self.is_read = body is not None
        return body

    async def feed(self, sink: Sink) -> None:
        """Put every chunk into ``sink`` as it comes.

        Raises:
            Enough: the sink said so; what is left can be read.
        """
        arriving = self._reception.arriving
        if arriving is not None and not self.is_read:
            try:
                await arriving.feed(sink)
            except Enough:
                self._received = arriving.received + arriving.passed
                self.is_read = arriving.is_over
                raise
            self.is_read = True
            return
        while (chunk := await self.read()) is not None:
            await sink.put(chunk)
            del chunk  # it would be kept while the client is silent

    async def read(self) -> bytes | None:
        """Return the next chunk, ``None`` at the end.

        Raises:
            ConnectionLost: the client is gone before the end.
            BadRequest: there is more than the request says; or what the server says is wrong with it.
        """
        if self.is_read:
            if self.size is not None and self._received < self.size:
                # Servers tell a cut as a disconnect; one that ends the body instead is not to be taken for the end.
                raise ConnectionLost
            return None
        message = await self._message()
        # Before we ask whether the client is gone: one that left after it sent nonsense has sent nonsense.
        self._reception.check()
        chunk: bytes = self._accepted(message).get("body", b"")
        self._received += len(chunk)
        if self._reception.arriving is not None:
            self._reception.arriving.passed += len(chunk)
        if self.size is not None and self._received > self.size:
            raise BadRequest("ERR_INVALID_CONTENT_LENGTH", "the body is longer than its Content-Length says")
        return chunk

    async def look_ahead(self) -> None:
        """Find out whether there is a body where only its coming tells, which is so from HTTP/2 on.

        Raises:
            ConnectionLost: the client is gone before that.
        """
        message = await self._receive()
        if message["type"] != "http.request":
            raise ConnectionLost
        if message.get("more_body", False):
            self._ahead = message
            return
        self.size = len(message.get("body", b""))
        self.is_read = not self.size
        self._ahead = message if self.size else None

    async def _message(self) -> Message:
        message, self._ahead = self._ahead, None
        return await self._receive() if message is None else message

    async def drain(self) -> None:
        """Read and drop what is left, for a short bounded time."""
        dropped = 0
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                while not self.is_read and dropped < DRAIN_BYTES:
                    dropped += len((await self._next()).get("body", b""))
        except (TimeoutError, ConnectionLost):
            return

    async def wait_for_the_end(self) -> None:
        """Wait until the client is gone; what it still sends is dropped."""
        while (await self._receive())["type"] == "http.request":
            pass

    async def _next(self) -> Message:
        return self._accepted(await self._message())

    def _accepted(self, message: Message) -> Message:
        if message["type"] != "http.request":
            raise ConnectionLost
        self.is_read = not message.get("more_body", False)
        return message


class Exchange:
    """A request and its answer.

    ``fields`` are the header fields, ``method`` is what the client means to do (after X-HTTP-Method-Override), and
    ``path`` is the decoded path below where the app is mounted.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send, *, send_timeout: float | None = None) -> None:
        """``send_timeout`` is how many seconds the client may take nothing of the answer; ``None``: any."""
        self._scope = scope
        self._server_send = send
        self._send_timeout = send_timeout
        self._reception = reception_of(scope)
        self._has_started = False
        self._telling: asyncio.Task[None] | None = None
        self._is_http_1 = scope.get("http_version", "1.1").startswith("1")
        self.fields = Fields(scope["headers"])
        self.method: str = scope["method"]
        self.root_path: str = scope.get("root_path", "").rstrip("/")
        self.path = path_of(scope)
        self.body = RequestBody(receive, None, self._reception)

    @property
    def has_trailers(self) -> bool:
        """Whether the server tells of fields behind the body."""
        return self._reception.has_trailers

    @property
    def has_started(self) -> bool:
        """Whether an answer is under way, so that no other one can be given."""
        return self._has_started

    def check_head(self) -> None:
        """Refuse heads that are too large, and a body whose length is told in two ways.

        Raises:
            HeadTooLarge, FieldTooLarge, UnsupportedCoding.
            BadRequest: also for a length that is no number, and for no host or a strange one. Source: RFC 9112, 3.2,
                6.1 and 6.3.
            UploadError: what the server says is wrong with the request.
        """
        self._reception.check()
        if sum(len(name) + len(value) for name, value in self._scope["headers"]) > MAX_HEAD:
            raise HeadTooLarge(maximum=MAX_HEAD)
        if any(len(name) + len(value) > MAX_LINE and name not in LONG_FIELDS for name, value in self._scope["headers"]):
            raise FieldTooLarge(maximum=MAX_LINE)
        self._check_host()
        self.body.size = self._body_size()
        self.body.is_read = self.body.size == 0

    @property
    def is_for_the_server(self) -> bool:
        """Whether it asks for no resource but about the server: ``OPTIONS *``. Source: RFC 9110, 9.3.7."""
        return self._scope["path"] in ("*", f"{self.root_path}*")

    @property
    def hides_a_slash(self) -> bool:
        """Whether a slash of ``path`` was percent-encoded, so that it divides nothing. Source: RFC 3986, 2.2."""
        raw: bytes = self._scope.get("raw_path") or b""
        # The prefix that the app is mounted under is for whoever mounted it to read.
        segments = raw.split(b"/")[-self.path.count("/") :]
        return any(b"%2f" in segment.lower() for segment in segments)

    @property
    def hides_its_body(self) -> bool:
        """Whether the head does not say if there is a body."""
        return self.body.size is None and not self._is_http_1

    def url(self, path: str) -> str:
        """Return the absolute URL of ``path`` as this client sees the server. Source: RFC 9110, 7.2."""
        scheme = "https" if self._scope.get("scheme") == "https" else "http"
        return f"{scheme}://{self._host()}{self.relative_url(path)}"

    def relative_url(self, path: str) -> str:
        """Return ``path`` as this client sees it, without scheme and host."""
        return quote(self.root_path + path)

    @property
    def can_send_interim(self) -> bool:
        """Whether the server sends interim responses. No client of HTTP/1.0 knows them (RFC 9110, 15.2)."""
        return INTERIM in (self._scope.get("extensions") or {}) and self._scope.get("http_version", "1.1") != "1.0"

    async def send_interim(self, reply: Reply) -> None:
        """Send ``reply``, an interim one, before the answer; where that cannot be done, do nothing."""
        if not self.can_send_interim or self._has_started:
            return
        # Whoever is gone need not be told.
        with suppress(OSError, RuntimeError, ConnectionLost):
            await self._send({"type": INTERIM, "status": reply.status, "headers": _lines(reply.fields)})

    def send_interim_soon(self, reply: Reply) -> None:
        """Send ``reply`` before the answer and do not wait; it is left out while the one before is under way."""
        if self._telling is None or self._telling.done():
            self._telling = asyncio.create_task(self.send_interim(reply))

    async def answer(self, reply: Reply) -> None:
        """Send ``reply``, readable for a client that is still sending, and leave the connection in step or closed."""
        with suppress(ConnectionLost):  # There is nobody left to be told.
            await self._answer(reply)

    async def _answer(self, reply: Reply) -> None:
        is_unread = not self.body.is_read
        fields = list(reply.fields)
        if is_unread and self._is_http_1:
            fields.append(("Connection", "close"))
        body = b"" if self._scope["method"] == "HEAD" else reply.body
        # HEAD and 304 say nothing of the length that GET would have; 204 has no content at all (RFC 9110, 8.6).
        if self._scope["method"] != "HEAD" and reply.status not in (204, 304):
            fields.append(("Content-Length", str(len(body))))
        await self._start(reply.status, fields)
        if is_unread:
            await self._send({"type": "http.response.body", "body": body, "more_body": True})
            await self.body.drain()
            body = b""
        await self._send({"type": "http.response.body", "body": body})

    async def stream(self, reply: Reply, chunks: AsyncGenerator[bytes, None]) -> None:
        """Send ``reply`` with a body in chunks; its fields say the length.

        The first chunk is there before the answer begins, so that content that is gone is still told as such.

        Raises:
            ConnectionLost: the client left before it had everything.
        """
        async with aclosing(chunks):
            chunk = await anext(chunks, b"")
            await self._start(reply.status, list(reply.fields))
            # Servers take chunks for a client that is gone without a word (ASGI before 2.4), so we listen as well:
            # nobody is to read gigabytes for nobody.
            leaving = asyncio.create_task(self.body.wait_for_the_end())
            try:
                while chunk and self._scope["method"] != "HEAD":
                    await self._send_chunk(chunk)
                    if leaving.done():
                        raise ConnectionLost
                    chunk = await anext(chunks, b"")
            finally:
                leaving.cancel()
                await asyncio.wait([leaving])
        await self._send({"type": "http.response.body", "body": b""})

    @property
    def can_send_files(self) -> bool:
        """Whether the server sends whole files by itself, past Python. Source: ASGI, Path Send extension."""
        return "http.response.pathsend" in (self._scope.get("extensions") or {}) and self._scope["method"] != "HEAD"

    async def send_file(self, reply: Reply, path: str) -> None:
        """Send ``reply`` with the file at ``path`` as its body, where ``can_send_files`` says so."""
        await self._start(reply.status, list(reply.fields))
        await self._send({"type": "http.response.pathsend", "path": path})

    async def _send_chunk(self, chunk: bytes) -> None:
        try:
            await self._send({"type": "http.response.body", "body": chunk, "more_body": True})
        except (OSError, RuntimeError) as error:
            # RuntimeError is what uvloop says of a transport that is closed.
            raise ConnectionLost from error

    async def _send(self, message: Message) -> None:
        """Hand ``message`` to the server, which waits until the client has taken most of what came before it.

        Raises:
            ConnectionLost: the client takes nothing, and was waited for long enough.
        """
        try:
            async with asyncio.timeout(self._send_timeout) as deadline:
                await self._server_send(message)
        except TimeoutError:
            if not deadline.expired():
                raise  # That one was of the connection.
            logger.info("the client takes nothing of its answer and is left")
            raise ConnectionLost from None

    async def _start(self, status: int, fields: list[tuple[str, str]]) -> None:
        self._has_started = True
        if self._telling is not None:
            await asyncio.wait([self._telling])
        await self._send({"type": "http.response.start", "status": status, "headers": _lines(fields)})

    def _body_size(self) -> int | None:
        """Return the length of the body, 0 where there is none, ``None`` where only its end will tell."""
        coding = self.fields.combined("transfer-encoding")
        is_chunked = coding is not None
        length = self.fields.single("content-length")
        if is_chunked and length is not None:
            raise BadRequest("ERR_INVALID_CONTENT_LENGTH", "Content-Length and Transfer-Encoding exclude each other")
        if coding is not None and (coding.lower() != "chunked" or self._scope.get("http_version") == "1.0"):
            raise UnsupportedCoding
        if length is not None:
            return parse_number(length, field="Content-Length", code="ERR_INVALID_CONTENT_LENGTH")
        # From HTTP/2 on the framing needs no field, and a body may come without its length.
        return 0 if self._is_http_1 and not is_chunked else None

    def _check_host(self) -> None:
        host = self.fields.single("host")
        if host is not None or self._scope.get("http_version", "1.1") == "1.1":
            parse_host(host or "")

    def _host(self) -> str:
        host = self.fields.single("host") or ""
        with suppress(BadRequest):
            parse_host(host)
            return host
        address, port = self._scope.get("server") or ("localhost", None)
        if port is None:  # The address is the path of a Unix socket, which is nobody's business.
            return "localhost"
        return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _lines(fields: Iterable[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    return [(_encoded_name(name), value.encode("latin-1")) for name, value in fields]


@lru_cache(128)  # all names are ours, and so are few
def _encoded_name(name: str) -> bytes:
    """Write the name of a field as ASGI has it."""
    return name.lower().encode("latin-1")


def path_of(scope: Scope) -> str:
    """Return the decoded path of a request below where the app is mounted."""
    return _below(scope["path"], scope.get("root_path", "").rstrip("/"))


def _below(path: str, root_path: str) -> str:
    """Return ``path`` without the prefix that the app is mounted under. Servers and frameworks leave it in (ASGI)."""
    if root_path and (path == root_path or path.startswith(root_path + "/")):
        return path[len(root_path) :]
    return path
