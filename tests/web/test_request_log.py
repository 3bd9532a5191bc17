"""One line for each request, ids that tie lines together, and nothing that a client could write into the log."""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.live import APPEND, TUS, Server
from tests.server_process import wait_until
from tusd_py.server.logs import JsonFormatter, TextFormatter

LINE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8}\.[0-9]{3}Z (DEBUG|INFO|WARNING|ERROR) \S.*")
HOSTILE = [
    "a\tb",
    'x" y="z',
    "id=1 client=10.0.0.1",
    "a b",
    "\x1b[31mred",
    "\x85\x9b",
    "ä",
    "",
    "x" * 129,
    "{}",
    "%0a2026-01-01T00:00:00.000Z",
    "..\\..",
]


@contextmanager
def log_of(formatter: logging.Formatter) -> Iterator[io.StringIO]:
    """Collect what is logged while the context lasts."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    logger = logging.getLogger("tusd_py")
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        yield stream
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


def test_a_request_is_one_object_with_all_that_is_known_of_it(server: Server) -> None:
    with log_of(JsonFormatter()) as log:
        path = server.create(length=5)
        server.append(path, 0, b"hello", "X-Request-ID: from-the-proxy_1\r\n")
        # Written when the answer is out already.
        wait_until(lambda: log.getvalue().count('"message": "request"') == 2)
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    created, *_, request = lines
    assert created["message"] == "upload created"
    assert (created["id"], created["length"]) == (path.removeprefix("/files/"), 5)
    assert request.pop("duration") >= 0
    assert request.pop("time").endswith("Z")
    assert request == {
        "level": "info",
        "message": "request",
        "method": "PATCH",
        "path": path,
        "status": 204,
        "id": path.removeprefix("/files/"),
        "received": 5,
        "sent": 0,
        "request": "from-the-proxy_1",
        "client": "127.0.0.1",
    }
    tied = {line["request"] for line in lines if line.get("id") and line["message"] != "request"}
    assert tied == {created["request"], "from-the-proxy_1"}


def test_a_request_is_one_line_of_text(server: Server) -> None:
    with log_of(TextFormatter()) as log:
        path = server.create()
        wait_until(lambda: " request method=" in log.getvalue())
    line = log.getvalue().splitlines()[-1]
    id = path.removeprefix("/files/")
    assert LINE.fullmatch(line)
    assert f" request method=POST path=/files/ status=201 id={id} received=0 sent=0 duration=" in line
    assert re.search(r" request=[0-9a-f]{16} client=127\.0\.0\.1$", line)


def test_the_id_of_a_request_is_in_the_answer(server: Server) -> None:
    assert server.ask("OPTIONS", "/files/", "X-Request-ID: abc-123\r\n").fields["x-request-id"] == "abc-123"
    assert server.ask("GET", "/nowhere").fields["x-request-id"] != server.ask("GET", "/nowhere").fields["x-request-id"]


# The parser of HTTP refuses control characters before we see them.
@pytest.mark.parametrize("id", [word for word in HOSTILE if "\x1b" not in word])
def test_an_id_that_is_none_is_replaced(server: Server, id: str) -> None:
    answer = server.ask("GET", "/healthz", f"X-Request-ID: {id}\r\n")
    assert re.fullmatch(r"[0-9a-f]{16}", answer.fields["x-request-id"])


def test_two_ids_are_none(server: Server) -> None:
    answer = server.ask("GET", "/healthz", "X-Request-ID: a\r\nX-Request-ID: a\r\n")
    assert len(answer.fields["x-request-id"]) == 16


@pytest.mark.parametrize("formatter", [TextFormatter(), JsonFormatter()])
def test_clients_write_nothing_into_the_log(server: Server, formatter: logging.Formatter) -> None:
    """Neither lines nor members: whatever they send, each line is one of ours."""
    forged = "%0d%0a2026-01-01T00:00:00.000Z%20INFO%20forged%20status=200%20id=1%E2%80%A8%1b[2J"
    with log_of(formatter) as log:
        server.ask("GET", f"/files/{forged}")
        server.ask("GET", f"/{'a' * 5000}?token=secret")
        for word in HOSTILE:
            fields = f"X-Request-ID: {word}\r\nUpload-Metadata: filename {word}\r\nUser-Agent: {word}\r\n"
            server.ask("POST", "/files/", f"{TUS}Upload-Length: 10\r\nX-HTTP-Method-Override: {word}\r\n{fields}", b"")
            server.ask("PATCH", "/files/" + "A" * 32, f"{APPEND}Upload-Offset: {word}\r\n{fields}", b"")
    lines = log.getvalue().split("\n")[:-1]
    assert lines
    for line in lines:
        assert line.isprintable()
        assert len(line) < 1000
        assert "secret" not in line
        if isinstance(formatter, TextFormatter):
            assert LINE.fullmatch(line)
            assert line.count(" status=") <= 1 + ('" status=' in line) + ("INFO forged status=" in line)
        else:
            told = json.loads(line)
            assert re.fullmatch(r"[0-9a-f]{16}|\.\.", told["request"])


def test_what_an_exception_says_forges_no_line() -> None:
    record = logging.LogRecord("tusd_py", logging.ERROR, "", 0, "bad\n%s", ("x\u2028y",), None)
    try:
        raise ValueError("first\n2026-01-01T00:00:00.000Z INFO forged\r\x1b[2J")
    except ValueError as error:
        record.exc_info = (ValueError, error, error.__traceback__)
    first, *rest = TextFormatter().format(record).split("\n")
    assert LINE.fullmatch(first)
    assert "bad\\nx\\u2028y" in first
    assert all(line.startswith("    ") and line.isprintable() for line in rest)
    assert "\n" not in JsonFormatter().format(record)


def test_health_is_asked_often_and_told_at_debug_alone(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "tusd_py"):
        server.ask("GET", "/healthz")
        wait_until(lambda: bool(caplog.records))
    assert [record.levelno for record in caplog.records] == [logging.DEBUG]
