"""Plain forms under every server, however they come: whole, in pieces, chunked, in a row, with much behind a file."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.forms import BOUNDARY, PATH, field_part, file_part, form
from tests.live import Certificate
from tests.server_process import wait_until
from tests.servers.kinds import Kind, Running, running
from tests.servers.test_uploads import MIB, noise, pieces
from tests.servers.wires import Wire

TYPE = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
DELIMITER = f"\r\n--{BOUNDARY}".encode()


@pytest.fixture(scope="module")
def server(kind: Kind, tmp_path_factory: pytest.TempPathFactory, certificate: Certificate) -> Iterator[Running]:
    """A server of each kind that takes up to three files in a form."""
    folder = tmp_path_factory.mktemp("forms") / "uploads"
    with running(kind, folder, certificate, {"TUSD_PY_FORM_MAX_FILES": "3"}) as found:
        yield found


def tricky(size: int, seed: int = 1) -> bytes:
    """Return content that almost holds delimiters, everywhere."""
    chooser = random.Random(seed)
    atoms = (b"\r", b"\r\n", b"\r\n--", DELIMITER[:-1], DELIMITER[1:], b"--", chooser.randbytes(1000))
    content = bytearray()
    while len(content) < size:
        content += b"x" + chooser.choice(atoms)
    return bytes(content[:size])


def send(wire: Wire, body: bytes, chunks: Sequence[bytes] = (), *, is_chunked: bool = False) -> list[dict[str, str]]:
    """Send a form in ``chunks``, whole without any, and return what is said of its files."""
    request = wire.begin("POST", PATH, TYPE, size=None if is_chunked else len(body))
    for chunk in chunks or (body,):
        request.send(chunk)
    if is_chunked:
        request.finish()
    answer = request.answer()
    assert answer.status == 200, answer
    said: list[dict[str, str]] = json.loads(answer.body)
    return said


def contents(server: Running, said: list[dict[str, str]]) -> list[bytes]:
    return [(server.uploads / file["path"]).read_bytes() for file in said]


def unfinished(server: Running) -> list[Path]:
    return list((server.uploads / "partial").glob("*"))


@pytest.mark.parametrize("is_chunked", [False, True], ids=["with its length", "chunked"])
@pytest.mark.parametrize("make", [noise, tricky])
def test_the_files_of_a_form_are_exact(server: Running, make: object, is_chunked: bool) -> None:
    assert callable(make)
    files = [make(2 * MIB + 12_345), b"", make(70_000, 2)]
    body = form(
        field_part("before", "x" * 5000),
        file_part(files[0], "a.bin"),
        field_part("between", "y" * 5000),
        *(file_part(content, "a.bin") for content in files[1:]),
        field_part("behind", "z" * 5000),
    )
    with server.connect() as wire:
        for chunks in ((), pieces(body)):
            said = send(wire, body, chunks, is_chunked=is_chunked)
            assert contents(server, said) == files
    assert unfinished(server) == []


def test_a_form_whose_file_comes_last_is_exact(server: Running) -> None:
    content = tricky(3 * MIB)
    body = form(file_part(content, "a.bin"))
    # The end may be cut anywhere, and what began as a delimiter may be none.
    for cut in (1, 3, 5, len(DELIMITER), len(DELIMITER) + 3, len(DELIMITER) + 5, len(DELIMITER) + 7):
        with server.connect() as wire:
            assert contents(server, send(wire, body, (body[:-cut], body[-cut:]))) == [content]


def test_a_name_behind_a_large_file_counts(server: Running) -> None:
    with server.connect() as wire:
        [said] = send(wire, form(file_part(noise(2 * MIB), None), field_part("filename", "late.bin")))
    assert said["filename"] == "late.bin"


@pytest.mark.parametrize("is_chunked", [False, True], ids=["with its length", "chunked"])
def test_requests_follow_a_form_over_its_connection(server: Running, is_chunked: bool) -> None:
    with server.connect() as wire:
        for seed, behind in enumerate((0, 10, 100_000)):
            content = noise(300_000, seed)
            body = form(file_part(content, "a.bin"), field_part("behind", "x" * min(behind, 60_000)))
            assert contents(server, send(wire, body, is_chunked=is_chunked)) == [content]
            assert wire.ask("OPTIONS", PATH).status == 204


def test_a_request_may_come_together_with_the_form_before_it(server: Running) -> None:
    for content in (noise(1000), noise(300_000)):
        body = form(file_part(content, "a.bin"), field_part("behind", "x"))
        with server.connect() as wire:
            with wire.together():
                first = wire.begin("POST", PATH, TYPE, size=len(body)).send(body)
                second = wire.begin("OPTIONS", PATH)
            assert contents(server, json.loads(first.answer().body)) == [content]
            assert second.answer().status == 204


@pytest.mark.parametrize("is_chunked", [False, True], ids=["with its length", "chunked"])
def test_a_form_that_breaks_the_rules_within_a_large_file_is_refused(server: Running, is_chunked: bool) -> None:
    bad = noise(600_000) + DELIMITER + b"x" + noise(600_000)
    for broken in (form(file_part(bad, "a.bin")), form(file_part(noise(700_000), "a.bin"))[:-3]):
        with server.connect() as wire:
            request = wire.begin("POST", PATH, TYPE, size=None if is_chunked else len(broken))
            request.send(broken)
            if is_chunked:
                request.finish()
            answer = request.answer()
        assert answer.status == 400
        assert list(json.loads(answer.body)) == ["detail"]
        wait_until(lambda: unfinished(server) == [])


@pytest.mark.parametrize("size", [1000, 700_000])
def test_a_client_that_leaves_in_a_file_leaves_nothing(server: Running, size: int) -> None:
    with server.connect() as wire:
        request = wire.begin("POST", PATH, TYPE, size=2 * MIB)
        request.send(file_part(noise(size), "a.bin"))
        wait_until(lambda: unfinished(server) != [])
        wire.reset(request)
        wait_until(lambda: unfinished(server) == [])
