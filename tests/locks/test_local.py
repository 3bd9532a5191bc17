from __future__ import annotations

import asyncio

import pytest

from tests.locks.workers import ID, Run
from tusd_py.errors import UploadLocked
from tusd_py.locks.local import Turns


def soon() -> float:
    return asyncio.get_running_loop().time() + 10


async def let_others_run() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


def test_turns_come_in_the_order_in_which_they_were_asked_for(run: Run) -> None:
    async def main() -> None:
        turns = Turns()
        order: list[int] = []

        async def visit(number: int) -> None:
            await turns.take(ID, soon())
            order.append(number)
            turns.give_back(ID)

        assert turns.try_take(ID)
        visits = [asyncio.create_task(visit(number)) for number in range(5)]
        await let_others_run()
        turns.give_back(ID)
        await asyncio.gather(*visits)
        assert order == [0, 1, 2, 3, 4]
        assert len(turns) == 0

    run(main())


def test_a_turn_is_wanted_from_its_start_when_others_are_in_line_behind(run: Run) -> None:
    async def main() -> None:
        turns = Turns()
        assert turns.try_take(ID)
        second, last = (asyncio.create_task(turns.take(ID, soon())) for _ in range(2))
        await let_others_run()
        turns.give_back(ID)
        assert (await second).is_wanted
        turns.give_back(ID)
        assert not (await last).is_wanted

    run(main())


def test_a_turn_is_not_wanted_by_those_who_gave_up(run: Run) -> None:
    async def main() -> None:
        turns = Turns()
        assert turns.try_take(ID)
        second, last = (asyncio.create_task(turns.take(ID, soon())) for _ in range(2))
        await let_others_run()
        last.cancel()
        turns.give_back(ID)
        assert not (await second).is_wanted

    run(main())


def test_the_holder_hears_the_wish_before_the_newcomer_waits(run: Run) -> None:
    async def main() -> None:
        turns = Turns()
        hold = turns.try_take(ID)
        assert hold
        hold.when_wanted(lambda: turns.give_back(ID))
        assert not (await turns.take(ID, soon())).is_wanted

    run(main())


def test_a_turn_that_comes_together_with_the_deadline_is_not_lost(run: Run) -> None:
    async def main() -> None:
        turns = Turns()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + 0.01
        assert turns.try_take(ID)
        waiter = asyncio.create_task(turns.take(ID, deadline))
        loop.call_at(deadline, turns.give_back, ID)
        try:
            await waiter
        except UploadLocked:
            assert len(turns) == 0
        else:
            assert len(turns) == 1

    run(main())


def test_who_gives_up_is_forgotten_at_once(run: Run) -> None:
    async def main() -> None:
        turns = Turns()
        assert turns.try_take(ID)
        with pytest.raises(UploadLocked):
            await turns.take(ID, asyncio.get_running_loop().time())
        turns.give_back(ID)
        assert len(turns) == 0

    run(main())
