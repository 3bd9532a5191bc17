from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live import Certificate
from tests.servers.kinds import EVERY, Kind, Running, each, running
from tests.worlds.conftest import run


@pytest.fixture(scope="session", params=each(EVERY))
def kind(request: pytest.FixtureRequest) -> Kind:
    """Every kind of server, or those that a module of tests names: ``OURS_ALONE``."""
    found: Kind = request.param
    return found


@pytest.fixture(scope="session")
def disk(kind: Kind, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A small disk for the server, or a plain folder where none can be mounted."""
    folder = tmp_path_factory.mktemp("disk")
    if os.geteuid() == 0:
        run("mount", "-t", "tmpfs", "-o", "size=96m", "tmpfs", str(folder))
    yield folder
    if folder.is_mount():
        run("umount", "-l", str(folder))


@pytest.fixture(scope="session")
def server(kind: Kind, disk: Path, certificate: Certificate) -> Iterator[Running]:
    """A server of each kind that takes anything; tests share it, and leave it as it is."""
    with running(kind, disk / "uploads", certificate) as found:
        yield found
