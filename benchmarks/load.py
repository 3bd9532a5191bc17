"""The load: a process of its own that drives one server over plain sockets. ``benchmarks.measuring`` starts it.

It reads a job from stdin (JSON, one line), prepares and answers "ready"; at the next line it works, and then prints
what that took (JSON, one line); at the third it looks once more whether everything arrived. The kinds of work are

- ``streams``: each connection appends its own upload in PATCHes of ``patch`` bytes, all at once,
- ``uploads``: creations with the whole upload of ``size`` bytes in them, one after the other on each connection,
- ``heads``: offset retrievals, likewise.

Every answer is looked at. Nothing is done while the clock runs that could be done before, because the load has to be
cheaper than the servers: what it can do at most is measured against ``benchmarks.sink``.
"""

from __future__ import annotations

import gc
import json
import random
import re
import resource
import select
import socket
import sys
import time
from base64 import b64encode
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Literal
from urllib.parse import urlsplit

from benchmarks.measured_server import MIB, WAVE_BEGINNING

PATH = "/files/"

# What a stream sends over and over. Larger than the caches of most processors, so that nothing comes from there.
CONTENT_SIZE = 8 * MIB

# tuspyserver tells no offset of an upload without a type.
METADATA = f"filename {b64encode(b'noise.wav').decode()},filetype {b64encode(b'audio/wav').decode()}"

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)


class LoadFailed(Exception):
    """The server answered something else than it should."""


@dataclass(frozen=True)
class Job:
    """What is to be done: ``count`` requests, no new ones after ``seconds``, with ``size`` bytes in each upload.

    ``streams`` makes as many PATCHes as each upload needs, whatever ``count`` and ``seconds`` are.
    """

    kind: Literal["streams", "uploads", "heads"]
    port: int
    connections: int
    size: int
    patch: int = 8 * MIB
    count: int = 0
    seconds: float = 30.0


@dataclass(frozen=True)
class Outcome:
    """What was done: requests that were answered as they should be, bytes in them, and what that took us."""

    requests: int
    bytes: int
    seconds: float
    generator_cpu_seconds: float


class Connection:
    """A connection that stays open, for one request at a time."""

    def __init__(self, port: int, timeout: float | None = None) -> None:
        # Without a timeout calls go straight into the kernel. Whoever started this process bounds it.
        self.socket = socket.create_connection(("127.0.0.1", port), timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._host = f"127.0.0.1:{port}"
        self._received = b""

    def build(self, method: str, path: str, **fields: object) -> bytes:
        """Return the head of a request; names of fields have dashes for underscores."""
        told = {"Host": self._host, "Tus_Resumable": "1.0.0", **fields}
        lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in told.items())
        return f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode()

    def receive(self, *, has_body: bool) -> bytes | None:
        """Return the head of an answer, or ``None`` while some of it is still to come.

        Raises:
            LoadFailed: the server has closed the connection.
        """
        data = self.socket.recv(65536)
        if not data:
            raise LoadFailed(f"the connection was closed after {self._received!r}")
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        if not end:
            return None
        if has_body and not _is_whole(head, body):
            return None
        self._received = b""
        return head

    def ask(self, head: bytes, *, has_body: bool = True) -> bytes:
        """Send a request and return the head of the answer."""
        self.socket.sendall(head)
        return self.answer(has_body=has_body)

    def answer(self, *, has_body: bool = True) -> bytes:
        """Wait for an answer and return its head."""
        while (head := self.receive(has_body=has_body)) is None:
            pass
        return head

    def create(self, length: int, content: bytes = b"") -> str:
        """Create an upload and return the path of its URL."""
        head = self.ask(self.build_creation(length, content) + content)
        check(head, 201)
        match = re.search(rb"\r\nlocation: *([^\r]+)", head, re.IGNORECASE)
        if match is None:
            raise LoadFailed(f"no location was told: {head!r}")
        return urlsplit(match[1].decode()).path

    def build_creation(self, length: int, content: bytes) -> bytes:
        """Return the head of a creation, with content or without."""
        kind = {"Content_Type": "application/offset+octet-stream"} if content else {}
        return self.build(
            "POST", PATH, Upload_Length=length, Upload_Metadata=METADATA, Content_Length=len(content), **kind
        )

    def check_offset(self, path: str, offset: int) -> None:
        """Ask for the offset of an upload.

        Raises:
            LoadFailed: it is another one.
        """
        check(self.ask(self.build("HEAD", path), has_body=False), 200, offset)


def _is_whole(head: bytes, body: bytes) -> bool:
    length = _LENGTH.search(head)
    if length is not None:
        return len(body) >= int(length[1])
    return not _CHUNKED.search(head) or body.endswith(b"0\r\n\r\n")


