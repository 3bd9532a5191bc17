"""What every client does all day, under every server: uploads whole, in pieces, joined, and downloads."""

from __future__ import annotations

import base64
import hashlib
import random
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.servers.kinds import Running, path_of
from tests.servers.wires import APPEND, TUS

KIB = 1024
MIB = 1024 * KIB

# Around what buffers and windows hold, and what fits none of them.
SIZES = (1, 64 * KIB - 1, 64 * KIB, 64 * KIB + 1, 3, 128 * KIB, 300_000)


def noise(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def checksum(data: bytes) -> str:
    return f"sha1 {base64.b64encode(hashlib.sha1(data).digest()).decode()}"


def pieces(data: bytes) -> list[bytes]:
    """Return ``data`` cut into pieces of very different sizes."""
    found: list[bytes] = []
    while data:
        size = SIZES[len(found) % len(SIZES)]
        found.append(data[:size])
        data = data[size:]
    return found


def test_an_upload_lives_from_creation_to_termination(server: Running) -> None:
    path = server.create(10, **{"Upload-Metadata": "filename YS5iaW4="})
    assert server.offset(path) == 0
    assert server.append(path, 0, b"01234").fields["upload-offset"] == "5"
    told = server.ask("HEAD", path).fields
    assert (told["upload-offset"], told["upload-length"], told["cache-control"]) == ("5", "10", "no-store")
    assert told["upload-metadata"] == "filename YS5iaW4="
    assert server.append(path, 5, b"56789").status == 204
    assert server.content(path) == b"0123456789"
    assert server.ask("DELETE", path).status == 204
    assert [server.ask(method, path).status for method in ("HEAD", "GET", "DELETE")] == [404, 404, 404]


def test_an_empty_upload_is_there_at_once(server: Running) -> None:
    path = server.create(0)
    assert server.offset(path) == 0
    assert server.content(path) == b""


def test_a_large_upload_in_one_request_is_exact(server: Running) -> None:
    content = noise(5 * MIB + 12_345)
    path = server.create(len(content))
    assert server.append(path, 0, content).fields["upload-offset"] == str(len(content))
    assert server.content(path) == content


def test_an_upload_in_pieces_over_one_connection_is_exact(server: Running) -> None:
    content = noise(1_500_000)
    path = server.create(len(content))
    offset = 0
    with server.connect() as wire:
        for piece in pieces(content):
            answer = wire.ask("PATCH", path, {**APPEND, "Upload-Offset": str(offset)}, piece)
            offset += len(piece)
            assert (answer.status, answer.fields["upload-offset"]) == (204, str(offset))
            assert wire.ask("HEAD", path).fields["upload-offset"] == str(offset)
    assert server.content(path) == content


def test_a_body_of_unknown_length_is_decoded_exactly(server: Running) -> None:
    content = noise(1_500_000)
    path = server.create(len(content))
    with server.connect() as wire:
        request = wire.begin("PATCH", path, {**APPEND, "Upload-Offset": "0"}, size=None)
        for piece in pieces(content):
            request.send(piece)
        assert request.finish().answer().fields["upload-offset"] == str(len(content))
    assert server.content(path) == content


@pytest.mark.parametrize("is_chunked", [False, True], ids=["sized", "chunked"])
@pytest.mark.parametrize("first", [300_000, 200_000], ids=["whole", "half"])
def test_a_creation_brings_a_beginning(server: Running, first: int, is_chunked: bool) -> None:
    content = noise(300_000)
    with server.connect() as wire:
        told = {**APPEND, "Upload-Length": str(len(content))}
        request = wire.begin("POST", "/files/", told, size=None if is_chunked else first).send(content[:first])
        if is_chunked:
            request.finish()
        answer = request.answer()
    assert (answer.status, answer.fields["upload-offset"]) == (201, str(first))
    path = path_of(answer)
    assert server.offset(path) == first
    if first < len(content):
        assert server.append(path, first, content[first:]).status == 204
    assert server.content(path) == content


def test_a_length_may_be_told_later(server: Running) -> None:
    content = noise(300_000)
    path = server.create(None)
    assert server.append(path, 0, content[:100_000]).status == 204
    assert server.ask("HEAD", path).fields["upload-defer-length"] == "1"
    with server.connect() as wire:
        told = {**APPEND, "Upload-Offset": "100000", "Upload-Length": "300000"}
        assert wire.begin("PATCH", path, told, size=None).send(content[100_000:]).finish().answer().status == 204
    assert server.ask("HEAD", path).fields["upload-length"] == "300000"
    assert server.content(path) == content


@pytest.mark.parametrize("is_chunked", [False, True], ids=["sized", "chunked"])
def test_a_checksum_that_fits_lets_its_bytes_in(server: Running, is_chunked: bool) -> None:
    content = noise(300_000)
    path = server.create(len(content))
    with server.connect() as wire:
        told = {**APPEND, "Upload-Offset": "0", "Upload-Checksum": checksum(content)}
        request = wire.begin("PATCH", path, told, size=None if is_chunked else len(content)).send(content)
        if is_chunked:
            request.finish()
        assert request.answer().status == 204
    assert server.content(path) == content


def test_partial_uploads_are_joined_in_the_order_of_the_list(server: Running) -> None:
    contents = [noise(200_000, seed) for seed in range(2)]
    partials = [server.create(len(content), **{"Upload-Concat": "partial"}) for content in contents]
    for path, content in zip(partials, contents, strict=True):
        assert server.append(path, 0, content).status == 204
    answer = server.ask("POST", "/files/", {**TUS, "Upload-Concat": f"final;{partials[1]} {partials[0]}"})
    assert answer.status == 201
    assert server.offset(path_of(answer)) == 400_000
    assert server.content(path_of(answer)) == contents[1] + contents[0]
    assert server.append(path_of(answer), 400_000, b"").status == 403


def test_an_overridden_method_counts(server: Running) -> None:
    path = server.create(10)
    told = {**APPEND, "Upload-Offset": "0", "X-HTTP-Method-Override": "PATCH"}
    assert server.ask("POST", path, told, b"0123456789").status == 204
    assert server.ask("POST", path, {**TUS, "X-HTTP-Method-Override": "DELETE"}).status == 204
    assert server.ask("HEAD", path).status == 404


@pytest.mark.parametrize(
    ("asked", "status", "first", "last"),
    [
        ("bytes=0-0", 206, 0, 0),
        ("bytes=1000-99999", 206, 1000, 99_999),
        ("bytes=299999-", 206, 299_999, 299_999),
        ("bytes=-70000", 206, 230_000, 299_999),
        ("bytes=300000-", 416, 0, -1),
        ("lines=1-2", 200, 0, 299_999),
    ],
)
def test_a_range_of_a_download_is_exact(server: Running, asked: str, status: int, first: int, last: int) -> None:
    content = noise(300_000)
    path = server.create(len(content))
    server.append(path, 0, content)
    answer = server.ask("GET", path, {"Range": asked})
    assert answer.status == status
    if status == 206:
        assert answer.fields["content-range"] == f"bytes {first}-{last}/300000"
    if status != 416:
        assert answer.body == content[first : last + 1]
    known = {"If-None-Match": server.ask("GET", path, {}).fields["etag"]}
    assert server.ask("GET", path, known).status == 304


def test_pages_of_other_origins_may_read_every_answer(server: Running) -> None:
    page = {"Origin": "https://app.example"}
    path = server.create(10)
    preflight = {**page, "Access-Control-Request-Method": "PATCH", "Access-Control-Request-Headers": "upload-offset"}
    answers = [
        server.ask("OPTIONS", path, preflight),
        server.ask("OPTIONS", "/files/", page),
        server.ask("HEAD", path, {**TUS, **page}),
        server.append(path, 7, b"012", **page),
        server.append(path, 0, b"0123456789!", **page),
        server.ask("PATCH", path, {**page, **TUS, "Upload-Offset": "0"}, b"012"),
        server.ask("GET", "/files/0123456789abcdef", page),
        server.append(path, 0, b"0123456789", **page),
        server.ask("GET", path, page),
    ]
    assert [answer.status for answer in answers] == [200, 204, 200, 409, 413, 415, 404, 204, 200]
    assert {answer.fields.get("access-control-allow-origin") for answer in answers} == {"*"}
    exposed = answers[2].fields["access-control-expose-headers"].lower()
    assert {"upload-offset", "location", "tus-resumable"} <= set(exposed.replace(" ", "").split(","))


def test_sixteen_uploads_at_once_do_not_mix(server: Running) -> None:
    together = threading.Barrier(16)

    def upload(number: int) -> tuple[str, bytes]:
        content = noise(400_000 + number, number)
        path = server.create(len(content))
        offset = 0
        together.wait(20)
        with server.connect() as wire:
            for piece in (content[:123_456], content[123_456:]):
                answer = wire.ask("PATCH", path, {**APPEND, "Upload-Offset": str(offset)}, piece)
                assert answer.status == 204
                offset += len(piece)
        return path, content

    with ThreadPoolExecutor(16) as clients:
        uploaded = list(clients.map(upload, range(16)))
    assert [server.content(path) == content for path, content in uploaded] == [True] * 16
