"""What hostile and broken clients send over a connection, byte by byte as they send it."""

from __future__ import annotations

import hashlib
import logging
import threading
import tracemalloc
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.types import Receive, Scope, Send

from tests.live import APPEND, TUS, Answer, Certificate, Connection, Server, serving
from tests.server_process import wait_until
from tusd_py import TusApp, lifecycle
from tusd_py.intake import Sink
from tusd_py.server.arrival import Arrival
from tusd_py.server.crowd import Crowd
from tusd_py.server.protocol import MAX_FRAMING, MAX_HEAD, MAX_TARGET, LimitedProtocol
from tusd_py.web import wire

HOST = "Host: localhost\r\n"
CHUNKED = "Transfer-Encoding: chunked\r\n"
OPTIONS = f"OPTIONS /files/ HTTP/1.1\r\n{HOST}\r\n"
UPGRADES = {
    "h2c": "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n",
    "websocket": "Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n",
    "unknown": "Upgrade: x/1, y\r\nConnection: upgrade\r\nUpgrade: z\r\n",
}


class Hasty(LimitedProtocol):
    """Lets nobody take more than a fifth of a second for a head."""

    head_timeout = 0.2


class Patient(LimitedProtocol):
    """Waits for heads as the server does by default."""

    head_timeout = 20.0


