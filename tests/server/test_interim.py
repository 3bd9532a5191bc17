"""Interim responses as they are written."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from starlette.types import Receive, Scope, Send

from tests.live import Server, serving
from tusd_py.server.interim import build_interim
from tusd_py.server.protocol import LimitedProtocol
from tusd_py.web.reception import INTERIM

HOST = "Host: localhost\r\n"


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer what the body says, with interim responses before, in the middle and behind."""
    if scope["type"] == "lifespan":
        for name in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{name}.complete"})
        return
    offered = INTERIM in scope["extensions"]
    if offered:
        await send({"type": INTERIM, "status": 104, "headers": [(b"location", b"/files/a")]})
    body = b""
    more = True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if offered:
            await send({"type": INTERIM, "status": 104, "headers": [(b"upload-offset", b"%d" % len(body))]})
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    if offered:
        await send({"type": INTERIM, "status": 104, "headers": []})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture(scope="module", params=["asyncio", "uvloop"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with serving(app, loop=request.param, http=LimitedProtocol) as server:
        yield server


def test_interim_responses_come_before_and_during_the_body(server: Server) -> None:
    with server.connect() as connection:
        connection.send(f"POST / HTTP/1.1\r\n{HOST}Content-Length: 4\r\n\r\n")
        assert connection.interim_fields() == (104, {"location": "/files/a"})
        connection.send(b"ab")
        assert connection.interim_fields() == (104, {"upload-offset": "2"})
        connection.send(b"cd")
        assert connection.interim_fields() == (104, {"upload-offset": "4"})
        assert connection.answer().text == "abcd"


def test_a_client_that_waits_for_100_gets_both(server: Server) -> None:
    with server.connect() as connection:
        connection.send(f"POST / HTTP/1.1\r\n{HOST}Content-Length: 2\r\nExpect: 100-continue\r\n\r\n")
        assert [connection.interim(), connection.interim()] == [104, 100]
        assert connection.send(b"ab").answer().text == "ab"


def test_http_1_0_knows_no_interim_responses(server: Server) -> None:
    with server.connect() as connection:
        connection.send("POST / HTTP/1.0\r\nContent-Length: 2\r\n\r\nab")
        assert connection.final().text == "ab"


def test_a_client_that_left_is_sent_nothing(server: Server) -> None:
    with server.connect() as connection:
        connection.send(f"POST / HTTP/1.1\r\n{HOST}Content-Length: 4\r\n\r\na").reset()
    with server.connect() as connection:
        assert connection.send(f"GET / HTTP/1.1\r\n{HOST}\r\n").answer().status == 200


def test_an_interim_response_is_a_status_line_and_fields() -> None:
    assert build_interim(104, [(b"upload-offset", b"7")]) == (
        b"HTTP/1.1 104 Upload Resumption Supported\r\nupload-offset: 7\r\n\r\n"
    )
    assert build_interim(103, []) == b"HTTP/1.1 103 Early Hints\r\n\r\n"


@pytest.mark.parametrize(
    ("status", "field"),
    [
        (200, (b"a", b"b")),
        (101, (b"a", b"b")),
        (104, (b"a", b"b\r\nc: d")),
        (104, (b"a: b", b"")),
        (104, (b"", b"b")),
        (104, (b"a", b"\0")),
    ],
)
def test_what_would_not_stay_in_its_line_is_an_error(status: int, field: tuple[bytes, bytes]) -> None:
    with pytest.raises(ValueError, match="interim response"):
        build_interim(status, [field])
