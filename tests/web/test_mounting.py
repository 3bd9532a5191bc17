"""The same app alone, mounted in Starlette and FastAPI, and behind a prefix."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Mount
from starlette.types import ASGIApp

from tests.forms import file_part, form, post, told
from tests.live import TUS, Server, serving
from tusd_py import TusApp


def alone(app: TusApp) -> ASGIApp:
    return app


def in_starlette(app: TusApp) -> ASGIApp:
    return Starlette(routes=[Mount("/media", app)])


def in_starlette_with_lifespan(app: TusApp) -> ASGIApp:
    return Starlette(routes=[Mount("/media", app)], lifespan=app.lifespan)


def in_fastapi(app: TusApp) -> ASGIApp:
    outer = FastAPI()
    outer.mount("/media", app)
    return outer


def at_the_root_of_fastapi(app: TusApp) -> ASGIApp:
    outer = FastAPI()
    outer.mount("/", app)
    return outer


MOUNTS: list[tuple[Callable[[TusApp], ASGIApp], str, str]] = [
    (alone, "", "/files"),
    (alone, "/behind/proxy", "/files"),
    (in_starlette, "", "/media/files"),
    (in_starlette_with_lifespan, "", "/media/files"),
    (in_starlette, "/behind", "/media/files"),
    (in_fastapi, "", "/media/files"),
    (at_the_root_of_fastapi, "", "/files"),
]


def upload(server: Server, endpoint: str, public_prefix: str) -> None:
    answer = server.ask("POST", endpoint, TUS + "Upload-Length: 3\r\n", b"")
    assert answer.status == 201
    location = answer.fields["location"]
    root = f"http://127.0.0.1:{server.port}{public_prefix}"
    assert location.startswith(root + endpoint.rstrip("/") + "/")
    path = location.removeprefix(root)
    assert server.append(path, 0, b"abc").status == 204
    assert server.offset(path) == 3
    assert server.ask("GET", path).body == b"abc"


def upload_form(server: Server, endpoint: str, public_prefix: str) -> None:
    answer = post(server, form(file_part(b"abc")), path=endpoint.removesuffix("/files") + "/upload/stream")
    assert answer.status == 200
    location = answer.fields["location"]
    root = f"http://127.0.0.1:{server.port}{public_prefix}"
    assert location == f"{root}{endpoint}/{told(answer)['upload_id']}"
    assert server.ask("GET", location.removeprefix(root)).body == b"abc"


@pytest.mark.parametrize(("mount", "root_path", "endpoint"), MOUNTS)
def test_an_upload_works_wherever_the_app_is(
    tmp_path: Path, mount: Callable[[TusApp], ASGIApp], root_path: str, endpoint: str
) -> None:
    app = TusApp(upload_dir=tmp_path, allowed_upload_extensions="*", sniff="off")
    with serving(mount(app), root_path=root_path) as server:
        for path in (endpoint, endpoint + "/"):
            upload(server, path, root_path)
        upload_form(server, endpoint, root_path)


def test_the_base_path_can_be_the_mount_itself(tmp_path: Path) -> None:
    app = TusApp(upload_dir=tmp_path, allowed_upload_extensions="*", sniff="off", base_path="/")
    outer = FastAPI()
    outer.mount("/files", app)
    with serving(outer) as server:
        upload(server, "/files/", "")


def test_a_public_url_takes_the_place_of_what_the_request_says(tmp_path: Path) -> None:
    app = TusApp(upload_dir=tmp_path, public_url="https://media.example.org/in/")
    with serving(app) as server:
        answer = server.ask("POST", "/files/", TUS + "Upload-Length: 3\r\n", b"")
    assert answer.fields["location"].startswith("https://media.example.org/in/files/")


def test_cors_of_the_app_around_us_is_not_doubled(tmp_path: Path) -> None:
    app = TusApp(upload_dir=tmp_path)
    outer = Starlette(
        routes=[Mount("/", app)], middleware=[Middleware(CORSMiddleware, allow_origins=["https://app.example"])]
    )
    with serving(outer) as server, server.connect() as connection:
        connection.send(f"OPTIONS /files/ HTTP/1.1\r\nHost: x\r\nOrigin: https://app.example\r\n{TUS}\r\n")
        head = connection._until(b"\r\n\r\n").lower()
    assert head.count(b"access-control-allow-origin:") == 1
    assert head.count(b"access-control-expose-headers:") == 1


def test_a_websocket_is_closed(tmp_path: Path) -> None:
    import asyncio

    sent: list[str] = []

    async def receive() -> dict[str, str]:
        return {"type": "websocket.connect"}

    async def send(message: object) -> None:
        assert isinstance(message, dict)
        sent.append(message["type"])

    app = TusApp(upload_dir=tmp_path)
    asyncio.run(app({"type": "websocket", "path": "/files/"}, receive, send))
    assert sent == ["websocket.close"]
