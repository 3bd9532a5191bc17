"""Bodies and heads cut at every place where our protocol could miscount: around slabs, byte by byte, within heads."""

from __future__ import annotations

import ssl

import pytest

from tests.live import Connection
from tests.server_process import wait_until
from tests.servers.kinds import OURS_ALONE, Running
from tests.servers.segments import send_apart
from tests.servers.test_uploads import KIB, checksum, noise
from tests.servers.wires import APPEND, Http1

pytestmark = OURS_ALONE

# Where slabs of 64 KiB, that double up to 1 MiB, are full, one alone and one after the other; one byte less and more.
EDGES = [edge * KIB + odd for edge in (64, 128, 192, 448, 960, 1024) for odd in (-1, 0, 1)]
SMALL_EDGES = [edge for edge in EDGES if edge < 450 * KIB]


def head(path: str, offset: int, size: int, *more: str) -> bytes:
    lines = (
        f"PATCH {path} HTTP/1.1",
        "Host: localhost",
        "Tus-Resumable: 1.0.0",
        "Content-Type: application/offset+octet-stream",
        f"Upload-Offset: {offset:08}",
        f"Content-Length: {size}",
        *more,
    )
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode()


def test_a_body_that_is_cut_around_the_end_of_a_slab_is_kept_to_the_byte(server: Running) -> None:
    content = noise(sum(EDGES) + 3_000_000)
    path = server.create(len(content))
    offset = 0
    for edge in EDGES:
        with server.server.open() as opened, server.over(opened) as wire:
            server.begin(wire, path, offset, len(content) - offset).send(content[offset : offset + edge])
            if isinstance(opened, ssl.SSLSocket) and not server.kind.keeps_a_cut(edge):
                opened.unwrap()
        offset += edge
        # Who asks before the server has read all of it is told less, and rightly so.
        wait_until(lambda due=offset: server.stored(path) == due)  # type: ignore[misc]
        assert server.offset(path) == offset
    assert server.append(path, offset, content[offset:]).status == 204
    assert server.content(path) == content


def test_a_body_that_is_taken_over_around_the_end_of_a_slab_is_kept_to_the_byte(server: Running) -> None:
    content = noise(sum(SMALL_EDGES) + 1_000_000)
    path = server.create(len(content))
    offset = 0
    for edge in SMALL_EDGES:
        with server.connect() as wire:
            request = server.begin(wire, path, offset, len(content) - offset).send(content[offset : offset + edge])
            offset += edge
            assert server.offset(path) == offset
            answer = request.answer()
            assert (answer.status, answer.fields["upload-offset"]) == (409, str(offset))
    assert server.append(path, offset, content[offset:]).status == 204
    assert server.content(path) == content


def test_bodies_that_end_around_the_end_of_a_slab_leave_the_next_request_alone(server: Running) -> None:
    content = noise(sum(EDGES))
    path = server.create(len(content))
    offset = 0
    with server.connect() as wire:
        for edge in EDGES:
            with wire.together():
                append = wire.begin("PATCH", path, {**APPEND, "Upload-Offset": str(offset)}, size=edge)
                append.send(content[offset : offset + edge])
                told = wire.begin("HEAD", path)
            offset += edge
            assert append.answer().fields["upload-offset"] == str(offset)
            assert told.answer().fields["upload-offset"] == str(offset)
    assert server.content(path) == content


def test_bodies_whose_segments_end_around_the_end_of_a_slab_are_exact(server: Running) -> None:
    content = noise(sum(SMALL_EDGES))
    path = server.create(len(content))
    offset = 0
    with server.server.open() as opened:
        connection = Connection(opened)
        for edge in SMALL_EDGES:
            piece = content[offset : offset + edge]
            send_apart(opened, [head(path, offset, edge) + piece[:10], piece[10:-1], piece[-1:]])
            offset += edge
            assert connection.answer("PATCH").fields["upload-offset"] == str(offset)
    assert server.content(path) == content


@pytest.mark.parametrize("is_chunked", [False, True], ids=["sized", "chunked"])
def test_checksums_are_those_of_all_slabs(server: Running, is_chunked: bool) -> None:
    with server.connect() as wire:
        for edge in SMALL_EDGES:
            content = noise(edge)
            path = server.create(edge)
            for claimed, status in ((content[:-1] + bytes([content[-1] ^ 1]), 460), (content, 204)):
                told = {**APPEND, "Upload-Offset": "0", "Upload-Checksum": checksum(claimed)}
                request = wire.begin("PATCH", path, told, size=None if is_chunked else edge).send(content)
                if is_chunked:
                    request.finish()
                assert request.answer().status == status
            assert wire.ask("GET", path, {}).body == content


def test_a_request_may_come_one_byte_at_a_time(server: Running) -> None:
    content = noise(100)
    path = server.create(len(content))
    data = head(path, 0, len(content)) + content
    with server.server.open() as opened:
        connection = Connection(opened)
        send_apart(opened, [data[at : at + 1] for at in range(len(data))])
        assert connection.answer("PATCH").status == 204
    assert server.content(path) == content


def test_a_long_body_may_come_one_byte_at_a_time(server: Running) -> None:
    content = noise(3000)
    path = server.create(len(content))
    with server.connect() as wire:
        request = server.begin(wire, path, 0, len(content))
        for at in range(len(content)):
            request.send(content[at : at + 1])
        assert request.answer().status == 204
    assert server.content(path) == content


def test_a_request_may_be_split_anywhere(server: Running) -> None:
    size = len(head("/files/" + 32 * "0", 0, 4)) + 4
    content = noise(4 * size)
    path = server.create(len(content))
    assert len(head(path, 0, 4)) + 4 == size
    with server.server.open() as opened:
        connection = Connection(opened)
        for at in range(size):
            data = head(path, 4 * at, 4) + content[4 * at : 4 * at + 4]
            send_apart(opened, [data[:at], data[at:]] if at else [data])
            assert connection.answer("PATCH").status == 204, at
    assert server.content(path) == content


def test_a_second_head_may_begin_anywhere_in_the_segment_of_a_body(server: Running) -> None:
    """The end of a body and a part of what follows it come at once, and the rest later."""
    heads = [head("/files/" + 32 * "0", 0, 4)]
    places = range(0, len(heads[0]) + 5, 3)
    content = noise(8 * len(places))
    path = server.create(len(content))
    with server.server.open() as opened:
        connection = Connection(opened)
        for number, at in enumerate(places):
            first, second = 8 * number, 8 * number + 4
            whole = head(path, second, 4) + content[second : second + 4]
            send_apart(
                opened,
                [
                    head(path, first, 4) + content[first : first + 2],
                    content[first + 2 : second] + whole[:at],
                    whole[at:] or b"\r\n",
                ],
            )
            assert [connection.answer("PATCH").status for _ in range(2)] == [204, 204], at
    assert server.content(path) == content


def test_many_small_appends_in_a_row_are_answered_in_order(server: Running) -> None:
    count = 100
    content = noise(10 * count)
    path = server.create(len(content))
    with server.connect() as wire:
        with wire.together():
            for offset in range(0, len(content), 10):
                told = {**APPEND, "Upload-Offset": str(offset)}
                wire.begin("PATCH", path, told, size=10).send(content[offset : offset + 10])
            last = wire.begin("HEAD", path)
        assert isinstance(wire, Http1)
        offsets = [wire.connection.answer("PATCH").fields["upload-offset"] for _ in range(count)]
        assert offsets == [str(10 * (number + 1)) for number in range(count)]
        assert last.answer().fields["upload-offset"] == str(len(content))
    assert server.content(path) == content