@pytest.fixture(autouse=True)
def _short_draining(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let refusals end soon for a client that neither sends nor leaves: it waits for that here."""
    monkeypatch.setattr(wire, "DRAIN_SECONDS", 0.1)


@pytest.fixture(scope="module", params=["asyncio", "uvloop"])
def loop(request: pytest.FixtureRequest) -> str:
    """Each event loop that the server runs on."""
    name: str = request.param
    return name


@pytest.fixture(scope="module", params=["plain", "tls"])
def tls(request: pytest.FixtureRequest, certificate: Certificate) -> Certificate | None:
    """The certificate of the server, or none."""
    return certificate if request.param == "tls" else None


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, loop: str, tls: Certificate | None) -> Iterator[Server]:
    """A server that takes anything."""
    app = TusApp(upload_dir=tmp_path_factory.mktemp("uploads"), allowed_upload_extensions="*", sniff="off")
    with serving(app, loop=loop, http=Patient, certificate=tls) as server:
        yield server


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory, loop: str, tls: Certificate | None) -> Iterator[Server]:
    """A server that waits for no head."""
    app = TusApp(upload_dir=tmp_path_factory.mktemp("uploads"), allowed_upload_extensions="*", sniff="off")
    with serving(app, loop=loop, http=Hasty, certificate=tls) as server:
        yield server


def patch(path: str, offset: int, fields: str) -> str:
    return f"PATCH {path} HTTP/1.1\r\n{HOST}{APPEND}Upload-Offset: {offset}\r\n{fields}\r\n"


def how_it_ends(connection: Connection, data: bytes, times: int) -> int | None:
    """Send ``data`` so many times, and return the status of the answer, or ``None`` where the connection is cut."""
    try:
        for _ in range(times):
            connection.send(data)
        return connection.answer().status
    except ConnectionError:
        return None


# Trailers


def test_a_trailer_is_no_header_field(server: Server) -> None:
    path = server.create()
    trailers = "X-HTTP-Method-Override: DELETE\r\nUpload-Offset: 7\r\nTus-Resumable: 9.9.9\r\n"
    # The whole request is there before the application sees any of it.
    with server.connect() as connection:
        connection.send(patch(path, 0, CHUNKED) + f"3\r\nabc\r\n0\r\n{trailers}\r\n")
        answer = connection.answer()
        assert (answer.status, answer.fields["upload-offset"]) == (204, "3")
        assert connection.send(f"HEAD {path} HTTP/1.1\r\n{HOST}{TUS}\r\n").answer("HEAD").status == 200


def checksum_of(content: bytes, algorithm: str = "sha1") -> str:
    digest = hashlib.new(algorithm, content).digest()
    return f"Upload-Checksum: {algorithm} {b64encode(digest).decode()}\r\n"


def chunked(content: bytes, trailers: str = "") -> str:
    return f"{len(content):x}\r\n{content.decode()}\r\n0\r\n{trailers}\r\n"


ANNOUNCED = pytest.mark.parametrize(
    "announced", ["", "Trailer: Upload-Checksum\r\n", "Trailer: x, upload-checksum\r\n"]
)


def test_checksums_in_trailers_are_announced_where_they_are_verified(server: Server, tmp_path: Path) -> None:
    assert "checksum-trailer" in server.ask("OPTIONS", "/files/").fields["tus-extension"].split(",")
    app = TusApp(upload_dir=tmp_path)
    with serving(app) as plain:
        assert "checksum-trailer" not in plain.ask("OPTIONS", "/files/").fields["tus-extension"]
        path = plain.create()
        with plain.connect() as connection:
            connection.send(patch(path, 0, CHUNKED + "Trailer: Upload-Checksum\r\nExpect: 100-continue\r\n"))
            # Before the body, for it could not be verified.
            assert connection.final().status == 400


@ANNOUNCED
@pytest.mark.parametrize("algorithm", ["sha1", "sha256"])
def test_a_checksum_behind_the_body_is_verified(server: Server, announced: str, algorithm: str) -> None:
    path = server.create()
    with server.connect() as connection:
        trailers = "X-Other: a\r\n" + checksum_of(b"01234", algorithm)
        answer = connection.send(patch(path, 0, CHUNKED + announced) + chunked(b"01234", trailers)).answer()
        assert (answer.status, answer.fields["upload-offset"]) == (204, "5")
        wrong = chunked(b"56789", checksum_of(b"01234", algorithm))
        answer = connection.send(patch(path, 5, CHUNKED + announced) + wrong).answer()
        assert (answer.status, answer.fields["upload-offset"]) == (460, "5")
        right = chunked(b"56789", checksum_of(b"56789", algorithm))
        assert connection.send(patch(path, 5, CHUNKED + announced) + right).answer().status == 204
    assert server.ask("GET", path).text == "0123456789"


@ANNOUNCED
def test_a_creation_is_verified_by_the_checksum_behind_its_body(server: Server, announced: str) -> None:
    head = f"POST /files/ HTTP/1.1\r\n{HOST}{APPEND}Upload-Length: 5\r\n{CHUNKED}{announced}\r\n"
    with server.connect() as connection:
        assert connection.send(head + chunked(b"01234", checksum_of(b"56789"))).answer().status == 460
        answer = connection.send(head + chunked(b"01234", checksum_of(b"01234"))).answer()
        assert (answer.status, answer.fields["upload-offset"]) == (201, "5")


@pytest.mark.parametrize(
    ("fields", "body"),
    [
        (CHUNKED + "Trailer: Upload-Checksum\r\n", chunked(b"01234")),
        (CHUNKED, chunked(b"01234", "Upload-Checksum: sha3 AAAA\r\n")),
        (CHUNKED, chunked(b"01234", "Upload-Checksum: sha1\r\n")),
        (CHUNKED + checksum_of(b"01234"), chunked(b"01234", checksum_of(b"01234"))),
        (CHUNKED + "Trailer: Upload-Checksum\r\n" + checksum_of(b"01234"), chunked(b"01234", checksum_of(b"01234"))),
        ("Content-Length: 5\r\nTrailer: Upload-Checksum\r\n", "01234"),
    ],
    ids=["missing", "unknown", "malformed", "before and behind", "announced and before", "no chunks"],
)
def test_a_checksum_that_cannot_be_verified_drops_its_body(server: Server, fields: str, body: str) -> None:
    path = server.create()
    with server.connect() as connection:
        answer = connection.send(patch(path, 0, fields) + body).answer()
        assert (answer.status, answer.text.partition(":")[0]) == (400, "ERR_INVALID_CHECKSUM")
    assert server.offset(path) == 0


def test_of_two_checksums_behind_the_body_none_is_believed(server: Server) -> None:
    path = server.create()
    with server.connect() as connection:
        body = chunked(b"01234", checksum_of(b"01234") * 2)
        assert connection.send(patch(path, 0, CHUNKED) + body).answer().status == 400
    assert server.offset(path) == 0


def test_bytes_that_are_cut_off_from_their_announced_checksum_do_not_count(server: Server) -> None:
    path = server.create()
    with server.connect() as connection:
        connection.send(patch(path, 0, CHUNKED + "Trailer: Upload-Checksum\r\n") + "5\r\n01234\r\n")
        assert server.offset(path) == 0
        assert connection.answer().status == 409


# Other protocols


@pytest.mark.parametrize("upgrade", UPGRADES.values(), ids=UPGRADES)
@pytest.mark.parametrize("framing", ["Content-Length: 10\r\n", CHUNKED], ids=["length", "chunks"])
@pytest.mark.parametrize("is_whole", [True, False], ids=["in one piece", "byte by byte"])
def test_an_offer_of_another_protocol_is_ignored(
    server: Server, caplog: pytest.LogCaptureFixture, upgrade: str, framing: str, is_whole: bool
) -> None:
    path = server.create()
    smuggled = f"DELETE {path} HTTP/1.1\r\n{HOST}{TUS}\r\n"[:10]
    body = smuggled if framing != CHUNKED else f"a\r\n{smuggled}\r\n0\r\n\r\n"
    data = patch(path, 0, upgrade + framing) + body + f"HEAD {path} HTTP/1.1\r\n{HOST}{upgrade}{TUS}\r\n" + OPTIONS
    with server.connect() as connection:
        for piece in [data] if is_whole else data:
            connection.send(piece)
        assert connection.answer("PATCH").fields["upload-offset"] == "10"
        assert connection.answer("HEAD").fields["upload-length"] == "10"
        assert connection.answer("OPTIONS").status == 204
    assert server.ask("GET", path).text == smuggled
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_client_that_offers_another_protocol_may_wait_for_100(server: Server) -> None:
    path = server.create()
    with server.connect() as connection:
        connection.send(patch(path, 0, UPGRADES["h2c"] + "Content-Length: 3\r\nExpect: 100-continue\r\n"))
        assert connection.interim() == 100
        assert connection.send(b"abc").answer().status == 204


def test_an_offer_does_not_keep_a_connection_that_is_to_be_closed(server: Server) -> None:
    with server.connect() as connection:
        connection.send(f"OPTIONS /files/ HTTP/1.1\r\n{HOST}Connection: close, Upgrade\r\nUpgrade: h2c\r\n\r\n")
        assert connection.answer().status == 204
        assert connection.is_ended_by_server()


@pytest.mark.parametrize("target", ["x.example:443", "/files/", "*"])
def test_the_server_is_no_way_to_somewhere_else(server: Server, target: str) -> None:
    with server.connect() as connection:
        connection.send(f"CONNECT {target} HTTP/1.1\r\n{HOST}\r\n")
        answer = connection.answer()
        assert (answer.status, "POST" in answer.fields["allow"]) == (405, True)
        assert answer.text.startswith("ERR_METHOD_NOT_ALLOWED: ")
        assert connection.is_ended_by_server()


@pytest.mark.parametrize("hosts", ["", "Host: a\r\nHost: b\r\n", "Host: a\r\nhost: a\r\n"])
def test_a_request_without_a_host_or_with_several_is_refused(server: Server, hosts: str) -> None:
    with server.connect() as connection:
        connection.send(f"OPTIONS /files/ HTTP/1.1\r\n{hosts}\r\n")
        assert connection.answer().status == 400
        assert connection.is_ended_by_server()


# Heads without end


@pytest.mark.parametrize(
    "beginning",
    [
        "GET / HTTP/1.1\r\nX-",
        "GET / HTTP/1.1\r\nX-A: ",
        f"GET / HTTP/1.1\r\n{HOST}Connection: Upgrade\r\nUpgrade: h2c\r\nX-A: ",
        f"{OPTIONS}GET / HTTP/1.1\r\nX-A: ",
    ],
    ids=["name", "value", "upgrade", "second request"],
)
def test_an_endless_head_is_refused(server: Server, beginning: str) -> None:
    with server.connect() as connection:
        connection.send(beginning)
        if "OPTIONS" in beginning:
            assert connection.answer("OPTIONS").status == 204
        connection.send(b"a" * (MAX_HEAD - 5))
        assert connection.send(b"a" * 5).answer().status == 431
        assert connection.is_ended_by_server()


def test_a_head_of_many_fields_without_end_is_refused(server: Server) -> None:
    with server.connect() as connection:
        connection.send("GET / HTTP/1.1\r\n" + "X-A: b\r\n" * (MAX_HEAD // 8))
        assert connection.answer().status == 431


def test_empty_lines_without_end_are_refused(server: Server) -> None:
    with server.connect() as connection:
        assert connection.send(b"\r\n" * (MAX_HEAD // 2)).answer().status == 431


@pytest.mark.parametrize("end", ["", f" HTTP/1.1\r\n{HOST}\r\n"], ids=["endless", "whole"])
def test_a_target_that_is_too_long_is_refused(server: Server, end: str) -> None:
    with server.connect() as connection:
        answer = connection.send(f"GET /{'a' * MAX_TARGET}{end}").answer()
        assert (answer.status, answer.text[:21]) == (414, "ERR_TARGET_TOO_LONG: ")


def test_a_target_of_full_length_is_looked_for(server: Server) -> None:
    assert server.ask("GET", "/files/".ljust(MAX_TARGET, "a")).status == 404


@pytest.mark.parametrize(
    "beginning",
    [
        "GET /files/",
        "GET / HTTP/1.1\r\nX-A: ",
        patch("/files/0123456789abcdef0123456789abcdef", 0, CHUNKED) + "1;x=",
        patch("/files/0123456789abcdef0123456789abcdef", 0, CHUNKED) + "1\r\na\r\n0\r\nX: ",
    ],
    ids=["target", "field", "extension", "trailer"],
)
def test_what_has_no_end_takes_no_memory(server: Server, beginning: str) -> None:
    tracemalloc.start()
    try:
        with server.connect() as connection:
            connection.send(beginning)
            how_it_ends(connection, b"a" * 65536, 128)
        assert tracemalloc.get_traced_memory()[1] < 2 * 1024 * 1024
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("framing", [b"1;ext=", b"1\r\na\r\n0\r\nX-Trailer: "], ids=["extension", "trailer"])
def test_chunks_that_are_nothing_but_framing_are_refused_with_their_request(server: Server, framing: bytes) -> None:
    path = server.create()
    with server.connect() as connection:
        connection.send(patch(path, 0, CHUNKED)).send(framing)
        assert how_it_ends(connection, b"a" * 1024, 64 * MAX_FRAMING // 1024) == 400
        assert connection.is_ended_by_server()
    assert server.offset(path) == 0


def test_many_trailers_are_refused_with_their_request(server: Server) -> None:
    path = server.create()
    with server.connect() as connection:
        connection.send(patch(path, 0, CHUNKED)).send(b"1\r\na\r\n0\r\n")
        assert how_it_ends(connection, b"X-A: b\r\n" * 128, 64 * MAX_FRAMING // 1024) == 400
    assert server.offset(path) == 0


def test_many_small_chunks_are_fine(server: Server) -> None:
    path = server.create(length=20_000)
    with server.connect() as connection:
        connection.send(patch(path, 0, CHUNKED))
        for _ in range(20):
            connection.send(b"1;some=extension\r\na\r\n" * 1000)
        assert connection.send(b"0\r\n\r\n").answer().fields["upload-offset"] == "20000"


def test_bodies_do_not_count_as_heads(server: Server) -> None:
    path = server.create(length=8 * MAX_HEAD)
    body = b"x" * (4 * MAX_HEAD)
    with server.connect() as connection:
        for offset in (0, len(body)):
            connection.send(patch(path, offset, f"Content-Length: {len(body)}\r\n").encode() + body)
        offsets = [connection.answer().fields["upload-offset"] for _ in range(2)]
    assert offsets == [str(len(body)), str(2 * len(body))]


# Deadlines


@pytest.mark.parametrize("beginning", ["G", "GET / HTTP/1.1\r\n", f"{OPTIONS}GET / HTTP/1.1\r\n", "\r\n"])
def test_a_head_that_takes_too_long_is_answered(hasty: Server, beginning: str) -> None:
    with hasty.connect() as connection:
        connection.send(beginning)
        if "OPTIONS" in beginning:
            assert connection.answer("OPTIONS").status == 204
        answer = connection.answer()
        assert (answer.status, answer.text[:21]) == (408, "ERR_REQUEST_TIMEOUT: ")
        assert connection.is_ended_by_server()


def test_a_connection_on_which_nothing_comes_is_closed(hasty: Server) -> None:
    with hasty.connect() as connection:
        assert connection.is_ended_by_server()


def test_the_deadline_of_a_head_is_none_for_what_follows_it(hasty: Server) -> None:
    path = hasty.create(length=10)
    with hasty.connect() as slow, hasty.connect() as other:
        slow.send(patch(path, 0, "Content-Length: 10\r\n") + "01234")
        # A deadline of its own passes meanwhile.
        assert other.is_ended_by_server()
        assert slow.send(b"56789").answer().status == 204
        # Idle between two requests is no head that takes long.
        with hasty.connect() as another:
            assert another.is_ended_by_server()
        assert slow.send(f"HEAD {path} HTTP/1.1\r\n{HOST}{TUS}\r\n").answer("HEAD").status == 200


# What cannot be read

UNREADABLE = {
    "no number": f"POST /files/ HTTP/1.1\r\n{HOST}{TUS}Content-Length: 3x\r\n\r\n",
    "two lengths": f"POST /files/ HTTP/1.1\r\n{HOST}{TUS}Content-Length: 3\r\nContent-Length: 4\r\n\r\n",
    "length and chunks": f"POST /files/ HTTP/1.1\r\n{HOST}{TUS}Content-Length: 3\r\n{CHUNKED}\r\n",
    "chunks not last": f"POST /files/ HTTP/1.1\r\n{HOST}{TUS}Transfer-Encoding: chunked, gzip\r\n\r\n",
    "raw target": f"GET /files/\u00e4\u00f6 HTTP/1.1\r\n{HOST}\r\n",
    "no target": f"GET HTTP/1.1\r\n{HOST}\r\n",
    "no HTTP": "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "space before the colon": f"GET / HTTP/1.1\r\n{HOST}A : b\r\n\r\n",
    "HTTP/2": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "version": f"GET / HTTP/2.0\r\n{HOST}\r\n",
    "NUL": f"GET / HTTP/1.1\r\n{HOST}A: \0\r\n\r\n",
}


@pytest.mark.parametrize("is_pipelined", [False, True])
@pytest.mark.parametrize("data", UNREADABLE.values(), ids=UNREADABLE)
def test_what_cannot_be_read_is_answered_as_everything_is(server: Server, data: str, is_pipelined: bool) -> None:
    with server.connect() as connection:
        if is_pipelined:
            connection.send(f"POST /files/ HTTP/1.1\r\n{HOST}{TUS}Upload-Length: 3\r\n\r\n" + data)
            assert connection.answer().status == 201
        else:
            connection.send(data)
        answer = connection.answer()
        assert answer.status == 400
        assert answer.fields["tus-resumable"] == "1.0.0"
        assert answer.fields["access-control-allow-origin"] == "*"
        assert answer.fields["content-type"].startswith("text/plain")
        assert answer.fields["connection"] == "close"
        assert answer.text.startswith("ERR_")
        assert answer.text.count("\n") == 1
        assert connection.is_ended_by_server()


@pytest.mark.parametrize("method", ["FOO", "get", "X-HTTP"])
def test_a_method_that_nobody_knows_is_answered_as_one_that_is_not_served(server: Server, method: str) -> None:
    with server.connect() as connection:
        answer = connection.send(f"{method} /files/ HTTP/1.1\r\n{HOST}\r\n").answer()
        assert (answer.status, "PATCH" in answer.fields["allow"]) == (405, True)


def test_an_error_waits_for_the_answer_before_it(server: Server) -> None:
    path = server.create()
    with server.connect() as connection:
        connection.send(patch(path, 0, "Content-Length: 10\r\n") + "0123456789" + "FOO / HTTP/1.1\r\n\r\n" + OPTIONS)
        assert connection.answer().fields["upload-offset"] == "10"
        assert connection.answer().status == 400
        assert connection.is_ended_by_server()


def test_origins_that_may_not_read_answers_may_not_read_errors(tmp_path: Path, loop: str) -> None:
    app = TusApp(upload_dir=tmp_path, cors_allow_origins="https://app.example")
    with serving(app, loop=loop, http=Patient) as server:
        for origin, allowed in (("https://app.example", "https://app.example"), ("https://evil.example", None)):
            with server.connect() as connection:
                connection.send(f"GET / HTTP/1.1\r\nOrigin: {origin}\r\nContent-Length: x\r\n\r\n")
                answer = connection.answer()
                assert (answer.status, answer.fields.get("access-control-allow-origin")) == (400, allowed)


# Broken chunks

BROKEN = [
    b"zz\r\nabc\r\n",
    b"3\r\nabcd\r\n",
    b"-1\r\nabc\r\n",
    b"ffffffffffffffffff\r\n",
    b"3\r\nabc\r\nzz",
    b"a\r\n0123456789\r\nzz\r\n",
    b"a\r\n0123456789\r\n0\r\nbad trailer\r\n\r\n",
]


@pytest.mark.parametrize("is_leaving", [False, True])
@pytest.mark.parametrize("is_whole", [True, False], ids=["in one piece", "byte by byte"])
@pytest.mark.parametrize("chunks", BROKEN)
def test_nothing_of_a_request_with_broken_chunks_counts(
    server: Server, chunks: bytes, is_whole: bool, is_leaving: bool
) -> None:
    path = server.create()
    with server.connect() as connection:
        connection.send(patch(path, 0, CHUNKED))
        for piece in [chunks] if is_whole else [chunks[i : i + 1] for i in range(len(chunks))]:
            connection.send(piece)
        if is_leaving:
            connection.finish_sending()
            # Whoever asks for the offset before that takes the upload over, and what came so far counts.
            connection.wait_for_the_end()
        else:
            answer = connection.answer()
            # It tells the offset, unless it was all there before the upload was looked for.
            assert (answer.status, answer.fields.get("upload-offset", "0")) == (400, "0")
            assert answer.text.startswith("ERR_INVALID_REQUEST: ")
            assert connection.is_ended_by_server()
    assert server.offset(path) == 0
    assert server.append(path, 0, b"0123456789").status == 204


def test_what_was_there_before_broken_chunks_stays(server: Server) -> None:
    path = server.create()
    server.append(path, 0, b"012")
    with server.connect() as connection:
        connection.send(patch(path, 3, CHUNKED + "Expect: 100-continue\r\n"))
        assert connection.interim() == 100
        connection.send(b"4\r\n3456\r\n").send(b"zz\r\n")
        answer = connection.answer()
        assert (answer.status, answer.fields["upload-offset"]) == (400, "3")


def test_a_creation_with_broken_chunks_creates_nothing(tmp_path: Path, loop: str) -> None:
    app = TusApp(upload_dir=tmp_path, allowed_upload_extensions="*", sniff="off")
    with serving(app, loop=loop, http=Patient) as server, server.connect() as connection:
        connection.send(f"POST /files/ HTTP/1.1\r\n{HOST}{APPEND}{CHUNKED}Upload-Length: 10\r\n\r\n")
        connection.send(b"a\r\n0123456789\r\n").send(b"zz\r\n")
        assert connection.answer().status == 400
        assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix in (".part", ".json", "")]


def content(server: Server, created: Answer) -> str:
    return server.ask("GET", "/" + created.fields["location"].split("/", 3)[3]).text


CREATION = f"POST /files/ HTTP/1.1\r\n{HOST}{APPEND}Upload-Length: 10\r\nContent-Length: 10\r\n\r\n"


@pytest.mark.parametrize("times", [1, 3])
def test_a_creation_whose_body_comes_with_its_head_needs_no_intake(
    server: Server, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **settings: object) -> None:
        raise AssertionError("nothing is taken in")

    monkeypatch.setattr(lifecycle, "Intake", refuse)
    with server.connect() as connection:
        connection.send((CREATION + "0123456789") * times)
        for _ in range(times):
            answer = connection.answer()
            assert (answer.status, answer.fields["upload-offset"]) == (201, "10")
            assert content(server, answer) == "0123456789"


@pytest.mark.parametrize("cut", range(10))
def test_a_creation_whose_body_comes_later_in_part_is_the_same(server: Server, cut: int) -> None:
    with server.connect() as connection:
        connection.send(CREATION + "0123456789"[:cut])
        assert server.ask("OPTIONS", "/files/").status == 204  # the head was seen meanwhile
        connection.send("0123456789"[cut:])
        answer = connection.answer()
        assert (answer.status, answer.fields["upload-offset"]) == (201, "10")
        assert content(server, answer) == "0123456789"


@pytest.mark.parametrize("framing", ["Content-Length: 10\r\n", CHUNKED])
def test_a_client_that_leaves_keeps_its_bytes(server: Server, framing: str) -> None:
    path = server.create()
    with server.connect() as connection:
        connection.send(patch(path, 0, framing + "Expect: 100-continue\r\n"))
        assert connection.interim() == 100
        connection.send("01234" if framing != CHUNKED else "5\r\n01234\r\n")
    assert server.offset(path) == 5


# Those who ask nothing of uvicorn but what it always did


def test_every_request_of_a_connection_learns_that_the_client_left(loop: str) -> None:
    left = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            while (await receive())["type"] != "http.disconnect":
                pass
            left.append(scope["path"])
        else:
            for name in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{name}.complete"})

    with serving(app, loop=loop, http=Patient) as server, server.connect() as connection:
        connection.send(f"GET /first HTTP/1.1\r\n{HOST}\r\nGET /second HTTP/1.1\r\n{HOST}\r\n")
        connection.reset()
    assert left == ["/first"]


@pytest.mark.parametrize("tls", ["plain"], indirect=True)
def test_a_client_that_has_sent_everything_may_close_its_side_and_is_answered(server: Server) -> None:
    path = server.create()
    with server.connect() as connection:
        head = f"HEAD {path} HTTP/1.1\r\n{HOST}{TUS}\r\n"
        connection.send(patch(path, 0, "Content-Length: 3\r\n") + "abc" + head).finish_sending()
        assert connection.answer().fields["upload-offset"] == "3"
        assert connection.answer("HEAD").fields["upload-offset"] == "3"
        assert connection.is_ended_by_server()
    assert server.offset(path) == 3


@pytest.mark.parametrize("framing", ["Content-Length: 10\r\n", CHUNKED], ids=["length", "chunks"])
def test_what_arrived_before_the_client_left_is_kept(server: Server, framing: str) -> None:
    path = server.create()
    with server.connect() as connection:
        # All in one segment, so that the end is seen before the application asks for anything.
        connection.send(patch(path, 0, framing) + ("5\r\nabcde\r\n3\r\nfg" if framing == CHUNKED else "abcdefg"))
    wait_until(lambda: server.offset(path) == 7)


def test_a_whole_body_counts_also_when_its_client_has_left(server: Server) -> None:
    path = server.create()
    with server.connect() as connection:
        connection.send(patch(path, 0, "Content-Length: 10\r\n") + "0123456789")
    wait_until(lambda: server.ask("GET", path).text == "0123456789")


def test_a_body_that_plain_uvicorn_ends_early_is_no_error_of_ours(tmp_path: Path) -> None:
    """Mounted apps run behind the user's server, and it may hide the body of a request with an Upgrade."""
    app = TusApp(upload_dir=tmp_path, allowed_upload_extensions="*", sniff="off")
    with serving(app) as server:
        path = server.create()
        with server.connect() as connection:
            connection.send(patch(path, 0, UPGRADES["h2c"] + "Content-Length: 3\r\n"))
            assert connection.answer().status == 400
        assert server.offset(path) == 0


def test_no_client_of_http_1_0_is_told_to_continue(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Source: RFC 9110, 10.1.1."""
    waits = threading.Event()
    read = Arrival._read

    async def tell_and_read(self: Arrival, sink: Sink) -> None:
        waits.set()
        await read(self, sink)

    monkeypatch.setattr(Arrival, "_read", tell_and_read)
    path = server.create()
    with server.connect() as connection:
        head = patch(path, 0, "Content-Length: 3\r\nExpect: 100-continue\r\n")
        connection.send(head.replace("HTTP/1.1", "HTTP/1.0"))
        assert waits.wait(20)
        assert connection.send("abc").final().status == 204


def test_a_head_that_began_to_come_before_the_answer_is_not_cut_as_idle(tmp_path: Path, loop: str) -> None:
    class Brief(Patient):
        def timeout_keep_alive_handler(self) -> None:
            ended.set()
            super().timeout_keep_alive_handler()

        def on_response_complete(self) -> None:
            self.timeout_keep_alive = 0
            super().on_response_complete()

    ended = threading.Event()
    with serving(TusApp(upload_dir=tmp_path), loop=loop, http=Brief) as server, server.connect() as connection:
        connection.send(OPTIONS + OPTIONS[:10]).answer("OPTIONS")
        # Other connections are idle behind their answers, and end: time has passed by then.
        with server.connect() as other:
            other.send(OPTIONS).answer("OPTIONS")
            assert other.is_ended_by_server()
        assert ended.is_set()
        assert connection.send(OPTIONS[10:]).answer("OPTIONS").status == 204


# Too many connections


def test_beyond_the_most_connections_the_idle_make_room_and_others_are_refused(tmp_path: Path, loop: str) -> None:
    class Full(LimitedProtocol):
        head_timeout = 20.0
        crowd = Crowd(most=2)

    app = TusApp(upload_dir=tmp_path, allowed_upload_extensions="*", sniff="off")
    with serving(app, loop=loop, http=Full) as server:
        paths = [server.create(), server.create()]
        wait_until(lambda: len(Full.crowd) == 0)
        with server.connect() as first, server.connect() as second:
            for connection, path in ((first, paths[0]), (second, paths[1])):
                connection.send(patch(path, 0, "Content-Length: 10\r\nExpect: 100-continue\r\n"))
                assert connection.interim() == 100
            with server.connect() as third:
                answer = third.send(f"POST /files/ HTTP/1.1\r\n{HOST}{TUS}Upload-Length: 0\r\n\r\n").answer()
                assert (answer.status, answer.fields["retry-after"]) == (503, "5")
                assert answer.text.startswith("ERR_TOO_MANY_CONNECTIONS: ")
                assert third.is_ended_by_server()
            assert first.send(b"0123456789").answer().status == 204
            with server.connect() as third:
                # The first one is idle now, and makes room.
                assert third.send(OPTIONS).answer("OPTIONS").status == 204
                assert first.is_ended_by_server()
            assert second.send(b"0123456789").answer().status == 204
