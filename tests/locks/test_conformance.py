"""What all locks promise. ``first`` and ``second`` are what two requests use: of one worker, or of two."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from tests.locks.workers import ID, OTHER_ID, Run, wanted
from tusd_py.errors import UploadLocked
from tusd_py.locks.file import FileLocks
from tusd_py.locks.memory import MemoryLocks

AnyLocks = MemoryLocks | FileLocks
Pair = tuple[AnyLocks, AnyLocks]
OpenLocks = Callable[..., AbstractAsyncContextManager[Pair]]


@asynccontextmanager
async def memory(path: Path, patience: float) -> AsyncIterator[Pair]:
    locks = MemoryLocks(timeout=patience)
    yield locks, locks


def worker(path: Path, patience: float) -> FileLocks:
    def data_path(id: str) -> Path:
        data = path / id
        data.touch()
        return data

    return FileLocks(data_path=data_path, folder=path / ".workers", leader_path=path, timeout=patience)


@asynccontextmanager
async def file(path: Path, patience: float) -> AsyncIterator[Pair]:
    locks = worker(path, patience)
    await locks.open()
    yield locks, locks
    await locks.close()


@asynccontextmanager
async def file_without_channel(path: Path, patience: float) -> AsyncIterator[Pair]:
    locks = worker(path, patience)
    yield locks, locks


@asynccontextmanager
async def file_in_two_workers(path: Path, patience: float) -> AsyncIterator[Pair]:
    first, second = worker(path, patience), worker(path, patience)
    await first.open()
    await second.open()
    yield first, second
    await first.close()
    await second.close()


@pytest.fixture(params=[memory, file, file_without_channel, file_in_two_workers], ids=lambda open: open.__name__)
def open_locks(request: pytest.FixtureRequest, tmp_path: Path) -> OpenLocks:
    def open_locks(patience: float = 20.0) -> AbstractAsyncContextManager[Pair]:
        pair: AbstractAsyncContextManager[Pair] = request.param(tmp_path, patience)
        return pair

    return open_locks


class Request:
    """A request that holds the lock until it is told to end."""

    def __init__(self, locks: AnyLocks, id: str = ID) -> None:
        self.held = asyncio.Event()
        self.end = asyncio.Event()
        self.was_wanted = False
        self.task = asyncio.create_task(self._run(locks, id))

    async def _run(self, locks: AnyLocks, id: str) -> None:
        async with locks.hold(id) as hold:
            self.held.set()
            await self.end.wait()
            self.was_wanted = hold.is_wanted


def test_a_lock_is_held_by_one_request_at_a_time(run: Run, open_locks: OpenLocks) -> None:
    async def main() -> None:
        async with open_locks() as (first, second):
            async with first.hold(ID) as hold:
                request = Request(second)
                await wanted(hold)
                assert not request.held.is_set()
            await request.held.wait()
            request.end.set()
            await request.task

    run(main())


def test_locks_of_different_uploads_are_held_at_the_same_time(run: Run, open_locks: OpenLocks) -> None:
    async def main() -> None:
        async with open_locks() as (first, second), first.hold(ID) as hold, second.hold(OTHER_ID) as other:
            assert not hold.is_wanted
            assert not other.is_wanted

    run(main())


def test_a_lock_that_nobody_else_asks_for_is_not_wanted(run: Run, open_locks: OpenLocks) -> None:
    async def main() -> None:
        async with open_locks() as (first, second):
            async with first.hold(ID) as hold:
                assert not hold.is_wanted
            async with second.hold(ID) as hold:
                assert not hold.is_wanted

    run(main())


def test_the_next_holder_does_not_hear_the_wish_that_was_meant_for_the_last_one(
    run: Run, open_locks: OpenLocks
) -> None:
    async def main() -> None:
        async with open_locks() as (first, second):
            async with first.hold(ID) as hold:
                request = Request(second)
                await wanted(hold)
            await request.held.wait()
            request.end.set()
            await request.task
            assert not request.was_wanted

    run(main())


def test_each_is_asked_to_let_go_as_long_as_others_wait_and_the_last_is_not(run: Run, open_locks: OpenLocks) -> None:
    waiting = 4

    async def visit(locks: AnyLocks) -> None:
        nonlocal waiting
        async with locks.hold(ID) as hold:
            waiting -= 1
            if waiting:
                await wanted(hold)
            else:
                assert not hold.is_wanted

    async def main() -> None:
        async with open_locks() as (first, second):
            async with first.hold(ID) as hold:
                visits = [asyncio.create_task(visit(locks)) for locks in (first, second, first, second)]
                await wanted(hold)
            await asyncio.gather(*visits)

    run(main())


def test_a_lock_that_is_not_let_go_in_time_is_refused_as_locked(run: Run, open_locks: OpenLocks) -> None:
    async def main() -> None:
        async with open_locks(patience=0.05) as (first, second):
            async with first.hold(ID):
                with pytest.raises(UploadLocked):
                    async with second.hold(ID):
                        pytest.fail("two hold the lock")
            async with second.hold(ID):
                pass

    run(main())


def test_without_any_time_to_wait_a_free_lock_can_be_had(run: Run, open_locks: OpenLocks) -> None:
    async def main() -> None:
        async with open_locks(patience=0) as (first, second), first.hold(ID):
            with pytest.raises(UploadLocked):
                async with second.hold(ID):
                    pytest.fail("two hold the lock")

    run(main())


def test_an_exception_in_the_context_lets_the_lock_go(run: Run, open_locks: OpenLocks) -> None:
    async def main() -> None:
        async with open_locks() as (first, second):
            with pytest.raises(LookupError):
                async with first.hold(ID):
                    raise LookupError
            with pytest.raises(LookupError):
                async with first.try_hold(ID):
                    raise LookupError
            async with second.try_hold(ID) as is_held:
                assert is_held

    run(main())


@pytest.mark.parametrize("is_taken", [False, True], ids=["free", "taken"])
@pytest.mark.parametrize("steps", range(12))
def test_a_request_cancelled_at_any_step_leaves_the_lock_to_others(
    run: Run, open_locks: OpenLocks, steps: int, is_taken: bool
) -> None:
    async def main() -> None:
        async with open_locks() as (first, second):
            holder = Request(first) if is_taken else None
            if holder:
                await holder.held.wait()
            request = Request(second)
            for _ in range(steps):
                await asyncio.sleep(0)
            request.task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await request.task
            if holder:
                holder.end.set()
                await holder.task
            async with first.hold(ID):
                pass
            assert first.in_use == second.in_use == 0

    run(main())


def test_a_request_cancelled_as_the_lock_comes_to_it_passes_it_on(run: Run, open_locks: OpenLocks) -> None:
    async def main() -> None:
        async with open_locks() as (first, second):
            async with first.hold(ID) as hold:
                cancelled, next_one = Request(second), Request(second)
                await wanted(hold)
            cancelled.task.cancel()
            await next_one.held.wait()
            next_one.end.set()
            await next_one.task
            assert first.in_use == second.in_use == 0

    run(main())


def test_trying_takes_a_free_lock_and_keeps_others_out(run: Run, open_locks: OpenLocks) -> None:
    async def main() -> None:
        async with open_locks() as (first, second):
            async with first.try_hold(ID) as is_held:
                assert is_held
                async with second.try_hold(ID) as is_held_twice:
                    assert not is_held_twice
                request = Request(second)
                await asyncio.sleep(0)
                assert not request.held.is_set()
            await request.held.wait()
            request.end.set()
            await request.task

    run(main())


def test_trying_disturbs_no_holder(run: Run, open_locks: OpenLocks) -> None:
    """A wish for another upload follows the try through the same channel: once it is heard, all before it was."""

    async def main() -> None:
        async with open_locks() as (first, second), first.hold(ID) as hold, first.hold(OTHER_ID) as other:
            async with second.try_hold(ID) as is_held:
                assert not is_held
            request = Request(second, OTHER_ID)
            await wanted(other)
            assert not hold.is_wanted
            request.task.cancel()

    run(main())


def test_a_try_that_failed_keeps_nobody_out(run: Run, open_locks: OpenLocks) -> None:
    async def main() -> None:
        async with open_locks(patience=5) as (first, second):
            holder = Request(first)
            await holder.held.wait()
            async with second.try_hold(ID) as is_held:
                assert not is_held
                holder.end.set()
                async with second.hold(ID):
                    pass
            await holder.task

    run(main())


def test_nothing_is_remembered_of_uploads_that_are_let_go(run: Run, open_locks: OpenLocks) -> None:
    async def main() -> None:
        async with open_locks() as (first, second):
            for number in range(1000):
                async with first.hold(f"upload-of-which-there-are-many-{number}"):
                    assert first.in_use == 1
            assert first.in_use == second.in_use == 0

    run(main())


def test_one_leads_at_a_time(run: Run, open_locks: OpenLocks) -> None:
    async def main() -> None:
        async with open_locks() as (first, second):
            async with first.try_lead() as leads:
                assert leads
                async with second.try_lead() as leads_too:
                    assert not leads_too
            async with second.try_lead() as leads:
                assert leads

    run(main())


def test_a_leader_that_fails_leads_no_more(run: Run, open_locks: OpenLocks) -> None:
    async def main() -> None:
        async with open_locks() as (first, second):
            with pytest.raises(LookupError):
                async with first.try_lead():
                    raise LookupError
            async with second.try_lead() as leads:
                assert leads

    run(main())


@pytest.mark.parametrize("seed", range(4))
def test_however_requests_contend_and_are_cancelled_one_holds_at_a_time(
    run: Run, open_locks: OpenLocks, seed: int
) -> None:
    dice = random.Random(seed)
    holders: Counter[str] = Counter()

    async def use(id: str) -> None:
        holders[id] += 1
        try:
            assert holders[id] == 1
            for _ in range(dice.randrange(4)):
                await asyncio.sleep(0)
            assert holders[id] == 1
        finally:
            holders[id] -= 1

    async def request(locks: AnyLocks, id: str) -> None:
        async with locks.hold(id):
            await use(id)

    async def sweep(locks: AnyLocks, id: str) -> None:
        async with locks.try_hold(id) as is_held:
            if is_held:
                await use(id)

    async def main() -> None:
        async with open_locks() as pair:
            tasks = []
            for _ in range(40):
                visit = dice.choice((request, request, request, sweep))
                tasks.append(asyncio.create_task(visit(dice.choice(pair), dice.choice((ID, OTHER_ID)))))
            for task in dice.sample(tasks, 10):
                for _ in range(dice.randrange(6)):
                    await asyncio.sleep(0)
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            assert {type(result) for result in results} <= {type(None), asyncio.CancelledError}
            assert [locks.in_use for locks in pair] == [0, 0]

    run(main())
