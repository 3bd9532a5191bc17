"""Requests that lie about their bodies, however our protocol is served: nothing is smuggled, and nothing harmed."""

from __future__ import annotations

import pytest

from tests.live import TUS, Connection
from tests.servers.kinds import OURS_ALONE, Running
from tests.servers.test_segments import head
from tests.servers.test_uploads import noise

pytestmark = OURS_ALONE


def connect(server: Running) -> Connection:
    return server.server.connect()


def delete(path: str) -> bytes:
    return f"DELETE {path} HTTP/1.1\r\nHost: localhost\r\n{TUS}\r\n".encode()


def chunked(path: str, *more: str) -> bytes:
    return head(path, 0, 0, *more).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")


def statuses(connection: Connection) -> list[int]:
    """Return the statuses of all answers until the server ends the connection, the first one first."""
    found = []
    try:
        while True:
            found.append(connection.answer().status)
    except ConnectionError:
        return found


# Lengths


def test_what_follows_a_body_that_was_told_too_short_is_no_request(server: Running) -> None:
    path = server.create(10)
    with connect(server) as connection:
        connection.send(head(path, 0, 5) + b"01234" + b"56789\r\n\r\n" + delete(path))
        assert connection.answer("PATCH").status == 204
        refused = connection.answer()
        assert (refused.status, refused.fields["connection"]) == (400, "close")
    assert server.offset(path) == 5
    assert server.append(path, 5, b"56789").status == 204
    assert server.content(path) == b"0123456789"


def test_a_request_within_a_body_is_content(server: Running) -> None:
    victim = server.create(10)
    smuggled = delete(victim)
    path = server.create(3 * len(smuggled))
    with connect(server) as connection:
        for number in range(3):
            connection.send(head(path, number * len(smuggled), len(smuggled)) + smuggled)
        assert [connection.answer("PATCH").status for _ in range(3)] == [204, 204, 204]
    assert server.content(path) == 3 * smuggled
    assert server.offset(victim) == 0


def test_a_request_that_completes_a_body_told_too_long_is_content(server: Running) -> None:
    victim = server.create(10)
    smuggled = delete(victim)
    path = server.create(100_000 + len(smuggled))
    with connect(server) as connection:
        connection.send(head(path, 0, 100_000 + len(smuggled)) + noise(100_000))
        connection.send(smuggled)
        assert connection.answer("PATCH").status == 204
    assert server.content(path) == noise(100_000) + smuggled
    assert server.offset(victim) == 0


@pytest.mark.parametrize(
    ("length", "status"),
    [
        ("18446744073709551621", 400),  # 5 in 64 bits
        ("9223372036854775813", 413),
        ("999999999999999999", 413),
        ("+5", 400),
        ("5_0", 400),
        ("5, 5", 400),
        ("5,5", 400),
        ("5 5", 400),
        ("0x5", 400),
        ("5.0", 400),
        ("", 400),
        ("\xb2", 400),
        ("-5", 400),
        ("5\r\nContent-Length: 6", 400),
        ("5\r\nTransfer-Encoding: chunked", 400),
        ("5\r\n 0", 400),
    ],
)
def test_a_length_that_is_none_stores_nothing(server: Running, length: str, status: int) -> None:
    path = server.create(10)
    with connect(server) as connection:
        connection.send(head(path, 0, 0).replace(b"Length: 0", b"Length: " + length.encode("latin-1")))
        connection.send(b"01234" + delete(path))
        found = connection.answer("PATCH").status
        assert found in {status, 400}
        connection.finish_sending()
    assert server.offset(path) == 0


def test_a_length_with_zeros_before_it_is_one(server: Running) -> None:
    path = server.create(5)
    with connect(server) as connection:
        connection.send(head(path, 0, 0).replace(b"Length: 0", b"Length: 0000000005") + b"01234")
        assert connection.answer("PATCH").status == 204
    assert server.content(path) == b"01234"


# Chunks


@pytest.mark.parametrize(
    "body",
    [
        b"5\n01234\n0\n\n",
        b"5\r\n01234\n0\r\n\r\n",
        b"5\r\n01234\r\n0\n\n",
        b"5\r01234\r0\r\r",
        b"0x5\r\n01234\r\n0\r\n\r\n",
        b"+5\r\n01234\r\n0\r\n\r\n",
        b"-5\r\n01234\r\n0\r\n\r\n",
        b"5_\r\n01234\r\n0\r\n\r\n",
        b" 5\r\n01234\r\n0\r\n\r\n",
        b"\r\n01234\r\n0\r\n\r\n",
        b"5\r\n0123456\r\n0\r\n\r\n",
        b"5\r\n012\r\n0\r\n\r\n",
        b"10000000000000005\r\n01234\r\n0\r\n\r\n",
        b"fffffffffffffffff\r\n01234\r\n0\r\n\r\n",
    ],
)
@pytest.mark.parametrize("is_whole", [True, False], ids=["in one piece", "head first"])
def test_chunks_that_others_may_read_otherwise_are_refused(server: Running, body: bytes, is_whole: bool) -> None:
    victim, path = server.create(10), server.create(10)
    with connect(server) as connection:
        if is_whole:
            connection.send(chunked(path) + body + delete(victim))
        else:
            connection.send(chunked(path, "Expect: 100-continue"))
            assert connection.interim() == 100
            connection.send(body + delete(victim))
        assert connection.answer("PATCH").status == 400
    assert (server.offset(path), server.offset(victim)) == (0, 0)


