"""What figures were measured on, so that nobody compares them with those of another machine."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.measured_server import GIB


@dataclass(frozen=True)
class Machine:
    """A machine, and how busy it was before anything was measured (the mean number of processes that wanted to run)."""

    processor: str
    cores: int
    memory: int
    kernel: str
    python: str
    load_average: float

    def __str__(self) -> str:
        return (
            f"{self.cores} cores of {self.processor}, {self.memory / GIB:.0f} GiB of memory, {self.kernel}, "
            f"Python {self.python}; load average before: {self.load_average:.2f}"
        )


def this_machine() -> Machine:
    """Return what we are on."""
    return Machine(
        processor=_processor(),
        cores=len(os.sched_getaffinity(0)),
        memory=psutil.virtual_memory().total,
        kernel=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        load_average=os.getloadavg()[0],
    )


def storage_of(folder: Path) -> str:
    """Return the kind of file system that ``folder`` is on: tmpfs, ext4, …"""
    mounts = {Path(it.mountpoint): it.fstype for it in psutil.disk_partitions(all=True)}
    place = folder.resolve()
    return next((mounts[parent] for parent in (place, *place.parents) if parent in mounts), "an unknown file system")


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()
