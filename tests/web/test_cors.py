"""Pages of other origins: without these fields a browser sees nothing but a network error."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.live import APPEND, TUS, Server, serving
from tusd_py import TusApp

ORIGIN = "Origin: https://app.example\r\n"
PREFLIGHT = (
    ORIGIN
    + "Access-Control-Request-Method: PATCH\r\n"
    + "Access-Control-Request-Headers: content-type,tus-resumable,upload-offset,x-http-method-override,x-request-id\r\n"
)
UNKNOWN = "/files/0123456789abcdef0123456789abcdef"


@pytest.mark.parametrize("path", ["/files", "/files/", UNKNOWN])
def test_a_preflight_is_answered_on_every_url(server: Server, path: str) -> None:
    answer = server.ask("OPTIONS", path, PREFLIGHT)
    assert answer.status == 200
    assert answer.fields["access-control-allow-origin"] == "*"
    assert answer.fields["access-control-max-age"] == "86400"
    assert "PATCH" in answer.fields["access-control-allow-methods"]
    assert "Upload-Metadata" in answer.fields["access-control-allow-headers"]
    assert "access-control-allow-credentials" not in answer.fields


@pytest.mark.parametrize(
    ("method", "path", "fields", "status"),
    [
        ("OPTIONS", "/files/", "", 204),
        ("POST", "/files/", TUS + "Upload-Length: 1\r\n", 201),
        ("POST", "/files/", TUS, 400),
        ("POST", "/files/", "", 412),
        ("POST", "/files/", TUS + "Upload-Length: 9999\r\n", 413),
        ("HEAD", UNKNOWN, TUS, 404),
        ("PATCH", UNKNOWN, APPEND + "Upload-Offset: 0\r\n", 404),
        ("DELETE", UNKNOWN, TUS, 404),
        ("PUT", "/files/", TUS, 405),
        ("GET", "/nowhere", TUS, 404),
    ],
)
def test_every_answer_can_be_read_by_the_page(server: Server, method: str, path: str, fields: str, status: int) -> None:
    answer = server.ask(method, path, ORIGIN + fields)
    assert answer.status == status
    assert answer.fields["access-control-allow-origin"] == "*"
    exposed = answer.fields["access-control-expose-headers"]
    for field in ("Location", "Upload-Offset", "Upload-Length", "Upload-Expires", "Tus-Resumable", "Retry-After"):
        assert field in exposed


def test_a_list_of_origins_is_compared_as_a_whole(tmp_path: Path) -> None:
    app = TusApp(upload_dir=tmp_path, cors_allow_origins="https://app.example,https://b.example")
    with serving(app) as server:
        answer = server.ask("OPTIONS", "/files/", ORIGIN)
        assert answer.fields["access-control-allow-origin"] == "https://app.example"
        assert "Origin" in answer.fields["vary"]
        for stranger in ("https://app.example.evil.example", "http://app.example", "null", "https://app.example:8443"):
            answer = server.ask("OPTIONS", "/files/", f"Origin: {stranger}\r\n")
            assert "access-control-allow-origin" not in answer.fields


def test_the_lists_of_fields_can_be_extended(tmp_path: Path) -> None:
    app = TusApp(upload_dir=tmp_path, cors_allow_headers="X-Tenant", cors_expose_headers="X-Shelf")
    with serving(app) as server:
        preflight = server.ask("OPTIONS", "/files/", PREFLIGHT.replace("x-request-id", "x-tenant"))
        assert preflight.status == 200
        assert "X-Tenant" in preflight.fields["access-control-allow-headers"]
        answer = server.ask("OPTIONS", "/files/", ORIGIN)
        assert "X-Shelf" in answer.fields["access-control-expose-headers"]
