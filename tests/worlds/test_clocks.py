"""The clock jumps by forty days, forwards and backwards, under a real server (libfaketime)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.live import APPEND, TUS, Server
from tests.server_process import ServerProcess, wait_until

FLAGS = ("--allowed-upload-extensions", "*", "--sniff", "off", "--partial-upload-expiry-seconds", "3")
SWEEPS = ("--sweep-interval-seconds", "0.2")


class Clock:
    """The clock of a server: what the file says is added to the true time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.jump("+0d")

    def jump(self, text: str) -> None:
        new = self._path.with_suffix(".new")
        new.write_text(text)
        new.rename(self._path)

    @property
    def variables(self) -> dict[str, str]:
        libraries = list(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
        if not libraries:
            pytest.skip("libfaketime is missing; install it with: apt-get install libfaketime")
        return {
            "LD_PRELOAD": str(libraries[0]),
            "FAKETIME_TIMESTAMP_FILE": str(self._path),
            "FAKETIME_NO_CACHE": "1",
            # The times of files are the kernel's, as they are when a clock is wrong and then set right.
            "NO_FAKE_STAT": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
        }


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    return Clock(tmp_path / "clock")


@contextmanager
def serving(folder: Path, clock: Clock, *flags: str) -> Iterator[Server]:
    with ServerProcess(folder, *FLAGS, *flags, variables=clock.variables) as process:
        yield Server(process.port)


def data_of(folder: Path, path: str) -> Path:
    return folder / "partial" / f"{path.removeprefix('/files/')}.part"


@pytest.mark.parametrize("jump", ["+40d", "-40d"])
def test_a_jump_takes_nothing_that_is_written_and_keeps_nothing_that_is_not(
    tmp_path: Path, clock: Clock, jump: str
) -> None:
    folder = tmp_path / "uploads"
    with serving(folder, clock, *SWEEPS) as server:
        finished, written = server.create(), server.create()
        server.append(finished, 0, b"0123456789")
        with server.connect() as connection:
            fields = f"Host: localhost\r\n{APPEND}Upload-Offset: 0\r\nContent-Length: 10\r\n"
            connection.send(f"PATCH {written} HTTP/1.1\r\n{fields}\r\n01234")
            wait_until(lambda: data_of(folder, written).stat().st_size == 5)
            abandoned = server.create()
            clock.jump(jump)
            # Nobody tells us of the passes of the sweeper. This is what several of them do.
            wait_until(lambda: not data_of(folder, abandoned).exists())
            assert data_of(folder, written).stat().st_size == 5
            connection.send("56789")
            assert connection.answer().status == 204
        for path in (finished, written):
            assert server.ask("GET", path).body == b"0123456789"
        assert server.ask("HEAD", abandoned, TUS).status == 404


def test_a_jump_that_is_soon_put_right_takes_nothing(tmp_path: Path, clock: Clock) -> None:
    folder = tmp_path / "uploads"
    flags = ("--partial-upload-expiry-seconds", "600", "--completed-upload-expiry-seconds", "1d")
    with serving(folder, clock, *flags, "--sweep-interval-seconds", "10") as server:
        finished, unfinished = server.create(), server.create()
        server.append(finished, 0, b"0123456789")
        server.append(unfinished, 0, b"01234")
        clock.jump("+40d")
        assert server.ask("HEAD", unfinished, TUS).status == 410
        clock.jump("+0d")
        assert server.offset(unfinished) == 5
        assert server.append(unfinished, 5, b"56789").status == 204
        for path in (finished, unfinished):
            assert server.ask("GET", path).body == b"0123456789"
