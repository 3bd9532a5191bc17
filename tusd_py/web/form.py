"""Plain forms: ``multipart/form-data`` with a file in it, for clients that know no tus.

A file of a form takes the same way as every upload. What differs is that nobody knows of it before the form is whole,
and so nothing of a form that ends before is kept: there is nobody who could go on with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.types import Receive, Scope, Send

from tusd_py.errors import ConnectionLost, MethodNotAllowed, OriginRefused, ServerStopping, UploadTooLarge
from tusd_py.lifecycle import Lifecycle
from tusd_py.protocol.fields import build_metadata
from tusd_py.protocol.forms import PartHead, bad_form, parse_boundary
from tusd_py.protocol.messages import Create, Reply
from tusd_py.upload import Metadata, Upload
from tusd_py.web.endpoints import explained
from tusd_py.web.form_answers import build_refused, build_uploaded
from tusd_py.web.form_parser import max_overhead
from tusd_py.web.form_reader import FormReader
from tusd_py.web.wire import Exchange

METHODS = ("POST", "OPTIONS")

_CUT = bad_form("the form ends before its last boundary")


@dataclass(frozen=True, slots=True, kw_only=True)
class FormRules:
    """Where forms are taken, and which: ``max_files`` is how many files one may have, ``max_size`` bounds each in
    bytes. ``patience`` is how long what is no file may take, in seconds. ``None`` means no limit.

    ``origins`` are those of the pages that may send forms, ``*`` for all; the server's own always may.
    """

    path: str = "/upload/stream"
    origins: tuple[str, ...] = ("*",)
    max_files: int = 1
    max_size: int | None = None
    patience: float | None = None

    @property
    def max_body(self) -> int | None:
        """Bytes that the body of a request may have at all."""
        return None if self.max_size is None else self.max_files * self.max_size + max_overhead(self.max_files)


class Form:
    """The ASGI app at ``rules.path``. ``location`` gives the URL of an upload, for the client of an exchange."""

    def __init__(self, lifecycle: Lifecycle, rules: FormRules, location: Callable[[Exchange, str], str]) -> None:
        self._lifecycle = lifecycle
        self._rules = rules
        self._location = location
        self._reading: set[FormReader] = set()
        self._is_stopping = False

    def start(self) -> None:
        """Take forms again after ``stop``."""
        self._is_stopping = False

    def stop(self) -> None:
        """End every form that is not in the middle of a file: those the lifecycle ends."""
        self._is_stopping = True
        for reader in self._reading:
            reader.interrupt()

    def is_asked(self, path: str) -> bool:
        """Tell whether ``path`` is ours."""
        return path.removesuffix("/") == self._rules.path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange(scope, receive, send)
        try:
            reply = await self._respond(exchange)
        except ConnectionLost:
            if not exchange.body.is_read:
                return
            # The server ended the body before its length, which some do for a cut; if it is none, somebody waits.
            reply = build_refused(_CUT)
        except Exception as error:
            reply = build_refused(explained(error))
        await exchange.answer(reply)

    async def _respond(self, exchange: Exchange) -> Reply:
        exchange.check_head()
        if exchange.method == "OPTIONS":
            return Reply(204, (("Allow", ", ".join(METHODS)),))
        if exchange.method != "POST":
            raise MethodNotAllowed(allowed=METHODS)
        self._check_origin(exchange)
        uploads = await self._take(exchange)
        return build_uploaded(
            uploads, as_list=self._rules.max_files > 1, location=self._location(exchange, uploads[0].id)
        )

    def _check_origin(self, exchange: Exchange) -> None:
        """Refuse pages that CORS would keep from tus: they may send forms without a preflight.

        Source: Fetch, CORS-safelisted request-header (``Content-Type``); RFC 6454, 7.
        """
        origin = (exchange.fields.single("origin") or "").lower()
        if not origin or "*" in self._rules.origins or origin in self._rules.origins:
            return
        # Behind proxies that do not tell it, the scheme is not what the browser sees.
        if origin.partition("://")[2] != urlsplit(exchange.url("")).netloc.lower():
            raise OriginRefused

    async def _take(self, exchange: Exchange) -> Sequence[Upload]:
        boundary = parse_boundary(exchange.fields.single("content-type") or "")
        size, max_body = exchange.body.size, self._rules.max_body
        if size is not None and max_body is not None and size > max_body:
            assert self._rules.max_size is not None
            raise UploadTooLarge(maximum=self._rules.max_size)
        if self._is_stopping:
            raise ServerStopping
        reader = FormReader(exchange.body, boundary, max_files=self._rules.max_files, patience=self._rules.patience)
        self._reading.add(reader)
        try:
            return await self._receive(reader)
        finally:
            self._reading.discard(reader)

    async def _receive(self, reader: FormReader) -> Sequence[Upload]:
        names = reader.names
        begun: list[tuple[PartHead, Upload]] = []
        unnamed = 0
        # Whatever goes wrong before the last of them is complete removes them all.
        async with AsyncExitStack() as held:
            while (file := await reader.next_file()) is not None:
                metadata = build_file_metadata(file.head, names[unnamed] if len(names) > unnamed else "")
                create = Create(length=None, metadata=metadata, has_body=True)
                upload = await held.enter_async_context(self._lifecycle.provisional(create, file))
                begun.append((file.head, upload))
                unnamed += not file.head.filename
            if not begun:
                raise bad_form("there is no file in the form")
            named = iter(names)
            return [await self._lifecycle.complete_as(upload, _final_metadata(head, named)) for head, upload in begun]


def build_file_metadata(head: PartHead, name: str) -> Metadata:
    """Return what is kept of what the form says about a file; ``name`` is that of a field, for files without one."""
    pairs = [("filename", (head.filename or name).encode()), ("filetype", head.media_type.encode())]
    pairs = [(key, value) for key, value in pairs if value]
    return Metadata(build_metadata(pairs), tuple(pairs))


def _final_metadata(head: PartHead, names: Iterator[str]) -> Metadata:
    """Return the same once all fields are there: each names the next of the files that have no name of their own."""
    return build_file_metadata(head, "" if head.filename else next(names, ""))