@pytest.mark.parametrize(
    "coding",
    [
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked, chunked",
        "Transfer-Encoding: identity, chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        "Transfer-Encoding: \x0bchunked",
        'Transfer-Encoding: "chunked"',
        "Transfer-Encoding: chunked;q=1",
        "Transfer-Encoding : chunked",
        "Transfer-Encoding:\r\n chunked",
        "Transfer_Encoding: chunked\r\nContent-Length: 5\r\nTransfer-Encoding: chunked",
        "X: y\nTransfer-Encoding: chunked",
        "Content-Length: 5\nTransfer-Encoding: chunked",
    ],
)
def test_codings_that_others_may_overlook_are_refused(server: Running, coding: str) -> None:
    victim, path = server.create(10), server.create(10)
    with connect(server) as connection:
        connection.send(head(path, 0, 0).replace(b"Content-Length: 0", coding.encode("latin-1")))
        connection.send(b"0\r\n\r\n" + delete(victim))
        found = connection.answer("PATCH")
        assert (found.status, found.fields["connection"]) in ((400, "close"), (501, "close"))
    assert (server.offset(path), server.offset(victim)) == (0, 0)


@pytest.mark.parametrize("end", [b"\n", b"\r"])
def test_a_head_of_bare_line_ends_hides_nothing(server: Running, end: bytes) -> None:
    victim, path = server.create(10), server.create(10)
    with connect(server) as connection:
        connection.send(head(path, 0, 5).replace(b"\r\n", end) + b"01234" + delete(victim) + b"\r\n\r\n")
        assert connection.answer("PATCH").status == 400
    assert (server.offset(path), server.offset(victim)) == (0, 0)


# Expectations

EXPECT = "Expect: 100-continue"


def test_a_body_that_does_not_wait_for_what_it_expects_is_taken(server: Running) -> None:
    path = server.create(20)
    with connect(server) as connection:
        # Nobody has to be asked for what is there already (RFC 9110, 10.1.1).
        for offset in (0, 10):
            connection.send(head(path, offset, 10, EXPECT) + b"0123456789")
        for _ in range(2):
            status = connection.interim()
            if status == 100:
                status = connection.interim()
            assert status == 204
    assert server.content(path) == 2 * b"0123456789"


def test_an_expectation_without_a_body_is_answered(server: Running) -> None:
    path = server.create(10)
    with connect(server) as connection:
        connection.send(head(path, 0, 0, EXPECT))
        assert connection.answer("PATCH").status == 204
        connection.send(f"HEAD {path} HTTP/1.1\r\nHost: localhost\r\n{TUS}{EXPECT}\r\n\r\n")
        assert connection.answer("HEAD").status == 200
    assert server.offset(path) == 0


def test_a_body_behind_a_refused_expectation_is_no_request(server: Running) -> None:
    victim, path = server.create(10), server.create(10)
    with connect(server) as connection:
        connection.send(head(path, 7, 3, EXPECT))
        answer = connection.answer("PATCH")
        assert (answer.status, answer.fields["connection"]) == (409, "close")
        connection.send(delete(victim))
        assert statuses(connection) == []
    assert server.offset(victim) == 0


def test_a_client_that_breaks_its_expectation_off_changes_nothing(server: Running) -> None:
    path = server.create(10)
    for _ in range(20):
        with connect(server) as connection:
            assert connection.send(head(path, 0, 10, EXPECT)).interim() == 100
    assert server.offset(path) == 0
    assert server.append(path, 0, b"0123456789").status == 204


def test_a_client_of_http_1_0_is_not_told_to_continue(server: Running) -> None:
    path = server.create(10)
    with connect(server) as connection:
        connection.send(head(path, 0, 10, EXPECT).replace(b"HTTP/1.1", b"HTTP/1.0"))
        connection.send(b"0123456789")
        assert connection.interim() == 204
    assert server.content(path) == b"0123456789"


def test_two_who_expect_at_once_are_answered_one_after_the_other(server: Running) -> None:
    path = server.create(10)
    with connect(server) as first, connect(server) as second:
        assert first.send(head(path, 0, 10, EXPECT)).interim() == 100
        assert second.send(head(path, 0, 10, EXPECT)).interim() == 100
        assert first.answer("PATCH").status == 409
        assert second.send(b"0123456789").answer("PATCH").status == 204
    assert server.content(path) == b"0123456789"
