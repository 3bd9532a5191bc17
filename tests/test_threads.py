"""Jobs in threads: what they give, who waits for them, and what is left of them."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

from tusd_py import threads as module
from tusd_py.threads import ThreadPool


@pytest.fixture
def pool() -> Iterator[ThreadPool]:
    pool = ThreadPool(2, name="under-test")
    yield pool
    pool.close()
    for thread in threads():
        thread.join()


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "under-test"]


def test_a_job_gives_what_its_function_returns(pool: ThreadPool) -> None:
    async def main() -> None:
        assert await pool.start(divmod, 7, 2) == (3, 1)
        assert await pool.start(int, "11", base=2) == 3

    asyncio.run(main())


def test_a_job_raises_what_its_function_raises(pool: ThreadPool) -> None:
    async def main() -> None:
        with pytest.raises(ZeroDivisionError):
            await pool.start(divmod, 1, 0)
        assert await pool.start(divmod, 7, 2) == (3, 1)

    asyncio.run(main())


def test_one_thread_does_all_jobs_that_get_on(pool: ThreadPool) -> None:
    async def main() -> None:
        assert not threads()
        for job in [pool.start(len, "") for _ in range(200)]:
            await job
        assert len(threads()) == 1

    asyncio.run(main())


def test_jobs_that_keep_others_waiting_get_threads_up_to_the_most(pool: ThreadPool) -> None:
    async def main() -> None:
        together = threading.Barrier(2)
        jobs = [pool.start(together.wait, 20) for _ in range(6)]
        assert sorted([await job for job in jobs]) == [0, 0, 0, 1, 1, 1]
        assert len(threads()) == 2

    asyncio.run(main())


def test_threads_that_are_not_needed_any_more_go(pool: ThreadPool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LONGER_THAN_NEEDED", 0.0)

    async def main() -> None:
        together = threading.Barrier(2)
        await asyncio.gather(*(pool.start(together.wait, 20) for _ in range(2)))
        extra = threads()
        while all(thread.is_alive() for thread in extra):
            await asyncio.gather(*(pool.start(len, "") for _ in range(20)))
        assert await pool.start(len, "on") == 2

    asyncio.run(main())


def test_jobs_begin_in_the_order_in_which_they_came(pool: ThreadPool) -> None:
    async def main() -> list[int]:
        began: list[int] = []
        first = ThreadPool(1, name="under-test")
        for job in [first.start(began.append, number) for number in range(20)]:
            await job
        first.close()
        return began

    assert asyncio.run(main()) == list(range(20))


@pytest.mark.parametrize("times", [1, 3])
def test_who_is_cancelled_hears_of_it_when_the_thread_is_through(pool: ThreadPool, times: int) -> None:
    async def main() -> None:
        gate = threading.Event()
        done: list[str] = []

        def job() -> None:
            gate.wait()
            done.append("all of it")

        async def wait() -> None:
            await pool.start(job)

        waiting = asyncio.create_task(wait())
        await asyncio.sleep(0)
        for _ in range(times):
            waiting.cancel()
            await asyncio.sleep(0)
            assert not waiting.done()
        gate.set()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert done

    asyncio.run(main())


def test_a_deadline_counts_when_the_thread_is_through(pool: ThreadPool) -> None:
    async def main() -> None:
        gate = threading.Event()

        async def wait() -> None:
            async with asyncio.timeout(0):
                asyncio.get_running_loop().call_later(0.01, gate.set)
                assert await pool.start(gate.wait)

        with pytest.raises(TimeoutError):
            await wait()
        assert gate.is_set()

    asyncio.run(main())


def test_nobody_complains_of_an_error_that_a_cancelled_task_did_not_see(pool: ThreadPool) -> None:
    complaints: list[object] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))
        gate = threading.Event()

        def job() -> None:
            gate.wait()
            raise OSError

        async def wait() -> None:
            await pool.start(job)

        waiting = asyncio.create_task(wait())
        await asyncio.sleep(0)
        waiting.cancel()
        gate.set()
        with suppress(asyncio.CancelledError):
            await waiting
        del waiting
        gc.collect()
        await asyncio.sleep(0)

    asyncio.run(main())
    assert not complaints


def test_threads_end_when_the_pool_is_closed_and_the_next_job_starts_new_ones(pool: ThreadPool) -> None:
    async def main() -> None:
        await pool.start(len, "")
        (old,) = threads()
        pool.close()
        old.join()
        assert not threads()
        assert await pool.start(len, "again") == 5

    asyncio.run(main())


def test_threads_end_with_the_pool_that_nobody_has_any_more() -> None:
    async def main() -> None:
        await ThreadPool(2, name="under-test").start(len, "")

    asyncio.run(main())
    gc.collect()
    for thread in threads():
        thread.join()


def test_a_job_whose_event_loop_is_closed_is_done_for_nobody(pool: ThreadPool) -> None:
    gate, done = threading.Event(), threading.Event()

    def job() -> None:
        gate.wait()
        done.set()

    async def leave() -> None:
        pool.start(job)

    asyncio.run(leave())
    gate.set()
    assert done.wait(10)

    async def go_on() -> int:
        return await pool.start(len, "on")

    assert asyncio.run(go_on()) == 2


def test_an_interpreter_ends_although_nobody_closed_the_pool() -> None:
    program = "import asyncio\nfrom tusd_py.threads import ThreadPool\npool = ThreadPool(2, name='x')\n"
    program += "async def main(): print(await pool.start(len, 'end'))\nasyncio.run(main())\n"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60, check=True).stdout == b"3\n"
