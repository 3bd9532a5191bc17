"""Serves an application with uvicorn, from the socket to the last byte that is kept.

What is served comes from outside, ready to be called: nothing here knows how it is built or configured. Who starts us
waits for one line on stdout; everything else is the log, on stderr.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import math
import resource
import signal
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from types import FrameType
from typing import Literal

import uvicorn

from tusd_py.server.listener import BACKLOG, CannotServe, url_of
from tusd_py.web.app import Application
from tusd_py.web.forwarding import Proxies

logger = logging.getLogger("tusd_py")

# Seconds that an idle connection stays open. Longer than proxies keep theirs (60 in nginx and in Amazon's): whoever
# closes first must be the proxy, or it sends a PATCH into a connection that is just being closed, and answers 502.
KEEP_ALIVE = 75

# Seconds that requests have, once they are cancelled, to store what they hold. Only a disk that hangs needs them.
STORING = 5.0

# Seconds that a client has at the end to close its side of a TLS connection. Most never do (RFC 8446, 6.1).
FAREWELL = 0.5

# Seconds between two looks whether we are told to end at once.
TICK = 0.1

# Seconds between the end of accepting and the end of idle connections. Who has just connected has not sent anything
# yet, and would be cut without an answer.
GRACE = 0.05


@dataclass(frozen=True, slots=True)
class Tls:
    """The files of a certificate (with its chain) and of its key, in PEM."""

    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How an application is served.

    ``port`` 0 takes any free one, ``base_path`` is where uploads go, ``root_path`` is what a proxy in front has cut
    off, ``shutdown_timeout`` is how many seconds running requests have at the end, ``head_timeout`` how many a client
    has for the head of a request (``None``: any), ``send_timeout`` how many for the rest of an answer on a connection
    that is being closed (``None``: any), and ``tls`` makes it HTTPS. ``max_connections`` bounds those of one process,
    ``max_connections_per_client`` those of one address that is not among the ``trusted_proxies``.
    """

    host: str
    port: int
    base_path: str
    root_path: str
    shutdown_timeout: float
    head_timeout: float | None = 20.0
    max_connections: int | None = None
    max_connections_per_client: int | None = None
    trusted_proxies: tuple[str, ...] = ()
    send_timeout: float | None = 60.0
    tls: Tls | None = None


