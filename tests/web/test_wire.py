"""What only the wire shows: framing, cuts, clients that still send while they are refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest

from tests.live import APPEND, TUS, Certificate, Connection, Server, serving
from tusd_py import TusApp
from tusd_py.server.protocol import LimitedProtocol
from tusd_py.web import wire

HOST = "Host: x\r\n"
WAYS = ("plain uvicorn", "asyncio", "uvloop", "asyncio with TLS", "uvloop with TLS")

# For what does not depend on it.
ONE_WAY = pytest.mark.parametrize("way", ["uvloop"], indirect=True)


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    """How bytes come: as any ASGI server hands them over, or through our own protocol, on each loop."""
    name: str = request.param
    return name


@pytest.fixture
def server(folder: Path, way: str, certificate: Certificate) -> Iterator[Server]:
    """A server that takes anything up to 1000 bytes, under /files/."""
    app = TusApp(upload_dir=folder, allowed_upload_extensions="*", sniff="off", max_file_size=1000)
    loop = "uvloop" if "uvloop" in way else "asyncio"
    http: Literal["auto"] | type[LimitedProtocol] = "auto" if way == "plain uvicorn" else LimitedProtocol
    with serving(app, loop=loop, http=http, certificate=certificate if "TLS" in way else None) as server:
        yield server


def patch(path: str, offset: int, fields: str) -> str:
    return f"PATCH {path} HTTP/1.1\r\n{HOST}{APPEND}Upload-Offset: {offset}\r\n{fields}\r\n"


def chunked(*chunks: bytes) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"


def test_a_chunked_body_is_decoded_exactly(server: Server) -> None:
    path = server.create()
    with server.connect() as connection:
        connection.send(patch(path, 0, "Transfer-Encoding: chunked\r\n"))
        connection.send(chunked(b"0", b"1234", b"56789"))
        assert connection.answer().fields["upload-offset"] == "10"
    assert server.ask("GET", path).body == b"0123456789"


def test_a_body_may_come_one_byte_at_a_time(server: Server) -> None:
    path = server.create()
    with server.connect() as connection:
        for byte in (patch(path, 0, "Content-Length: 10\r\n") + "0123456789").encode():
            connection.send(bytes([byte]))
        assert connection.answer().status == 204
    assert server.ask("GET", path).body == b"0123456789"


def test_requests_on_one_connection_are_answered_in_order(server: Server) -> None:
    path = server.create()
    with server.connect() as connection:
        connection.send(
            patch(path, 0, "Content-Length: 4\r\n")
            + "0123"
            + patch(path, 4, "Content-Length: 6\r\n")
            + "456789"
            + f"HEAD {path} HTTP/1.1\r\n{HOST}{TUS}\r\n"
        )
        offsets = [connection.answer(method).fields["upload-offset"] for method in ("PATCH", "PATCH", "HEAD")]
    assert offsets == ["4", "10", "10"]


def test_a_chunked_overrun_is_put_back_and_nothing_finishes(server: Server, folder: Path) -> None:
    path = server.create()
    server.append(path, 0, b"abc")
    with server.connect() as connection:
        connection.send(patch(path, 3, "Transfer-Encoding: chunked\r\n")).send(chunked(b"defg", b"hijk"))
        answer = connection.answer()
    assert (answer.status, answer.fields["upload-offset"]) == (413, "3")
    assert server.offset(path) == 3
    assert server.append(path, 3, b"defghij").status == 204
    assert server.ask("GET", path).body == b"abcdefghij"


def test_a_chunked_overrun_never_puts_more_than_the_length_on_the_disk(server: Server, folder: Path) -> None:
    path = server.create()
    with server.connect() as connection:
        connection.send(patch(path, 0, "Transfer-Encoding: chunked\r\n"))
        connection.send(b"a\r\n0123456789\r\n1\r\nx\r\n")
        assert connection.answer().status == 413
    assert all(file.stat().st_size <= 10 for file in (folder / "partial").glob("*.part"))


def test_the_maximum_holds_while_the_length_is_unknown(server: Server) -> None:
    path = server.create("Upload-Defer-Length: 1\r\n", length=None)
    assert server.append(path, 0, b"x" * 1000).status == 204
    with server.connect() as connection:
        connection.send(patch(path, 1000, "Transfer-Encoding: chunked\r\n")).send(chunked(b"x"))
        assert connection.answer().status == 413
    assert server.append(path, 1000, b"x").status == 413
    assert server.offset(path) == 1000


@pytest.mark.parametrize("method", ["POST", "PATCH"])
def test_two_lengths_are_refused_and_the_connection_is_closed(server: Server, folder: Path, method: str) -> None:
    path = "/files/" if method == "POST" else server.create()
    with server.connect() as connection:
        connection.send(
            f"{method} {path} HTTP/1.1\r\n{HOST}{APPEND}Upload-Length: 10\r\nUpload-Offset: 0\r\n"
            "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n"
        ).send(chunked(b"abc"))
        assert connection.answer().status == 400
        assert connection.is_ended_by_server()
    if method == "PATCH":
        assert server.offset(path) == 0


@pytest.mark.parametrize(
    "framing",
    [
        "Content-Length: 3\r\nContent-Length: 4\r\n",
        "Content-Length: -1\r\n",
        "Content-Length: 3x\r\n",
        "Content-Length: 0x3\r\n",
        "Content-Length: 3, 4\r\n",
        f"Content-Length: {'9' * 30}\r\n",
        "Transfer-Encoding: chunked, gzip\r\n",
    ],
)
def test_a_framing_that_lies_stores_nothing(server: Server, framing: str) -> None:
    path = server.create()
    with server.connect() as connection:
        connection.send(patch(path, 0, framing)).send(b"abcd")
        assert connection.answer().status in (400, 413, 501)
    assert server.offset(path) == 0


@pytest.mark.parametrize("chunks", [b"zz\r\nabc\r\n", b"3\r\nabcd\r\n", b"-1\r\nabc\r\n", b"ffffffffffffffffff\r\n"])
def test_broken_chunks_end_the_connection_and_finish_nothing(server: Server, chunks: bytes) -> None:
    path = server.create()
    with server.connect() as connection:
        connection.send(patch(path, 0, "Transfer-Encoding: chunked\r\n")).send(chunks)
        assert connection.answer().status == 400
        assert connection.is_ended_by_server()
    assert server.offset(path) < 10


def test_a_client_that_waits_is_told_to_continue(server: Server) -> None:
    path = server.create()
    with server.connect() as connection:
        connection.send(patch(path, 0, "Content-Length: 3\r\nExpect: 100-continue\r\n"))
        assert connection.interim() == 100
        assert connection.send(b"abc").answer().status == 204


@pytest.mark.parametrize(("offset", "length", "status"), [(1, 3, 409), (0, 11, 413)])
def test_a_hopeless_append_is_refused_before_its_body(server: Server, offset: int, length: int, status: int) -> None:
    path = server.create()
    with server.connect() as connection:
        connection.send(patch(path, offset, f"Content-Length: {length}\r\nExpect: 100-continue\r\n"))
        # `answer` would skip an interim response; the raw status line shows that there is none.
        assert connection.interim() == status


def test_an_impossible_creation_is_refused_before_its_body(server: Server, folder: Path) -> None:
    with server.connect() as connection:
        connection.send(
            f"POST /files/ HTTP/1.1\r\n{HOST}{APPEND}Upload-Length: 1001\r\n"
            "Content-Length: 1001\r\nExpect: 100-continue\r\n\r\n"
        )
        assert connection.interim() == 413
    assert list((folder / "partial").iterdir()) == []


def test_a_refusal_can_be_read_by_a_client_that_keeps_sending(server: Server) -> None:
    path = server.create()
    with server.connect() as connection:
        connection.send(patch(path, 0, f"Content-Length: {8 * 1024 * 1024}\r\n"))
        for _ in range(8):
            connection.send(b"x" * 1024 * 1024)
        answer = connection.answer()
        assert (answer.status, answer.fields["connection"]) == (413, "close")


def cut(connection: Connection) -> None:
    connection.finish_sending()
    connection.close()


@pytest.mark.parametrize("end", [cut, Connection.close, Connection.reset])
@pytest.mark.parametrize("framing", ["Content-Length: 10\r\n", "Transfer-Encoding: chunked\r\n"])
def test_a_cut_keeps_a_beginning_and_the_upload_goes_on(server: Server, end: object, framing: str) -> None:
    assert callable(end)
    path = server.create()
    body = b"01234" if "Length" in framing else b"5\r\n01234\r\n"
    connection = server.connect()
    connection.send(patch(path, 0, framing)).send(body)
    end(connection)
    offset = server.offset(path)
    assert 0 <= offset <= 5
    assert server.append(path, offset, b"0123456789"[offset:]).status == 204
    assert server.ask("GET", path).body == b"0123456789"


def test_a_cut_before_the_body_changes_nothing(server: Server) -> None:
    path = server.create()
    with server.connect() as connection:
        connection.send(patch(path, 0, "Content-Length: 10\r\n"))
    assert server.offset(path) == 0


def test_a_silent_append_is_taken_over(server: Server) -> None:
    path = server.create()
    with server.connect() as stalled:
        stalled.send(patch(path, 0, "Content-Length: 10\r\n") + "0123")
        # The first HEAD may come before the append did; the next one ends it.
        assert 4 in (server.offset(path) for _ in range(100))
        old = stalled.answer()
        assert (old.status, old.fields["upload-offset"]) == (409, "4")
        assert old.text.startswith("ERR_UPLOAD_INTERRUPTED")
    assert server.append(path, 4, b"456789").status == 204
    assert server.ask("GET", path).body == b"0123456789"


def test_a_delete_ends_a_running_append_for_good(server: Server, folder: Path) -> None:
    path = server.create()
    with server.connect() as stalled:
        stalled.send(patch(path, 0, "Content-Length: 10\r\n") + "0123")
        assert server.ask("DELETE", path, TUS).status == 204
        assert stalled.answer().status in (404, 409)
    assert server.ask("HEAD", path, TUS).status == 404
    assert list((folder / "partial").iterdir()) == []


def test_http_1_0_is_served(server: Server) -> None:
    with server.connect() as connection:
        connection.send(f"POST /files/ HTTP/1.0\r\n{TUS}Upload-Length: 3\r\n\r\n")
        answer = connection.answer()
    assert answer.status == 201
    assert answer.fields["location"].startswith(f"{server.scheme}://127.0.0.1:{server.port}/files/")


@ONE_WAY
@pytest.mark.parametrize("host", ["evil.example/x", "a b", "a@b", "<script>", "[::1", "a:b", "x:1:2", "x:123456", ""])
def test_a_host_that_is_none_is_refused(server: Server, folder: Path, host: str) -> None:
    with server.connect() as connection:
        connection.send(f"POST /files/ HTTP/1.1\r\nHost: {host}\r\n{TUS}Upload-Length: 3\r\n\r\n")
        assert connection.answer().status == 400
    assert list((folder / "partial").iterdir()) == []


@pytest.mark.parametrize("hosts", ["", "Host: a\r\nHost: a\r\n"])
def test_a_request_has_one_host(server: Server, hosts: str) -> None:
    with server.connect() as connection:
        connection.send(f"POST /files/ HTTP/1.1\r\n{hosts}{TUS}Upload-Length: 3\r\n\r\n")
        assert connection.answer().status == 400


@pytest.mark.parametrize("host", ["localhost", "uploads.example.org:8080", "[::1]:8080", "127.0.0.1"])
def test_a_location_begins_with_the_host_of_the_request(server: Server, host: str) -> None:
    with server.connect() as connection:
        connection.send(f"POST /files/ HTTP/1.1\r\nHost: {host}\r\n{TUS}Upload-Length: 3\r\n\r\n")
        assert connection.answer().fields["location"].startswith(f"{server.scheme}://{host}/files/")


@pytest.mark.parametrize("coding", ["gzip, chunked", "gzip", "identity", "chunked, chunked"])
def test_a_body_in_another_coding_is_not_stored(server: Server, coding: str) -> None:
    path = server.create()
    with server.connect() as connection:
        connection.send(patch(path, 0, f"Transfer-Encoding: {coding}\r\n")).send(chunked(b"abc"))
        assert connection.answer().status in (400, 501)
    assert server.offset(path) == 0


@ONE_WAY
@pytest.mark.parametrize(
    "path",
    [
        "/files/../../etc/passwd",
        "/files/..%2f..%2fetc%2fpasswd",
        "/files/%2e%2e/%2e%2e/etc/passwd",
        "/files/..%252f..%252fetc",
        "/files/%00",
        "/files/0123456789abcdef%00",
        "/files/0123456789abcdef%2f",
        "/files/0123456789abcdef.json",
        "/files/0123456789abcdef.part",
        "/files/partial/0123456789abcdef",
        "/files//0123456789abcdef",
        "/files/0123456789abcdef//",
        "/files/-0123456789abcdef",
        "/files/" + "a" * 65,
        "/files/" + "a" * 5000,
        "/files/%f0%9f%92%a9%f0%9f%92%a9%f0%9f%92%a9%f0%9f%92%a9",
        "/files/0123456789abcdef%2F",
        "/files/0123456789abcdef%2f/",
        "/files%2F0123456789abcdef",
        "/%2Ffiles/0123456789abcdef",
        "/elsewhere",
        "/",
        "/filesystem",
    ],
)
@pytest.mark.parametrize("method", ["HEAD", "GET", "PATCH", "DELETE"])
def test_what_is_no_id_is_not_found(server: Server, method: str, path: str) -> None:
    answer = server.ask(method, path, APPEND + "Upload-Offset: 0\r\n")
    assert answer.status == 404
    assert "passwd" not in answer.text


def test_a_huge_head_is_refused(server: Server) -> None:
    fields = "".join(f"X-{n}: {'y' * 1000}\r\n" for n in range(70))
    assert server.ask("OPTIONS", "/files/", fields).status == 431


def test_an_encoded_slash_divides_nothing(server: Server) -> None:
    """There is an upload of this id, and this is not its URL."""
    path = server.create()
    for other in (f"{path}%2F", f"{path}%2f/", path.replace("/files/", "/files%2F")):
        assert server.ask("HEAD", other, TUS).status == 404
        assert server.ask("DELETE", other, TUS).status == 404
        assert server.ask("POST", "/files/", f"{TUS}Upload-Concat: final;{other}\r\n", b"").status == 400
    assert server.ask("OPTIONS", "/files%2F").status == 404
    assert server.offset(path) == 0


def test_a_long_line_is_refused_whatever_else_the_head_holds(server: Server) -> None:
    for size, status in ((wire.MAX_LINE - len("x-a"), 204), (wire.MAX_LINE, 431)):
        answer = server.ask("OPTIONS", "/files/", f"X-A: {'y' * size}\r\n")
        assert answer.status == status
    assert answer.text.startswith("ERR_FIELD_TOO_LARGE: ")


def test_large_metadata_works(server: Server) -> None:
    metadata = ",".join(f"key{n} {'QUJD' * 10}" for n in range(400))
    path = server.create(f"Upload-Metadata: {metadata}\r\n")
    assert server.ask("HEAD", path, TUS).fields["upload-metadata"] == metadata
