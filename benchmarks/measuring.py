"""One measurement: a server is started, warmed up, driven by one load, looked after, and ended."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.contenders import Contender
from benchmarks.load import Job, Outcome
from benchmarks.measured_server import KIB, MIB, MeasuredServer
from benchmarks.started_server import NotStarted, started_server

ROOT = Path(__file__).parents[1]

# What is measured, in the order of the columns.
LOADS = ("one stream", "16 streams", "small uploads", "HEAD")
STREAMS = 16
SMALL = 4 * KIB
PATCH = 8 * MIB

# Seconds that a load may take in all, beside those that it is told; and those that a warm-up may.
BOUND = 300.0
WARMING = 10.0

# Part of the load that is done before, so that nobody is measured while something is loaded or compiled.
WARM_UP = 4


class MeasurementFailed(Exception):
    """A server did not do what it should; the message says what it did."""


@dataclass(frozen=True)
class Sizes:
    """How much each load is: bytes of the large uploads together, and numbers of requests."""

    streamed: int
    uploads: int
    heads: int

    def job(self, load: str, part: int = 1) -> Job:
        """Return what a load asks for, or the ``part``-th part of it; the port is to be filled in."""
        if load == "one stream":
            size = self.streamed // part
            return Job("streams", port=0, connections=1, size=size, patch=size)
        if load == "16 streams":
            return Job("streams", port=0, connections=STREAMS, size=self.streamed // STREAMS // part, patch=PATCH)
        if load == "small uploads":
            return Job("uploads", port=0, connections=STREAMS, size=SMALL, count=self.uploads // part)
        return Job("heads", port=0, connections=STREAMS, size=SMALL, count=self.heads // part)


@dataclass(frozen=True)
class Measurement:
    """What one load took in one round. Seconds are by the clock, memory is in bytes, resident, at its peak."""

    server: str
    load: str
    storage: str
    round: int
    requests: int
    bytes: int
    seconds: float
    cpu_seconds: float
    peak_memory: int
    memory_before: int
    generator_cpu_seconds: float


def measure(contender: Contender, load: str, sizes: Sizes, folder: Path, storage: str, number: int) -> Measurement:
    """Measure one server once; ``storage`` is what ``folder`` is on, and ``number`` that of the round.

    Raises:
        MeasurementFailed: it did not start, answered something else than it should, or kept something else.
    """
    # What was written before and is not on the disk yet must not be written now.
    os.sync()
    try:
        with started_server(contender, folder) as server:
            drive(server, replace(sizes.job(load, WARM_UP), seconds=WARMING))
            job = sizes.job(load)
            stored = _stored(server, job.size)
            with driven(server, job) as working:
                memory, cpu = server.forget_peak_memory(), server.processor_seconds()
                outcome = working.finish()
                used, peak = server.processor_seconds() - cpu, server.peak_memory()
                working.check()
            if contender.keeps:
                _check_stored(_stored(server, job.size) - stored, job, outcome)
            return Measurement(
                contender.name, load, storage, number, outcome.requests, outcome.bytes, outcome.seconds, used, peak,
                memory, outcome.generator_cpu_seconds,
            )  # fmt: skip
    except (NotStarted, OSError) as error:
        raise MeasurementFailed(str(error)) from None


class Working:
    """The process of a load that is ready to begin."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def finish(self) -> Outcome:
        """Let it work and return what that took.

        Raises:
            MeasurementFailed: it could not do it.
        """
        return Outcome(**json.loads(self._exchange("go")))

    def check(self) -> None:
        """Let it ask the server whether everything arrived.

        Raises:
            MeasurementFailed: it did not.
        """
        self._exchange("check")

    def prepare(self, job: Job) -> None:
        """Tell it what is to be done, and wait until it is ready."""
        self._exchange(json.dumps(asdict(job)))

    def _exchange(self, line: str) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        if answer := self._process.stdout.readline():
            return answer
        assert self._process.stderr is not None
        said = self._process.stderr.read().strip()
        raise MeasurementFailed(said or f"it took more than {BOUND:.0f} seconds")


@contextmanager
def driven(server: MeasuredServer, job: Job) -> Iterator[Working]:
    """Start the process of a load; it waits for ``finish``, and is killed when its time is over."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.load"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    end_of_time = threading.Timer(BOUND, process.kill)
    end_of_time.start()
    try:
        with process:
            try:
                working = Working(process)
                working.prepare(replace(job, port=urlsplit(server.url).port or 0))
                yield working
            finally:
                process.kill()
    finally:
        end_of_time.cancel()


def drive(server: MeasuredServer, job: Job) -> Outcome:
    """Do a job, with nobody watching."""
    with driven(server, job) as working:
        outcome = working.finish()
        working.check()
        return outcome


def _stored(server: MeasuredServer, size: int) -> int:
    """Return how many files of ``size`` bytes there are, wherever a server keeps them."""
    return sum(1 for path in server.upload_dir.rglob("*") if path.is_file() and path.stat().st_size == size)


def _check_stored(count: int, job: Job, outcome: Outcome) -> None:
    expected = {"streams": job.connections, "uploads": outcome.requests, "heads": job.connections}[job.kind]
    if count != expected:
        raise MeasurementFailed(f"{count} files of {job.size} bytes are there instead of {expected}")
