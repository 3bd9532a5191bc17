"""What hostile clients try, over real connections to the server as it is run. docs/security.md says what stops them."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.live import APPEND, TUS, Answer, Certificate, Connection, Server
from tests.server_process import ServerProcess
from tests.servers.kinds import OURS, running

HOST = "Host: localhost\r\n"
UNKNOWN = "/files/0123456789abcdef0123456789abcdef"


FLAGS = ("--allowed-upload-extensions", "*", "--sniff", "off", "--log-level", "debug")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The upload folder, alone in its parent."""
    return tmp_path_factory.mktemp("parent") / "uploads"


@pytest.fixture(scope="module", params=["uvloop", "asyncio-tls"])
def server(request: pytest.FixtureRequest, folder: Path, certificate: Certificate) -> Iterator[Server]:
    """A server that takes anything, on each loop, once with TLS; one for all tests, none of which does it any harm."""
    [kind] = (kind for kind in OURS if kind.name == request.param)
    with running(kind, folder, certificate) as found:
        yield found.server


def metadata(**values: str | bytes) -> str:
    pairs = (
        f"{key} {b64encode(value.encode() if isinstance(value, str) else value).decode()}"
        for key, value in values.items()
    )
    return f"Upload-Metadata: {','.join(pairs)}\r\n"


def files_in(path: Path) -> set[str]:
    return {str(found.relative_to(path)) for found in path.rglob("*") if found.is_file()}


# Names

NAMES = [
    "../../escaped.mp3",
    "/etc/cron.d/escaped.mp3",
    "..\\..\\escaped.mp3",
    "escaped\0.mp3",
    "partial/escaped.mp3",
    ".escaped.mp3",
    "-rf.mp3",
    "a" * 5000 + ".mp3",
    "x.mp3/../../escaped",
    "x./../y",
    "CON.mp3",
    "x.\u202egpj",
    "a\r\nSet-Cookie: escaped=1\r\n\r\n<script>.mp3",
]


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_no_name_of_a_client_becomes_a_path(server: Server, folder: Path, name: str) -> None:
    before = files_in(folder.parent)
    said = metadata(filename=name, name=name, relativePath=name, filetype=name)
    answer = server.ask("POST", "/files/", f"{APPEND}Upload-Length: 3\r\n{said}", b"abc")
    assert answer.status == 201
    files = files_in(folder.parent) - before
    assert all(re.fullmatch(r"uploads/([0-9a-f]{32}\.[A-Za-z0-9]+|records/[0-9a-f]{32}\.json)", path) for path in files)
    assert len(files) == 2


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_no_name_of_a_client_becomes_a_header_line(server: Server, name: str) -> None:
    path = server.create(metadata(filename=name, filetype=name), length=0)
    answer = server.ask("GET", path)
    assert answer.status == 200
    assert "set-cookie" not in answer.fields
    assert re.fullmatch(r"[\x20-\x7e]+", answer.fields["content-disposition"])
    assert answer.body == b""


@pytest.mark.parametrize("kind", ["text/html", "image/svg+xml", "application/pdf", "text/javascript"])
def test_what_is_stored_does_not_run_in_a_browser(server: Server, kind: str) -> None:
    script = b"<!doctype html><svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>"
    path = server.create(metadata(filename="page.html", filetype=kind), length=len(script))
    server.append(path, 0, script)
    answer = server.ask("GET", path)
    assert answer.body == script
    assert answer.fields["content-disposition"].startswith("attachment")
    assert answer.fields["content-type"] == "application/octet-stream"
    assert answer.fields["x-content-type-options"] == "nosniff"
    assert answer.fields["content-security-policy"].startswith("sandbox")


def test_nothing_that_is_stored_can_be_executed_or_read_by_others(server: Server, folder: Path) -> None:
    path = server.create(metadata(filename="run.sh"), length=3)
    server.append(path, 0, b"#!x")
    modes = {file.stat().st_mode & 0o777 for file in folder.rglob("*") if file.is_file()}
    assert modes == {0o600}
    assert folder.stat().st_mode & 0o777 == 0o700


# Requests


AMBIGUOUS = (
    "X-Folded: a\r\n b",
    "Upload-Length : 5",
    "X-Zero: a\0b",
    "Transfer-Encoding: xchunked",
    "Transfer-Encoding: identity",
    "Transfer-Encoding: chunked\r\nContent-Length: 3",
    "Content-Length: 3\r\nContent-Length: 4",
    "Content-Length: +3",
)
UNIX_LINES = "OPTIONS /files/ HTTP/1.1\nHost: x\n\n"


@dataclass(frozen=True)
class Smuggling:
    """A connection on which a request was sent that two servers may understand differently, and a second one in it."""

    connection: Connection
    victim: str


