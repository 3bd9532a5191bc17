"""Ends a process between two system calls, and takes away what a loss of power takes.

``Power`` counts the calls that change something on the disk. The chosen one does not happen (of a write or a copy, the
first half does), and nothing after it does either: whatever the program still tries while it falls apart, the disk
stays as it was at that moment, just as after ``kill -9``. ``lose`` then makes of it what a loss of power would: bytes
that were not synced are NULs, what else was not synced is empty or as it was at its last sync.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pytest

CHANGING = ("pwrite", "copy_file_range", "ftruncate", "rename", "unlink", "fsync", "fdatasync")


class Ended(BaseException):
    """The process does not exist any more."""


class Power:
    """Counts calls, and ends the process instead of the one of number ``at``; never when that is ``None``."""

    def __init__(self, at: int | None = None) -> None:
        self.at = at
        self.calls = 0
        self._synced: dict[int, bytes] = {}

    @property
    def is_off(self) -> bool:
        return self.at is not None and self.calls > self.at

    @contextmanager
    def on(self) -> Iterator[None]:
        """Watch the calls of this process."""
        with pytest.MonkeyPatch.context() as patch:
            for name in CHANGING:
                patch.setattr(os, name, self._watched(name, getattr(os, name)))
            patch.setattr(os, "open", self._watched_open(os.open))
            yield

    def lose(self, folder: Path, *, keep_bounds: bool) -> None:
        """Leave below ``folder`` what was synced; bounds that were not may have reached the disk or not."""
        for path in folder.rglob("*"):
            if not path.is_file():
                continue
            content, synced = path.read_bytes(), self._synced.get(path.stat().st_ino, b"")
            if path.suffix == ".json" and content != synced:
                path.write_bytes(b"")
            elif path.suffix == ".floor" and not keep_bounds:
                path.write_bytes(synced)
            elif path.suffix not in {".json", ".floor"}:
                path.write_bytes(
                    bytes(now if now == then else 0 for now, then in zip_longest(content, synced[: len(content)]))
                )

    def _step(self) -> bool:
        """Count a call, and tell whether it is the one that does not happen any more."""
        if self.is_off:
            raise Ended
        self.calls += 1
        return self.is_off

    def _watched(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*args: Any) -> Any:
            if self._step():
                if name == "pwrite":
                    descriptor, data, offset = args
                    call(descriptor, data[: len(data) // 2], offset)
                if name == "copy_file_range":
                    source, target, count, *offsets = args
                    call(source, target, count // 2, *offsets)
                raise Ended
            result = call(*args)
            if name in {"fsync", "fdatasync"}:
                self._note(args[0])
            return result

        return watched

    def _watched_open(self, call: Callable[..., int]) -> Callable[..., int]:
        def watched(path: str, flags: int, mode: int = 0o777, **options: Any) -> int:
            if flags & os.O_CREAT and self._step():
                raise Ended
            return call(path, flags, mode, **options)

        return watched

    def _note(self, descriptor: int) -> None:
        status = os.fstat(descriptor)
        path = Path(f"/proc/self/fd/{descriptor}")
        if path.is_file():
            self._synced[status.st_ino] = path.read_bytes()
