"""Requests in the words of the IETF draft, over raw connections."""

from __future__ import annotations

import json

from tests.live import Answer, Server

VERSIONS = (3, 4, 5, 6, 7, 8, 9, 10)
APPEND_TYPE = "Content-Type: application/partial-upload\r\n"


def version(number: int) -> str:
    return f"Upload-Draft-Interop-Version: {number}\r\n"


def flag(number: int, *, complete: bool) -> str:
    return f"Upload-Incomplete: ?{not complete:d}\r\n" if number == 3 else f"Upload-Complete: ?{complete:d}\r\n"


def is_told(answer: Answer, number: int, *, complete: bool) -> bool:
    """Tell whether the flag of this version, and no other one, says so."""
    name, _, value = flag(number, complete=complete).strip().partition(": ")
    flags = {"upload-complete", "upload-incomplete"} & answer.fields.keys()
    return flags == {name.lower()} and answer.fields[name.lower()] == value


def create(server: Server, number: int, body: bytes = b"", *, complete: bool = False, fields: str = "") -> Answer:
    return server.ask("POST", "/files/", version(number) + flag(number, complete=complete) + fields, body)


def created(server: Server, number: int, body: bytes = b"", fields: str = "") -> str:
    """Create an upload to which more comes, and return its path."""
    answer = create(server, number, body, fields=fields)
    assert answer.status == 201, answer
    return path_of(answer)


def path_of(answer: Answer) -> str:
    return "/" + answer.fields["location"].split("/", 3)[3]


def append(
    server: Server,
    number: int,
    path: str,
    offset: int,
    body: bytes = b"",
    *,
    complete: bool | None = False,
    fields: str = APPEND_TYPE,
) -> Answer:
    told = "" if complete is None else flag(number, complete=complete)
    return server.ask("PATCH", path, f"{version(number)}{told}Upload-Offset: {offset}\r\n{fields}", body)


def head(server: Server, number: int, path: str, fields: str = "") -> Answer:
    return server.ask("HEAD", path, version(number) + fields)


def problem_of(answer: Answer) -> dict[str, object]:
    assert answer.fields["content-type"] == "application/problem+json"
    parsed: dict[str, object] = json.loads(answer.body)
    return parsed


def chunked(*chunks: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"


def ask_chunked(server: Server, method: str, path: str, fields: str, *chunks: bytes) -> Answer:
    with server.connect() as connection:
        connection.send(f"{method} {path} HTTP/1.1\r\nHost: x\r\n{fields}Transfer-Encoding: chunked\r\n\r\n")
        return connection.send(chunked(*chunks)).answer(method)