@pytest.fixture(scope="module")
def smuggled(server: Server) -> Iterator[Mapping[str, Smuggling]]:
    """All of them at once, by what is odd about them: the server listens for two seconds more on each."""
    with ExitStack() as open_connections:

        def send(request: str) -> Smuggling:
            victim = server.create()
            connection = open_connections.enter_context(server.connect())
            connection.send(request.replace("VICTIM", victim))
            return Smuggling(connection, victim)

        hidden = f"DELETE VICTIM HTTP/1.1\r\n{HOST}{TUS}\r\n"
        creation = f"POST /files/ HTTP/1.1\r\n{HOST}{TUS}Upload-Length: 5\r\n"
        requests = {line: f"{creation}{line}\r\n\r\n0\r\n\r\n{hidden}" for line in AMBIGUOUS}
        yield {odd: send(request) for odd, request in {**requests, UNIX_LINES: UNIX_LINES}.items()}


@pytest.mark.parametrize("line", AMBIGUOUS)
def test_after_an_ambiguous_request_nothing_else_is_heard(
    server: Server, smuggled: Mapping[str, Smuggling], line: str
) -> None:
    """What one of two servers takes for a body is a request to the other (RFC 9112, 11.2)."""
    connection = smuggled[line].connection
    assert connection.answer().status == 400
    assert connection.is_ended_by_server()
    assert server.offset(smuggled[line].victim) == 0


def test_lines_without_a_carriage_return_are_refused(smuggled: Mapping[str, Smuggling]) -> None:
    connection = smuggled[UNIX_LINES].connection
    assert connection.answer().status == 400
    assert connection.is_ended_by_server()


@pytest.mark.parametrize(
    "number", ["-1", "+5", "1_000", "5.0", "0x5", "1e3", "\xb2", "5 5", "", "9" * 19, "9" * 5000, "0" * 18 + "5"]
)
@pytest.mark.parametrize("field", ["Upload-Length", "Upload-Offset"])
def test_a_number_is_ascii_digits_and_not_many(server: Server, field: str, number: str) -> None:
    path = server.create()
    if field == "Upload-Length":
        answer = server.ask("POST", "/files/", f"{TUS}Upload-Length: {number}\r\n", b"")
    else:
        answer = server.ask("PATCH", path, f"{APPEND}Upload-Offset: {number}\r\n", b"")
    assert answer.status == 400
    assert server.offset(path) == 0


def test_zeros_before_a_number_count_as_digits_and_for_nothing_else(server: Server) -> None:
    """RFC 9110, 8.6, allows them, and no two parsers agree on very many of them."""
    path = server.create(length=10)
    answer = server.ask("PATCH", path, f"{APPEND}Upload-Offset: 000\r\nContent-Length: 010\r\n\r\n0123456789")
    assert (answer.status, answer.fields["upload-offset"]) == (204, "10")
    length = "0" * 17 + "10"
    answer = server.ask("POST", "/files/", f"{APPEND}Upload-Length: 10\r\nContent-Length: {length}\r\n\r\n0123456789")
    assert (answer.status, answer.fields["connection"]) == (400, "close")


@pytest.mark.parametrize(
    "override", ["delete", "DELETE, HEAD", "DEL ETE", "PUT", "", "DELETE\r\nX-HTTP-Method-Override: HEAD"]
)
@pytest.mark.parametrize("method", ["POST", "GET", "HEAD"])
def test_an_override_that_is_not_exact_does_nothing(server: Server, method: str, override: str) -> None:
    path = server.create()
    answer = server.ask(method, path, f"{TUS}X-HTTP-Method-Override: {override}\r\n")
    assert answer.status in (400, 405)
    assert server.offset(path) == 0


def test_a_flood_of_metadata_is_refused_before_anything_is_made(server: Server, folder: Path) -> None:
    before = files_in(folder)
    for said in (metadata(key="x" * 40_000), metadata(**{f"k{n}": "" for n in range(2000)})):
        answer = server.ask("POST", "/files/", f"{TUS}Upload-Length: 1\r\n{said}", b"")
        assert (answer.status, answer.text[:23]) == (400, "ERR_METADATA_TOO_LARGE:")
    assert files_in(folder) == before


@pytest.mark.parametrize("name", ["__class__", "shake_128", "new", "sha1 ", "SHA1", "blake2b", "../sha1", "md5-sha1"])
def test_an_algorithm_is_one_of_ours(server: Server, name: str) -> None:
    path = server.create()
    answer = server.append(path, 0, b"abc", f"Upload-Checksum: {name} qZk+NkcGgWq6PiVxeFDCbJzQ2J0=\r\n")
    assert answer.status == 400
    assert server.offset(path) == 0


def test_a_hopeless_request_is_refused_before_it_is_told_to_continue(server: Server) -> None:
    with server.connect() as connection:
        connection.send(
            f"PATCH {UNKNOWN} HTTP/1.1\r\n{HOST}{APPEND}Upload-Offset: 0\r\n"
            "Content-Length: 1000000\r\nExpect: 100-continue\r\n\r\n"
        )
        # An interim answer would come first.
        assert connection.interim() == 404


# Pages of others


