"""The application: everything put together behind one ASGI callable that stands alone or is mounted."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from tusd_py.errors import UploadError
from tusd_py.expiration import Sweeper
from tusd_py.lifecycle import Lifecycle
from tusd_py.locks.base import Locks
from tusd_py.protocol.dialects import Dialects
from tusd_py.protocol.messages import Reply
from tusd_py.storage.base import Store
from tusd_py.web.endpoints import Endpoints
from tusd_py.web.form import Form, FormRules
from tusd_py.web.form_answers import build_refused
from tusd_py.web.forwarding import Forwarding, Proxies
from tusd_py.web.health import Health
from tusd_py.web.request_log import RequestLog
from tusd_py.web.safety import safely
from tusd_py.web.wire import Exchange, path_of

METHODS = ("GET", "HEAD", "POST", "PATCH", "DELETE", "OPTIONS")

REQUEST_FIELDS = (
    "Authorization",
    "Content-Type",
    "Content-Disposition",
    "Origin",
    "X-Requested-With",
    "X-Request-ID",
    "X-HTTP-Method-Override",
    "Tus-Resumable",
    "Upload-Length",
    "Upload-Offset",
    "Upload-Metadata",
    "Upload-Defer-Length",
    "Upload-Concat",
    "Upload-Checksum",
    "Upload-Complete",
    "Upload-Incomplete",
    "Upload-Draft-Interop-Version",
    "Content-Digest",
    "Repr-Digest",
    "Want-Repr-Digest",
    "Range",
    "If-Range",
    "If-Match",
    "If-None-Match",
    "If-Modified-Since",
    "If-Unmodified-Since",
)

RESPONSE_FIELDS = (
    "Location",
    "Content-Location",
    "Upload-Offset",
    "Upload-Length",
    "Upload-Defer-Length",
    "Upload-Metadata",
    "Upload-Expires",
    "Upload-Concat",
    "Tus-Resumable",
    "Tus-Version",
    "Tus-Extension",
    "Tus-Max-Size",
    "Tus-Checksum-Algorithm",
    "Upload-Complete",
    "Upload-Incomplete",
    "Upload-Limit",
    "Upload-Draft-Interop-Version",
    "Retry-After",
    "Repr-Digest",
    "X-Request-ID",
    "Accept-Ranges",
    "Content-Range",
    "Content-Disposition",
    "ETag",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cors:
    """Which pages of other origins may upload here, and which fields they may send and see beyond those of tus.

    ``origins`` are whole origins (scheme, host, port) or ``*``; ``max_age`` is in seconds.
    """

    origins: tuple[str, ...] = ("*",)
    credentials: bool = False
    allow_headers: tuple[str, ...] = ()
    expose_headers: tuple[str, ...] = ()
    max_age: int = 86400


# Words a refusal for one request.
Refused = Callable[[Exchange, UploadError], Reply]

EVERY_ORIGIN = Cors()
NOBODY = Proxies(())


class Application:
    """A plain ASGI app: serve it alone, or mount it in Starlette or FastAPI.

    It opens its store and starts its sweeper with the lifespan of the server, and at the first request where it is
    mounted and no lifespan reaches it (``lifespan`` can be given to the app around it).
    """

    def __init__(
        self,
        *,
        lifecycle: Lifecycle,
        sweeper: Sweeper,
        store: Store,
        locks: Locks,
        dialects: Dialects,
        base_path: str = "/files/",
        public_url: str | None = None,
        downloads: bool = True,
        relative_location: bool = False,
        proxies: Proxies = NOBODY,
        hosts: Collection[str] = (),
        cors: Cors | None = EVERY_ORIGIN,
        form: FormRules | None = None,
        health_path: str | None = "/healthz",
        ready_path: str | None = "/readyz",
        send_timeout: float | None = None,
    ) -> None:
        self._lifecycle = lifecycle
        self._sweeper = sweeper
        self._store = store
        self._locks = locks
        self._loop: asyncio.AbstractEventLoop | None = None
        self._opening = asyncio.Lock()
        self._sweeping: asyncio.Task[None] | None = None
        endpoints = Endpoints(
            lifecycle,
            dialects,
            base_path=base_path,
            public_url=public_url,
            relative_location=relative_location,
            downloads=downloads,
            send_timeout=send_timeout,
        )

        def in_front(app: ASGIApp, methods: Collection[str], refused: Refused) -> ASGIApp:
            answering = app if cors is None else _with_cors(app, cors, methods)
            # Outside of CORS: preflights for other hosts are refused too.
            return Forwarding(answering, refused, proxies=proxies, hosts=hosts)

        self._uploads = in_front(endpoints, endpoints.methods, endpoints.refused)
        self._form = None if form is None else Form(lifecycle, form, endpoints.location)
        self._forms = (
            None if self._form is None else in_front(self._form, METHODS, lambda _, error: build_refused(error))
        )
        self._health = Health(store, locks, health_path=health_path, ready_path=ready_path)
        self._app: ASGIApp = RequestLog(self._route, level_of=self._level_of, monotonic=time.monotonic)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._app(scope, receive, safely(send))
        elif scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})

    async def _route(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = path_of(scope)
        if self._health.is_asked(path):
            await self._health.answer(path, scope, receive, send)
            return
        if self._loop is not asyncio.get_running_loop():
            await self.open()
        is_form = self._form is not None and self._form.is_asked(path)
        answering = self._forms if is_form and self._forms is not None else self._uploads
        await answering(scope, receive, send)

    def _level_of(self, scope: Scope) -> int:
        # Somebody asks every few seconds, and nobody reads it.
        return logging.DEBUG if self._health.is_asked(path_of(scope)) else logging.INFO

    async def open(self) -> None:
        """Prepare store and locks, and start the sweeper. Harmless when that was done before."""
        loop = asyncio.get_running_loop()
        async with self._opening:
            if self._loop is loop:
                return
            await self._store.open()
            await self._locks.open()
            self._lifecycle.start()
            self._health.start()
            if self._form is not None:
                self._form.start()
            self._sweeping = loop.create_task(self._sweep())
            self._loop = loop

    async def close(self) -> None:
        """End what ``open`` started. Uploads stay."""
        if self._sweeping is not None:
            self._sweeping.cancel()
            with suppress(asyncio.CancelledError):
                await self._sweeping
        # The task that closes everything at its end is cancelled before it began where one call follows the other.
        await self._shut()

    def stop(self) -> None:
        """End every running body: what was received is kept, and the answer is 503. On the event loop only."""
        self._health.stop()
        self._lifecycle.stop()
        if self._form is not None:
            self._form.stop()

    @asynccontextmanager
    async def lifespan(self, app: object = None) -> AsyncIterator[None]:
        """Be open for a while: ``Starlette(lifespan=uploads.lifespan, …)`` where the app is mounted."""
        await self.open()
        try:
            yield
        finally:
            await self.close()

    async def _sweep(self) -> None:
        # Where no lifespan reaches us the end of the event loop still cancels this task, and so closes everything.
        try:
            await self._sweeper.run()
        finally:
            await self._shut()

    async def _shut(self) -> None:
        if self._loop is None:
            return
        self._loop = self._sweeping = None
        await self._locks.close()
        await self._store.close()

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            await self.open()
        except Exception as error:
            # For the operator alone: the cause says what is wrong with the folder.
            await send({"type": "lifespan.startup.failed", "message": f"uploads: {error.__cause__ or error}"})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        self.stop()
        await self.close()
        await send({"type": "lifespan.shutdown.complete"})


def _with_cors(app: ASGIApp, cors: Cors, methods: Collection[str]) -> ASGIApp:
    return CORSMiddleware(
        app,
        allow_origins=cors.origins,
        allow_credentials=cors.credentials,
        allow_methods=(*METHODS, *(method for method in methods if method not in METHODS)),
        allow_headers=(*REQUEST_FIELDS, *cors.allow_headers),
        expose_headers=(*RESPONSE_FIELDS, *cors.expose_headers),
        max_age=cors.max_age,
    )
