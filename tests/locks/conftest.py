from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine
from pathlib import Path

import pytest
import uvloop

from tests.locks.workers import Run, UploadFolder


def open_descriptors() -> set[str]:
    # The listing itself needs one, which is gone when we look at it.
    table = Path("/proc/self/fd")
    return {name for name in os.listdir(table) if os.path.lexists(table / name)} if table.is_dir() else set()


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """Run a coroutine on each kind of event loop. No test here may leave a descriptor open behind it."""

    def run(main: Coroutine[object, object, None]) -> None:
        # The first loop of its kind opens what the process then keeps.
        request.param().close()
        before = open_descriptors()
        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(main)
        assert open_descriptors() <= before

    return run


@pytest.fixture
def folder(tmp_path: Path) -> UploadFolder:
    return UploadFolder(tmp_path / "uploads").prepare()
