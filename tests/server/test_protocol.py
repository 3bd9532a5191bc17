"""Limits on what a client sends that is not the body of an upload, against the server as it is run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.live import APPEND, TUS, Connection, Server
from tests.server_process import ServerProcess
from tusd_py.server.protocol import MAX_FRAMING, MAX_HEAD

HOST = "Host: localhost\r\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that takes anything, and lets nobody take more than a fifth of a second for a head."""
    flags = ("--allowed-upload-extensions", "*", "--head-timeout-seconds", "200ms")
    with ServerProcess(tmp_path_factory.mktemp("uploads"), *flags) as process:
        yield Server(process.port)


def how_it_ends(connection: Connection, data: bytes, times: int) -> int | None:
    """Send ``data`` so many times, and return the status of the answer, or ``None`` where the connection is cut."""
    try:
        for _ in range(times):
            connection.send(data)
        return connection.answer().status
    except ConnectionError:
        return None


@pytest.mark.parametrize(
    "beginning",
    ["GET /files/", "GET / HTTP/1.1\r\nX-", f"OPTIONS /files/ HTTP/1.1\r\n{HOST}\r\nGET / HTTP/1.1\r\nX-"],
    ids=["target", "field", "second request"],
)
def test_a_head_without_end_is_not_kept(server: Server, beginning: str) -> None:
    with server.connect() as connection:
        connection.send(beginning)
        if "OPTIONS" in beginning:
            assert connection.answer("OPTIONS").status == 204
        assert how_it_ends(connection, b"a" * 8192, 64 * MAX_HEAD // 8192) in (431, None)
    assert server.ask("OPTIONS", "/files/").status == 204


def test_a_head_that_is_just_too_large_is_told_so(server: Server) -> None:
    with server.connect() as connection:
        connection.send(b"GET / HTTP/1.1\r\nX-Long: " + b"a" * MAX_HEAD)
        assert connection.answer().status == 431
        assert connection.is_ended_by_server()


@pytest.mark.parametrize("framing", [b"1;ext=", b"1\r\na\r\n0\r\nX-Trailer: "], ids=["extension", "trailer"])
def test_chunks_that_are_nothing_but_framing_end_the_connection(server: Server, framing: bytes) -> None:
    path = server.create(length=10)
    with server.connect() as connection:
        connection.send(
            f"PATCH {path} HTTP/1.1\r\n{HOST}{APPEND}Upload-Offset: 0\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        connection.send(framing)
        assert how_it_ends(connection, b"a" * 1024, 64 * MAX_FRAMING // 1024) is None
    assert server.offset(path) <= 1


def test_many_small_chunks_are_fine(server: Server) -> None:
    path = server.create(length=20_000)
    with server.connect() as connection:
        connection.send(
            f"PATCH {path} HTTP/1.1\r\n{HOST}{APPEND}Upload-Offset: 0\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        for _ in range(20):
            connection.send(b"1;some=extension\r\na\r\n" * 1000)
        assert connection.send(b"0\r\n\r\n").answer().fields["upload-offset"] == "20000"


def test_a_head_that_takes_too_long_is_answered(server: Server) -> None:
    with server.connect() as connection:
        connection.send("GET / HTTP/1.1\r\n")
        assert connection.answer().status == 408
        assert connection.is_ended_by_server()


def test_a_connection_on_which_nothing_comes_is_closed(server: Server) -> None:
    with server.connect() as connection:
        assert connection.is_ended_by_server()


def test_the_deadline_of_a_head_is_none_for_what_follows_it(server: Server) -> None:
    path = server.create(length=10)
    with server.connect() as slow, server.connect() as other:
        slow.send(f"PATCH {path} HTTP/1.1\r\n{HOST}{APPEND}Upload-Offset: 0\r\nContent-Length: 10\r\n\r\n01234")
        # A deadline of its own passes meanwhile.
        assert other.is_ended_by_server()
        assert slow.send(b"56789").answer().status == 204
        # Idle between two requests is no head that takes long.
        with server.connect() as another:
            assert another.is_ended_by_server()
        assert slow.send(f"HEAD {path} HTTP/1.1\r\n{HOST}{TUS}\r\n").answer("HEAD").status == 200


@pytest.mark.parametrize("protocol", ["h2c", "websocket"])
def test_another_protocol_is_never_spoken(server: Server, protocol: str) -> None:
    """The offer is ignored, as RFC 9110, 7.8, allows; the connection ends because the parser would."""
    upgrade = f"{HOST}Connection: Upgrade\r\nUpgrade: {protocol}\r\n"
    path = server.create(length=3)
    with server.connect() as connection:
        connection.send(f"HEAD {path} HTTP/1.1\r\n{upgrade}{TUS}\r\n")
        answer = connection.answer("HEAD")
        assert (answer.status, answer.fields["connection"]) == (200, "close")
        assert connection.is_ended_by_server()
    for framing, body in (
        ("Content-Length: 3\r\n", "abc"),
        ("Transfer-Encoding: chunked\r\n", "3\r\nabc\r\n0\r\n\r\n"),
    ):
        with server.connect() as connection:
            connection.send(f"PATCH {path} HTTP/1.1\r\n{upgrade}{APPEND}Upload-Offset: 0\r\n{framing}\r\n{body}")
            assert connection.answer().status == 400
            assert connection.is_ended_by_server()
    assert server.offset(path) == 0


@pytest.mark.parametrize("target", ["x.example:443", "/files/"])
def test_the_server_is_no_way_to_somewhere_else(server: Server, target: str) -> None:
    with server.connect() as connection:
        connection.send(f"CONNECT {target} HTTP/1.1\r\n{HOST}\r\n")
        assert connection.answer().status == 400
        assert connection.is_ended_by_server()


@pytest.mark.parametrize("hosts", ["", "Host: a\r\nHost: b\r\n", "Host: a\r\nhost: a\r\n"])
def test_a_request_without_a_host_or_with_several_is_refused(server: Server, hosts: str) -> None:
    with server.connect() as connection:
        connection.send(f"OPTIONS /files/ HTTP/1.1\r\n{hosts}\r\n")
        assert connection.answer().status == 400
        assert connection.is_ended_by_server()
