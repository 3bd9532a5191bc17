"""A real server for the tests that share one, and where the programs are that they drive."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.server_process import ServerProcess

if TYPE_CHECKING:
    from playwright.sync_api import Browser

NODE_FOLDER = Path(__file__).parent / "node"

# From Debian, as root and without a GPU; it calls nobody.
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
]


@pytest.fixture(scope="session")
def upload_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of ``server``."""
    return tmp_path_factory.mktemp("uploads")


@pytest.fixture(scope="session")
def server(upload_dir: Path) -> Iterator[ServerProcess]:
    """One server as ``tusd-py serve`` starts it, for all tests that only need some server."""
    with ServerProcess(upload_dir) as process:
        yield process


@pytest.fixture(scope="session")
def curl() -> str:
    """Path of curl."""
    found = shutil.which("curl")
    if found is None:
        pytest.skip("curl is missing; install it with: apt-get install curl")
    return found


@pytest.fixture(scope="session")
def node() -> str:
    """Path of Node.js."""
    found = shutil.which("node")
    if found is None:
        pytest.skip("node is missing; install it with: apt-get install nodejs npm")
    return found


@pytest.fixture(scope="session")
def node_modules() -> Path:
    """The folder that holds tus-js-client."""
    folder = Path(os.environ.get("TUSD_PY_TEST_NODE_MODULES") or NODE_FOLDER / "node_modules")
    if not (folder / "tus-js-client").is_dir():
        pytest.skip("tus-js-client is missing; install it with: npm install --prefix tests/end_to_end/node")
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium. Its tests belong to the xdist group ``browser``: one is enough for all of them."""
    executable = shutil.which("chromium")
    if executable is None:
        pytest.skip("chromium is missing; install it with: apt-get install chromium fonts-dejavu-core")
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is missing: pip install playwright")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, headless=True, args=FLAGS)
        yield browser
        browser.close()
