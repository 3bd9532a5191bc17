"""Bytes that reach the server in segments of our choice: each is read before the next one is sent."""

from __future__ import annotations

import array
import errno
import fcntl
import os
import socket
import struct
import termios
import time
from collections.abc import Iterable

from tests.server_process import PATIENCE

# Source: linux/netlink.h, linux/sock_diag.h, linux/inet_diag.h.
NETLINK_SOCK_DIAG = 4
SOCK_DIAG_BY_FAMILY = 20
NLM_F_REQUEST = 1
NLMSG_ERROR = 2
NO_COOKIE = 0xFFFFFFFF
RQUEUE = 16 + 4 + 48 + 4  # the header, what comes before the addresses, they, and the time that a timer has left


def send_apart(opened: socket.socket, segments: Iterable[bytes]) -> None:
    """Send ``segments`` so that the server finds no two of them at once."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, NETLINK_SOCK_DIAG) as kernel:
        for segment in segments:
            opened.sendall(segment)
            deadline = time.monotonic() + PATIENCE
            while _waiting(opened, kernel):
                assert time.monotonic() < deadline, "the server does not read"
                time.sleep(0.0001)  # nobody tells us


def _waiting(opened: socket.socket, kernel: socket.socket) -> int:
    """Return how many bytes of ours wait in the system for the server to read them. Source: unix(7), sock_diag(7)."""
    if opened.family == socket.AF_UNIX:
        waiting = array.array("i", [0])
        fcntl.ioctl(opened, termios.TIOCOUTQ, waiting)
        return waiting[0]
    (client, client_port), (server, server_port) = opened.getsockname(), opened.getpeername()
    addresses = b"".join(socket.inet_aton(address).ljust(16, b"\0") for address in (server, client))
    asked = struct.pack("=BBBBI", socket.AF_INET, socket.IPPROTO_TCP, 0, 0, NO_COOKIE)
    asked += struct.pack("!HH", server_port, client_port) + addresses + struct.pack("=III", 0, NO_COOKIE, NO_COOKIE)
    kernel.send(struct.pack("=IHHII", 16 + len(asked), SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST, 0, 0) + asked)
    told = kernel.recv(4096)
    if struct.unpack_from("=H", told, 4) == (NLMSG_ERROR,):
        (code,) = struct.unpack_from("=i", told, 16)
        if -code == errno.ENOENT:
            return 0  # the server has closed it
        raise OSError(-code, os.strerror(-code))
    (size,) = struct.unpack_from("=I", told, RQUEUE)
    return int(size)
