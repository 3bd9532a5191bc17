"""Interim responses (1xx), which ASGI has no message for."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from tusd_py.web.reception import INTERIM

# Source: "Resumable Uploads for HTTP", Upload Resumption Supported. No list of statuses knows it yet.
PHRASES = {104: "Upload Resumption Supported"}

# field-value has no control characters but the tab (RFC 9110, 5.5), and a name is a token (5.6.2).
_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


async def send_interim_too(cycle: RequestResponseCycle, message: Any) -> None:
    """Send what ``cycle`` sends, and interim responses before the answer.

    One that comes when the answer has begun or the client is gone is dropped. So is one that a client does not read:
    it has a later one to look forward to.
    """
    if message["type"] != INTERIM:
        await RequestResponseCycle.send(cycle, message)
        return
    if cycle.response_started or cycle.disconnected or cycle.transport.is_closing() or cycle.flow.write_paused:
        return
    cycle.transport.write(build_interim(message["status"], message["headers"]))


def build_interim(status: int, headers: list[tuple[bytes, bytes]]) -> bytes:
    """Return the bytes of an interim response. Source: RFC 9110, 15.2; RFC 9112, 4.

    Raises:
        ValueError: the status is none of an interim response, or a field would not stay in its line.
    """
    if not 100 <= status < 200 or status == HTTPStatus.SWITCHING_PROTOCOLS:
        raise ValueError(f"{status} is no interim response")
    phrase = PHRASES.get(status) or HTTPStatus(status).phrase
    lines = [b"HTTP/1.1 %d %s" % (status, phrase.encode())]
    for name, value in headers:
        if not _NAME.fullmatch(name) or _CONTROL.search(value):
            raise ValueError(f"{name!r} cannot be a field of an interim response")
        lines.append(name + b": " + value)
    return b"\r\n".join((*lines, b"", b""))
