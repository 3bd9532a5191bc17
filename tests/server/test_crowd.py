"""How many connections there may be, and which of them go."""

from __future__ import annotations

import asyncio
from typing import Any

from tusd_py.server.crowd import MOST_REFUSED, Crowd


class Line(asyncio.Transport):
    """A connection from ``peer`` that notes how it ended."""

    def __init__(self, peer: object = ("192.0.2.1", 1)) -> None:
        super().__init__()
        self.peer = peer
        self.ended = ""
        self.unsent = 0

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self.peer if name == "peername" else default

    def close(self) -> None:
        self.ended = "closed"

    def abort(self) -> None:
        self.ended = "aborted"


def test_without_bounds_everybody_may_stay() -> None:
    crowd = Crowd()
    assert all(crowd.enter(Line()) for _ in range(1000))
    assert len(crowd) == 1000


def test_beyond_the_bound_a_newcomer_is_refused_where_nobody_is_idle() -> None:
    crowd = Crowd(most=2)
    first, second, third = Line(), Line(), Line()
    assert crowd.enter(first)
    assert crowd.enter(second)
    assert not crowd.enter(third)
    assert third.ended == ""  # it is to be told
    crowd.leave(third)
    crowd.leave(first)
    assert crowd.enter(Line())


def test_whoever_is_idle_for_the_longest_makes_room() -> None:
    crowd = Crowd(most=3)
    lines = [Line() for _ in range(3)]
    for line in lines:
        crowd.enter(line)
        crowd.rest(line)
    crowd.wake(lines[0])
    crowd.rest(lines[0])  # it was busy meanwhile, so it is the youngest now
    assert crowd.enter(Line())
    assert [line.ended for line in lines] == ["", "closed", ""]
    crowd.leave(lines[1])  # the transport says so once more
    assert len(crowd) == 3


def test_newcomers_that_wait_for_their_refusal_are_bounded_too() -> None:
    crowd = Crowd(most=1)
    crowd.enter(Line())
    waiting = [Line() for _ in range(MOST_REFUSED)]
    assert not any(crowd.enter(line) for line in waiting)
    assert {line.ended for line in waiting} == {""}
    last = Line()
    assert not crowd.enter(last)
    assert last.ended == "aborted"


def test_one_address_may_have_so_many_and_others_are_not_kept_from_theirs() -> None:
    crowd = Crowd(most_of_client=2)
    lines = [Line(("192.0.2.1", port)) for port in range(3)]
    assert [crowd.enter(line) for line in lines] == [True, True, False]
    assert crowd.enter(Line(("2001:db8::1", 1, 0, 0)))
    for line in lines:
        crowd.leave(line)
    assert crowd.enter(lines[0])


def test_a_proxy_speaks_for_many() -> None:
    crowd = Crowd(most_of_client=1, is_proxy=lambda address: address in ("192.0.2.9", None))
    assert all(crowd.enter(Line(("192.0.2.9", port))) for port in range(5))
    assert all(crowd.enter(Line("")) for _ in range(5))


def test_a_connection_that_has_left_is_not_idle_any_more() -> None:
    crowd = Crowd(most=1)
    line = Line()
    crowd.enter(line)
    crowd.leave(line)
    crowd.rest(line)
    crowd.enter(Line())
    assert not crowd.enter(Line())
    assert line.ended == ""


def test_those_who_wait_for_their_refusal_make_room_for_nobody() -> None:
    crowd = Crowd(most=1)
    crowd.enter(Line())
    newcomers = [Line() for _ in range(8)]
    for line in newcomers:
        assert not crowd.enter(line)
        crowd.rest(line)  # it has not asked for anything yet
    assert {line.ended for line in newcomers} == {""}


def test_whoever_does_not_take_its_answer_makes_room_at_once() -> None:
    crowd = Crowd(most=1)
    line = Line()
    crowd.enter(line)
    line.unsent = 1  # to close would be to wait until the client takes it
    crowd.rest(line)
    assert crowd.enter(Line())
    assert line.ended == "aborted"
