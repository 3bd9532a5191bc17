"""One body on its way into an upload: what is stored, when, in which pieces, and what is left when it ends early."""

from __future__ import annotations

import asyncio
import hashlib
import weakref
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.bodies import Chunks, Sent, cut
from tests.loops import on_a_jumping_loop, on_a_plain_loop
from tusd_py import intake as module
from tusd_py.errors import (
    BadRequest,
    BodyTimedOut,
    BodyTooSlow,
    ChecksumMismatch,
    ConnectionLost,
    ContentRefused,
    ServerStopping,
    StorageFailed,
    StorageFull,
    UploadInterrupted,
    UploadOverrun,
)
from tusd_py.intake import EMERGENCY_SLAB, SMALLEST_SLAB, Beginning, Body, Intake, SlabPool
from tusd_py.protocol.digests import Checksum, Crc32, Verification
from tusd_py.storage.base import Appender, Buffer

KIB = 1024
MIB = 1024 * KIB
HELLO = b"hello, world"


class Recorder(Appender):
    """An upload in memory that remembers how its bytes came.

    While the ``gate`` is closed a write takes no bytes, as on a slow disk, and each one takes some ``pace`` turns of
    the loop. Bytes are copied at the very end of a write, so that a slab that was given back too early would show.
    One write ends with the ``failure``, if there is one.
    """

    pace = 0
    failure: Exception | None = None

    def __init__(self, *, capacity: int | None = None) -> None:
        self.offset = 0
        self.stored = b""
        self.writes: list[int] = []
        self.faults: list[str] = []
        self.is_committed = False
        self.is_discarded = False
        self.gate = asyncio.Event()
        self.gate.set()
        self.begun = asyncio.Event()
        self._capacity = capacity
        self._is_busy = False

    async def write(self, data: Buffer) -> None:
        await self._store(data)
        self.writes.append(len(data))

    async def commit(self, data: Buffer = b"") -> int:
        await self._store(data)
        self.is_committed = True
        return self.offset

    async def written(self) -> AsyncGenerator[bytes, None]:
        async with self._working():
            chunks = [self.stored[start : start + 1000] for start in range(0, len(self.stored), 1000)]
        for chunk in chunks:
            yield chunk

    async def discard(self) -> None:
        async with self._working():
            self.is_discarded = True
            self.stored = b""
            self.offset = 0

    async def _store(self, data: Buffer) -> None:
        async with self._working():
            failure, self.failure = self.failure, None
            if failure is not None:
                raise failure
            fitting = len(data) if self._capacity is None else min(len(data), self._capacity - self.offset)
            self.stored += bytes(data[:fitting])
            self.offset = len(self.stored)
            if fitting < len(data):
                raise StorageFull

    @asynccontextmanager
    async def _working(self) -> AsyncIterator[None]:
        if self._is_busy or self.is_committed:
            self.faults.append("used beside or behind its commit, or by two at once")
        self._is_busy = True
        self.begun.set()
        cancelled = False
        try:
            # As in the disk store: a thread cannot be stopped, whoever waits for it.
            while not self.gate.is_set():
                try:
                    await self.gate.wait()
                except asyncio.CancelledError:
                    cancelled = True
            await turns(self.pace)
            yield
            if cancelled:
                raise asyncio.CancelledError
        finally:
            self._is_busy = False


class Case:
    """An intake with all that it works with."""

    def __init__(
        self,
        *,
        room: int | None = None,
        capacity: int | None = None,
        checksum: bytes | None = None,
        check: Callable[[bytes], None] | None = None,
        beginning_size: int = 4096,
        idle_timeout: float | None = None,
        min_rate: float = 0,
        is_checksum_due: bool = False,
        pool: SlabPool | None = None,
    ) -> None:
        self.appender = Recorder(capacity=capacity)
        self.pool = pool or SlabPool(64 * MIB, MIB)
        self.intake = Intake(
            self.appender,
            self.pool,
            room=room,
            overrun=lambda: UploadOverrun(length=room or 0),
            verification=None if checksum is None else crc32_of(checksum),
            beginning=None if check is None else Beginning(b"", beginning_size, check),
            idle_timeout=idle_timeout,
            min_rate=min_rate,
            late=lambda checksum: Verification(checksum, {"crc32": Crc32}),
            is_checksum_due=is_checksum_due,
        )

    def start(self, body: Body) -> asyncio.Task[int]:
        return asyncio.create_task(self.intake.take(body))

    def assert_kept(self, data: bytes) -> None:
        assert self.appender.stored == data
        assert self.appender.is_committed
        assert not self.appender.is_discarded
        self.assert_clean()

    def assert_clean(self) -> None:
        assert self.appender.faults == []
        assert self.pool.taken == 0

    def assert_dropped(self) -> None:
        assert self.appender.stored == b""
        assert self.appender.is_discarded
        assert not self.appender.is_committed
        self.assert_clean()


def crc32_of(data: bytes) -> Verification:
    return Verification(Checksum("crc32", zlib.crc32(data).to_bytes(4, "big")), {"crc32": Crc32})


