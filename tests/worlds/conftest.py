"""Small disks that are mounted for one test: they fill up, turn read-only, and lose power."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

Mount = Callable[[str], Path]


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)


def mount(source: str, folder: Path, *arguments: str) -> None:
    """Mount ``source``, or skip the test where that cannot be done."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount the disk that this test breaks")
    folder.mkdir(exist_ok=True)
    done = run("mount", *arguments, source, str(folder))
    if done.returncode != 0:
        pytest.skip(f"the disk that this test breaks cannot be mounted here: {done.stderr.strip()}")


def remount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)


@pytest.fixture
def memory_disk(tmp_path: Path) -> Iterator[Mount]:
    """Mounts a file system in memory with the options that it is given, and returns its folder."""
    folder = tmp_path / "disk"

    def mounted(options: str) -> Path:
        mount("tmpfs", folder, "-t", "tmpfs", "-o", options)
        return folder

    yield mounted
    if folder.is_mount():
        subprocess.run(["umount", "-l", str(folder)], check=True)


class Image:
    """An ext4 file system in a file. What a copy of the file holds is what a loss of power would leave."""

    def __init__(self, folder: Path, size: int) -> None:
        if shutil.which("mkfs.ext4") is None:
            pytest.skip("mkfs.ext4 is missing; install it with: apt-get install e2fsprogs")
        self._folder = folder
        self._path = folder / "image"
        self._path.touch()
        os.truncate(self._path, size)
        subprocess.run(["mkfs.ext4", "-q", "-F", str(self._path)], check=True)
        self._mounted: list[Path] = []

    def mounted(self) -> Path:
        """Mount it so that nothing is written that nobody syncs, and return its folder."""
        return self._mount(self._path, self._folder / "disk")

    def after_loss_of_power(self) -> Path:
        """Mount what is on the disk at this moment, and nothing of what is in memory only; return its folder."""
        copy = self._folder / "copy"
        shutil.copyfile(self._path, copy)
        return self._mount(copy, self._folder / "disk-after")

    def unmount(self) -> None:
        for folder in self._mounted:
            subprocess.run(["umount", str(folder)], check=True)

    def _mount(self, image: Path, folder: Path) -> Path:
        mount(str(image), folder, "-t", "ext4", "-o", "loop,commit=600")
        self._mounted.append(folder)
        return folder


@pytest.fixture
def image(tmp_path: Path) -> Iterator[Image]:
    found = Image(tmp_path, 48 * 1024 * 1024)
    yield found
    found.unmount()