def check(head: bytes, status: int, offset: int | None = None) -> None:
    """Look at the head of an answer; of ``status`` its first digits are enough.

    Raises:
        LoadFailed: it has another status, or tells another offset.
    """
    if not head.startswith(b"HTTP/1.1 %d" % status):
        raise LoadFailed(f"{status} was expected: {head!r}")
    if offset is not None and re.search(rb"\r\nupload-offset: *%d(?:\r|$)" % offset, head, re.IGNORECASE) is None:
        raise LoadFailed(f"the offset {offset} was expected: {head!r}")


def make_content(size: int) -> bytes:
    """Return bytes that nobody takes for something else than a WAV file, and no disk can squeeze."""
    return (WAVE_BEGINNING + random.Random(440).randbytes(size))[:size]


class Streams:
    """Large uploads, one for each connection."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._content = memoryview(make_content(min(CONTENT_SIZE, job.size)))
        self._connections = [Connection(job.port) for _ in range(job.connections)]
        self._paths = [connection.create(job.size) for connection in self._connections]

    def run(self) -> int:
        """Append everything, and return how many requests that were."""
        # Threads do here: they are in the kernel nearly all of the time.
        with ThreadPoolExecutor(len(self._connections)) as pool:
            return sum(pool.map(self._append, self._connections, self._paths))

    def check(self) -> None:
        """Ask for all offsets."""
        for connection, path in zip(self._connections, self._paths, strict=True):
            connection.check_offset(path, self._job.size)

    def _append(self, connection: Connection, path: str) -> int:
        starts = range(0, self._job.size, self._job.patch)
        for start in starts:
            size = min(self._job.patch, self._job.size - start)
            kind = "application/offset+octet-stream"
            head = connection.build("PATCH", path, Content_Type=kind, Upload_Offset=start, Content_Length=size)
            connection.socket.sendall(head)
            for begin in range(0, size, len(self._content)):
                connection.socket.sendall(self._content[: size - begin])
            check(connection.answer(), 204, start + size)
        return len(starts)


class Requests:
    """The same small request again and again on each connection."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._connections = [Connection(job.port) for _ in range(job.connections)]
        content = make_content(job.size)
        if job.kind == "uploads":
            self._status = 201
            self._requests = [it.build_creation(job.size, content) + content for it in self._connections]
        else:
            # Unfinished ones, for those are what clients ask about.
            self._status = 200
            paths = [it.create(2 * job.size, content) for it in self._connections]
            self._requests = [it.build("HEAD", path) for it, path in zip(self._connections, paths, strict=True)]

    def run(self) -> int:
        """Keep all connections busy until everything is asked or time is over, and return how many answers came."""
        has_body = self._job.kind == "uploads"
        deadline = time.perf_counter() + self._job.seconds
        busy = {
            connection.socket.fileno(): (connection, request)
            for connection, request in zip(self._connections, self._requests, strict=True)
        }
        asked, answered, count = 0, 0, self._job.count
        with select.epoll() as poller:
            for connection, request in list(busy.values())[:count]:
                poller.register(connection.socket, select.EPOLLIN)
                connection.socket.sendall(request)
                asked += 1
            while answered < asked:
                ready = poller.poll()
                if time.perf_counter() > deadline:
                    count = asked
                for descriptor, _ in ready:
                    connection, request = busy[descriptor]
                    head = connection.receive(has_body=has_body)
                    if head is None:
                        continue
                    check(head, self._status, self._job.size)
                    answered += 1
                    if asked < count:
                        connection.socket.sendall(request)
                        asked += 1
        return answered

    def check(self) -> None:
        """Every answer was looked at already."""


def perform(job: Job, wait: Callable[[str], object]) -> None:
    """Prepare the job, do it, check it; before each but the first, tell ``wait`` what came out and wait for its return.

    Raises:
        LoadFailed: the server answered something else than it should.
        OSError: it could not be reached.
    """
    work = Streams(job) if job.kind == "streams" else Requests(job)
    # No pauses of our own; what is made here is freed without its help.
    gc.disable()
    wait("ready")
    cpu, began = _cpu_seconds(), time.perf_counter()
    requests = work.run()
    seconds, used = time.perf_counter() - began, _cpu_seconds() - cpu
    sent = job.connections * job.size if job.kind == "streams" else requests * job.size * (job.kind == "uploads")
    wait(json.dumps(asdict(Outcome(requests, sent, seconds, used))))
    work.check()


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    """Take one job from stdin."""
    job = Job(**json.loads(sys.stdin.readline()))

    def wait(told: str) -> None:
        print(told, flush=True)
        sys.stdin.readline()

    try:
        perform(job, wait)
    except (LoadFailed, OSError) as error:
        raise SystemExit(str(error)) from None
    print("checked", flush=True)


if __name__ == "__main__":
    main()
