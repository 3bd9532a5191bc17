"""Serves an application with uvicorn, from the socket to the last byte that is kept.

What is served comes from outside, ready to be called: nothing here knows how it is built or configured. Who starts us
waits for one line on stdout; everything else is the log, on stderr.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import math
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address
from types import FrameType
from typing import Literal

import uvicorn

from tusd_py.web.app import Application

logger = logging.getLogger("tusd_py")

BACKLOG = 2048

# Seconds that an idle connection stays open. Longer than proxies keep theirs (60 in nginx and in Amazon's): whoever
# closes first must be the proxy, or it sends a PATCH into a connection that is just being closed, and answers 502.
KEEP_ALIVE = 75

# Seconds that requests have, once they are cancelled, to store what they hold. Only a disk that hangs needs them.
STORING = 5.0

# Seconds between two looks whether we are told to end at once.
TICK = 0.1

LISTEN_TROUBLES = {
    errno.EADDRINUSE: "something else is listening there; choose another --port, or 0 for any free one",
    errno.EADDRNOTAVAIL: "this machine does not have that address; choose another --host",
    errno.EACCES: "that port needs more rights; choose a --port above 1023",
}


class CannotServe(Exception):
    """The server cannot do its work here; one sentence for the operator says why and what to change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How an application is served.

    ``port`` 0 takes any free one, ``base_path`` is where uploads go, ``root_path`` is what a proxy in front has cut
    off, and ``shutdown_timeout`` is how many seconds running requests have at the end. ``head_timeout`` is how many
    seconds a client has for the head of a request, ``None`` for any.
    """

    host: str
    port: int
    base_path: str
    root_path: str
    shutdown_timeout: float
    head_timeout: float | None = 20.0


class Server(uvicorn.Server):
    """uvicorn's server, which ends as uploads need it.

    The first signal ends all bodies at once (what they brought is stored, and they are answered 503), and gives other
    requests their time. The second one gives them none. Both leave with exit code 0.
    """

    def __init__(self, app: Application, plan: Plan, ready: Callable[[], None]) -> None:
        """Serve ``app``, and call ``ready`` when clients are answered."""
        self._app = app
        self._ready = ready
        super().__init__(
            uvicorn.Config(
                self._app,
                interface="asgi3",
                http=_protocol(plan.head_timeout),
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
            )
        )

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Open the application and accept clients."""
        await super().startup(sockets)
        if not self.should_exit:
            self._ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Take a signal. uvicorn would raise it once more in the end, so that a proper end looked like a death."""
        self.force_exit = self.should_exit
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop accepting, end what runs, close the application."""
        self._app.stop()
        ending = asyncio.create_task(super().shutdown(sockets))
        while not ending.done() and not self.force_exit:
            await asyncio.wait([ending], timeout=TICK)
        if ending.done():
            await ending
            await self._store()
        # Whatever still runs now is cancelled by the end of the event loop, and stores what it holds.
        for connection in tuple(self.server_state.connections):
            connection.transport.abort()

    async def _store(self) -> None:
        """Wait for requests that were cancelled because their time was over.

        The end of the event loop cancels them once more, which would break off their storing.
        """
        if self.server_state.tasks:
            await asyncio.wait(self.server_state.tasks, timeout=STORING)


def _protocol(head_timeout: float | None) -> type[asyncio.Protocol] | Literal["h11"]:
    try:
        from tusd_py.server.protocol import LimitedProtocol
    except ImportError:
        # Only CPython has httptools. h11 counts the bytes of heads and chunks itself; it knows no deadline.
        return "h11"
    return type("Protocol", (LimitedProtocol,), {"head_timeout": head_timeout})


def run(server: Server, listener: socket.socket) -> None:
    """Run ``server`` on ``listener`` until it ends.

    Raises:
        CannotServe: it did not start.
    """
    try:
        server.run([listener])
    except SystemExit:
        # uvicorn's way to say that the lifespan failed; it has logged what the application said.
        raise CannotServe("the server could not be started; the log above says why") from None


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens; port 0 takes any free one.

    Raises:
        CannotServe: the address cannot be had.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError):
        raise CannotServe(f"cannot listen on {host}: it is no address of this machine; choose another --host") from None
    # A name may mean several addresses. Those who write localhost mostly think of the IPv4 one.
    family, _, _, _, address = min(found)
    # "::" means everything, as 0.0.0.0 does for those who think of IPv4 alone.
    is_dual = host == "::" and socket.has_dualstack_ipv6()
    try:
        return socket.create_server(address, family=family, backlog=BACKLOG, dualstack_ipv6=is_dual)
    except OSError as error:
        number = error.errno or 0
        advice = LISTEN_TROUBLES.get(number) or f"{os.strerror(number)}; choose another --host or --port"
        raise CannotServe(f"cannot listen on {host}, port {port}: {advice}") from None


def is_on_loopback(listener: socket.socket) -> bool:
    """Tell whether only programs of this machine reach ``listener`` over IP, browsers among them."""
    if listener.family not in (socket.AF_INET, socket.AF_INET6):
        return False
    return ip_address(listener.getsockname()[0].partition("%")[0]).is_loopback


def local_url(plan: Plan, listener: socket.socket) -> str:
    """Return the URL where uploads go, as this machine reaches it."""
    host = f"[{plan.host}]" if ":" in plan.host else plan.host
    return f"http://{host}:{listener.getsockname()[1]}{plan.base_path}"
