"""Who is believed about scheme, host and prefix, and which hosts are answered for."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.live import TUS, serving
from tests.live import Server as Live
from tests.server_process import ServerProcess
from tusd_py import TusApp
from tusd_py.web.forwarding import Proxies
from tusd_py.web.request_log import current_request

Client = tuple[str, int] | None

PROXY: Client = ("127.0.0.1", 50000)
STRANGER: Client = ("192.0.2.9", 50000)

CREATE = {"tus-resumable": "1.0.0", "upload-length": "3", "host": "inner:8080"}


def ask(
    app: TusApp, fields: dict[str, str], *, client: Client = PROXY, method: str = "POST", path: str = "/files/"
) -> tuple[int, dict[str, str]]:
    """Send one request without a body as if from ``client``; return status and fields of the answer."""
    answers: list[tuple[int, dict[str, str]]] = []

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: object) -> None:
        assert isinstance(message, dict)
        if message["type"] == "http.response.start":
            answers.append((message["status"], {name.decode(): value.decode() for name, value in message["headers"]}))

    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "root_path": "",
        "query_string": b"",
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in fields.items()],
        "client": client,
        "server": ("10.0.0.2", 8080),
    }
    asyncio.run(app(scope, receive, send))
    [answer] = answers
    return answer


def create(app: TusApp, fields: dict[str, str], *, client: Client = PROXY) -> str:
    """Create an upload and return its URL without the id."""
    status, answered = ask(app, CREATE | fields, client=client)
    assert status == 201, answered
    return answered["location"].rpartition("/")[0]


def app_in(folder: Path, **knobs: object) -> TusApp:
    return TusApp(upload_dir=folder, **knobs)  # type: ignore[arg-type]  # the settings judge


TOLD = {"x-forwarded-proto": "https", "x-forwarded-host": "up.example", "x-forwarded-prefix": "/media"}


@pytest.mark.parametrize(
    ("fields", "base"),
    [
        ({}, "http://inner:8080/files"),
        ({"x-forwarded-proto": "https"}, "https://inner:8080/files"),
        ({"x-forwarded-host": "up.example:8443"}, "http://up.example:8443/files"),
        ({"x-forwarded-prefix": "/media/"}, "http://inner:8080/media/files"),
        (TOLD, "https://up.example/media/files"),
        ({"forwarded": "proto=https;host=up.example, proto=http;host=x"}, "https://up.example/files"),
        ({"forwarded": "proto=http;host=evil.example"} | TOLD, "https://up.example/media/files"),
    ],
)
def test_a_trusted_proxy_tells_what_clients_see(tmp_path: Path, fields: dict[str, str], base: str) -> None:
    assert create(app_in(tmp_path), fields) == base


def test_a_prefix_that_is_the_base_path_is_no_trouble(tmp_path: Path) -> None:
    assert create(app_in(tmp_path), {"x-forwarded-prefix": "/files"}) == "http://inner:8080/files/files"


@pytest.mark.parametrize(
    "fields", [TOLD, {"forwarded": "proto=https;host=evil.example"}, {"forwarded": '"'}, {"x-forwarded-prefix": "//x"}]
)
def test_nobody_else_is_believed_and_their_fields_are_not_even_read(tmp_path: Path, fields: dict[str, str]) -> None:
    assert create(app_in(tmp_path), fields, client=STRANGER) == "http://inner:8080/files"


@pytest.mark.parametrize(
    ("trusted", "client", "is_believed"),
    [
        ("127.0.0.1, ::1, unix", ("127.0.0.1", 1), True),
        ("127.0.0.1, ::1, unix", ("::ffff:127.0.0.1", 1), True),
        ("127.0.0.1, ::1, unix", ("::1", 1), True),
        ("127.0.0.1, ::1, unix", None, True),
        ("10.0.0.0/8", ("10.1.2.3", 1), True),
        ("10.0.0.0/8", ("11.1.2.3", 1), False),
        ("10.0.0.0/8", None, False),
        ("10.0.0.0/8", ("testclient", 1), False),
        ("2001:db8::/32", ("2001:db8::9", 1), True),
        ("*", ("192.0.2.9", 1), True),
        ("*", None, True),
        ("none", ("127.0.0.1", 1), False),
        ("none", None, False),
    ],
)
def test_the_setting_says_who_is_a_proxy(tmp_path: Path, trusted: str, client: Client, is_believed: bool) -> None:
    base = create(app_in(tmp_path, trusted_proxies=trusted), TOLD, client=client)
    assert base.startswith("https://up.example/media") == is_believed


@pytest.mark.parametrize(
    "fields",
    [
        {"x-forwarded-proto": "javascript"},
        {"x-forwarded-host": "evil.example/x"},
        {"x-forwarded-host": "a@b"},
        {"x-forwarded-prefix": "//evil.example"},
        {"x-forwarded-prefix": "/../x"},
        {"forwarded": "host="},
        {"forwarded": 'host="evil.example/x"'},
        {"forwarded": "proto=gopher"},
    ],
)
def test_nonsense_from_a_proxy_is_refused(tmp_path: Path, fields: dict[str, str]) -> None:
    assert ask(app_in(tmp_path), CREATE | fields)[0] == 400


@pytest.mark.parametrize("hops", ["unknown", "-", "1.2.3.4:99", "::", "garbage, 1.2.3.4.5", "," * 100])
def test_nobody_is_refused_for_who_they_are_said_to_be(tmp_path: Path, hops: str) -> None:
    assert create(app_in(tmp_path), {"x-forwarded-for": hops}) == "http://inner:8080/files"


@pytest.mark.parametrize(
    ("hops", "client"),
    [
        (["192.0.2.1"], "192.0.2.1"),
        (["6.6.6.6", "192.0.2.1", "10.0.0.1"], "192.0.2.1"),
        (["6.6.6.6", "unknown", "10.0.0.1"], "10.0.0.1"),
        (["10.0.0.2", "10.0.0.1"], "10.0.0.2"),
        (["[2001:db8::1]:4711", "10.0.0.1:80"], "2001:db8::1"),
        (["unknown"], None),
        ([], None),
    ],
)
def test_the_client_is_the_nearest_that_is_no_proxy(hops: Sequence[str], client: str | None) -> None:
    """What stands before it is its own word."""
    assert Proxies(["10.0.0.0/8"]).farthest(hops) == client


def test_a_public_url_wins_over_what_proxies_tell(tmp_path: Path) -> None:
    assert create(app_in(tmp_path, public_url="https://a.example/in"), TOLD) == "https://a.example/in/files"


@pytest.mark.parametrize(
    ("fields", "public_url", "base"),
    [
        ({}, None, "/files"),
        ({"x-forwarded-prefix": "/media", "x-forwarded-proto": "https"}, None, "/media/files"),
        ({}, "https://a.example/in", "/in/files"),
    ],
)
def test_a_location_can_be_relative(tmp_path: Path, fields: dict[str, str], public_url: str | None, base: str) -> None:
    assert create(app_in(tmp_path, relative_location=True, public_url=public_url), fields) == base


@pytest.mark.parametrize(
    "host",
    [
        "up.example",
        "UP.example:8443",
        "pub.example",
        "localhost",
        "localhost:80",
        "127.0.0.1:1",
        "[::1]:9",
        "127.9.9.9",
    ],
)
def test_hosts_of_the_list_are_answered_for(tmp_path: Path, host: str) -> None:
    app = app_in(tmp_path, allowed_hosts="up.example", public_url="https://pub.example/x", trusted_proxies="none")
    assert ask(app, CREATE | {"host": host})[0] == 201


@pytest.mark.parametrize("host", ["evil.example", "up.example.evil.example", "localhost.evil.example", "10.0.0.2:8080"])
@pytest.mark.parametrize("method", ["POST", "OPTIONS", "HEAD", "GET", "PATCH", "DELETE"])
def test_other_hosts_are_refused_whatever_is_asked(tmp_path: Path, method: str, host: str) -> None:
    status, fields = ask(app_in(tmp_path, allowed_hosts="up.example"), CREATE | {"host": host}, method=method)
    assert status == 421
    assert "location" not in fields


def test_preflights_for_other_hosts_are_refused_too(tmp_path: Path) -> None:
    preflight = {"host": "evil.example", "origin": "http://evil.example", "access-control-request-method": "POST"}
    status, fields = ask(app_in(tmp_path, allowed_hosts="up.example"), preflight, method="OPTIONS")
    assert status == 421
    assert "access-control-allow-origin" not in fields


@pytest.mark.parametrize(
    ("host", "forwarded_host", "status"),
    [
        ("127.0.0.1:8080", "up.example", 201),
        ("127.0.0.1:8080", "evil.example", 421),
        ("up.example", "up.example", 201),
        # A page that DNS rebinding made same-origin may set the second field, but not the first one.
        ("evil.example", "up.example", 421),
        ("evil.example", "localhost", 421),
    ],
)
def test_both_the_host_that_a_proxy_sends_and_the_one_it_tells_are_judged(
    tmp_path: Path, host: str, forwarded_host: str, status: int
) -> None:
    app = app_in(tmp_path, allowed_hosts="up.example")
    assert ask(app, CREATE | {"host": host, "x-forwarded-host": forwarded_host})[0] == status


def test_a_request_without_a_host_is_refused(tmp_path: Path) -> None:
    """Source: RFC 9112, 3.2."""
    fields = {name: value for name, value in CREATE.items() if name != "host"}
    assert ask(app_in(tmp_path, allowed_hosts="up.example"), fields)[0] == 400


def test_a_request_with_two_hosts_is_refused(tmp_path: Path) -> None:
    """Nobody could tell which one a proxy before us has judged. Source: RFC 9112, 3.2."""
    with serving(app_in(tmp_path)) as server, server.connect() as connection:
        connection.send(f"OPTIONS /files/ HTTP/1.1\r\nHost: a.example\r\nHost: b.example\r\n{TUS}\r\n")
        assert connection.answer().status == 400


def test_without_a_list_an_app_answers_for_every_host(tmp_path: Path) -> None:
    assert ask(app_in(tmp_path), CREATE | {"host": "whatever.example"})[0] == 201


def test_a_refused_body_leaves_the_answer_readable(tmp_path: Path) -> None:
    with serving(app_in(tmp_path, allowed_hosts="up.example")) as server, server.connect() as connection:
        connection.send(f"POST /files/ HTTP/1.1\r\nHost: evil.example\r\n{TUS}Content-Length: 3000000\r\n\r\n")
        connection.send(b"x" * 3_000_000)
        answer = connection.answer()
    assert answer.status == 421
    assert "allowed_hosts" in answer.text


def post(server: ServerProcess, host: str, fields: str = "") -> tuple[int, str]:
    with Live(server.port).connect() as connection:
        connection.send(f"POST /files/ HTTP/1.1\r\nHost: {host}\r\n{TUS}Upload-Length: 3\r\n{fields}\r\n")
        answer = connection.answer()
    return answer.status, answer.fields.get("location", "")


def test_a_server_on_loopback_answers_for_loopback_alone(tmp_path: Path) -> None:
    with ServerProcess(tmp_path, "--public-url", "https://up.example") as server:
        statuses = {host: post(server, host)[0] for host in ("127.0.0.1", "localhost:1", "up.example", "evil.example")}
    assert statuses == {"127.0.0.1": 201, "localhost:1": 201, "up.example": 201, "evil.example": 421}


@pytest.mark.parametrize(
    "flags",
    [
        ["--host", "0.0.0.0"],
        ["--allowed-hosts", "*"],
        ["--allowed-hosts", "a.example"],
        ["--workers", "2", "--allowed-hosts", "a.example"],
    ],
)
def test_a_server_for_the_network_or_with_a_list_answers_for_more(tmp_path: Path, flags: list[str]) -> None:
    with ServerProcess(tmp_path, *flags) as server:
        assert post(server, "a.example")[0] == 201


def test_workers_on_loopback_have_the_list_too(tmp_path: Path) -> None:
    with ServerProcess(tmp_path, "--workers", "2") as server:
        assert post(server, "evil.example")[0] == 421


def test_the_server_believes_a_proxy_on_this_machine(tmp_path: Path) -> None:
    """Above all uvicorn has not taken the fields away before."""
    fields = (
        "X-Forwarded-Host: localhost\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Prefix: /media\r\n"
        "X-Forwarded-For: 192.0.2.1\r\n"
    )
    with ServerProcess(tmp_path) as server:
        assert post(server, "127.0.0.1", fields)[1].startswith("https://localhost/media/files/")


def test_the_log_is_about_the_client_and_not_about_the_proxy(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    clients: list[str] = []

    class Listening(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            request = current_request.get()
            if request is not None:
                clients.append(request.client)

    caplog.set_level(logging.INFO, "tusd_py")
    handler = Listening()
    logging.getLogger("tusd_py").addHandler(handler)
    try:
        assert ask(app_in(tmp_path), CREATE | {"x-forwarded-for": "203.0.113.9"})[0] == 201
    finally:
        logging.getLogger("tusd_py").removeHandler(handler)
    assert set(clients) == {"203.0.113.9"}
