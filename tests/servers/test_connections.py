"""Several requests on one connection, under every server: one after the other, and without waiting for answers."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from tests.servers.kinds import Running, path_of
from tests.servers.test_uploads import checksum, noise
from tests.servers.wires import APPEND, TUS

FIRST = {**APPEND, "Upload-Offset": "0"}

# Whatever a client may be told, by what it is told for.
ASKED: dict[str, tuple[int, str, Mapping[str, str], bytes]] = {
    "appended": (204, "PATCH", FIRST, b"01234"),
    "appended nothing": (204, "PATCH", FIRST, b""),
    "appended much": (204, "PATCH", FIRST, noise(300_000)),
    "told": (200, "HEAD", TUS, b""),
    "not there yet": (404, "GET", {}, b""),
    "discovered": (204, "OPTIONS", {}, b""),
    "deleted": (204, "DELETE", TUS, b""),
    "wrong offset": (409, "PATCH", {**APPEND, "Upload-Offset": "7"}, b"01234"),
    "wrong offset, much": (409, "PATCH", {**APPEND, "Upload-Offset": "7"}, noise(300_000)),
    "wrong type": (415, "PATCH", {**TUS, "Upload-Offset": "0"}, b"01234"),
    "wrong version": (412, "PATCH", {**FIRST, "Tus-Resumable": "9"}, b"01234"),
    "wrong checksum": (460, "PATCH", {**FIRST, "Upload-Checksum": checksum(b"0")}, b"01234"),
    "unknown checksum": (400, "PATCH", {**FIRST, "Upload-Checksum": "x QUJD"}, b"01234"),
    "wrong method": (405, "PUT", TUS, b"01234"),
    "too much": (413, "PATCH", FIRST, noise(300_001)),
}


@pytest.mark.parametrize(("status", "method", "fields", "body"), ASKED.values(), ids=ASKED)
def test_after_any_answer_the_connection_is_in_step_or_closed(
    server: Running, status: int, method: str, fields: Mapping[str, str], body: bytes
) -> None:
    path = server.create(300_000)
    with server.connect() as wire:
        assert wire.ask("OPTIONS", "/files/").status == 204
        answer = wire.ask(method, path, fields, body)
        assert answer.status == status
        if answer.fields.get("connection") == "close":
            # Whatever comes behind it is not heard.
            with pytest.raises(ConnectionError):
                wire.ask("DELETE", path)
            assert server.ask("HEAD", path).status == 200
        else:
            assert wire.ask("OPTIONS", "/files/").status == 204
            assert wire.ask("HEAD", path).status == (404 if method == "DELETE" else 200)
    assert status < 400 or server.ask("HEAD", path).fields["upload-offset"] == "0"


def test_many_requests_of_all_sizes_share_a_connection(server: Running) -> None:
    with server.connect() as wire:
        for size in (0, 1, 1000, 64 * 1024, 200_000, 5):
            content = noise(size)
            path = path_of(wire.ask("POST", "/files/", {**TUS, "Upload-Length": str(size)}))
            if size:
                assert wire.ask("PATCH", path, FIRST, content).status == 204
            assert wire.ask("GET", path, {}).body == content
            assert wire.ask("DELETE", path).status == 204


@pytest.mark.parametrize("size", [10, 100_000])
def test_requests_behind_a_body_in_one_segment_are_answered_in_order(server: Running, size: int) -> None:
    """Over HTTP/2 each goes its own way: who is sent at once with another may find that one under way."""
    content = noise(2 * size)
    path = server.create(len(content))
    with server.connect() as wire:
        with wire.together():
            first = wire.begin("PATCH", path, FIRST, size=size).send(content[:size])
            second = wire.begin("PATCH", path, {**FIRST, "Upload-Offset": str(size)}, size=size).send(content[size:])
            told = wire.begin("HEAD", path)
        answers = [request.answer() for request in (first, second, told)]
    if server.kind.is_http_1:
        assert [answer.status for answer in answers] == [204, 204, 200]
        assert [answer.fields["upload-offset"] for answer in answers] == [str(size), str(2 * size), str(2 * size)]
    else:
        assert {answer.status for answer in answers[:2]} <= {204, 409, 423}
        assert answers[2].status in (200, 423)
        if server.offset(path) < len(content):
            server.resume(path, content)
    assert server.content(path) == content


def test_a_head_behind_a_body_in_one_segment_sees_all_of_it(server: Running) -> None:
    path = server.create(10)
    with server.connect() as wire:
        with wire.together():
            append = wire.begin("PATCH", path, FIRST, size=5).send(b"01234")
            told = wire.begin("HEAD", path)
        assert append.answer().status in ((204,) if server.kind.is_http_1 else (204, 409))
        assert told.answer().fields["upload-offset"] in (("5",) if server.kind.is_http_1 else ("0", "5"))
    server.resume(path, b"0123456789")
    assert server.content(path) == b"0123456789"


def test_chunked_bodies_in_one_segment_are_answered_in_order(server: Running) -> None:
    content = noise(30_000)
    paths = [server.create(len(content)) for _ in range(3)]
    with server.connect() as wire:
        with wire.together():
            requests = [wire.begin("PATCH", path, FIRST, size=None).send(content).finish() for path in paths]
        assert [request.answer().status for request in requests] == [204, 204, 204]
    assert [server.content(path) for path in paths] == [content] * 3


def test_a_body_in_the_segments_of_two_others_is_exact(server: Running) -> None:
    """The end of one body, a whole one, and the beginning of the next come in one read."""
    contents = [noise(70_000, seed) for seed in range(3)]
    paths = [server.create(len(content)) for content in contents]
    with server.connect() as wire:
        first = wire.begin("PATCH", paths[0], FIRST, size=70_000).send(contents[0][:69_000])
        with wire.together():
            first.send(contents[0][69_000:])
            second = wire.begin("PATCH", paths[1], FIRST, size=70_000).send(contents[1])
            third = wire.begin("PATCH", paths[2], FIRST, size=70_000).send(contents[2][:1])
        assert (first.answer().status, second.answer().status) == (204, 204)
        assert third.send(contents[2][1:]).answer().status == 204
    assert [server.content(path) for path in paths] == contents
