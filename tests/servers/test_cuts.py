"""Bodies that break off or stall, under every server: what HEAD tells then can be gone on with, and all is exact."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest

from tests.server_process import wait_until
from tests.servers.kinds import Running
from tests.servers.test_uploads import KIB, checksum, noise
from tests.servers.wires import APPEND, Request, Wire

# Bytes of one request until it is cut: before the first, around what buffers hold, and more than they do.
CUTS = (0, 1, 1000, 64 * KIB - 1, 64 * KIB, 64 * KIB + 1, 200_000)

End = Callable[[Wire, Request], None]


def end(wire: Wire, request: Request) -> None:
    wire.close()


def reset(wire: Wire, request: Request) -> None:
    wire.reset(request)


ENDS = pytest.mark.parametrize("leave", [end, reset])
FRAMINGS = pytest.mark.parametrize("is_chunked", [False, True], ids=["sized", "chunked"])


@ENDS
@FRAMINGS
def test_an_upload_that_is_cut_again_and_again_is_exact(server: Running, leave: End, is_chunked: bool) -> None:
    content = noise(sum(CUTS) + 10_000)
    path = server.create(len(content))
    before = 0
    for cut in CUTS:
        with server.connect() as wire:
            size = None if is_chunked else len(content) - before
            request = server.begin(wire, path, before, size).send(content[before : before + cut])
            leave(wire, request)
        offset = server.offset(path)
        assert before <= offset <= before + cut
        if server.kind.is_ours and leave is end:
            assert offset == before + cut
        # A request that was cut before the server had begun it may come in between: then the offset has moved on.
        before = settled(server, path, offset)
    server.resume(path, content)
    assert server.content(path) == content


def settled(server: Running, path: str, offset: int) -> int:
    """Return the offset of an upload that nobody writes any more, by an empty append at it."""
    for _ in range(20):
        answer = server.append(path, offset, b"")
        if answer.status == 204:
            return offset
        offset = server.offset(path)
    raise AssertionError("the offset does not come to rest")


@ENDS
def test_what_a_cut_creation_brought_is_no_upload_of_anybody_else(server: Running, leave: End) -> None:
    before = {file.name for file in (server.uploads / "partial").iterdir()}
    content = noise(200_000)
    with server.connect() as wire:
        request = wire.begin("POST", "/files/", {**APPEND, "Upload-Length": "300000"}, size=300_000).send(content)
        leave(wire, request)
    path = server.create(10)
    assert server.append(path, 0, b"0123456789").status == 204
    assert server.content(path) == b"0123456789"
    # The client never learnt where it is; whatever of it is there is a beginning of what was sent.
    for file in (server.uploads / "partial").glob("*.part"):
        if file.name not in before:
            assert content.startswith(file.read_bytes())


@ENDS
def test_a_checksummed_body_that_is_cut_counts_for_nothing(server: Running, leave: End) -> None:
    content = noise(300_000)
    path = server.create(len(content))
    assert server.append(path, 0, content[:1000]).status == 204
    with server.connect() as wire:
        told = {"Upload-Checksum": checksum(content[1000:])}
        request = server.begin(wire, path, 1000, 299_000, **told).send(content[1000:250_000])
        leave(wire, request)
    assert server.offset(path) == 1000
    assert server.append(path, 1000, content[1000:], **told).status == 204
    assert server.content(path) == content


@FRAMINGS
def test_one_byte_short_is_not_complete(server: Running, is_chunked: bool) -> None:
    content = noise(100_000)
    path = server.create(len(content))
    with server.connect() as wire:
        server.begin(wire, path, 0, None if is_chunked else len(content)).send(content[:-1])
    offset = server.offset(path)
    assert offset < len(content)
    assert server.ask("GET", path, {}).status == 404
    server.resume(path, content)
    assert server.content(path) == content


def test_a_client_that_sends_no_more_has_sent_everything(server: Running) -> None:
    """A half-close after a whole request is a whole request; whether its answer still comes is not ours to say."""
    content = noise(100_000)
    path = server.create(len(content))
    with server.server.open() as opened, server.over(opened) as wire:
        wire.begin("PATCH", path, {**APPEND, "Upload-Offset": "0"}, size=len(content)).send(content)
        opened.shutdown(socket.SHUT_WR)
        # The server ends it too, once it has seen the end.
        while opened.recv(65536):
            pass
    server.resume(path, content)
    assert server.content(path) == content


def stall(server: Running, wire: Wire, path: str, offset: int, data: bytes, size: int | None) -> Request:
    """Begin an append, send ``data`` of it and no more; returns once the server has taken it up."""
    request = server.begin(wire, path, offset, size).send(data)
    if not server.kind.is_http_1:
        wait_until(lambda: server.stored(path) > offset)
    return request


@FRAMINGS
def test_a_stalled_append_is_taken_over(server: Running, is_chunked: bool) -> None:
    content = noise(300_000)
    path = server.create(len(content))
    with server.connect() as stalled:
        request = stall(server, stalled, path, 0, content[:100_000], None if is_chunked else len(content))
        offset = server.offset(path)
        assert 0 <= offset <= 100_000
        assert offset == 100_000 or not server.kind.passes_on_at_once
        answer = server.append(path, offset, content[offset:])
        assert answer.status == 204
        refused = request.answer()
        assert (refused.status, refused.fields["upload-offset"]) == (409, str(offset))
        assert refused.text.startswith("ERR_UPLOAD_INTERRUPTED")
    assert server.content(path) == content


def test_an_append_takes_a_stalled_one_over_by_itself(server: Running) -> None:
    """A client that knows how far it came need not ask; where it is wrong it is told the offset."""
    content = noise(300_000)
    path = server.create(len(content))
    with server.connect() as stalled:
        request = stall(server, stalled, path, 0, content[:100_000], len(content))
        answer = server.append(path, 100_000, content[100_000:])
        if server.kind.passes_on_at_once:
            assert answer.status == 204
        else:
            assert answer.status in (204, 409)
            server.resume(path, content)
        assert request.answer().status == 409
    assert server.content(path) == content


def test_a_termination_ends_a_stalled_append_for_good(server: Running) -> None:
    path = server.create(300_000)
    with server.connect() as stalled:
        request = stall(server, stalled, path, 0, noise(100_000), 300_000)
        assert server.ask("DELETE", path).status == 204
        assert request.answer().status == 409
    assert server.ask("HEAD", path).status == 404
    assert server.stored(path) == 0
    assert not list(server.uploads.rglob(f"{path.rpartition('/')[2]}*"))


def test_a_stalled_append_keeps_nobody_else_waiting(server: Running) -> None:
    stuck = server.create(300_000)
    content = noise(200_000)
    with server.connect() as stalled:
        request = stall(server, stalled, stuck, 0, noise(100_000), 300_000)
        path = server.create(len(content))
        assert server.append(path, 0, content).status == 204
        assert server.content(path) == content
        # It was only slow.
        assert request.send(noise(300_000)[100_000:]).answer().status == 204
    assert server.content(stuck) == noise(300_000)
