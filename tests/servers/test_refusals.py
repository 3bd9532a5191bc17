"""What is refused, under every server: with the right word, before the body where that is known, and traceless."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.live import Certificate
from tests.servers.kinds import OTHERS, Running, running
from tests.servers.test_uploads import KIB, MIB, checksum, noise
from tests.servers.wires import APPEND, TUS

FRAMINGS = pytest.mark.parametrize("is_chunked", [False, True], ids=["sized", "chunked"])
UNKNOWN = "/files/0123456789abcdef0123456789abcdef"


@FRAMINGS
@pytest.mark.parametrize("size", [10, 100_000])
def test_an_append_elsewhere_than_at_the_offset_changes_nothing(server: Running, size: int, is_chunked: bool) -> None:
    path = server.create(200_000)
    assert server.append(path, 0, noise(1000)).status == 204
    for offset in (0, 999, 1001):
        with server.connect() as wire:
            told = {**APPEND, "Upload-Offset": str(offset)}
            request = wire.begin("PATCH", path, told, size=None if is_chunked else size).send(noise(size))
            answer = request.answer()
        assert (answer.status, answer.fields["upload-offset"]) == (409, "1000")
    assert server.offset(path) == 1000


@FRAMINGS
@pytest.mark.parametrize("size", [10, 64 * KIB, 300_000])
def test_a_checksum_that_does_not_fit_keeps_nothing(server: Running, size: int, is_chunked: bool) -> None:
    content = noise(size)
    path = server.create(size + 5)
    assert server.append(path, 0, b"01234").status == 204
    with server.connect() as wire:
        told = {**APPEND, "Upload-Offset": "5", "Upload-Checksum": checksum(content[:-1] + b"?")}
        request = wire.begin("PATCH", path, told, size=None if is_chunked else size).send(content)
        if is_chunked:
            request.finish()
        answer = request.answer()
        assert (answer.status, answer.fields["upload-offset"]) == (460, "5")
        # Everything was read, so the connection is as good as before.
        assert wire.ask("HEAD", path).fields["upload-offset"] == "5"
    assert server.append(path, 5, content, **{"Upload-Checksum": checksum(content)}).status == 204
    assert server.content(path) == b"01234" + content


@FRAMINGS
@pytest.mark.parametrize("length", [10, 64 * KIB, 200_000])
def test_more_than_the_length_is_refused_whole(server: Running, length: int, is_chunked: bool) -> None:
    content = noise(length + 1)
    path = server.create(length)
    assert server.append(path, 0, content[:5]).status == 204
    with server.connect() as wire:
        told = {**APPEND, "Upload-Offset": "5"}
        size = None if is_chunked else length - 4
        answer = wire.begin("PATCH", path, told, size=size).send(content[5:]).answer()
    assert (answer.status, answer.fields["upload-offset"]) == (413, "5")
    assert server.offset(path) == 5
    assert server.append(path, 5, content[5:-1]).status == 204
    assert server.content(path) == content[:-1]


@FRAMINGS
def test_a_creation_with_more_than_its_length_makes_nothing(server: Running, is_chunked: bool) -> None:
    before = sorted(server.uploads.rglob("*"))
    with server.connect() as wire:
        told = {**APPEND, "Upload-Length": "100000"}
        answer = wire.begin("POST", "/files/", told, size=None if is_chunked else 100_001).send(noise(100_001)).answer()
    assert answer.status == 413
    assert sorted(server.uploads.rglob("*")) == before


HOPELESS = {
    "offset": (409, {**APPEND, "Upload-Offset": "7"}, 3),
    "length": (413, {**APPEND, "Upload-Offset": "0"}, 11),
    "type": (415, {**TUS, "Upload-Offset": "0"}, 3),
    "version": (412, {**APPEND, "Upload-Offset": "0", "Tus-Resumable": "0.2.2"}, 3),
    "algorithm": (400, {**APPEND, "Upload-Offset": "0", "Upload-Checksum": "x QUJD"}, 3),
}


@pytest.mark.parametrize(("status", "fields", "size"), HOPELESS.values(), ids=HOPELESS)
def test_a_hopeless_append_is_refused_before_its_body(
    server: Running, status: int, fields: dict[str, str], size: int
) -> None:
    path = server.create(10)
    expecting = {**fields, "Expect": "100-continue"} if server.kind.is_http_1 else fields
    with server.connect() as wire:
        # The very first status: nobody is told to go on before.
        assert wire.begin("PATCH", path, expecting, size=size).first_status() == status
    assert server.offset(path) == 0


def test_hopeless_requests_for_other_things_are_refused_before_their_bodies(server: Running) -> None:
    expecting = {**APPEND, "Upload-Offset": "0"} | ({"Expect": "100-continue"} if server.kind.is_http_1 else {})
    with server.connect() as wire:
        assert wire.begin("PATCH", UNKNOWN, expecting, size=1000).first_status() == 404
    with server.connect() as wire:
        told = {**expecting, "Upload-Length": str(10 * 1024**4)}
        assert wire.begin("POST", "/files/", told, size=1000).first_status() == 413


@FRAMINGS
def test_a_client_that_waits_is_told_to_continue(server: Running, is_chunked: bool) -> None:
    """HTTP/2 has it too (RFC 9113, 8.5), but servers need not use it: there the body may come at once."""
    content = noise(100_000)
    path = server.create(len(content))
    with server.connect() as wire:
        for offset in (0, 50_000):
            request = server.begin(wire, path, offset, None if is_chunked else 50_000)
            request.send(content[offset : offset + 50_000])
            if is_chunked:
                request.finish()
            assert request.answer().status == 204
    assert server.content(path) == content


@FRAMINGS
def test_a_refusal_reaches_a_client_that_is_still_sending(server: Running, is_chunked: bool) -> None:
    path = server.create(10)
    with server.connect() as wire:
        told = {**APPEND, "Upload-Offset": "0"}
        request = wire.begin("PATCH", path, told, size=None if is_chunked else 8 * MIB)
        for _ in range(8):
            request.send(bytes(MIB))
        assert request.answer().status == 413
    assert server.append(path, 0, b"0123456789").status == 204


@pytest.mark.parametrize(
    ("status", "method", "path", "fields"),
    [
        (404, "HEAD", UNKNOWN, TUS),
        (404, "DELETE", UNKNOWN, TUS),
        (404, "GET", "/elsewhere", {}),
        (405, "PUT", "/files/", TUS),
        (405, "TRACE", UNKNOWN, TUS),
        (400, "POST", "/files/", TUS),
        (400, "POST", "/files/", {**TUS, "Upload-Length": "+5"}),
        (400, "POST", "/files/", {**TUS, "Upload-Length": "5", "Upload-Metadata": "a !"}),
        (412, "POST", "/files/", {"Upload-Length": "5"}),
        (412, "HEAD", UNKNOWN, {"Tus-Resumable": "2.0.0"}),
        (413, "POST", "/files/", {**TUS, "Upload-Length": str(10 * 1024**4)}),
    ],
)
def test_a_refusal_is_a_sentence_in_words_of_the_protocol(
    server: Running, status: int, method: str, path: str, fields: dict[str, str]
) -> None:
    answer = server.ask(method, path, fields)
    assert (answer.status, answer.fields["tus-resumable"]) == (status, "1.0.0")
    if method != "HEAD":
        assert answer.text.startswith("ERR_")
        assert answer.text.count("\n") == 1
        assert str(server.uploads) not in answer.text


def test_a_creation_over_http_2_without_a_length_has_no_body(certificate: Certificate, tmp_path: Path) -> None:
    """The stream of a request without a body ends with its head, and clients such as curl say no length then."""
    [kind] = (kind for kind in OTHERS if not kind.is_http_1)
    with running(kind, tmp_path, certificate) as server, server.connect() as wire:
        told = {**TUS, "Upload-Length": "10", "X-HTTP-Method-Override": "POST"}
        assert wire.begin("PUT", "/files/", told).answer().status == 201
