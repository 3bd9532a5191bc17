"""uvicorn's HTTP protocol, for clients that are hostile, broken, or want another protocol.

uvicorn and its parser trust whoever sends a head: it may go on for ever, ask for another protocol and so hide its body
from us, and its trailers become header fields. What cannot be read is answered by uvicorn itself, in words of its own
and before its turn, while the application takes it for a client that left.

Here all of that reaches the application. A request that cannot be read is handed over as a stand-in, a harmless one in
its place in the row, whose ``Reception`` says what is wrong; so does the one whose body turns out to be broken. All
answers are then given in one place, with the fields that browsers and clients of tus need.

Only hooks of the parser (httptools calls them) and public attributes of uvicorn's class are used, and of its private
ones the timer of idle connections. Tested from uvicorn 0.40 on.
"""

from __future__ import annotations

import asyncio
import re
from functools import partial
from typing import ClassVar

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.protocols.utils import is_ssl

from tusd_py.errors import (
    BadRequest,
    HeadTimedOut,
    HeadTooLarge,
    MethodNotAllowed,
    TargetTooLong,
    TooManyConnections,
    UploadError,
)
from tusd_py.server.arrival import Arrival
from tusd_py.server.crowd import Crowd
from tusd_py.server.interim import send_interim_too
from tusd_py.web.app import METHODS
from tusd_py.web.reception import INTERIM, RECEPTION, Reception

# Bytes of a head as they come. The application refuses fields that hold as much: this is for heads that do not end.
MAX_HEAD = 64 * 1024

# Bytes of a request's target. RFC 9112, 3, asks for 8000 at least.
MAX_TARGET = 16 * 1024

# Bytes of a chunked body in a row that are no content: sizes, extensions, trailers.
MAX_FRAMING = 16 * 1024

# RFC 9112, 3:  request-line = method SP request-target SP HTTP-version
_REQUEST_LINE = re.compile(rb"[\r\n]*[!#$%&'*+\-.^_`|~0-9A-Za-z]+ [^ ]+ HTTP/1\.[01]\r?\n")


