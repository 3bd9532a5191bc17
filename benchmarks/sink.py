"""A server that takes every byte and keeps none: ``benchmarks`` measures with it what its own load can do at most.

It knows just enough of tus to be driven by ``benchmarks.load``. The path of an upload ends with the offset that it will
have: what came with its creation, or else its length.
"""

from __future__ import annotations

import re
import select
import signal
import socket
import sys

BUFFER_SIZE = 1024 * 1024

_NUMBER = {
    name: re.compile(rb"\r\n%s: *(\d+)" % name, re.IGNORECASE)
    for name in (b"content-length", b"upload-length", b"upload-offset")
}


class Client:
    """One connection. ``left`` is how many bytes of a body are still to come, and ``answer`` what follows them."""

    def __init__(self, connection: socket.socket, buffer: memoryview) -> None:
        self.connection = connection
        self._buffer = buffer
        self._left = 0
        self._answer = b""
        self._head = b""

    def receive(self) -> bool:
        """Take what came, and tell whether the client is still there."""
        if self._left:
            size = self.connection.recv_into(self._buffer, min(self._left, len(self._buffer)))
            self._left -= size
        else:
            data = self.connection.recv(65536)
            size = len(data)
            self._head += data
            if b"\r\n\r\n" not in self._head:
                return size > 0
            head, _, body = self._head.partition(b"\r\n\r\n")
            self._head = b""
            self._begin(head, len(body))
        if size and not self._left:
            self.connection.sendall(self._answer)
        return size > 0

    def _begin(self, head: bytes, received: int) -> None:
        size = _number(head, b"content-length")
        self._left = size - received
        method, target, _ = head.split(b" ", 2)
        if method == b"POST":
            offset = size or _number(head, b"upload-length")
            told = b"201 Created\r\nLocation: /files/%d\r\nUpload-Offset: %d\r\nContent-Length: 0" % (offset, size)
        elif method == b"HEAD":
            told = b"200 OK\r\nUpload-Offset: " + target.rpartition(b"/")[2]
        elif method == b"PATCH":
            told = b"204 No Content\r\nUpload-Offset: %d" % (_number(head, b"upload-offset") + size)
        else:
            told = b"204 No Content"
        self._answer = b"HTTP/1.1 " + told + b"\r\n\r\n"


def _number(head: bytes, name: bytes) -> int:
    match = _NUMBER[name].search(head)
    return int(match[1]) if match else 0


def serve(port: int) -> None:
    """Serve on a port of loopback until SIGTERM."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    buffer = memoryview(bytearray(BUFFER_SIZE))
    clients: dict[int, Client] = {}
    with socket.create_server(("127.0.0.1", port), backlog=1024) as listener, select.epoll() as poller:
        poller.register(listener, select.EPOLLIN)
        while True:
            for descriptor, _ in poller.poll():
                if descriptor == listener.fileno():
                    connection, _ = listener.accept()
                    clients[connection.fileno()] = Client(connection, buffer)
                    poller.register(connection, select.EPOLLIN)
                    continue
                client = clients[descriptor]
                try:
                    is_there = client.receive()
                except ConnectionError:
                    is_there = False
                if not is_there:
                    poller.unregister(descriptor)
                    del clients[descriptor]
                    client.connection.close()


if __name__ == "__main__":
    serve(int(sys.argv[1]))
