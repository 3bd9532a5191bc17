"""One line in the log for each request, and what ties all other lines of a request to it.

A request has an id: the client's ``X-Request-ID`` if it obeys our grammar, so that a proxy's log and ours can be read
together, otherwise one of ours. It is told in the answer. Nothing else that a client says is logged, except for the
method and the path, escaped and cut; query strings and metadata may hold what is not for logs.
"""

from __future__ import annotations

import json
import logging
import re
import secrets
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tusd_py.upload import is_id
from tusd_py.web.reception import reception_of

logger = logging.getLogger("tusd_py")

# request-id = 1*128( ALPHA / DIGIT / "-" / "." / "_" / "~" / "+" / "/" / "=" )
REQUEST_ID = re.compile(r"[A-Za-z0-9._~+/=-]{1,128}")

# What needs no quotes in a line of text.
PLAIN = re.compile(r"[A-Za-z0-9._~+/:@%-]+")

LONGEST_VALUE = 256


@dataclass(frozen=True, slots=True)
class Request:
    """What every line of a request says: the id of the request, and the client's address."""

    id: str
    client: str


# The request that is being answered, for whoever writes the log.
current_request: ContextVar[Request | None] = ContextVar("current_request", default=None)


class RequestLog:
    """An ASGI app around another one."""

    def __init__(self, app: ASGIApp, *, level_of: Callable[[Scope], int], monotonic: Callable[[], float]) -> None:
        """Log the requests to ``app``, at the level that ``level_of`` gives for each."""
        self._app = app
        self._level_of = level_of
        self._monotonic = monotonic

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(_request_id(scope), client_of(scope))
        exchange = _Exchange(request, receive, send)
        began_at = self._monotonic()
        token = current_request.set(request)
        try:
            await self._app(scope, exchange.receive, exchange.send)
        finally:
            level = self._level_of(scope)
            if logger.isEnabledFor(level):
                exchange.log(level, scope, self._monotonic() - began_at)
            current_request.reset(token)


class _Exchange:
    """Counts what passes."""

    def __init__(self, request: Request, receive: Receive, send: Send) -> None:
        self._request = request
        self._receive = receive
        self._send = send
        self._status: int | None = None
        self._location = ""
        self._length = ""
        self._received = 0
        self._sent = 0

    async def receive(self) -> Message:
        message = await self._receive()
        self._received += len(message.get("body", b""))
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            fields = list(message.get("headers", ()))
            self._status = message["status"]
            self._location = _value(fields, b"location")
            self._length = _value(fields, b"content-length")
            message = {**message, "headers": [*fields, (b"x-request-id", self._request.id.encode())]}
        self._sent += len(message.get("body", b""))
        if message["type"] == "http.response.pathsend":
            # The server sends a file by itself.
            self._sent += int(self._length or 0)
        await self._send(message)

    def log(self, level: int, scope: Scope, duration: float) -> None:
        arriving = reception_of(scope).arriving
        facts: dict[str, object] = {
            "method": scope["method"][:LONGEST_VALUE],
            "path": scope["path"][:LONGEST_VALUE],
            # None: nobody was left to answer.
            "status": self._status,
            "id": _upload_id(self._location) or _upload_id(scope["path"]),
            "received": self._received + (arriving.received if arriving is not None else 0),
            "sent": self._sent,
            "duration": round(duration, 4),
        }
        known = {name: value for name, value in facts.items() if value is not None}
        told = " ".join(f"{name}={_word(value)}" for name, value in known.items())
        logger.log(level, "request %s", told, extra={"event": "request", "facts": known})


def _request_id(scope: Scope) -> str:
    given = [value for name, value in scope["headers"] if name == b"x-request-id"]
    id = given[0].decode("latin-1") if len(given) == 1 else ""
    return id if REQUEST_ID.fullmatch(id) else secrets.token_hex(8)


def _value(fields: Iterable[tuple[bytes, bytes]], name: bytes) -> str:
    return next((value.decode("latin-1") for other, value in fields if other.lower() == name), "")


def client_of(scope: Scope) -> str:
    """Return the address of the client, as far as it is known."""
    # A Unix socket tells none, and a proxy in front may tell anything.
    client = scope.get("client")
    return str(client[0])[:LONGEST_VALUE] if client and client[0] else "unknown"


def _upload_id(path: str) -> str | None:
    id = path.rstrip("/").rpartition("/")[2]
    return id if is_id(id) else None


def _word(value: object) -> str:
    text = str(value)
    return text if PLAIN.fullmatch(text) else json.dumps(text)