def test_a_preflight_reaches_no_upload(server: Server, folder: Path) -> None:
    path = server.create()
    asked = "Origin: https://evil.example\r\nAccess-Control-Request-Method: "
    for method in ("POST", "PATCH", "DELETE"):
        known, unknown = (server.ask("OPTIONS", at, f"{asked}{method}\r\n{TUS}") for at in (path, UNKNOWN))
        assert (known.status, known.body) == (unknown.status, unknown.body) == (200, b"OK")
    override = server.ask("OPTIONS", path, f"{asked}DELETE\r\n{TUS}X-HTTP-Method-Override: DELETE\r\n")
    assert override.status == 200
    assert server.offset(path) == 0


@pytest.fixture(scope="module")
def strict_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server for the pages of one origin, and their cookies."""
    flags = ("--cors-allow-origins", "https://app.example", "--cors-allow-credentials")
    with ServerProcess(tmp_path_factory.mktemp("strict"), *flags) as process:
        yield Server(process.port)


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "https://app.example.evil.example"])
def test_no_page_acts_with_the_cookies_of_its_visitor(server: Server, strict_server: Server, origin: str) -> None:
    answer = server.ask("OPTIONS", "/files/", f"Origin: {origin}\r\nCookie: a=b\r\n")
    assert "access-control-allow-credentials" not in answer.fields
    assert answer.fields["access-control-allow-origin"] == "*"
    answer = strict_server.ask("OPTIONS", "/files/", f"Origin: {origin}\r\nCookie: a=b\r\n")
    assert "access-control-allow-origin" not in answer.fields
    assert "Origin" in answer.fields["vary"]


def answers(server: Server) -> dict[str, Answer]:
    path = server.create(length=0)
    preflight = "Origin: https://app.example\r\nAccess-Control-Request-Method: PATCH\r\n"
    return {
        "discovery": server.ask("OPTIONS", "/files/"),
        "preflight": server.ask("OPTIONS", "/files/", preflight),
        "creation": server.ask("POST", "/files/", f"{TUS}Upload-Length: 1\r\n"),
        "status": server.ask("HEAD", path, TUS),
        "download": server.ask("GET", path),
        "unknown": server.ask("GET", UNKNOWN),
        "nowhere": server.ask("GET", "/<script>"),
        "refused": server.ask("POST", "/files/", TUS),
        "terminated": server.ask("DELETE", path, TUS),
    }


def test_every_answer_tells_browsers_to_guess_frame_and_pass_on_nothing(server: Server) -> None:
    for name, answer in answers(server).items():
        assert answer.fields["x-content-type-options"] == "nosniff", name
        assert "default-src 'none'" in answer.fields["content-security-policy"], name
        assert answer.fields["referrer-policy"] == "no-referrer", name


# What is told


@pytest.fixture
def process(tmp_path: Path) -> Iterator[ServerProcess]:
    """A server that may be stopped."""
    with ServerProcess(tmp_path / "uploads", *FLAGS) as process:
        yield process


def test_nothing_a_client_sends_makes_a_line_in_the_log(process: ServerProcess) -> None:
    server = Server(process.port)
    forged = "\r\n2026-01-01T00:00:00.000Z INFO forged"
    path = server.create(metadata(filename=f"forged{forged}.mp3", forged=forged), length=3)
    server.append(path, 0, b"abc")
    server.ask(
        "GET", f"/files/forged%0d%0aforged?forged={path}", f"X-Request-ID: forged\r\nUser-Agent: forged\r\n{TUS}"
    )
    server.ask("PATCH", path, f"{APPEND}Upload-Offset: forged\r\n", b"forged")
    server.ask("DELETE", path, f"{TUS}Authorization: Bearer forged\r\n")
    with server.connect() as connection:
        connection.send(f"GET / HTTP/1.1\r\n{HOST}forged : forged\r\n\r\n").answer()
    process.stop()
    lines = process.log.splitlines()
    assert any("upload terminated" in line for line in lines)
    assert all(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z [A-Z]+ ", line) for line in lines)
    # The path, escaped, and the id of the request are what is logged of it: no names, credentials, queries or agents.
    told = re.sub(r'path="/files/forged\\r\\nforged"|request=forged', "", process.log)
    assert "forged" not in told


def test_no_refusal_tells_of_the_server(server: Server, folder: Path) -> None:
    path = server.create(length=3)
    refused = [
        server.ask("GET", "/files/%00%ff%fe"),
        server.ask("PATCH", path, f"{APPEND}Upload-Offset: 9\r\n", b"x"),
        server.append(path, 0, b"abcd"),
        server.append(path, 0, b"abc", "Upload-Checksum: sha1 AAAA\r\n"),
        server.ask("POST", "/files/", f"{TUS}Upload-Length: 1\r\nUpload-Metadata: \x00\r\n"),
        server.ask("POST", "/files/", f"{TUS}Upload-Length: 1\r\nUpload-Metadata: a !\r\n"),
    ]
    for answer in refused:
        assert 400 <= answer.status < 500, answer
        told = answer.text + " ".join(answer.fields.values())
        assert not re.search(rf"{re.escape(str(folder.parent))}|Traceback|\.py|[Pp]ython|uvicorn|Errno", told)
    assert "server" not in refused[0].fields
