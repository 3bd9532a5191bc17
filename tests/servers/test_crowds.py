"""Many connections that want nothing good, however our protocol is served: others are served meanwhile."""

from __future__ import annotations

import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.live import TUS
from tests.servers.kinds import OURS_ALONE, Kind, Running
from tests.servers.test_segments import head
from tests.servers.test_uploads import noise

pytestmark = OURS_ALONE

# A handshake costs more than all that follows it, so there are fewer of those.
CROWD = 800
ENCRYPTED = 50


@pytest.fixture
def _descriptors() -> Iterator[None]:
    """Let this process have a connection for each of a crowd."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = CROWD + 500
    if hard not in (resource.RLIM_INFINITY, -1):
        wanted = min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def serve_one(server: Running, content: bytes) -> None:
    """Be a client that does everything right."""
    path = server.create(len(content))
    with server.connect() as wire:
        for offset in (0, 200_000):
            piece = content[offset : offset + 200_000]
            request = server.begin(wire, path, offset, len(piece)).send(piece)
            assert request.answer().status == 204
        assert wire.ask("GET", path, {}).body == content


def opened_raw(server: Running) -> socket.socket:
    """Connect, and leave it at that: the server of TLS waits for a handshake."""
    if server.server.path is None:
        return socket.create_connection(("127.0.0.1", server.server.port), timeout=20)
    return server.server.open()


def begin(kind: Kind, number: int, path: str) -> bytes:
    """Return the beginning of a request, some way into it."""
    beginnings = (b"", b"P", head(path, 0, 10)[:50], head(path, 0, 10)[:-2], b"\x16\x03\x01\x02\x00")
    return beginnings[number % (len(beginnings) if kind.is_encrypted else len(beginnings) - 1)]


@pytest.mark.usefixtures("_descriptors")
def test_a_healthy_client_is_served_amid_hundreds_that_never_finish_a_head(server: Running) -> None:
    path = server.create(10)
    with ExitStack() as crowd:
        for number in range(CROWD):
            opened = crowd.enter_context(opened_raw(server))
            opened.sendall(begin(server.kind, number, path))
        if server.kind.is_encrypted:
            for number in range(ENCRYPTED):
                crowd.enter_context(server.server.open()).sendall(begin(server.kind, number % 4, path))
        serve_one(server, noise(400_000))
    serve_one(server, noise(400_000))
    assert server.offset(path) == 0


@pytest.mark.usefixtures("_descriptors")
def test_a_healthy_client_is_served_amid_many_that_stall_in_bodies(server: Running) -> None:
    count = 15
    paths = [server.create(300_000) for _ in range(count)]
    with ExitStack() as crowd:
        for path in paths:
            wire = crowd.enter_context(server.connect())
            server.begin(wire, path, 0, 300_000).send(noise(100_000)[:1000])
        serve_one(server, noise(400_000))
    for path in paths:
        assert server.resume(path, noise(300_000)) in (0, 1000)
        assert server.content(path) == noise(300_000)
        server.ask("DELETE", path)


def test_slow_readers_keep_nobody_waiting_and_get_everything(server: Running) -> None:
    content = noise(2_000_000)
    path = server.create(len(content))
    assert server.append(path, 0, content).status == 204
    with ExitStack() as crowd:
        readers = [crowd.enter_context(server.connect()).begin("GET", path, {}) for _ in range(5)]
        serve_one(server, noise(400_000))
        assert [reader.answer().body == content for reader in readers] == [True] * 5
    assert server.ask("DELETE", path).status == 204


def test_a_client_that_reads_no_answers_gets_them_all_in_the_end(server: Running) -> None:
    path = server.create(10)
    asked = f"HEAD {path} HTTP/1.1\r\nHost: localhost\r\n{TUS}\r\n".encode()
    with server.server.connect() as lazy:
        lazy.send(asked * 100)
        serve_one(server, noise(400_000))
        assert [lazy.answer("HEAD").fields["upload-offset"] for _ in range(100)] == ["0"] * 100