class LimitedProtocol(HttpToolsProtocol):
    """One connection. A subclass says what bounds it.

    ``head_timeout`` is how many seconds a client may take for a head, ``None`` for no limit; ``crowd`` counts all
    connections of a server.
    """

    head_timeout: ClassVar[float | None] = None
    crowd: ClassVar[Crowd] = Crowd()

    # Whether it is one too many, and answered nothing else than that.
    _is_unwelcome = False

    # Before the first head the parser may find fault already.
    url: bytes = b""

    # Between the head and the end of a request.
    _is_in_body = False

    # Whatever comes now is dropped, until the application is done with what went wrong.
    _is_deaf = False

    # Bytes of this head, or of what has come in a row between the content of this body.
    _overhead = 0

    # What the framing of this request says of its body.
    _length: bytes | None = None
    _is_chunked = False

    # Whether the parser is just being brought to where a body has already been read to.
    _is_catching_up = False

    _reception = Reception()
    _deadline: asyncio.TimerHandle | None = None
    _unanswered: tuple[RequestResponseCycle, ...] = ()

    # The connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first head."""
        super().connection_made(transport)
        self._is_unwelcome = not self.crowd.enter(transport)
        self.crowd.rest(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing any more, and tell every request; uvicorn tells the last one alone."""
        self._stop_waiting()
        self.crowd.leave(self.transport)
        for cycle in self._unanswered:
            if not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()
        super().connection_lost(exc)

    def eof_received(self) -> bool:  # type: ignore[override]  # uvicorn has no use for the answer
        """Answer a client that has sent everything and waits with its own end of the connection still open.

        Source: RFC 9112, 9.6. TLS knows no connection that is open to one side.
        """
        cycle = self.cycle
        if self._is_in_body or self._overhead or cycle is None or cycle.response_complete or is_ssl(self.transport):
            return False
        cycle.keep_alive = False
        return True

    def data_received(self, data: bytes) -> None:
        """Parse what came, a head never further than it may go."""
        rest = memoryview(data)
        while rest and not self._is_deaf:
            piece = rest if self._is_in_body else rest[: MAX_HEAD - self._overhead]
            rest = rest[self._parse(piece) :]

    def _parse(self, piece: bytes | memoryview) -> int:
        """Feed the parser, and return how many bytes of ``piece`` it took."""
        self._overhead += len(piece)
        try:
            self.parser.feed_data(piece)
        except httptools.HttpParserUpgrade as upgrade:
            self._parse_again()
            # How far the parser came. Everything behind that belongs to the body, or to what follows it.
            taken: int = upgrade.args[0]
            return taken
        except httptools.HttpParserError as error:
            is_first = self._overhead == len(piece)
            self._refuse(_explained(error, piece if is_first else b""))
        if self._is_in_body and self._overhead > MAX_FRAMING:
            self._refuse(BadRequest("ERR_INVALID_REQUEST", "there is more around the chunks of the body than in them"))
        elif not self._is_in_body and self._overhead >= MAX_HEAD:
            self._refuse(HeadTooLarge(maximum=MAX_HEAD))
        return len(piece)

    def _parse_again(self) -> None:
        """Read this head as if it asked for no other protocol; servers may ignore that. Source: RFC 9110, 7.8.

        The parser would read nothing behind it. Another one gets the same head without the field that asks.
        """
        line = b"%s %s HTTP/%s" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())
        fields = (name + b": " + value for name, value in self.headers if name != b"upgrade")
        self._parse_anew(b"\r\n".join((line, *fields, b"", b"")))

    def go_on_behind(self, missing: int) -> None:
        """Parse what follows a body that was read past the parser, except for its last ``missing`` bytes."""
        self._is_catching_up = True
        self._parse_anew(b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % missing)
        self._is_catching_up = False
        self._overhead = 0
        if not missing:
            self.on_message_complete()

    def _parse_anew(self, head: bytes) -> None:
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn has it
        self._overhead = 0
        self._parse(head)

    # What the parser finds

    def on_message_begin(self) -> None:
        """Begin a head."""
        if self._is_catching_up:
            return
        super().on_message_begin()
        self._unset_keepalive_if_required()
        self.crowd.wake(self.transport)
        self._reception = Reception(has_trailers=True)
        self._length = None
        self._is_chunked = False
        # Even where it began somewhere in what came last, of which nothing counts any more.
        self._overhead = max(self._overhead, 1)
        self.scope["extensions"] = {RECEPTION: self._reception}  # type: ignore[dict-item]  # an object of our own
        if self._deadline is None:
            self._await_head()

    def on_url(self, url: bytes) -> None:
        """Take a bit of the target.

        Raises:
            TargetTooLong: there is too much of it.
        """
        if self._is_catching_up:
            return
        super().on_url(url)
        if len(self.url) > MAX_TARGET:
            raise TargetTooLong(maximum=MAX_TARGET)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a field. Trailers are never merged into the header fields (RFC 9112, 7.1.2)."""
        if self._is_catching_up:
            return
        if self._is_in_body:
            self._reception.trailers.append((name.lower(), value))
            return
        super().on_header(name, value)
        name, value = self.headers[-1]
        if name == b"content-length":
            self._length = value
        elif name == b"transfer-encoding":
            self._is_chunked = True

    def on_headers_complete(self) -> None:
        """Begin the request.

        Raises:
            MethodNotAllowed: we are no way to somewhere else (RFC 9110, 9.3.6).
            BadRequest: the version is none that is written in lines of text.
        """
        if self._is_catching_up:
            return
        if self.parser.get_method() == b"CONNECT":
            raise MethodNotAllowed(allowed=METHODS)
        if self.parser.get_http_version() not in ("1.0", "1.1"):
            raise BadRequest("ERR_INVALID_REQUEST", "the version of the request is not served; send HTTP/1.1")
        if self.parser.should_upgrade():
            return  # The head comes once more, without what asks for that.
        is_old = self.parser.get_http_version() == "1.0"
        if is_old:
            self.expect_100_continue = False  # RFC 9110, 10.1.1
        super().on_headers_complete()
        if not self.parser.should_keep_alive():
            self.cycle.keep_alive = False  # uvicorn 0.40 knows `close` alone, and not in a list
        self._is_in_body = True
        self._overhead = 0
        self._expect_body()
        if not is_old:
            self._offer_interim()
        if self._is_unwelcome:
            self._reception.error = TooManyConnections()
        self._stop_waiting()
        self._unset_keepalive_if_required()
        self._unanswered = (*(cycle for cycle in self._unanswered if not cycle.response_complete), self.cycle)

    def _expect_body(self) -> None:
        # Both is refused by the application.
        size = int(self._length) if self._length and not self._is_chunked else None
        if size or (self._is_chunked and self._length is None):
            self._reception.arriving = Arrival(self, self.cycle, self._reception, size)

    def _offer_interim(self) -> None:
        self.scope["extensions"][INTERIM] = {}
        self.cycle.send = partial(send_interim_too, self.cycle)  # type: ignore[method-assign]

    def on_response_complete(self) -> None:
        """End an answer."""
        super().on_response_complete()
        if not self._is_in_body and self._overhead:
            # The next head has begun to come, and has a deadline of its own.
            self._unset_keepalive_if_required()
        elif self.cycle.response_complete:
            self.crowd.rest(self.transport)

    def on_body(self, body: bytes) -> None:
        """Take content, which is the application's to limit."""
        super().on_body(body)
        self._overhead = 0

    def on_message_complete(self) -> None:
        """End the request, if it was one."""
        if self._is_in_body and not self._is_catching_up:
            super().on_message_complete()
            self._is_in_body = False
            self._overhead = 0

    # What is wrong

    def _refuse(self, error: UploadError) -> None:
        """Have the application answer this request with ``error``, in its turn, and listen no more."""
        if not self._is_in_body:
            # Its body never ends, so that the application reads on for a while: see `Exchange.answer`.
            origin = next((value for name, value in self.headers or () if name == b"origin"), b"null")
            self._parse_anew(b"GET / HTTP/1.1\r\nOrigin: %s\r\nTransfer-Encoding: chunked\r\n\r\n" % origin)
        self._is_deaf = True
        self._reception.error = error
        self.cycle.keep_alive = False
        self.cycle.message_event.set()
        if self.cycle.response_complete:
            self.transport.close()

    # Time

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
        elif self._overhead:
            self._refuse(HeadTimedOut(seconds=self.head_timeout or 0))
        else:
            # Browsers open connections in advance; an answer to nothing would be taken for that to their next request.
            self.transport.close()


def _explained(error: httptools.HttpParserError, beginning: bytes | memoryview) -> UploadError:
    """Return what the client is told: our own words where a hook raised them, else those of the parser.

    ``beginning`` is that of the head, where it is still known. The parser takes a method that it does not know for no
    request at all, and from there we can tell.
    """
    if isinstance(error.__context__, UploadError):
        return error.__context__
    if isinstance(error, httptools.HttpParserInvalidMethodError) and _REQUEST_LINE.match(beginning):
        return MethodNotAllowed(allowed=METHODS)
    reason = "a hook failed" if isinstance(error, httptools.HttpParserCallbackError) else error
    return BadRequest("ERR_INVALID_REQUEST", f"the request cannot be read ({reason}); send it as HTTP/1.1 is written")
