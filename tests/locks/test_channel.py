from __future__ import annotations

import asyncio
import os
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.locks.workers import ID, OTHER_ID, Run
from tusd_py.locks import channel
from tusd_py.locks.channel import Channel


@asynccontextmanager
async def listening(folder: Path) -> AsyncIterator[tuple[Channel, asyncio.Queue[tuple[str, str]]]]:
    """A channel, and what it hears."""
    heard: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
    end = Channel(folder)
    end.listen({"want": lambda id: heard.put_nowait(("want", id)), "free": lambda id: heard.put_nowait(("free", id))})
    try:
        yield end, heard
    finally:
        await end.close()


def test_a_word_reaches_everybody_else(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        async with (
            listening(tmp_path) as (one, heard),
            listening(tmp_path) as (_, two),
            listening(tmp_path) as (_, three),
        ):
            one.say("want", ID)
            one.say("free", OTHER_ID)
            for others in (two, three):
                assert await others.get() == ("want", ID)
                assert await others.get() == ("free", OTHER_ID)
            assert heard.empty()

    run(main())


def test_the_folder_is_made_for_its_owner_alone_and_left_empty(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "uploads" / ".workers"

    async def main() -> None:
        async with listening(folder):
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700
            assert len(list(folder.iterdir())) == 1
        assert list(folder.iterdir()) == []

    run(main())


def test_the_path_of_the_folder_may_be_longer_than_an_address(run: Run, tmp_path: Path) -> None:
    folder = tmp_path.joinpath(*["x" * 200] * 4)

    async def main() -> None:
        async with listening(folder) as (one, _), listening(folder) as (_, heard):
            one.say("want", ID)
            assert await heard.get() == ("want", ID)

    run(main())


def test_without_a_table_of_descriptors_a_short_path_will_do(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel, "DESCRIPTORS", tmp_path / "missing")
    monkeypatch.chdir(tmp_path)

    async def main() -> None:
        async with listening(Path("short")) as (one, _), listening(Path("short")) as (_, heard):
            one.say("want", ID)
            assert await heard.get() == ("want", ID)

    run(main())


def test_where_no_socket_can_be_bound_nothing_is_left_open(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel, "DESCRIPTORS", tmp_path / "missing")

    async def main() -> None:
        with pytest.raises(OSError, match="too long"):
            Channel(tmp_path / ("x" * 200))

    run(main())


def leave_socket(folder: Path, name: str) -> Path:
    """What a worker leaves that was killed."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as dead:
        dead.bind(name)
    return folder / name


def test_sockets_of_the_dead_are_removed_by_the_next_that_comes(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    async def main() -> None:
        async with listening(tmp_path) as (_, heard):
            stale = leave_socket(tmp_path, "0123456789abcdef.sock")
            async with listening(tmp_path) as (newcomer, _):
                assert not stale.exists()
                newcomer.say("want", ID)
                assert await heard.get() == ("want", ID)

    run(main())


def test_sockets_of_the_dead_are_removed_by_whoever_speaks_to_them(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    async def main() -> None:
        async with listening(tmp_path) as (one, _):
            stale = leave_socket(tmp_path, "0123456789abcdef.sock")
            unready = leave_socket(tmp_path, "0123456789abcdef.sock.new")
            one.say("want", ID)
            assert not stale.exists()
            assert unready.exists()

    run(main())


@pytest.mark.parametrize(
    "datagram",
    [
        b"",
        b"want",
        b"want ",
        b" ",
        b"want short",
        b"want ../../../../etc/passwd",
        b"want " + b"a" * 65,
        b"want " + b"a" * 500,
        b"WANT " + ID.encode(),
        b"want  " + ID.encode(),
        b"want " + ID.encode() + b"\n",
        b"want " + ID.encode() + b"\0",
        b"want " + ID.encode() + b" " + ID.encode(),
        b"steal " + ID.encode(),
        b"want " + "ä".encode() * 20,
        b"\xff" * 60000,
    ],
    ids=lambda datagram: repr(datagram[:24]),
)
def test_a_malformed_datagram_is_ignored(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, datagram: bytes
) -> None:
    monkeypatch.chdir(tmp_path)

    async def main() -> None:
        async with listening(tmp_path) as (_, heard):
            (name,) = os.listdir(tmp_path)
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as hostile:
                hostile.sendto(datagram, name)
                hostile.sendto(f"want {OTHER_ID}".encode(), name)
            assert await heard.get() == ("want", OTHER_ID)
            assert heard.empty()

    run(main())


def test_a_worker_that_does_not_listen_hinders_nobody(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        async with listening(tmp_path) as (one, _), listening(tmp_path) as (_, heard):
            deaf = Channel(tmp_path)
            for _ in range(3000):  # far more than what fits into its buffer
                one.say("want", ID)
            assert await heard.get() == ("want", ID)
            await deaf.close()

    run(main())


def test_a_closed_channel_says_nothing_and_removes_nothing(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        async with listening(tmp_path) as (_, heard):
            closed = Channel(tmp_path)
            await closed.close()
            closed.say("want", ID)
            async with listening(tmp_path) as (last, _):
                last.say("free", ID)
                assert await heard.get() == ("free", ID)

    run(main())
