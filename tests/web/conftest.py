from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live import Server, serving
from tusd_py import TusApp
from tusd_py.server.protocol import LimitedProtocol
from tusd_py.web import wire


@pytest.fixture(autouse=True)
def _short_draining(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let refusals end soon for a client that neither sends nor leaves: it waits for that here."""
    monkeypatch.setattr(wire, "DRAIN_SECONDS", 0.1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The upload folder of the server."""
    return tmp_path / "uploads"


@pytest.fixture
def server(folder: Path) -> Iterator[Server]:
    """A server that takes anything up to 1000 bytes, under /files/."""
    app = TusApp(upload_dir=folder, allowed_upload_extensions="*", sniff="off", max_file_size=1000)
    with serving(app, http=LimitedProtocol) as server:
        yield server


@pytest.fixture
def media_server(folder: Path) -> Iterator[Server]:
    """A server with the default rules on names and content."""
    with serving(TusApp(upload_dir=folder)) as server:
        yield server
