"""HTTP/1.1 as a doctor needs it: nothing is repeated or followed, and a body ends where we want."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from urllib.parse import SplitResult, urlsplit

# Seconds for a connection, and for each piece of an answer.
TIMEOUT = 20.0

# Characters of a body that are told.
TEXT_LIMIT = 300


@dataclass(frozen=True, slots=True)
class Answer:
    """One response: its status, its fields by lower-case name (lines joined by commas), the begin of its body."""

    status: int
    fields: Mapping[str, str]
    text: str

    @property
    def is_from_tus(self) -> bool:
        """Whether the server has spoken, as far as it shows; a proxy does not know this field."""
        return "tus-resumable" in self.fields

    def __str__(self) -> str:
        is_sentence = self.text and "<" not in self.text
        return f"{self.status} ({self.text[:TEXT_LIMIT]})" if is_sentence else str(self.status)


class Unreachable(Exception):
    """No answer came; the text says why, as the end of a sentence."""


class Wire:
    """Sends requests, each on a connection of its own, with ``fields`` in all of them."""

    def __init__(self, fields: Mapping[str, str], *, verify: bool) -> None:
        self._fields = fields
        self._context = ssl.create_default_context()
        if not verify:
            self._context.check_hostname = False
            self._context.verify_mode = ssl.CERT_NONE

    def ask(self, method: str, url: str, fields: Mapping[str, str], body: bytes | None = None) -> Answer:
        """Send a whole request and return the answer.

        Raises:
            Unreachable: none came.
        """
        length = {} if body is None else {"Content-Length": str(len(body))}
        with Request(self, method, url, {**fields, **length}) as request:
            request.send(body or b"")
            return request.answer()

    def begin(self, method: str, url: str, fields: Mapping[str, str]) -> HTTPConnection:
        """Send the head of a request on a connection of its own."""
        split = urlsplit(url)
        connection = (
            HTTPSConnection(split.hostname or "", split.port, timeout=TIMEOUT, context=self._context)
            if split.scheme == "https"
            else HTTPConnection(split.hostname or "", split.port, timeout=TIMEOUT)
        )
        try:
            connection.putrequest(method, target_of(split), skip_accept_encoding=True)
            for name, value in {**fields, **self._fields}.items():
                connection.putheader(name, value)
            connection.endheaders()
        except BaseException:
            connection.close()
            raise
        return connection


class Request:
    """A request whose head is sent, and whose body is sent as far as the caller likes."""

    def __init__(self, wire: Wire, method: str, url: str, fields: Mapping[str, str]) -> None:
        try:
            self._connection = wire.begin(method, url, fields)
            # Made before anything is read, so that what is_answered finds is still there for answer.
            self._response = HTTPResponse(self._connection.sock, method=method)
        except ssl.SSLCertVerificationError as error:
            raise Unreachable(f"its certificate is not good: {error.verify_message}; --insecure looks on") from None
        except OSError as error:
            raise Unreachable(f"it cannot be reached: {error.strerror or error}") from None
        except (UnicodeError, HTTPException):
            raise Unreachable("it cannot be reached: there is no such host") from None

    def __enter__(self) -> Request:
        return self

    def __exit__(self, *exc: object) -> None:
        self._connection.close()

    def send(self, data: bytes) -> None:
        """Send a piece of the body. Who has answered meanwhile may not read it any more, and that is no trouble."""
        with suppress(OSError):
            if data:
                self._connection.send(data)

    def is_answered(self, seconds: float) -> bool:
        """Wait for the begin of an answer, or for the end of the connection. After ``False`` nothing can be read."""
        self._connection.sock.settimeout(seconds)
        try:
            # Not select: TLS has messages of its own, which are no answer.
            self._response.fp.peek(1)
        except TimeoutError:
            return False
        except OSError:
            return True
        self._connection.sock.settimeout(TIMEOUT)
        return True

    def first_line(self) -> bytes:
        """Return the begin of the answer, of which ``is_answered`` knows."""
        try:
            return self._response.fp.peek(1).partition(b"\r\n")[0]
        except OSError:
            return b""

    def answer(self) -> Answer:
        try:
            response = self._response
            response.begin()
            text = response.read(TEXT_LIMIT * 4).decode("utf-8", "replace")
        except TimeoutError:
            raise Unreachable(f"it does not answer within {TIMEOUT:g} seconds") from None
        except (OSError, HTTPException) as error:
            raise Unreachable(f"it ends the connection without an answer ({type(error).__name__})") from None
        fields: dict[str, str] = {}
        for name, value in response.getheaders():
            known = fields.get(name.lower())
            fields[name.lower()] = _printable(value if known is None else f"{known}, {value}")
        return Answer(response.status, fields, _printable(" ".join(text.split())))


def target_of(url: SplitResult) -> str:
    """Return what stands in the first line of a request for ``url``."""
    return (url.path or "/") + (f"?{url.query}" if url.query else "")


def _printable(text: str) -> str:
    """Return ``text`` without what would move the cursor of a terminal: it comes from anybody."""
    return "".join(character for character in text if character.isprintable())
