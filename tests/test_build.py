"""From settings to an app that follows them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import tusd_py
from tusd_py.build import TusApp, assemble
from tusd_py.locks.file import FileLocks
from tusd_py.locks.memory import MemoryLocks
from tusd_py.settings import InvalidSettings, Settings
from tusd_py.storage.disk import DiskStore
from tusd_py.storage.memory import MemoryStore


def ask(app: TusApp, method: str, path: str, fields: Mapping[str, str]) -> tuple[int, dict[str, str]]:
    """Return status and header fields of the answer to a request without a body."""
    answer: dict[str, Any] = {}

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        answer.update(message)

    async def exchange() -> None:
        lines = [(name.encode(), value.encode()) for name, value in {"host": "a", **fields}.items()]
        scope = {"type": "http", "http_version": "1.1", "method": method, "path": path, "headers": lines}
        try:
            await app(scope, receive, send)
        finally:
            await app.close()

    asyncio.run(exchange())
    return answer["status"], {name.decode(): value.decode() for name, value in answer["headers"]}


def create(app: TusApp, **fields: str) -> tuple[int, dict[str, str]]:
    named = {name.replace("_", "-"): value for name, value in fields.items()}
    return ask(app, "POST", "/files/", {"host": "a", "tus-resumable": "1.0.0", "upload-length": "5", **named})


def test_the_app_is_what_the_package_offers() -> None:
    assert tusd_py.TusApp is TusApp


def test_keywords_are_settings(tmp_path: Path) -> None:
    app = TusApp(upload_dir=tmp_path / "uploads", max_file_size="1KiB", base_path="up")
    status, fields = ask(app, "OPTIONS", "/up/", {})
    assert (status, fields["tus-max-size"]) == (204, "1024")


def test_settings_can_be_given_whole(tmp_path: Path) -> None:
    app = TusApp(Settings(upload_dir=tmp_path, public_url="https://example.org"))
    assert create(app)[1]["location"].startswith("https://example.org/files/")
    assert list(tmp_path.glob("partial/*.json"))


def test_settings_and_keywords_exclude_each_other() -> None:
    with pytest.raises(TypeError, match="not both"):
        TusApp(Settings(), workers=2)


def test_bad_keywords_are_told_in_a_sentence() -> None:
    with pytest.raises(InvalidSettings, match="port: must be a whole number"):
        TusApp(port="http")  # type: ignore[arg-type]  # wrong on purpose


def test_nothing_is_touched_before_it_is_used(tmp_path: Path) -> None:
    TusApp(upload_dir=tmp_path / "uploads")
    assert not (tmp_path / "uploads").exists()


def test_a_store_of_ones_own_can_be_given(tmp_path: Path) -> None:
    app = TusApp(upload_dir=tmp_path / "uploads", store=MemoryStore())
    assert create(app)[0] == 201
    assert not (tmp_path / "uploads").exists()


def test_the_disk_has_locks_among_processes(tmp_path: Path) -> None:
    parts = assemble(Settings(upload_dir=tmp_path))
    assert isinstance(parts.store, DiskStore)
    assert isinstance(parts.locks, FileLocks)


def test_locks_that_are_given_are_used() -> None:
    locks = MemoryLocks()
    assert assemble(Settings(), locks=locks).locks is locks
    assert assemble(Settings(), store=MemoryStore(), locks=locks).locks is locks
    assert isinstance(assemble(Settings(), store=MemoryStore()).locks, MemoryLocks)


def test_expiration_is_announced_unless_it_is_off() -> None:
    assert "upload-expires" in create(TusApp(store=MemoryStore()))[1]
    assert "upload-expires" not in create(TusApp(store=MemoryStore(), partial_upload_expiry_seconds="off"))[1]


def test_the_extensions_are_those_that_are_allowed() -> None:
    text = "filename bm90ZXMudHh0"  # notes.txt
    assert create(TusApp(store=MemoryStore()), upload_metadata=text)[0] == 400
    assert create(TusApp(store=MemoryStore(), allowed_upload_extensions="*"), upload_metadata=text)[0] == 201


@pytest.mark.parametrize(
    ("origins", "answered"),
    [("*", "*"), ("https://page.example", "https://page.example"), ("https://other.example", None), ("none", None)],
)
def test_pages_of_allowed_origins_may_upload(origins: str, answered: str | None) -> None:
    app = TusApp(store=MemoryStore(), cors_allow_origins=origins)
    assert create(app, origin="https://page.example")[1].get("access-control-allow-origin") == answered


def test_preflights_tell_what_is_configured() -> None:
    app = TusApp(
        store=MemoryStore(),
        cors_allow_origins="https://page.example",
        cors_allow_credentials=True,
        cors_allow_headers="X-Project",
        cors_max_age_seconds="10m",
    )
    asked = {"access-control-request-method": "POST", "access-control-request-headers": "x-project"}
    status, fields = ask(app, "OPTIONS", "/files/", {"origin": "https://page.example", **asked})
    assert status == 200
    assert fields["access-control-max-age"] == "600"
    assert fields["access-control-allow-credentials"] == "true"
    assert "X-Project" in fields["access-control-allow-headers"]
