"""What each method does on the two kinds of URL: the collection, where uploads are created, and the upload itself.

The order of the checks is that of the protocol's reference: route and method, OPTIONS, version, grammar, existence,
lock, state, and only then the body. No endpoint has a ``try``: errors are rendered in one place.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from itertools import chain
from urllib.parse import urlsplit

from starlette.types import Receive, Scope, Send

from tusd_py.errors import BadRequest, ConnectionLost, MethodNotAllowed, UploadError, UploadNotFound
from tusd_py.lifecycle import Lifecycle, utc_now
from tusd_py.protocol.dialects import Dialects
from tusd_py.protocol.digest_fields import answer_wish
from tusd_py.protocol.fields import bad_concat, parse_method, parse_url_path
from tusd_py.protocol.messages import Dialect, Reply
from tusd_py.protocol.ranges import check_preconditions, is_not_modified, select_range
from tusd_py.upload import Upload, is_id
from tusd_py.web import download
from tusd_py.web.progress import Progress
from tusd_py.web.wire import Exchange

logger = logging.getLogger("tusd_py")

_BODY_CUT = BadRequest(
    "ERR_INVALID_CONTENT_LENGTH",
    "the body is shorter than its Content-Length says; ask for the offset with HEAD and go on from there",
)

Endpoint = Callable[[Dialect, Exchange, str], Awaitable[Reply | None]]
Routes = Mapping[str, Endpoint]


class Unexplained(UploadError):
    """Our fault. The cause is in the log, under the ``incident`` that the client is told."""

    def __init__(self, *, incident: str) -> None:
        super().__init__(f"something went wrong here; ask the operator about incident {incident}")


class Endpoints:
    """The ASGI app below ``base_path`` (which begins and ends with a slash).

    ``send_timeout`` is how many seconds a client may take nothing of an answer.
    """

    def __init__(
        self,
        lifecycle: Lifecycle,
        dialects: Dialects,
        *,
        base_path: str,
        public_url: str | None,
        downloads: bool = True,
        relative_location: bool = False,
        send_timeout: float | None = None,
    ) -> None:
        self._send_timeout = send_timeout
        self._lifecycle = lifecycle
        self._dialects = dialects
        self._base_path = base_path
        self._public_url = public_url.rstrip("/") if public_url else None
        self._public_path = parse_url_path(self._public_url) if self._public_url else ""
        self._relative_location = relative_location
        self._has_downloads = downloads
        self._collection = {dialect: self._collection_routes(dialect) for dialect in dialects.all}
        self._upload = {dialect: self._upload_routes(dialect) for dialect in dialects.all}

    @property
    def methods(self) -> frozenset[str]:
        """All methods that some dialect has a use for."""
        return frozenset(chain.from_iterable((*self._collection.values(), *self._upload.values())))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange(scope, receive, send, send_timeout=self._send_timeout)
        dialect = self._dialect_of(exchange)
        try:
            reply = await self._respond(dialect, exchange)
        except ConnectionLost:
            if exchange.has_started or not exchange.body.is_read:
                return
            # The server ended the body before its length, which some do for a cut; if it is none, somebody waits.
            reply = self.refused(exchange, _BODY_CUT)
        except Exception as error:
            if exchange.has_started:
                # An answer that cannot be ended as it began is cut, never ended as if it were whole.
                raise
            reply = self.refused(exchange, explained(error))
        if reply is not None:
            await exchange.answer(reply)

    def refused(self, exchange: Exchange, error: UploadError) -> Reply:
        """Say why not, as the client of ``exchange`` expects it."""
        return self._dialect_of(exchange).refused(error, exchange.method)

    def _dialect_of(self, exchange: Exchange) -> Dialect:
        return self._dialects.of(exchange.fields, exchange.method, trailers=exchange.has_trailers)

    def location(self, exchange: Exchange, id: str) -> str:
        """Return the URL of the upload ``id`` for this client."""
        path = self._base_path + id
        if self._public_url is None:
            return exchange.relative_url(path) if self._relative_location else exchange.url(path)
        return (urlsplit(self._public_url).path if self._relative_location else self._public_url) + path

    async def _respond(self, dialect: Dialect, exchange: Exchange) -> Reply | None:
        exchange.check_head()
        override = exchange.fields.single("x-http-method-override")
        if override is not None:
            exchange.method = parse_method(override)
        endpoints, id = self._resource(dialect, exchange)
        endpoint = endpoints.get(exchange.method)
        if endpoint is None:
            raise MethodNotAllowed(allowed=tuple(endpoints))
        if endpoint != self._discover:
            dialect.check_request(exchange.fields, exchange.method)
        return await endpoint(dialect, exchange, id)

    def _resource(self, dialect: Dialect, exchange: Exchange) -> tuple[Routes, str]:
        """Return what may be done where ``exchange`` asks for it, and the id of the upload there (see ``_route``)."""
        if exchange.is_for_the_server:
            return {"OPTIONS": self._discover}, ""
        if exchange.hides_a_slash:
            raise UploadNotFound
        id = self._route(exchange.path)
        return (self._upload[dialect] if id else self._collection[dialect]), id

    def _collection_routes(self, dialect: Dialect) -> Routes:
        return {"OPTIONS": self._discover, **dict.fromkeys(dialect.creation_methods, self._create)}

    def _upload_routes(self, dialect: Dialect) -> Routes:
        return {
            "OPTIONS": self._discover,
            "HEAD": self._status,
            **({"GET": self._download} if self._has_downloads else {}),
            **dict.fromkeys(dialect.retrieval_methods, self._status),
            "PATCH": self._append,
            "DELETE": self._terminate,
        }

    def _route(self, path: str) -> str:
        """Return the id of the upload that ``path`` names, ``""`` for the collection."""
        if path in (self._base_path, self._base_path[:-1]):
            return ""
        id = path.removeprefix(self._base_path).removesuffix("/")
        if not path.startswith(self._base_path) or not is_id(id):
            raise UploadNotFound
        return id

    async def _discover(self, dialect: Dialect, exchange: Exchange, id: str) -> Reply:
        return self._dialects.discovered(dialect)

    async def _create(self, dialect: Dialect, exchange: Exchange, id: str) -> Reply:
        if exchange.hides_its_body:
            await exchange.body.look_ahead()
        create = dialect.parse_create(exchange.fields, exchange.body.size)
        exchange.body.parse_trailers = dialect.parse_trailers
        if create.final_of:
            members = [self._member(exchange, url) for url in create.final_of]
            upload = await self._lifecycle.concatenate(create, members)
        elif dialect.tells_on_the_way and exchange.can_send_interim:

            async def announce(upload: Upload) -> None:
                reply = dialect.begun(upload, self.location(exchange, upload.id), utc_now())
                if reply is not None:
                    await exchange.send_interim(reply)

            follow = Progress(exchange, dialect).follow
            upload = await self._lifecycle.create(create, exchange.body, announce=announce, follow=follow)
        else:
            upload = await self._lifecycle.create(create, exchange.body)
        return _with_digest(exchange, upload, dialect.created(upload, self.location(exchange, upload.id), utc_now()))

    async def _status(self, dialect: Dialect, exchange: Exchange, id: str) -> Reply:
        upload = await self._lifecycle.status(id)
        if not upload.is_complete or not self._has_downloads:
            return dialect.status(upload, utc_now())
        now = utc_now()
        return dialect.status(upload, now, download.describe(download.represent(upload, now)))

    async def _append(self, dialect: Dialect, exchange: Exchange, id: str) -> Reply:
        append = dialect.parse_append(exchange.fields, exchange.body.size)
        exchange.body.parse_trailers = dialect.parse_trailers
        tells = dialect.tells_on_the_way and exchange.can_send_interim
        follow = Progress(exchange, dialect).follow if tells else None
        upload = await self._lifecycle.append(id, append, exchange.body, follow=follow)
        return _with_digest(exchange, upload, dialect.appended(upload, self.location(exchange, id)))

    async def _terminate(self, dialect: Dialect, exchange: Exchange, id: str) -> Reply:
        await self._lifecycle.terminate(id)
        return dialect.terminated()

    async def _download(self, dialect: Dialect, exchange: Exchange, id: str) -> Reply | None:
        upload, read = await self._lifecycle.read(id)
        representation = download.represent(upload, utc_now())
        check_preconditions(exchange.fields, representation)
        if is_not_modified(exchange.fields, representation):
            return dialect.downloaded(upload, download.build_not_modified(representation))
        part = select_range(exchange.fields, representation)
        shown_as = await download.shown_as(upload, read)
        head = dialect.downloaded(upload, download.build_head(upload, representation, part, shown_as))
        head = _with_digest(exchange, upload, head)
        path = await self._lifecycle.path(upload) if part is None and exchange.can_send_files else None
        if path is not None:
            await exchange.send_file(head, path)
            return None
        start, stop = (part.start, part.stop) if part else (0, representation.length)
        await exchange.stream(head, read(start, stop))
        return None

    def _member(self, exchange: Exchange, url: str) -> str:
        """Return the id of the upload that ``url`` names, whichever host and prefix the client knows us by."""
        path = parse_url_path(url)
        if "%2f" in url.rstrip("/").rpartition("/")[2].lower():
            raise bad_concat("holds something else than the URL of an upload")
        if not path.startswith("/"):
            path = self._base_path + path
        for prefix in dict.fromkeys((self._public_path, exchange.root_path, "")):
            with suppress(UploadNotFound):
                id = self._route(path.removeprefix(prefix))
                if id:
                    return id
        raise bad_concat("holds something else than the URL of an upload")


def _with_digest(exchange: Exchange, upload: Upload, reply: Reply) -> Reply:
    """Return ``reply`` with the digest of a finished upload, if the client wants one and it was verified."""
    told = answer_wish(exchange.fields, upload.repr_digest) if upload.is_complete else ()
    return replace(reply, fields=(*reply.fields, *told)) if told else reply


def explained(error: Exception) -> UploadError:
    """Return what the client is told about ``error``, and tell the operator what the client must not know."""
    if not isinstance(error, UploadError):
        incident = secrets.token_hex(4)
        logger.error("incident %s", incident, exc_info=error)
        return Unexplained(incident=incident)
    if error.__cause__ is not None:
        # What the disk does in its ordinary course needs no stack to be understood.
        logger.error("%s: %s", error.code, error.__cause__, exc_info=error if error.status == 500 else None)
    return error
