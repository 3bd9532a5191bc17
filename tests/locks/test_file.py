from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.locks.holder import COUNTS
from tests.locks.workers import ID, OTHER_ID, Run, UploadFolder, wanted
from tusd_py.errors import StorageUnavailable, UploadLocked, UploadNotFound
from tusd_py.locks import file, flock
from tusd_py.locks.base import Hold
from tusd_py.locks.channel import Channel
from tusd_py.locks.file import FileLocks

ROOT = Path(__file__).parents[2]


@contextmanager
def holder(folder: UploadFolder, manner: str) -> Iterator[subprocess.Popen[str]]:
    """Another process that has to do with ``ID``; it is killed in the end."""
    command = [sys.executable, "-m", "tests.locks.holder", str(folder.path), ID, manner]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def word(process: subprocess.Popen[str]) -> str:
    """What the process says next, ``""`` when it has ended."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


def listing(folder: UploadFolder) -> set[Path]:
    return set(folder.path.rglob("*"))


# Between processes.


def test_a_request_takes_over_from_another_process_that_hears_of_it(run: Run, folder: UploadFolder) -> None:
    """The other process lets go when it hears the wish and at no other time, and we wait for less than the timeout."""

    async def main() -> None:
        async with folder.worker() as locks, locks.hold(ID) as hold:
            assert not hold.is_wanted

    with holder(folder, "yields") as process:
        assert word(process) == "held"
        run(main())
        assert [word(process), word(process), word(process)] == ["wanted", "free", ""]


def test_a_holder_that_is_killed_frees_the_lock(run: Run, folder: UploadFolder) -> None:
    async def hold() -> None:
        async with folder.worker() as locks, locks.hold(ID):
            pass

    async def main() -> None:
        newcomer = asyncio.create_task(hold())
        assert await asyncio.to_thread(word, process) == "wanted"
        assert not newcomer.done()
        process.kill()
        await newcomer
        async with folder.worker():
            assert len(list(folder.sockets.iterdir())) == 1, "the socket of the dead is still there"

    with holder(folder, "keeps") as process:
        assert word(process) == "held"
        run(main())


def test_what_is_changed_under_the_lock_by_several_processes_is_not_lost(folder: UploadFolder) -> None:
    with ExitStack() as processes:
        counting = [processes.enter_context(holder(folder, "counts")) for _ in range(3)]
        for process in counting:
            assert process.wait() == 0
    assert int(folder.partial(ID).read_text()) == 3 * COUNTS


# Between workers. Two `FileLocks` share nothing but the folder, as if each had a process of its own.


def test_the_lock_is_handed_over_by_word_and_not_by_polling(
    run: Run, folder: UploadFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file, "SHORTEST_PAUSE", 3600)
    monkeypatch.setattr(file, "LONGEST_PAUSE", 3600)

    async def yielding(locks: FileLocks, held: asyncio.Event) -> None:
        async with locks.hold(ID) as hold:
            held.set()
            await wanted(hold)

    async def main() -> None:
        async with folder.worker() as first, folder.worker() as second:
            held = asyncio.Event()
            task = asyncio.create_task(yielding(first, held))
            await held.wait()
            async with second.hold(ID):
                pass
            await task

    run(main())


def test_a_free_lock_that_somebody_else_caught_is_tried_for_once(
    run: Run, folder: UploadFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file, "SHORTEST_PAUSE", 3600)
    monkeypatch.setattr(file, "LONGEST_PAUSE", 3600)
    tries: list[str] = []

    def data_path(id: str) -> Path | None:
        tries.append(id)
        return folder.data_path(id)

    locks = FileLocks(data_path=data_path, folder=folder.sockets, leader_path=folder.path, timeout=0.2)

    async def main() -> None:
        await locks.open()
        async with folder.worker() as first, first.hold(ID) as hold:
            loud = Channel(folder.sockets)
            hold.when_wanted(lambda: loud.say("free", ID))
            with pytest.raises(UploadLocked):
                async with locks.hold(ID):
                    pytest.fail("two hold the lock")
            await loud.close()
        await locks.close()

    run(main())
    assert len(tries) == 3, "at once, when it was said to be free, and at the deadline"


def test_where_no_word_comes_the_lock_is_still_had_once_it_is_free(run: Run, folder: UploadFolder) -> None:
    first, second = folder.locks(), folder.locks()

    async def main() -> None:
        ready = asyncio.Event()

        async def newcomer() -> None:
            ready.set()
            async with second.hold(ID):
                pass

        async with first.hold(ID) as hold:
            task = asyncio.create_task(newcomer())
            await ready.wait()
            assert not hold.is_wanted
        await task

    run(main())


def test_a_wish_that_comes_between_locking_and_holding_is_heard(run: Run, folder: UploadFolder) -> None:
    locked, go_on = threading.Event(), threading.Event()
    calls = 0

    def slow_data_path(id: str) -> Path | None:
        nonlocal calls
        calls += 1
        if calls == 2:  # the second look, when the lock is taken
            locked.set()
            go_on.wait(timeout=20)
        return folder.data_path(id)

    first = FileLocks(data_path=slow_data_path, folder=folder.sockets, leader_path=folder.path)

    async def hold_first() -> bool:
        async with first.hold(ID) as hold:
            return hold.is_wanted

    async def hold_second(second: FileLocks) -> None:
        async with second.hold(ID):
            pass

    async def main() -> None:
        await first.open()
        wishes: asyncio.Queue[str] = asyncio.Queue()
        bystander = Channel(folder.sockets)
        bystander.listen({"want": wishes.put_nowait})
        async with folder.worker() as second:
            task = asyncio.create_task(hold_first())
            assert await asyncio.to_thread(locked.wait, 20)
            newcomer = asyncio.create_task(hold_second(second))
            # Everybody was told the first wish before anybody is told the second one.
            assert [await wishes.get(), await wishes.get()] == [ID, ID]
            go_on.set()
            assert await task
            await newcomer
        await bystander.close()
        await first.close()

    run(main())


def test_a_wish_that_comes_while_waiting_was_meant_for_the_holder(run: Run, folder: UploadFolder) -> None:
    """Else a request that gets the lock at last would end itself for somebody who had it before."""

    async def request(locks: FileLocks) -> bool:
        async with locks.hold(ID) as hold:
            return hold.is_wanted

    async def main() -> None:
        async with folder.worker() as first, folder.worker() as second, second.hold(OTHER_ID) as other:
            async with first.hold(ID) as hold:
                task = asyncio.create_task(request(second))
                await wanted(hold)
                bystander = Channel(folder.sockets)
                bystander.say("want", ID)
                bystander.say("want", OTHER_ID)
                await wanted(other)  # by now the second worker has heard both
                await bystander.close()
            assert not await task

    run(main())


def test_a_wish_for_what_was_let_go_is_ignored(run: Run, folder: UploadFolder) -> None:
    async def main() -> None:
        async with folder.worker() as locks:
            bystander = Channel(folder.sockets)
            async with locks.hold(OTHER_ID) as other:
                bystander.say("want", ID)
                bystander.say("want", OTHER_ID)
                await wanted(other)
                async with locks.hold(ID) as hold:
                    assert not hold.is_wanted
            await bystander.close()

    run(main())


def test_uploads_of_other_ids_are_not_disturbed_by_a_wish(run: Run, folder: UploadFolder) -> None:
    async def main() -> None:
        async with folder.worker() as locks, locks.hold(ID) as hold, locks.hold(OTHER_ID) as other:
            bystander = Channel(folder.sockets)
            bystander.say("want", OTHER_ID)
            await wanted(other)
            assert not hold.is_wanted
            await bystander.close()

    run(main())


# What happens to the data meanwhile.


async def waiting_for(locks: FileLocks, hold: Hold) -> asyncio.Task[None]:
    """A request that waits for what is held, once it does."""

    async def request() -> None:
        async with locks.hold(ID):
            pass

    task = asyncio.create_task(request())
    await wanted(hold)
    return task


def test_data_deleted_while_a_request_waits_are_not_found(run: Run, folder: UploadFolder) -> None:
    async def main() -> None:
        async with folder.worker() as first, folder.worker() as second:
            async with first.hold(ID) as hold:
                task = await waiting_for(second, hold)
                folder.partial(ID).unlink()
            with pytest.raises(UploadNotFound):
                await task
            assert second.in_use == 0

    run(main())


def test_data_completed_while_a_request_waits_stay_locked(run: Run, folder: UploadFolder) -> None:
    async def main() -> None:
        async with folder.worker() as first, folder.worker() as second, folder.worker(patience=0) as third:
            async with first.hold(ID) as hold:
                task = await waiting_for(second, hold)
                folder.partial(ID).rename(folder.complete(ID))
                with pytest.raises(UploadLocked):
                    async with third.hold(ID):
                        pytest.fail("two hold the lock")
                assert not task.done()
            await task

    run(main())


def test_without_data_there_is_nothing_to_hold(run: Run, folder: UploadFolder) -> None:
    async def main() -> None:
        async with folder.worker() as locks:
            folder.partial(ID).unlink()
            with pytest.raises(UploadNotFound):
                async with locks.hold(ID):
                    pytest.fail("nothing is held")
            async with locks.try_hold(ID) as is_held:
                assert not is_held
            assert locks.in_use == 0

    run(main())


def test_nothing_is_created_to_hold_a_lock(run: Run, folder: UploadFolder) -> None:
    async def main() -> None:
        async with folder.worker() as locks:
            before = listing(folder)
            async with locks.hold(ID), locks.try_hold(OTHER_ID), locks.try_lead():
                assert listing(folder) == before
            assert listing(folder) == before

    run(main())


# What the system may lack.


def test_without_a_folder_for_sockets_locks_work_within_the_process(
    run: Run, folder: UploadFolder, caplog: pytest.LogCaptureFixture
) -> None:
    folder.sockets.touch()  # a file where the folder should be

    async def main() -> None:
        async with folder.worker() as locks:
            async with locks.hold(ID) as hold:
                task = await waiting_for(locks, hold)
            await task

    with caplog.at_level(logging.WARNING):
        run(main())
    assert len(caplog.records) == 1
    assert "cannot take over" in caplog.text


def test_trouble_of_the_file_system_leaves_nothing_locked(
    run: Run, folder: UploadFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(find: flock.FindData) -> None:
        raise StorageUnavailable

    async def main() -> None:
        async with folder.worker() as locks:
            with monkeypatch.context() as trouble:
                trouble.setattr(flock, "try_lock_data", fail)
                for visit in (locks.hold(ID), locks.try_hold(ID)):
                    with pytest.raises(StorageUnavailable):
                        async with visit:
                            pytest.fail("nothing is held")
            async with locks.hold(ID):
                pass
            assert locks.in_use == 0

    run(main())


def test_opening_and_closing_again_is_harmless(run: Run, folder: UploadFolder) -> None:
    async def main() -> None:
        locks = folder.locks()
        for _ in range(2):
            await locks.open()
            await locks.open()
            assert len(list(folder.sockets.iterdir())) == 1
            async with locks.hold(ID):
                await locks.close()
                await locks.close()

    run(main())


def test_locks_that_are_held_when_they_are_closed_are_let_go_all_the_same(run: Run, folder: UploadFolder) -> None:
    async def main() -> None:
        locks = folder.locks()
        await locks.open()
        async with locks.hold(ID), locks.hold(OTHER_ID):
            folder.partial(ID).unlink()
            await locks.close()
        assert locks.in_use == 0

    run(main())