def pattern(size: int) -> bytes:
    """Return bytes of which no two stretches are the same."""
    return b"".join(i.to_bytes(4, "big") for i in range(size // 4 + 1))[:size]


async def turns(count: int = 20) -> None:
    """Let everything run that can run now."""
    for _ in range(count):
        await asyncio.sleep(0)


# A body that comes whole


@pytest.mark.parametrize("size", [1, 2, 7, 1000, SMALLEST_SLAB, SMALLEST_SLAB - 1, SMALLEST_SLAB + 1, 10 * MIB])
@on_a_jumping_loop
async def test_a_body_is_stored_as_it_came_however_it_is_cut(size: int) -> None:
    data = pattern(200 * KIB if size > 2 else 5000)
    case = Case()
    assert await case.intake.take(Chunks(*cut(data, size))) == len(data)
    assert case.intake.received == len(data)
    case.assert_kept(data)


@on_a_jumping_loop
async def test_a_body_without_bytes_adds_nothing_and_takes_no_slab() -> None:
    case = Case()
    assert await case.intake.take(Chunks()) == 0
    assert await Case().intake.take(Chunks(b"", b"")) == 0
    case.assert_kept(b"")


@settings(deadline=None)
@given(st.lists(st.binary(max_size=300), max_size=30))
@on_a_jumping_loop
async def test_whatever_the_chunks_are_their_bytes_are_stored_in_order(chunks: list[bytes]) -> None:
    # A slab of 64 KiB is never filled here; the next test has large ones.
    case = Case()
    await case.intake.take(Chunks(*chunks))
    case.assert_kept(b"".join(chunks))


@settings(deadline=None)
@given(st.lists(st.integers(0, 300_000), max_size=8), st.sampled_from([SMALLEST_SLAB, 100_000, 256 * KIB]))
@on_a_jumping_loop
async def test_whatever_the_sizes_of_chunks_and_slabs_bytes_are_stored_in_order(sizes: list[int], largest: int) -> None:
    data = pattern(sum(sizes))
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    case = Case(pool=SlabPool(MIB, largest))
    await case.intake.take(Chunks(*(data[start : start + size] for start, size in zip(starts, sizes, strict=True))))
    case.assert_kept(data)


@on_a_jumping_loop
async def test_slabs_begin_small_and_double_while_the_body_keeps_filling_them() -> None:
    case = Case()
    await case.intake.take(Chunks(*cut(bytes(4 * MIB), 16 * KIB)))
    # 64, 128, 256 and 512 KiB make 960; three more of 1 MiB follow, and 64 KiB come with the commit.
    assert case.appender.writes == [64 * KIB, 128 * KIB, 256 * KIB, 512 * KIB, MIB, MIB, MIB]
    assert case.appender.offset == 4 * MIB


@on_a_jumping_loop
async def test_a_large_chunk_gets_a_large_slab_at_once() -> None:
    case = Case()
    await case.intake.take(Chunks(bytes(MIB), bytes(MIB)))
    assert case.appender.writes == [MIB, MIB]


# Room


@pytest.mark.parametrize("size", [1, 10, 100, 1000])
@on_a_jumping_loop
async def test_a_body_may_fill_its_room_to_the_last_byte(size: int) -> None:
    data = pattern(1000)
    case = Case(room=1000)
    assert await case.intake.take(Chunks(*cut(data, size))) == 1000
    case.assert_kept(data)


@pytest.mark.parametrize("room", [0, 1, 999, SMALLEST_SLAB, 3 * SMALLEST_SLAB, 3 * SMALLEST_SLAB + 1])
@pytest.mark.parametrize("size", [1000, SMALLEST_SLAB, 10 * MIB])
@pytest.mark.parametrize("excess", [1, 100_000])
@on_a_jumping_loop
async def test_one_byte_too_many_drops_the_body_and_nothing_beyond_the_room_is_ever_written(
    room: int, size: int, excess: int
) -> None:
    case = Case(room=room)
    with pytest.raises(UploadOverrun):
        await case.intake.take(Chunks(*cut(bytes(room + excess), size)))
    assert sum(case.appender.writes) <= room
    case.assert_dropped()


@on_a_jumping_loop
async def test_a_body_that_is_too_long_is_dropped_once_the_write_under_way_is_through() -> None:
    case = Case(room=SMALLEST_SLAB)
    case.appender.gate.clear()
    body = Sent()
    taking = case.start(body)
    await body.send(bytes(SMALLEST_SLAB))
    await case.appender.begun.wait()
    body.post(b"x")
    await turns()
    assert not taking.done()
    case.appender.gate.set()
    with pytest.raises(UploadOverrun):
        await taking
    case.assert_dropped()


@on_a_jumping_loop
async def test_a_body_that_contradicts_itself_is_dropped() -> None:
    """Its framing is broken, so nobody knows what its bytes are."""

    case = Case()
    with pytest.raises(BadRequest):
        await case.intake.take(Chunks(HELLO, error=BadRequest("ERR_INVALID_CONTENT_LENGTH", "too long; do not")))
    case.assert_dropped()


# Bodies that end early

ENDS = (ConnectionLost(), UploadInterrupted(), ServerStopping())


@pytest.mark.parametrize("received", [0, 1, 1000, SMALLEST_SLAB, SMALLEST_SLAB + 1, 500 * KIB])
@pytest.mark.parametrize("error", ENDS, ids=lambda error: type(error).__name__)
@on_a_jumping_loop
async def test_what_came_before_the_body_broke_off_is_kept(error: Exception, received: int) -> None:
    data = pattern(received)
    case = Case()
    with pytest.raises(type(error)):
        await case.intake.take(Chunks(data, error=error))
    case.assert_kept(data)


@on_a_jumping_loop
async def test_an_intake_that_is_interrupted_before_it_begins_takes_what_is_there_and_waits_for_nothing() -> None:
    case, body = Case(), Sent()
    body.post(HELLO)
    case.intake.interrupt(UploadInterrupted())
    with pytest.raises(UploadInterrupted):
        await case.intake.take(body)
    case.assert_kept(HELLO)


@pytest.mark.parametrize("chunks", [(), (HELLO,), (HELLO, pattern(SMALLEST_SLAB)), (pattern(300 * KIB), HELLO)])
@on_a_jumping_loop
async def test_an_interruption_ends_the_wait_for_bytes_and_keeps_what_came(chunks: tuple[bytes, ...]) -> None:
    case, body = Case(), Sent()
    taking = case.start(body)
    for chunk in chunks:
        await body.send(chunk)
    await turns()
    case.intake.interrupt(UploadInterrupted())
    with pytest.raises(UploadInterrupted):
        await taking
    case.assert_kept(b"".join(chunks))


@pytest.mark.parametrize("size", [1000, SMALLEST_SLAB, SMALLEST_SLAB + 1, 100_000, 150_000, MIB])
@pytest.mark.parametrize("is_ended", [False, True])
@on_a_jumping_loop
async def test_an_interruption_while_the_disk_is_slow_keeps_all_that_arrived_and_leaves_no_gap(
    size: int, is_ended: bool
) -> None:
    """The chunk in hand, cut in the middle by the end of a slab, comes before those that arrived behind it."""
    data = pattern(500_000)
    case, body = Case(pool=SlabPool(MIB, SMALLEST_SLAB)), Sent()
    case.appender.gate.clear()
    taking = case.start(body)
    body.post(b"0123456789", *cut(data, size))
    if is_ended:
        body.end()
    await turns()
    case.intake.interrupt(UploadInterrupted())
    await turns()
    assert not taking.done()
    case.appender.gate.set()
    if is_ended:
        assert await taking == 10 + len(data)
    else:
        with pytest.raises(UploadInterrupted):
            await taking
    case.assert_kept(b"0123456789" + data)


@on_a_jumping_loop
async def test_an_interruption_after_the_last_byte_changes_nothing() -> None:
    case, body = Case(), Sent()
    case.appender.gate.clear()
    taking = case.start(body)
    await body.send(HELLO)
    body.end()
    await case.appender.begun.wait()
    case.intake.interrupt(UploadInterrupted())
    await turns()
    case.appender.gate.set()
    assert await taking == len(HELLO)
    case.assert_kept(HELLO)


@on_a_jumping_loop
async def test_a_body_that_has_arrived_whole_is_not_interrupted_any_more() -> None:
    case, body = Case(), Sent()
    taking = case.start(body)
    await turns()
    body.post(HELLO, HELLO)
    body.end()
    case.intake.interrupt(UploadInterrupted())
    assert await taking == 2 * len(HELLO)
    case.assert_kept(HELLO * 2)


@on_a_jumping_loop
async def test_bytes_beyond_the_room_are_refused_also_behind_an_interruption() -> None:
    case, body = Case(room=len(HELLO)), Sent()
    taking = case.start(body)
    await turns()
    body.post(HELLO, HELLO)
    case.intake.interrupt(UploadInterrupted())
    with pytest.raises(UploadOverrun):
        await taking
    case.assert_dropped()


@on_a_plain_loop
async def test_what_is_refused_only_behind_an_interruption_drops_the_body_all_the_same() -> None:
    case, body = Case(room=150_000, pool=SlabPool(2 * SMALLEST_SLAB, SMALLEST_SLAB)), Sent()
    case.appender.gate.clear()
    taking = case.start(body)
    await turns()
    # One chunk: a slab of it is being written, one waits for that, and what is left goes beyond the room.
    sending = asyncio.create_task(body.send(pattern(200_000)))
    await turns()
    taking.cancel()
    await turns()
    case.appender.gate.set()
    with pytest.raises(UploadOverrun):
        await taking
    sending.cancel()
    case.assert_dropped()


@on_a_jumping_loop
async def test_of_several_interruptions_the_first_one_counts() -> None:
    case, body = Case(), Sent()
    taking = case.start(body)
    await body.send(HELLO)
    case.intake.interrupt(ServerStopping())
    case.intake.interrupt(UploadInterrupted())
    with pytest.raises(ServerStopping):
        await taking
    case.intake.interrupt(UploadInterrupted())
    case.assert_kept(HELLO)


@on_a_jumping_loop
async def test_bytes_that_keep_coming_do_not_put_an_interruption_off() -> None:
    case, body = Case(idle_timeout=60), Sent()
    taking = case.start(body)

    async def send() -> None:
        while not taking.done():
            await body.send(b"x")

    sending = asyncio.create_task(send())
    await turns()
    case.intake.interrupt(UploadInterrupted())
    with pytest.raises(UploadInterrupted):
        await taking
    case.assert_kept(b"x" * case.appender.offset)
    sending.cancel()


# Silence


@pytest.mark.parametrize("chunks", [(), (HELLO,), (pattern(SMALLEST_SLAB),), (pattern(100 * KIB), HELLO)])
@on_a_jumping_loop
async def test_a_client_that_falls_silent_ends_its_body_and_what_came_is_kept(chunks: tuple[bytes, ...]) -> None:
    case, body = Case(idle_timeout=30), Sent()
    taking = case.start(body)
    for chunk in chunks:
        await body.send(chunk)
    with pytest.raises(BodyTimedOut, match="30 seconds"):
        await taking
    case.assert_kept(b"".join(chunks))


@on_a_jumping_loop
async def test_a_slow_client_is_served_as_long_as_bytes_come() -> None:
    case, body = Case(idle_timeout=30), Sent()
    taking = case.start(body)
    for _ in range(10):
        await asyncio.sleep(29)
        await body.send(b"x")
    body.end()
    assert await taking == 10
    case.assert_kept(b"x" * 10)


@on_a_jumping_loop
async def test_a_slow_disk_is_no_silence_of_the_client() -> None:
    data = pattern(20 * SMALLEST_SLAB)
    case, body = Case(idle_timeout=30), Sent()
    case.appender.gate.clear()
    taking = case.start(body)
    body.post(*cut(data, SMALLEST_SLAB))
    await asyncio.sleep(300)
    case.appender.gate.set()
    await turns()
    assert not taking.done()
    body.end()
    assert await taking == len(data)
    case.assert_kept(data)


@on_a_jumping_loop
async def test_without_a_timeout_silence_may_last() -> None:
    case, body = Case(), Sent()
    taking = case.start(body)
    await body.send(HELLO)
    await asyncio.sleep(1_000_000)
    body.end()
    assert await taking == len(HELLO)


@on_a_jumping_loop
async def test_a_client_that_sends_too_little_ends_its_body_and_what_came_is_kept() -> None:
    case, body = Case(idle_timeout=30, min_rate=100), Sent()
    taking = case.start(body)
    for _ in range(9):
        await asyncio.sleep(1)
        await body.send(b"x")
    with pytest.raises(BodyTooSlow, match="less than 100 bytes a second came for 10 seconds"):
        await taking
    case.assert_kept(b"x" * 9)


@on_a_jumping_loop
async def test_a_client_that_sends_enough_on_the_whole_may_pause() -> None:
    case, body = Case(idle_timeout=30, min_rate=100), Sent()
    taking = case.start(body)
    for _ in range(20):
        await asyncio.sleep(9.5)
        await body.send(bytes(1000))
    body.end()
    assert await taking == 20_000


@on_a_jumping_loop
async def test_a_slow_disk_makes_no_slow_client() -> None:
    data = pattern(20 * SMALLEST_SLAB)
    case, body = Case(min_rate=100), Sent()
    case.appender.gate.clear()
    taking = case.start(body)
    body.post(*cut(data, SMALLEST_SLAB))
    await asyncio.sleep(15)
    assert not taking.done()
    case.appender.gate.set()
    await turns()
    body.end()
    assert await taking == len(data)


# Unfilled slabs


@on_a_jumping_loop
async def test_bytes_of_a_slow_client_are_stored_after_a_second_and_their_slab_is_given_back() -> None:
    case, body = Case(), Sent()
    taking = case.start(body)
    await body.send(HELLO)
    await turns()
    assert case.appender.stored == b""
    assert case.pool.taken == SMALLEST_SLAB
    await asyncio.sleep(module.STORE_AFTER + 0.01)
    assert case.appender.stored == HELLO
    assert case.pool.taken == 0
    await body.send(HELLO)
    await asyncio.sleep(module.STORE_AFTER + 0.01)
    assert case.appender.stored == HELLO * 2
    body.end()
    await taking
    case.assert_kept(HELLO * 2)


@on_a_jumping_loop
async def test_a_slab_that_nothing_came_into_is_given_back_and_what_comes_later_is_stored_in_time() -> None:
    """As over TLS, where a transport asks for memory before there is a whole record to put into it."""

    class Transport(Body):
        size = None

        async def feed(self, intake: Intake) -> None:
            assert intake.buffer()
            await asyncio.sleep(module.STORE_AFTER + 0.01)
            assert case.pool.taken == 0
            intake.buffer()[: len(HELLO)] = HELLO
            assert not intake.filled(len(HELLO))
            await asyncio.sleep(module.STORE_AFTER + 0.01)
            assert case.appender.stored == HELLO

    case = Case()
    await case.intake.take(Transport())
    case.assert_kept(HELLO)


@on_a_jumping_loop
async def test_a_stream_that_gets_slow_gets_small_slabs_again() -> None:
    case, body = Case(), Sent()
    taking = case.start(body)
    await body.send(bytes(MIB))
    await body.send(HELLO)
    await asyncio.sleep(1.01)
    await body.send(HELLO)
    assert case.pool.taken == SMALLEST_SLAB
    body.end()
    await taking


@on_a_jumping_loop
async def test_an_unfilled_slab_waits_for_the_write_before_it() -> None:
    data = pattern(SMALLEST_SLAB + 5)
    case, body = Case(), Sent()
    case.appender.gate.clear()
    taking = case.start(body)
    await body.send(data)
    await asyncio.sleep(10)
    case.appender.gate.set()
    await asyncio.sleep(1.01)
    assert case.appender.stored == data
    assert case.pool.taken == 0
    body.end()
    await taking
    case.assert_kept(data)


@pytest.mark.parametrize("tail", [0, 1, SMALLEST_SLAB])
@on_a_jumping_loop
async def test_the_timer_of_a_full_slab_that_waits_for_the_disk_does_no_harm(
    monkeypatch: pytest.MonkeyPatch, tail: int
) -> None:
    """The timer used to fire between the end of a write and the task that waited for it, and wrote the slab twice."""
    monkeypatch.setattr(module, "STORE_AFTER", 0)
    data = pattern(4 * SMALLEST_SLAB + tail)
    case = Case()
    case.appender.pace = 5
    case.appender.gate.clear()
    taking = case.start(Chunks(*cut(data, SMALLEST_SLAB)))
    await turns()
    case.appender.gate.set()
    assert await taking == len(data)
    case.assert_kept(data)


@pytest.mark.parametrize("is_lost", [False, True])
@on_a_jumping_loop
async def test_the_timer_of_the_last_slab_does_no_harm_at_the_end(
    monkeypatch: pytest.MonkeyPatch, is_lost: bool
) -> None:
    monkeypatch.setattr(module, "STORE_AFTER", 0)
    data = pattern(SMALLEST_SLAB + 5)
    case = Case()
    case.appender.pace = 5
    case.appender.gate.clear()
    taking = case.start(Chunks(*cut(data, SMALLEST_SLAB), error=ConnectionLost() if is_lost else None))
    await turns()
    case.appender.gate.set()
    if is_lost:
        with pytest.raises(ConnectionLost):
            await taking
    else:
        assert await taking == len(data)
    case.assert_kept(data)


@on_a_jumping_loop
async def test_the_timer_of_the_last_slab_is_off_while_it_is_committed() -> None:
    """It used to write the slab once more, beside the commit, when that took a while."""

    case, body = Case(), Sent()
    case.appender.gate.clear()
    taking = case.start(body)
    await body.send(HELLO)
    body.end()
    await turns()
    await asyncio.sleep(10)
    case.appender.gate.set()
    assert await taking == len(HELLO)
    assert case.appender.writes == []
    case.assert_kept(HELLO)


@on_a_jumping_loop
async def test_the_timer_of_the_last_slab_is_off_while_a_refused_body_is_dropped() -> None:
    case, body = Case(room=len(HELLO)), Sent()
    case.appender.gate.clear()
    taking = case.start(body)
    await body.send(HELLO)
    body.post(b"x")
    await turns()
    await asyncio.sleep(10)
    case.appender.gate.set()
    with pytest.raises(UploadOverrun):
        await taking
    assert case.appender.writes == []
    case.assert_dropped()


# Back-pressure


@on_a_jumping_loop
async def test_the_body_waits_while_both_slabs_are_busy() -> None:
    case, body = Case(pool=SlabPool(2 * SMALLEST_SLAB, SMALLEST_SLAB)), Sent()
    case.appender.gate.clear()
    taking = case.start(body)
    await body.send(bytes(SMALLEST_SLAB))
    await body.send(bytes(SMALLEST_SLAB - 1))
    sending = asyncio.create_task(body.send(bytes(10)))
    await turns()
    assert not sending.done()
    assert case.pool.taken == 2 * SMALLEST_SLAB
    case.appender.gate.set()
    await sending
    body.end()
    assert await taking == 2 * SMALLEST_SLAB + 9


@on_a_jumping_loop
async def test_where_little_is_out_one_full_slab_may_wait_for_the_write_before_it() -> None:
    data = pattern(3 * SMALLEST_SLAB + 9)
    case, body = Case(pool=SlabPool(16 * SMALLEST_SLAB, SMALLEST_SLAB)), Sent()
    case.appender.gate.clear()
    taking = case.start(body)
    await body.send(data[: 2 * SMALLEST_SLAB])
    await body.send(data[2 * SMALLEST_SLAB : 3 * SMALLEST_SLAB - 1])
    sending = asyncio.create_task(body.send(data[3 * SMALLEST_SLAB - 1 :]))
    await turns()
    assert not sending.done()
    assert case.pool.taken == 3 * SMALLEST_SLAB
    case.appender.gate.set()
    await sending
    body.end()
    assert await taking == len(data)
    case.assert_kept(data)


@on_a_jumping_loop
async def test_nothing_that_waits_behind_a_write_that_fails_is_stored() -> None:
    case, body = Case(capacity=100), Sent()
    case.appender.gate.clear()
    taking = case.start(body)
    await body.send(bytes(SMALLEST_SLAB))
    await body.send(bytes(2 * SMALLEST_SLAB))
    case.appender.gate.set()
    with pytest.raises(StorageFull):
        await taking
    assert case.appender.stored == bytes(100)
    case.assert_clean()


class Chunk(bytearray):
    """A chunk whose end can be seen."""


@on_a_jumping_loop
async def test_a_chunk_that_was_taken_in_is_let_go() -> None:
    """A silent client must cost no memory."""

    class Silent(Sent):
        async def feed(self, intake: Intake) -> None:
            chunk = Chunk(HELLO)
            self.chunk = weakref.ref(chunk)
            await intake.put(chunk)
            del chunk
            await super().feed(intake)

    case, body = Case(), Silent()
    taking = case.start(body)
    await turns()
    assert body.chunk() is None
    body.end()
    await taking
    case.assert_kept(HELLO)


# Writes that fail


@on_a_jumping_loop
async def test_bytes_that_fitted_before_the_disk_was_full_are_kept() -> None:
    case = Case(capacity=100_000)
    with pytest.raises(StorageFull):
        await case.intake.take(Chunks(*cut(bytes(300_000), 1000)))
    assert case.appender.offset == 100_000
    case.assert_clean()


@on_a_jumping_loop
async def test_a_write_that_fails_ends_a_body_that_waits_for_its_client() -> None:
    case, body = Case(capacity=100), Sent()
    taking = case.start(body)
    body.post(bytes(SMALLEST_SLAB))
    with pytest.raises(StorageFull):
        await taking
    assert case.appender.offset == 100
    case.assert_clean()


@pytest.mark.parametrize("tail", [0, 5, SMALLEST_SLAB])
@on_a_jumping_loop
async def test_nothing_is_stored_behind_a_write_that_failed(tail: int) -> None:
    data = pattern(SMALLEST_SLAB + tail)
    case, body = Case(capacity=100), Sent()
    case.appender.gate.clear()
    taking = case.start(body)
    body.post(data)
    await turns()
    case.appender.gate.set()
    with pytest.raises(StorageFull):
        await taking
    assert case.appender.stored == data[:100]
    case.assert_clean()


@on_a_jumping_loop
async def test_the_timer_stores_nothing_behind_a_write_that_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STORE_AFTER", 0)
    case, body = Case(pool=SlabPool(MIB, SMALLEST_SLAB)), Sent()
    case.appender.gate.clear()
    case.appender.failure = StorageFull()
    taking = case.start(body)
    body.post(bytes(SMALLEST_SLAB), HELLO)
    await turns()
    case.appender.gate.set()
    with pytest.raises(StorageFull):
        await taking
    assert case.appender.stored == b""
    case.assert_clean()


@on_a_jumping_loop
async def test_a_write_that_the_timer_began_ends_the_body_when_it_fails() -> None:
    case, body = Case(capacity=5), Sent()
    taking = case.start(body)
    await body.send(HELLO)
    with pytest.raises(StorageFull):
        await taking
    assert case.appender.stored == HELLO[:5]
    case.assert_clean()


@on_a_jumping_loop
async def test_a_commit_that_fails_is_told_and_not_repeated() -> None:
    case = Case(capacity=5)
    with pytest.raises(StorageFull):
        await case.intake.take(Chunks(HELLO))
    assert case.appender.stored == HELLO[:5]
    case.assert_clean()


# Cancelled tasks


@pytest.mark.parametrize("received", [0, 5, SMALLEST_SLAB, SMALLEST_SLAB + 5])
@on_a_jumping_loop
async def test_a_task_that_is_cancelled_while_it_waits_keeps_what_came(received: int) -> None:
    data = pattern(received)
    case, body = Case(), Sent()
    taking = case.start(body)
    await body.send(data)
    taking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await taking
    case.assert_kept(data)


@pytest.mark.parametrize("received", [SMALLEST_SLAB, SMALLEST_SLAB + 5, 4 * SMALLEST_SLAB])
@pytest.mark.parametrize("times", [1, 2, 5])
@on_a_jumping_loop
async def test_a_task_that_is_cancelled_during_a_write_ends_after_it(received: int, times: int) -> None:
    """At the end of a server a task is cancelled twice: by the server, and by the loop that closes. No write may
    outlive the lock of its upload."""
    data = pattern(received)
    case, body = Case(), Sent()
    case.appender.gate.clear()
    taking = case.start(body)
    body.post(data)
    await case.appender.begun.wait()
    for _ in range(times):
        taking.cancel()
        await turns()
    assert not taking.done()
    case.appender.gate.set()
    with pytest.raises(asyncio.CancelledError):
        await taking
    assert data.startswith(case.appender.stored)
    assert len(case.appender.stored) >= SMALLEST_SLAB
    assert case.pool.taken == 0
    if times == 1:
        assert case.appender.is_committed


@pytest.mark.parametrize("times", [1, 2])
@on_a_jumping_loop
async def test_a_task_that_is_cancelled_during_the_commit_ends_after_it(times: int) -> None:
    case, body = Case(), Sent()
    case.appender.gate.clear()
    taking = case.start(body)
    await body.send(HELLO)
    body.end()
    await case.appender.begun.wait()
    for _ in range(times):
        taking.cancel()
        await turns()
    assert case.pool.taken == SMALLEST_SLAB
    case.appender.gate.set()
    with pytest.raises(asyncio.CancelledError):
        await taking
    assert case.appender.stored == HELLO
    case.assert_clean()


@on_a_jumping_loop
async def test_a_task_that_is_cancelled_while_it_drops_a_refused_body_drops_it_all_the_same() -> None:
    case, body = Case(room=SMALLEST_SLAB), Sent()
    case.appender.gate.clear()
    taking = case.start(body)
    await body.send(bytes(SMALLEST_SLAB))
    await case.appender.begun.wait()
    body.post(b"x")
    await turns()
    taking.cancel()
    await turns()
    case.appender.gate.set()
    with pytest.raises(asyncio.CancelledError):
        await taking
    case.assert_dropped()


# Checksums. Digests are computed in threads, so that these tests run on an ordinary loop.


@pytest.mark.parametrize("size", [0, 1, 1000, SMALLEST_SLAB, 500_000])
@on_a_plain_loop
async def test_content_that_matches_its_checksum_is_kept(size: int) -> None:
    data = pattern(size)
    case = Case(checksum=data)
    assert await case.intake.take(Chunks(*cut(data, 10_000))) == size
    case.assert_kept(data)


@pytest.mark.parametrize("size", [0, 1, 1000, SMALLEST_SLAB, 500_000])
@on_a_plain_loop
async def test_content_that_does_not_match_is_dropped(size: int) -> None:
    case = Case(checksum=b"something else")
    with pytest.raises(ChecksumMismatch):
        await case.intake.take(Chunks(*cut(pattern(size), 10_000)))
    case.assert_dropped()


@pytest.mark.parametrize("size", [0, 1000, 500_000])
@pytest.mark.parametrize("error", ENDS, ids=lambda error: type(error).__name__)
@on_a_plain_loop
async def test_a_part_of_what_a_checksum_was_announced_for_is_dropped(error: Exception, size: int) -> None:
    data = pattern(size)
    case = Case(checksum=data)
    with pytest.raises(type(error)):
        await case.intake.take(Chunks(data, error=error))
    case.assert_dropped()


@on_a_plain_loop
async def test_a_checksum_is_that_of_all_slabs_in_their_order() -> None:
    data = pattern(3 * MIB)
    case = Case()
    case.intake = Intake(
        case.appender,
        case.pool,
        room=None,
        overrun=ChecksumMismatch,
        verification=Verification(Checksum("sha1", hashlib.sha1(data).digest()), {"sha1": hashlib.sha1}),
    )
    await case.intake.take(Chunks(*cut(data, 50_000)))
    case.assert_kept(data)


@on_a_plain_loop
async def test_a_disk_that_is_full_keeps_nothing_of_what_cannot_be_verified() -> None:
    data = pattern(500_000)
    case = Case(checksum=data, capacity=100_000)
    with pytest.raises(StorageFull):
        await case.intake.take(Chunks(*cut(data, 1000)))
    assert not case.appender.is_committed
    case.assert_clean()


# Checksums behind the body


class Followed(Chunks):
    """A body with the checksum of ``content`` behind it."""

    def __init__(self, *chunks: bytes, content: bytes | None, error: BaseException | None = None) -> None:
        super().__init__(*chunks, error=error)
        self._checksum = None if content is None else Checksum("crc32", zlib.crc32(content).to_bytes(4, "big"))

    def trailing_checksum(self) -> Checksum | None:
        return self._checksum


@pytest.mark.parametrize("is_due", [True, False], ids=["announced", "not announced"])
@pytest.mark.parametrize("size", [0, 1, 1000, SMALLEST_SLAB, 500_000])
@on_a_plain_loop
async def test_content_that_matches_the_checksum_behind_it_is_kept(size: int, is_due: bool) -> None:
    data = pattern(size)
    case = Case(is_checksum_due=is_due)
    assert await case.intake.take(Followed(*cut(data, 30_000), content=data)) == size
    assert case.intake.is_proven
    case.assert_kept(data)


@pytest.mark.parametrize("is_due", [True, False], ids=["announced", "not announced"])
@pytest.mark.parametrize("size", [0, 1, 1000, SMALLEST_SLAB, 500_000])
@on_a_plain_loop
async def test_content_that_does_not_match_the_checksum_behind_it_is_dropped(size: int, is_due: bool) -> None:
    case = Case(is_checksum_due=is_due)
    with pytest.raises(ChecksumMismatch):
        await case.intake.take(Followed(*cut(pattern(size), 30_000), content=b"other"))
    case.assert_dropped()


@pytest.mark.parametrize("size", [1, 500_000])
@on_a_plain_loop
async def test_a_checksum_that_was_announced_and_does_not_come_drops_the_body(size: int) -> None:
    case = Case(is_checksum_due=True)
    with pytest.raises(BadRequest, match="was announced and did not come"):
        await case.intake.take(Chunks(pattern(size)))
    assert not case.intake.is_proven
    case.assert_dropped()


@pytest.mark.parametrize("size", [1, 500_000])
@on_a_plain_loop
async def test_what_breaks_off_before_its_announced_checksum_is_dropped(size: int) -> None:
    case = Case(is_checksum_due=True)
    with pytest.raises(ConnectionLost):
        await case.intake.take(Followed(*cut(pattern(size), 30_000), content=None, error=ConnectionLost()))
    case.assert_dropped()


@pytest.mark.parametrize("end", ["cancelled", "unreadable"])
@on_a_plain_loop
async def test_what_was_not_held_against_the_checksum_behind_it_to_the_end_is_dropped(
    end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = Case()

    async def broken(self: Recorder) -> AsyncGenerator[bytes, None]:
        if end == "cancelled":
            taking.cancel()
            await asyncio.sleep(0)
        else:
            raise StorageFailed
        yield b""

    monkeypatch.setattr(Recorder, "written", broken)
    # Nobody announced the checksum, but it came, and it does not match.
    taking = case.start(Followed(pattern(100_000), content=b"other"))
    with pytest.raises(asyncio.CancelledError if end == "cancelled" else StorageFailed):
        await taking
    assert not case.intake.is_proven
    case.assert_dropped()


@on_a_plain_loop
async def test_two_checksums_are_one_too_many() -> None:
    case = Case(checksum=HELLO)
    with pytest.raises(BadRequest, match="send one of them"):
        await case.intake.take(Followed(HELLO, content=HELLO))
    case.assert_dropped()


# The beginning of an upload


def refuse_x(data: bytes) -> None:
    if data.startswith(b"x"):
        raise ContentRefused(extension=".mp3", allowed=(".mp3",))


@pytest.mark.parametrize("size", [1, 100, 10_000, 100_000])
@on_a_jumping_loop
async def test_content_that_is_refused_is_dropped_before_any_of_it_is_written(size: int) -> None:
    case = Case(check=refuse_x)
    with pytest.raises(ContentRefused):
        await case.intake.take(Chunks(*cut(b"x" * 100_000, size)))
    assert case.appender.writes == []
    case.assert_dropped()


@pytest.mark.parametrize("error", [*ENDS, None], ids=lambda error: type(error).__name__)
@on_a_jumping_loop
async def test_content_is_judged_also_when_the_body_breaks_off(error: Exception | None) -> None:
    case = Case(check=refuse_x)
    with pytest.raises(ContentRefused):
        await case.intake.take(Chunks(b"x", error=error))
    assert case.appender.stored == b""
    assert not case.appender.is_committed
    case.assert_clean()


@on_a_jumping_loop
async def test_content_is_judged_while_the_client_goes_on_sending() -> None:
    case, body = Case(check=refuse_x), Sent()
    taking = case.start(body)
    await body.send(b"x" * SMALLEST_SLAB)
    with pytest.raises(ContentRefused):
        await taking
    case.assert_dropped()


@on_a_plain_loop
async def test_content_is_judged_after_its_checksum_because_damage_is_no_reason_to_refuse_an_upload() -> None:
    case = Case(check=refuse_x, checksum=b"what was sent")
    with pytest.raises(ChecksumMismatch):
        await case.intake.take(Chunks(b"x" * 100_000))
    case.assert_dropped()
    verified = Case(check=refuse_x, checksum=b"x" * 100_000)
    with pytest.raises(ContentRefused):
        await verified.intake.take(Chunks(b"x" * 100_000))
    verified.assert_dropped()


@on_a_jumping_loop
async def test_the_beginning_is_shown_as_it_grows_until_it_is_whole() -> None:
    seen: list[int] = []
    case, body = Case(check=lambda data: seen.append(len(data)), beginning_size=30), Sent()
    taking = case.start(body)
    for _ in range(4):
        await body.send(HELLO)
        await asyncio.sleep(1.01)
    body.end()
    await taking
    assert seen == [12, 24, 30]


@pytest.mark.parametrize(("data", "seen"), [(b"d", b"abcd"), (b"defg", b"abcde")])
def test_a_beginning_goes_on_where_earlier_requests_ended(data: bytes, seen: bytes) -> None:
    beginning = Beginning(b"abc", 5, refuse_x)
    beginning.extend(memoryview(data))
    assert beginning.bytes == seen


def test_a_beginning_that_drips_in_is_looked_at_whenever_it_has_doubled() -> None:
    seen: list[int] = []
    beginning = Beginning(b"", 4096, lambda data: seen.append(len(data)))
    for _ in range(5000):
        beginning.extend(memoryview(b"x"))
    assert seen == [1 << power for power in range(13)]


# What is wrapped around the app


class Lossy(Body):
    """A body whose wait loses a chunk when it is broken off, as queues and middlewares between server and app do."""

    def __init__(self, *chunks: bytes) -> None:
        self.size = None
        self._left = list(chunks)

    async def feed(self, intake: Intake) -> None:
        while self._left:
            chunk = self._left.pop(0)
            await asyncio.sleep(0.001)
            await intake.put(chunk)


@pytest.mark.parametrize("count", range(40))
@on_a_jumping_loop
async def test_a_chunk_that_is_lost_with_the_wait_for_it_leaves_no_gap(count: int) -> None:
    chunks = [bytes([number]) * 1000 for number in range(1, 100)]
    case = Case()
    taking = case.start(Lossy(*chunks))
    for _ in range(count):
        await asyncio.sleep(0.0007)
    case.intake.interrupt(UploadInterrupted())
    with pytest.raises(UploadInterrupted):
        await taking
    assert b"".join(chunks).startswith(case.appender.stored)
    case.assert_clean()


@on_a_plain_loop
async def test_a_task_that_is_cancelled_again_and_again_keeps_all_that_came() -> None:
    case, body = Case(), Sent()
    case.appender.gate.clear()
    taking = case.start(body)
    body.post(HELLO * 20_000)
    await case.appender.begun.wait()
    for _ in range(3):
        taking.cancel()
        await asyncio.sleep(0)
    case.appender.gate.set()
    with pytest.raises(asyncio.CancelledError):
        await taking
    case.assert_kept(HELLO * 20_000)


# Reading straight into the slab, as a transport does


@on_a_jumping_loop
async def test_a_transport_may_read_into_the_slab_itself() -> None:
    class Transport(Body):
        size = None

        async def feed(self, intake: Intake) -> None:
            for byte in HELLO:
                buffer = intake.buffer()
                assert len(buffer) >= 1
                buffer[0] = byte
                assert not intake.filled(1)

    case = Case()
    await case.intake.take(Transport())
    case.assert_kept(HELLO)


@on_a_jumping_loop
async def test_a_transport_learns_that_the_slab_is_full() -> None:
    class Transport(Body):
        size = None

        async def feed(self, intake: Intake) -> None:
            assert not intake.filled(len(intake.buffer()) - 1)
            assert intake.filled(1)

    await Case().intake.take(Transport())


# The pool


def test_slabs_have_the_size_that_is_asked_for_up_to_the_largest() -> None:
    pool = SlabPool(64 * MIB, MIB)
    assert len(pool.take(SMALLEST_SLAB)) == SMALLEST_SLAB
    assert len(pool.take(MIB)) == MIB
    assert len(pool.take(4 * MIB)) == MIB
    assert pool.taken == SMALLEST_SLAB + 2 * MIB


def test_slabs_get_smaller_where_the_budget_ends_and_are_never_absent() -> None:
    pool = SlabPool(MIB, MIB)
    sizes = [len(pool.take(512 * KIB)) for _ in range(3)]
    assert sizes == [512 * KIB, 512 * KIB, EMERGENCY_SLAB]
    assert len(SlabPool(300 * KIB, MIB).take(MIB)) == 256 * KIB
    assert len(SlabPool(0, 0).take(MIB)) == EMERGENCY_SLAB


@on_a_jumping_loop
async def test_a_body_is_stored_also_when_the_budget_is_spent() -> None:
    data = pattern(200 * KIB)
    case = Case(pool=SlabPool(0, MIB))
    await case.intake.take(Chunks(*cut(data, 7000)))
    case.assert_kept(data)
    assert set(case.appender.writes) == {EMERGENCY_SLAB}


def test_slabs_are_at_hand_for_others_within_the_budget() -> None:
    pool = SlabPool(4 * MIB, MIB)
    slabs = [pool.take(MIB) for _ in range(4)]
    pool.give(slabs[0])
    pool.give(slabs[1])
    assert pool.take(MIB) is slabs[1]
    assert pool.take(MIB) is slabs[0]
    pool.give(slabs[0])
    # What others need now is not kept for those that may come.
    pool.take(MIB // 2)
    pool.take(MIB // 2)
    assert pool.take(MIB) is not slabs[0]


def test_a_slab_that_is_given_back_is_used_again_and_a_quarter_of_the_budget_is_kept() -> None:
    pool = SlabPool(4 * MIB, MIB)
    first, second = pool.take(MIB), pool.take(MIB)
    first[0] = 1
    second[0] = 2
    pool.give(first)
    pool.give(second)
    assert pool.taken == 0
    assert pool.take(MIB) is first
    assert pool.take(MIB) is not second


@on_a_jumping_loop
async def test_slabs_of_many_bodies_are_all_given_back() -> None:
    data = pattern(300_000)

    async def one(pool: SlabPool, error: Exception | None) -> None:
        case = Case(pool=pool)
        body = Chunks(*cut(data, 9999), error=error)
        await asyncio.gather(case.intake.take(body), return_exceptions=True)
        assert case.appender.stored == data

    pool = SlabPool(MIB, MIB)
    await asyncio.gather(*(one(pool, ENDS[0] if i % 2 else None) for i in range(20)))
    assert pool.taken == 0
