"""What many clients cost a server in memory: how far it grows beyond what it held when it had taken one upload."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.contenders import Contender
from benchmarks.load import PATH, Connection, LoadFailed, check
from benchmarks.measured_server import KIB, MeasuredServer
from benchmarks.measuring import MeasurementFailed, Sizes, drive
from benchmarks.slow_uploads import SlowUploads
from benchmarks.started_server import NotStarted, started_server

CROWDS = ("16 fast uploads", "slow uploads", "idle connections")

# Slow uploads send so many bytes twice a second, for so many seconds.
PIECE = 2 * KIB
DRIPPING = 8.0

# Seconds within which all of them must have ended, and within which one request must be answered.
BOUND = 180.0
PATIENCE = 60.0


@dataclass(frozen=True)
class Growth:
    """What all processes of a server held before a crowd of ``count`` came and at most meanwhile, in resident bytes."""

    server: str
    crowd: str
    count: int
    before: int
    peak: int


def measure_growth(contender: Contender, crowd: str, count: int, sizes: Sizes, folder: Path) -> Growth:
    """Measure one server with one crowd of ``count`` (fast uploads are as many as everywhere).

    Raises:
        MeasurementFailed: it did not start, or answered something else than it should.
    """
    try:
        with started_server(contender, folder) as server:
            # Whatever is loaded by the first upload is there before the crowd comes.
            drive(server, replace(sizes.job("small uploads"), connections=1, count=1))
            before = server.forget_peak_memory()
            peak = _CROWDS[crowd](server, count, sizes)
            return Growth(contender.name, crowd, count, before, peak)
    except ExceptionGroup as group:
        raise MeasurementFailed(repr(group.exceptions[0])) from None
    except (NotStarted, LoadFailed, OSError) as error:
        raise MeasurementFailed(str(error)) from None


def _upload_fast(server: MeasuredServer, count: int, sizes: Sizes) -> int:
    drive(server, sizes.job("16 streams"))
    return server.peak_memory()


def _upload_slowly(server: MeasuredServer, count: int, sizes: Sizes) -> int:
    uploads = SlowUploads(server, count, DRIPPING, PIECE)
    try:
        asyncio.run(asyncio.wait_for(uploads.run(), BOUND))
    except SystemExit as end:
        # It is a program of its own as well, that ends so.
        raise MeasurementFailed(str(end)) from None
    return server.peak_memory()


def _idle(server: MeasuredServer, count: int, sizes: Sizes) -> int:
    port = urlsplit(server.url).port or 0
    with ExitStack() as connections:
        for _ in range(count):
            connection = Connection(port, timeout=PATIENCE)
            connections.enter_context(closing(connection.socket))
            # Clients that have asked for something and may ask for more.
            check(connection.ask(connection.build("OPTIONS", PATH)), 2)
        return server.peak_memory()


_CROWDS: dict[str, Callable[[MeasuredServer, int, Sizes], int]] = dict(
    zip(CROWDS, (_upload_fast, _upload_slowly, _idle), strict=True)
)
