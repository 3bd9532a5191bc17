"""How the worker processes on one disk speak about locks: a Unix datagram socket for each, in one folder.

A word and the id of an upload are all they ever say, and everybody hears everything. What is said may get lost (in a
full buffer, or with a worker that is just starting), so nothing may rely on it: who needs an answer repeats itself.
"""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path

from tusd_py.upload import is_id

# Names of sockets that are ready. Anything else in the folder is left alone.
SOCKET_NAME = re.compile(r"[0-9a-f]{16}\.sock")

# Bytes read of one datagram. The longest that is valid has some 70; what is longer is cut, and then not valid either.
DATAGRAM_SIZE = 128

# A flood of datagrams may not keep the event loop from its requests for longer than this many take.
DATAGRAMS_AT_ONCE = 64

# The system's table of our descriptors, as paths. Linux has it here, and here only it is also a way into a folder.
DESCRIPTORS = Path("/proc/self/fd")


class Channel:
    """One worker's end of it, open as soon as it exists. Belongs to the process that made it: make it after the fork.

    Hosts that share a folder over the network do not hear each other, and take each other's sockets for dead.
    """

    def __init__(self, folder: Path) -> None:
        """Make the socket in ``folder``, and the folder where it is missing. Blocks shortly, as files do.

        Raises:
            OSError: the folder cannot be had, or no socket can be bound in it.
        """
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._guard = threading.Lock()
        self._is_open = True
        self._loop: asyncio.AbstractEventLoop | None = None
        self._name = f"{secrets.token_hex(8)}.sock"
        with ExitStack() as undo:
            self._folder = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            undo.callback(os.close, self._folder)
            self._prefix = self._short_name(folder)
            self._socket = undo.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
            self._socket.setblocking(False)
            self._bind()
            self._descriptors = undo.pop_all()
        # An empty datagram means nothing to the living. It finds the sockets of those that were killed.
        self._send_to_all(b"")

    def _short_name(self, folder: Path) -> str:
        """Return a name of the folder that is short enough for the address of a socket.

        An address has room for some 107 bytes (unix(7)), an upload folder may need thousands. Through the table of
        descriptors its name is short whatever it is. Where there is no such table, the path has to be short itself.
        """
        short = DESCRIPTORS / str(self._folder)
        return str(short if short.is_dir() else folder)

    def _bind(self) -> None:
        """Make the socket and show it to the others.

        ``bind`` makes the file a moment before the socket answers behind it; whoever sent in between would be refused,
        take the socket for dead and unlink it. So it is bound under a name that nobody looks at, and then renamed.
        """
        unready = f"{self._name}.new"
        self._socket.bind(f"{self._prefix}/{unready}")
        os.rename(unready, self._name, src_dir_fd=self._folder, dst_dir_fd=self._folder)

    def listen(self, hear: Mapping[str, Callable[[str], None]]) -> None:
        """From now on call ``hear[word](id)``, on the running event loop, for each word that comes."""
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._socket, self._receive, hear)

    def _receive(self, hear: Mapping[str, Callable[[str], None]]) -> None:
        for _ in range(DATAGRAMS_AT_ONCE):
            try:
                datagram = self._socket.recv(DATAGRAM_SIZE)
            except OSError:  # nothing left, above all
                return
            word, _, id = datagram.decode("ascii", "replace").partition(" ")
            if word in hear and is_id(id):
                hear[word](id)

    def say(self, word: str, id: str) -> None:
        """Say ``word`` about ``id`` to all other workers. Never raises. Reads the folder: call it in a thread."""
        self._send_to_all(f"{word} {id}".encode())

    def _send_to_all(self, datagram: bytes) -> None:
        # The guard keeps `close` out: the numbers of our descriptors may be those of other files a moment later.
        with self._guard, suppress(OSError):
            if not self._is_open:
                return
            for name in os.listdir(self._folder):
                if name != self._name and SOCKET_NAME.fullmatch(name):
                    self._send(name, datagram)

    def _send(self, name: str, datagram: bytes) -> None:
        try:
            self._socket.sendto(datagram, f"{self._prefix}/{name}")
        except ConnectionRefusedError:
            # Nobody listens, and nobody ever will: each worker makes a socket with a new name.
            with suppress(OSError):
                os.unlink(name, dir_fd=self._folder)
        except OSError:  # its buffer is full, or it has just gone
            pass

    async def close(self) -> None:
        """Hear and say nothing any more, and remove the socket. On the event loop that listens."""
        if self._loop is not None:
            self._loop.remove_reader(self._socket)
        await asyncio.to_thread(self._remove)

    def _remove(self) -> None:
        with self._guard, suppress(OSError), self._descriptors:
            self._is_open = False
            os.unlink(self._name, dir_fd=self._folder)
