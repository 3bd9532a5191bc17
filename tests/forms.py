"""Forms as clients build them, byte by byte where a test cares."""

from __future__ import annotations

import json
from typing import Any

from tests.live import Answer, Connection, Server

BOUNDARY = "----------------------------8f3a1c5b7d9e2f40"
PATH = "/upload/stream"


def part(head: str, content: bytes, boundary: str = BOUNDARY) -> bytes:
    """Return a part with its delimiter; ``head`` is what stands after ``form-data``, and more lines if it has some."""
    return f"--{boundary}\r\nContent-Disposition: form-data; {head}\r\n\r\n".encode() + content + b"\r\n"


def file_part(content: bytes, filename: str | None = "sound.mp3", boundary: str = BOUNDARY) -> bytes:
    """Return the part that brings a file."""
    named = "" if filename is None else f'; filename="{filename}"'
    return part(f'name="file"{named}', content, boundary)


def field_part(name: str, value: str | bytes, boundary: str = BOUNDARY) -> bytes:
    """Return the part of a plain field."""
    return part(f'name="{name}"', value.encode() if isinstance(value, str) else value, boundary)


def form(*parts: bytes, boundary: str = BOUNDARY) -> bytes:
    """Return the body of a form."""
    return b"".join(parts) + f"--{boundary}--\r\n".encode()


def content_type(boundary: str = BOUNDARY) -> str:
    """Return the line of the head that says what the body is."""
    return f"Content-Type: multipart/form-data; boundary={boundary}\r\n"


def begin(connection: Connection, path: str = PATH, fields: str = "", length: int | None = None) -> Connection:
    """Send the head of a form, of ``length`` bytes or chunked."""
    framing = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    return connection.send(f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{content_type()}{framing}\r\n{fields}\r\n")


def post(server: Server, body: bytes, fields: str | None = None, path: str = PATH) -> Answer:
    """Send a form and return the answer."""
    return server.ask("POST", path, content_type() if fields is None else fields, body)


def told(answer: Answer) -> Any:
    """Return what an answer says, which is JSON."""
    assert answer.fields["content-type"] == "application/json"
    return json.loads(answer.body)


def detail(answer: Answer) -> str:
    """Return the sentence of a refusal."""
    said = told(answer)
    assert list(said) == ["detail"], said
    return str(said["detail"])