class Server(uvicorn.Server):
    """uvicorn's server, which ends as uploads need it.

    The first signal ends all bodies at once (what they brought is stored, and they are answered 503), and gives other
    requests their time. The second one gives them none. Both leave with exit code 0.

    SIGHUP ends it like the first signal, but leaves the socket open: ``is_restarting`` tells whoever runs it to
    serve on with a fresh program.
    """

    def __init__(
        self,
        app: Application,
        plan: Plan,
        ready: Callable[[], None],
        check_restart: Callable[[], object] | None = None,
    ) -> None:
        """Serve ``app``, and call ``ready`` when clients are answered.

        ``check_restart`` raises ``CannotServe`` where a successor would not start; ``None``: SIGHUP is the end.
        """
        self.is_restarting = False
        self.listener: socket.socket | None = None
        self._app = app
        self._ready = ready
        self._check_restart = check_restart
        self._send_timeout = plan.send_timeout
        self._closing: dict[asyncio.WriteTransport, float] = {}
        super().__init__(
            uvicorn.Config(
                self._app,
                interface="asgi3",
                http=_protocol(plan),
                lifespan="on",
                ws="none",
                log_config=None,
                log_level="warning",
                access_log=False,
                server_header=False,
                # The application believes proxies itself, also for what uvicorn does not know, and must see the peer.
                proxy_headers=False,
                root_path=plan.root_path,
                workers=1,
                backlog=BACKLOG,
                timeout_keep_alive=KEEP_ALIVE,
                timeout_graceful_shutdown=math.ceil(plan.shutdown_timeout),
                ssl_certfile=plan.tls.certificate if plan.tls else None,
                ssl_keyfile=plan.tls.key if plan.tls else None,
            )
        )

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Open the application and accept clients."""
        self._await_hangups()
        await super().startup(sockets)
        # Modules and settings live as long as we do: the collector need not look at them again and again.
        gc.collect()
        gc.freeze()
        if not self.should_exit:
            self._ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Take a signal. uvicorn would raise it once more in the end, so that a proper end looked like a death."""
        self.force_exit = self.should_exit and not self.is_restarting
        self.should_exit = True
        self.is_restarting = False

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop accepting, end what runs, close the application."""
        self._app.stop()
        for server in self.servers:
            server.close()
        for listener in sockets or ():
            listener.close()
        if not self.is_restarting:
            self._close_listener()
        await asyncio.sleep(GRACE)
        ending = asyncio.create_task(super().shutdown(sockets))
        while not ending.done() and not self.force_exit:
            await asyncio.wait([ending], timeout=TICK)
            self._cut_closing(farewell=FAREWELL)
            if not self.is_restarting:
                self._close_listener()
        if ending.done():
            await ending
            await self._store()
        # Whatever still runs now is cancelled by the end of the event loop, and stores what it holds.
        for connection in tuple(self.server_state.connections):
            connection.transport.abort()

    async def on_tick(self, counter: int) -> bool:
        """Look after everything once a second, as uvicorn does; tell whether it is time to end."""
        if counter % round(1 / TICK) == 0:
            self._cut_closing()
        return await super().on_tick(counter)

    def _cut_closing(self, *, farewell: float | None = None) -> None:
        """Cut the connections that were closed long ago and whose clients do not take what they were sent before.

        With ``farewell`` also those that have sent everything, and wait for so many seconds for the client to say
        that it closes, too: TLS does.
        """
        now = asyncio.get_running_loop().time()
        transports = [connection.transport for connection in self.server_state.connections]
        self._closing = {one: self._closing.get(one, now) for one in transports if one.is_closing()}
        for transport, since in self._closing.items():
            is_sent = farewell is not None and now - since > farewell and not transport.get_write_buffer_size()
            if is_sent or (self._send_timeout is not None and now - since > self._send_timeout):
                transport.abort()

    def _await_hangups(self) -> None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._hang_up)

    def _hang_up(self) -> None:
        if self.should_exit:
            return
        if self._check_restart is not None:
            try:
                self._check_restart()
            except CannotServe as error:
                logger.error("no restart, everything stays as it is: %s", error)
                return
            logger.info("restarting")
            self.is_restarting = True
        self.should_exit = True

    def _close_listener(self) -> None:
        # As long as we have it too, clients could still connect, and nobody would answer.
        if self.listener is not None:
            self.listener.close()

    async def _store(self) -> None:
        """Wait for requests that were cancelled because their time was over.

        The end of the event loop cancels them once more, which would break off their storing.
        """
        if self.server_state.tasks:
            await asyncio.wait(self.server_state.tasks, timeout=STORING)


def _protocol(plan: Plan) -> type[asyncio.Protocol] | Literal["h11"]:
    try:
        from tusd_py.server.crowd import Crowd
        from tusd_py.server.protocol import LimitedProtocol
    except ImportError:
        # Only CPython has httptools. h11 counts the bytes of heads and chunks itself; it knows no deadline.
        return "h11"
    crowd = Crowd(
        most=plan.max_connections,
        most_of_client=plan.max_connections_per_client,
        is_proxy=Proxies(plan.trusted_proxies).trust,
    )
    return type("Protocol", (LimitedProtocol,), {"head_timeout": plan.head_timeout, "crowd": crowd})


def run(server: Server, listener: socket.socket) -> None:
    """Run ``server`` on ``listener`` until it ends. The socket is closed then, unless the server restarts.

    Raises:
        CannotServe: it did not start.
    """
    server.listener = listener
    try:
        # A copy, for uvicorn closes what it is given.
        server.run([listener.dup()])
    except SystemExit:
        # uvicorn's way to say that the lifespan failed; it has logged what the application said.
        raise CannotServe("the server could not be started; the log above says why") from None


def is_on_loopback(listener: socket.socket) -> bool:
    """Tell whether only programs of this machine reach ``listener`` over IP, browsers among them."""
    if listener.family not in (socket.AF_INET, socket.AF_INET6):
        return False
    return ip_address(listener.getsockname()[0].partition("%")[0]).is_loopback


def local_url(plan: Plan, listener: socket.socket) -> str:
    """Return the URL where uploads go, as this machine reaches it."""
    return url_of(listener, host=plan.host, is_secure=plan.tls is not None, base_path=plan.base_path)


def check_tls(tls: Tls) -> None:
    """Make sure that certificate and key can be used, and without anybody typing a password.

    Raises:
        CannotServe: they cannot.
    """
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tls.certificate, tls.key, password=lambda: "")
    except (OSError, ValueError) as error:
        # Those of ssl are a kind of OSError; their words are "[SSL] PEM lib (_ssl.c:3900)" and the like.
        known = None if isinstance(error, ssl.SSLError) else getattr(error, "strerror", None)
        reason = known or "they are no certificate and its key in PEM, the key without a password"
        raise CannotServe(
            f"cannot use {tls.certificate} and {tls.key}: {reason}; check --tls-certificate and --tls-key"
        ) from None


def raise_descriptor_limit() -> None:
    """Let this process, and those that it starts, open as many files and connections as the system allows."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Where the hard limit is "unlimited" the kernel may have a lower one of its own.
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
