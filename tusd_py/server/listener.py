"""The socket that clients reach: one of our own, on an address or a path, or one that somebody opened for us.

systemd opens sockets before it starts us, and says so in ``LISTEN_FDS`` and ``LISTEN_PID`` (sd_listen_fds(3)). So do
we: a server that restarts hands its socket to its successor in the same way, and clients that connect meanwhile wait in
the socket's queue instead of being refused.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from socket import socket as Socket  # noqa: N812 (the class, beside an attribute of the module's name)
from typing import NoReturn
from urllib.parse import quote

BACKLOG = 2048

# The first descriptor that is handed over (SD_LISTEN_FDS_START).
FIRST_DESCRIPTOR = 3

# Our name for the socket of a server that restarts; systemd's are those of its units.
RESTART = "tusd-py-restart"

LISTEN_TROUBLES = {
    errno.EADDRINUSE: "something else is listening there; choose another --port, or 0 for any free one",
    errno.EADDRNOTAVAIL: "this machine does not have that address; choose another --host",
    errno.EACCES: "that port needs more rights; choose a --port above 1023",
}


class CannotServe(Exception):
    """The server cannot do its work here; one sentence for the operator says why and what to change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where to listen.

    The first of these that is there counts: the ``descriptor`` of a socket that listens already, a socket that was
    handed over, the ``path`` of a Unix socket (whose file gets ``mode``), ``host`` and ``port``, 0 for any free one.
    """

    host: str
    port: int
    path: Path | None = None
    mode: int = 0o660
    descriptor: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Listening:
    """A socket that listens: whether it is ours, and whether somebody named it by its descriptor."""

    socket: Socket
    is_ours: bool = False
    is_named: bool = False

    def host(self, wanted: str) -> str:
        """Return the host of its URL; ``wanted``, as the operator wrote it, where that is what we listen on."""
        return wanted if self.is_ours or self.socket.family == socket.AF_UNIX else str(self.socket.getsockname()[0])


@contextmanager
def listening(address: Address) -> Iterator[Listening]:
    """Give the socket for ``address``, which listens; it is closed at the end, and a Unix socket of ours is removed.

    Raises:
        CannotServe: the socket cannot be had.
    """
    handed, is_restart = _handed_over()
    if address.descriptor is not None:
        found = Listening(socket=adopt(address.descriptor), is_named=True)
    elif handed is not None:
        found = Listening(socket=adopt(handed), is_ours=is_restart)
    elif address.path is not None:
        found = Listening(socket=listen_unix(address.path, address.mode), is_ours=True)
    else:
        found = Listening(socket=listen(address.host, address.port), is_ours=True)
    path = address.path if found.is_ours else None
    identity = None if path is None else _identity(path)
    with found.socket:
        yield found
    if path is not None and identity == _identity(path):
        # Somebody else's may have taken its place meanwhile.
        with suppress(OSError):
            path.unlink()


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
        listener = socket.create_server(address, family=family, backlog=BACKLOG, dualstack_ipv6=is_dual)
    except OSError as error:
        number = error.errno or 0
        advice = LISTEN_TROUBLES.get(number) or f"{os.strerror(number)}; choose another --host or --port"
        raise CannotServe(f"cannot listen on {host}, port {port}: {advice}") from None
    # Connections inherit it. asyncio sets it on those of listeners alone whose protocol is told by its number, which
    # that of this one is not, and an answer in two writes then waits for the client to acknowledge the first (40 ms).
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def listen_unix(path: Path, mode: int) -> socket.socket:
    """Return a Unix socket that listens at ``path``. One that a server left behind, which is dead now, is replaced.

    Raises:
        CannotServe: the path cannot be had.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_stale(path)
        # The umask leaves nobody a moment in which the file has more rights than it should.
        umask = os.umask(0o777 & ~mode)
        try:
            listener.bind(str(path))
        finally:
            os.umask(umask)
        path.chmod(mode)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise CannotServe(f"cannot listen at {path}: {reason}; choose another --unix-sock") from None
    except CannotServe:
        listener.close()
        raise
    return listener


def adopt(descriptor: int) -> socket.socket:
    """Return the socket behind ``descriptor``, which somebody else opened and made listen.

    Raises:
        CannotServe: it is none that listens for streams.
    """
    try:
        listener = socket.socket(fileno=descriptor)
    except OSError as error:
        raise CannotServe(f"cannot serve on descriptor {descriptor}: {os.strerror(error.errno or 0)}") from None
    if listener.type != socket.SOCK_STREAM or not listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        listener.detach()
        raise CannotServe(f"cannot serve on descriptor {descriptor}: it is no stream socket that listens")
    return listener


def restart(command: Sequence[str], listening: Listening) -> NoReturn:
    """Become ``command``, the same process with a new program, and hand the socket over."""
    descriptor = listening.socket.fileno()
    variables = dict(os.environ)
    # Nobody would hear a signal now. The successor takes it as soon as it can.
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT, signal.SIGHUP))
    if listening.is_named:
        os.set_inheritable(descriptor, True)
    else:
        if descriptor == FIRST_DESCRIPTOR:
            os.set_inheritable(descriptor, True)
        else:
            os.dup2(descriptor, FIRST_DESCRIPTOR)
        name = RESTART if listening.is_ours else ""
        variables.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES=name)
    os.execve(command[0], list(command), variables)  # noqa: S606 (no shell is meant)


def url_of(listener: socket.socket, *, host: str, is_secure: bool, base_path: str) -> str:
    """Return the URL where uploads go, as this machine reaches it; ``host`` stands for the address.

    The URL of a Unix socket has its path, escaped, in the place of the host, as several clients write it.
    """
    scheme = "https" if is_secure else "http"
    name = listener.getsockname()
    if listener.family == socket.AF_UNIX:
        return f"{scheme}+unix://{quote(os.fsdecode(name), safe='')}{base_path}"
    bracketed = f"[{host}]" if ":" in host else host
    return f"{scheme}://{bracketed}:{name[1]}{base_path}"


def _handed_over() -> tuple[int | None, bool]:
    """Return the descriptor that was handed to this process, and whether by one that restarts.

    The variables go, so that no process that we start takes them for its own.
    """
    told = [os.environ.pop(name, "") for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")]
    process, count, name = told
    if process != str(os.getpid()) or not count.isdecimal() or int(count) == 0:
        return None, False
    if int(count) > 1:
        raise CannotServe(f"cannot serve on the {count} sockets that were handed over; give one")
    return FIRST_DESCRIPTOR, name == RESTART


def _remove_stale(path: Path) -> None:
    try:
        status = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(status.st_mode):
        raise CannotServe(f"cannot listen at {path}: something else than a socket is there; choose another --unix-sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        # One whose queue is full is alive and shall not keep us waiting.
        probe.setblocking(False)
        if probe.connect_ex(str(path)) != errno.ECONNREFUSED:
            raise CannotServe(f"cannot listen at {path}: something else is listening there; choose another --unix-sock")
    path.unlink()


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.lstat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
