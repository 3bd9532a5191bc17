"""Whether the server that settings describe answers: asked by a container of itself, every few seconds.

Nothing here imports more than the standard library, for the answer is wanted soon.
"""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path

# Addresses to listen on that stand for all of this machine, and the one of them to ask at.
EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104 (nothing listens here)


class NotHealthy(Exception):
    """The server is not there, or is in trouble; one sentence for the operator says which."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """What is asked, and where: at ``path`` if it is a Unix socket, else at ``host`` and ``port``.

    Without a ``health_path`` the endpoint at ``base_path`` is asked what it can do. ``timeout`` is in seconds, for each
    step of the exchange.
    """

    host: str
    port: int
    path: Path | None
    is_secure: bool
    health_path: str | None
    base_path: str
    timeout: float

    def check(self) -> None:
        """Ask.

        Raises:
            NotHealthy: no answer came in time, or not the right one.
        """
        method, target = ("OPTIONS", self.base_path) if self.health_path is None else ("GET", self.health_path)
        connection = _Connection(self)
        try:
            connection.request(method, target)
            status = connection.getresponse().status
        except (OSError, HTTPException) as error:
            raise NotHealthy(f"{self} does not answer: {error or type(error).__name__}") from None
        finally:
            connection.close()
        if status != (204 if method == "OPTIONS" else 200):
            raise NotHealthy(f"{self} answers {method} {target} with {status}")

    def __str__(self) -> str:
        return f"the server at {self.path or f'{self.host}, port {self.port}'}"


class _Connection(HTTPConnection):
    """A connection to the server of ``probe``. It is asked as ``localhost``, which every server of ours answers for."""

    def __init__(self, probe: Probe) -> None:
        super().__init__("localhost", timeout=probe.timeout)
        self._probe = probe

    def connect(self) -> None:
        probe = self._probe
        if probe.path is not None:
            plain = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            plain.settimeout(probe.timeout)
            plain.connect(str(probe.path))
        else:
            address = (EVERYWHERE.get(probe.host, probe.host), probe.port)
            plain = socket.create_connection(address, probe.timeout)
        self.sock = plain
        if probe.is_secure:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            # The certificate is for the name that clients use; what we ask at is an address of this machine.
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            self.sock = context.wrap_socket(plain)
