"""Finals in memory: what they wait for, who completes them, and every way in which that may go wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from tests.bodies import Chunks, Sent
from tests.loops import on_a_jumping_loop
from tests.test_lifecycle import PNG, Clock, Place, named
from tusd_py.errors import (
    ContentRefused,
    FinalUpload,
    ServerStopping,
    StorageFull,
    StorageUnavailable,
    UploadError,
    UploadExpired,
    UploadLocked,
    UploadNotFound,
    UploadTooLarge,
)
from tusd_py.expiration import Sweeper
from tusd_py.lifecycle import MAX_AWAITING
from tusd_py.media import MediaRules
from tusd_py.protocol.messages import Create
from tusd_py.storage.memory import MemoryStore
from tusd_py.upload import NO_METADATA, Metadata, Upload


async def partial(place: Place, data: bytes = b"", length: int | None = None, *, deferred: bool = False) -> Upload:
    """Create a partial of ``data``; complete unless a ``length`` above that is told, or none at all."""
    told = None if deferred else len(data) if length is None else length
    create = Create(length=told, has_body=bool(data), size=len(data), concat="partial", is_partial=True)
    return await place.lifecycle.create(create, Chunks(data))


async def final(place: Place, *members: Upload, metadata: Metadata = NO_METADATA) -> Upload:
    create = Create(length=None, concat="final;…", final_of=("…",), metadata=metadata)
    return await place.lifecycle.concatenate(create, [member.id for member in members])


def sweeper_of(place: Place) -> Sweeper:
    return Sweeper(place.store, place.locks, place.lifecycle, place.limits, interval=60, now=place.clock)


class Slow(MemoryStore):
    """A store whose concatenations wait until they are let, and may fail so often."""

    def __init__(self, *, clock: Clock) -> None:
        super().__init__(now=clock)
        self.let = asyncio.Event()
        self.begun = asyncio.Event()
        self.failures: list[UploadError] = []
        self.concatenations = 0

    async def concatenate(self, final: Upload, partials: Sequence[Upload]) -> Upload:
        self.concatenations += 1
        self.begun.set()
        await self.let.wait()
        if self.failures:
            raise self.failures.pop()
        return await super().concatenate(final, partials)


def slow_place() -> tuple[Place, Slow]:
    clock = Clock()
    store = Slow(clock=clock)
    return Place(store=store, clock=clock), store


@on_a_jumping_loop
async def test_a_final_of_complete_partials_is_complete_at_once() -> None:
    place = Place()
    first, second = await partial(place, b"one"), await partial(place, b"two")
    upload = await final(place, second, first, second, metadata=named("song.mp3"))
    assert upload.is_complete
    assert (upload.offset, upload.length, upload.extension) == (9, 9, ".mp3")
    assert await place.content(upload.id) == b"twoonetwo"
    place.assert_idle()


@on_a_jumping_loop
async def test_members_that_complete_in_the_same_moment_complete_their_final_once() -> None:
    place, store = slow_place()
    store.let.set()
    members = [await partial(place, b"0", 2) for _ in range(5)]
    upload = await final(place, *members)
    assert upload.is_pending
    await asyncio.gather(*(place.append(member.id, 1, b"1") for member in members))
    assert await place.content(upload.id) == b"01" * 5
    assert (await place.store.get(upload.id)).is_complete
    assert store.concatenations == 1
    place.assert_idle()


@on_a_jumping_loop
async def test_a_member_that_completes_while_its_final_is_created_is_not_missed() -> None:
    place = Place()
    members = [await partial(place, b"0", 2) for _ in range(3)]
    results = await asyncio.gather(final(place, *members), *(place.append(m.id, 1, b"1") for m in members))
    assert (await place.store.get(results[0].id)).is_complete
    assert await place.content(results[0].id) == b"010101"


@on_a_jumping_loop
async def test_finals_with_members_in_common_never_block_each_other() -> None:
    place = Place(patience=5)
    members = [await partial(place, b"0", 2) for _ in range(6)]

    async def ask(start: int) -> Upload:
        return await final(place, *members[start:], *members[:start])

    async def go_on(member: Upload) -> None:
        await place.append(member.id, 1, b"1")

    async with asyncio.timeout(4):
        finals = await asyncio.gather(*map(ask, range(6)))
        uploads = await asyncio.gather(*map(ask, range(6)), *map(go_on, members), *map(ask, range(6)))
    for upload in (*finals, *(upload for upload in uploads if upload is not None)):
        assert await place.content(upload.id) == b"01" * 6
    place.assert_idle()


@on_a_jumping_loop
async def test_a_running_append_of_a_member_is_ended_and_goes_on() -> None:
    place = Place()
    member = await partial(place, b"0", 3)
    body = Sent()
    running = place.start(member.id, 1, body)
    await body.send(b"1")
    upload = await final(place, member)
    with pytest.raises(UploadError):
        await running
    await place.append(member.id, 2, b"2")
    assert await place.content(upload.id) == b"012"


@on_a_jumping_loop
async def test_a_refused_final_leaves_nothing_and_ends_no_request() -> None:
    place = Place(max_size=10)
    member, large = await partial(place, b"0", 3), await partial(place, b"0123456789")
    body = Sent()
    running = place.start(member.id, 1, body)
    await body.send(b"1")
    before = await place.count()
    with pytest.raises(UploadTooLarge):
        await final(place, member, large)
    gone = await partial(place, b"0")
    await place.lifecycle.terminate(gone.id)
    with pytest.raises(UploadNotFound):
        await final(place, member, gone)
    assert await place.count() == before
    body.post(b"2")
    body.end()
    assert (await running).is_complete


@on_a_jumping_loop
async def test_the_content_of_a_final_is_judged_before_anything_is_copied() -> None:
    clock = Clock()
    store = Slow(clock=clock)
    place = Place(store=store, clock=clock, media=MediaRules.of(".mp3"))
    members = [await partial(place, part) for part in (b"", PNG[:1], PNG[1:])]
    with pytest.raises(ContentRefused):
        await final(place, *members, metadata=named("song.mp3"))
    assert not store.concatenations
    assert await place.count() == 3


@on_a_jumping_loop
async def test_a_pending_final_whose_content_is_not_accepted_goes_and_its_member_knows_nothing_of_it() -> None:
    place = Place(media=MediaRules.of(".mp3"))
    member = await partial(place, PNG, len(PNG) + 1)
    upload = await final(place, member, metadata=named("song.mp3"))
    assert (await place.append(member.id, len(PNG), b"0")).is_complete
    with pytest.raises(UploadNotFound):
        await place.lifecycle.status(upload.id)


@on_a_jumping_loop
async def test_a_final_that_is_being_filled_takes_no_bytes_and_is_told_of_without_waiting() -> None:
    place, store = slow_place()
    member = await partial(place, b"0", 2)
    upload = await final(place, member)
    completing = asyncio.create_task(place.append(member.id, 1, b"1"))
    await store.begun.wait()
    with pytest.raises(FinalUpload):
        await place.append(upload.id, 0, b"x")
    assert (await place.lifecycle.status(upload.id)).is_pending
    store.let.set()
    assert (await completing).is_complete
    assert (await place.lifecycle.status(upload.id)).is_complete


@on_a_jumping_loop
async def test_nothing_of_a_final_stays_when_there_is_no_room_for_it() -> None:
    place = Place(capacity=10)
    member = await partial(place, b"0123456")
    with pytest.raises(StorageFull):
        await final(place, member)
    assert await place.count() == 1


@on_a_jumping_loop
async def test_trouble_of_a_pending_final_does_not_touch_its_member_and_it_is_tried_again() -> None:
    place, store = slow_place()
    store.let.set()
    store.failures = [StorageFull(), StorageUnavailable()]
    member = await partial(place, b"0", 2)
    upload = await final(place, member)
    assert (await place.append(member.id, 1, b"1")).is_complete
    with pytest.raises(UploadLocked):
        await place.lifecycle.status(upload.id)
    assert (await place.lifecycle.status(upload.id)).is_complete
    assert await place.content(upload.id) == b"01"


@on_a_jumping_loop
async def test_the_end_of_the_server_ends_a_concatenation_and_nothing_of_it_stays() -> None:
    place, store = slow_place()
    member = await partial(place, b"0")
    asking = asyncio.create_task(final(place, member))
    await store.begun.wait()
    place.lifecycle.stop()
    with pytest.raises(ServerStopping):
        await asking
    assert await place.count() == 1
    with pytest.raises(ServerStopping):
        await final(place, member)
    place.assert_idle()


@on_a_jumping_loop
async def test_a_final_that_a_cancelled_request_left_is_completed_by_the_sweeper() -> None:
    place, store = slow_place()
    member = await partial(place, b"0")
    asking = asyncio.create_task(final(place, member))
    await store.begun.wait()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    store.let.set()
    await sweeper_of(place).sweep()
    [upload] = [upload async for upload in place.store.list(complete=True)]
    assert await place.content(upload.id) == b"0"
    place.assert_idle()


class Noting(Slow):
    """A store that lets a final be noted in a partial only when it is told to, and remembers who looked at what."""

    def __init__(self, *, clock: Clock) -> None:
        super().__init__(clock=clock)
        self.noted: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.go_on = asyncio.Event()
        self.seen: list[str] = []

    async def get(self, id: str) -> Upload:
        self.seen.append(id)
        return await super().get(id)

    async def save(self, upload: Upload) -> None:
        if upload.awaited_by and not self.noted.done():
            self.noted.set_result(upload.awaited_by[-1])
            await self.go_on.wait()
        await super().save(upload)


def noting_place() -> tuple[Place, Noting]:
    clock = Clock()
    store = Noting(clock=clock)
    return Place(store=store, clock=clock), store


@on_a_jumping_loop
async def test_a_new_final_that_somebody_else_is_filling_is_told_as_pending_and_left_to_them() -> None:
    place, store = noting_place()
    member = await partial(place, b"0", 2)
    asking = asyncio.create_task(final(place, member))
    async with place.locks.hold(await store.noted) as hold:
        store.go_on.set()
        async with asyncio.timeout(1):
            assert (await asking).is_pending
        assert not hold.is_wanted


@on_a_jumping_loop
async def test_asking_for_a_partial_does_not_even_look_at_its_finals() -> None:
    place, store = noting_place()
    store.go_on.set()
    member = await partial(place, b"0", 2)
    upload = await final(place, member)
    store.seen.clear()
    assert (await place.lifecycle.status(member.id)).offset == 1
    assert upload.id not in store.seen


@on_a_jumping_loop
async def test_a_final_that_is_asked_for_while_the_server_stops_is_busy_and_not_gone() -> None:
    """Clients begin anew at any other status than 423."""
    place, store = slow_place()
    store.let.set()
    store.failures = [StorageFull()]
    member = await partial(place, b"0", 2)
    upload = await final(place, member)
    await place.append(member.id, 1, b"1")
    place.lifecycle.stop()
    with pytest.raises(UploadLocked):
        await place.lifecycle.status(upload.id)
    place.lifecycle.start()
    assert (await place.lifecycle.status(upload.id)).is_complete


# Removal after use


async def is_there(place: Place, upload: Upload) -> bool:
    try:
        await place.store.get(upload.id)
    except UploadNotFound:
        return False
    return True


@on_a_jumping_loop
async def test_partials_that_another_final_awaits_stay_until_that_one_is_complete_too() -> None:
    place = Place(remove_partials=True)
    shared, own, late = await partial(place, b"0"), await partial(place, b"1"), await partial(place, b"2", 2)
    pending = await final(place, shared, late)
    assert (await final(place, shared, own)).is_complete
    assert (await is_there(place, shared), await is_there(place, own)) == (True, False)
    await place.append(late.id, 1, b"2")
    assert await place.content(pending.id) == b"022"
    assert not await is_there(place, shared)
    assert not await is_there(place, late)
    place.assert_idle()


@on_a_jumping_loop
async def test_finals_over_the_same_partials_in_the_same_moment_are_whole_and_leave_none_of_them() -> None:
    place = Place(remove_partials=True)
    members = [await partial(place, b"0", 2) for _ in range(3)]
    finals = [await final(place, *members) for _ in range(4)]
    await asyncio.gather(*(place.append(member.id, 1, b"1") for member in members))
    assert [await place.content(upload.id) for upload in finals] == [b"01" * 3] * 4
    assert not any([await is_there(place, member) for member in members])
    place.assert_idle()


@on_a_jumping_loop
async def test_a_final_that_is_gone_keeps_no_partial() -> None:
    place = Place(remove_partials=True)
    shared, late = await partial(place, b"0"), await partial(place, b"2", 2)
    await place.lifecycle.terminate((await final(place, shared, late)).id)
    assert (await final(place, shared)).is_complete
    assert not await is_there(place, shared)


@on_a_jumping_loop
async def test_a_partial_that_more_finals_await_than_it_can_name_is_left_to_expire() -> None:
    place = Place(remove_partials=True)
    member, late = await partial(place, b"0"), await partial(place, b"1", 2)
    finals = [await final(place, member, late) for _ in range(MAX_AWAITING + 1)]
    await place.append(late.id, 1, b"1")
    await sweeper_of(place).sweep()
    assert [await place.content(upload.id) for upload in finals] == [b"011"] * (MAX_AWAITING + 1)
    assert await is_there(place, member)


# Expiration


@on_a_jumping_loop
async def test_a_complete_partial_expires() -> None:
    place = Place()
    member = await partial(place, b"0")
    place.clock.advance(minutes=11)
    for attempt in (place.lifecycle.status(member.id), place.append(member.id, 1), final(place, member)):
        with pytest.raises(UploadExpired):
            await attempt
    assert (await sweeper_of(place).sweep()).expired == [member.id]
    assert await place.count() == 0


@on_a_jumping_loop
async def test_a_partial_that_a_crash_left_whole_but_unmarked_is_completed_by_a_sweep_and_not_removed() -> None:
    place = Place()
    member = await partial(place, b"0", 2)
    upload = await final(place, member)
    async with place.store.append(await place.store.get(member.id)) as appender:
        await appender.commit(b"1")
    for _ in range(2):  # the partial first, then the final that waits for it
        assert (await sweeper_of(place).sweep()).expired == []
    assert (await place.store.get(member.id)).is_complete
    assert await place.content(upload.id) == b"01"


@on_a_jumping_loop
async def test_a_pending_final_lives_as_long_as_its_partials_and_no_longer() -> None:
    place = Place()
    member = await partial(place, b"0", 9)
    upload = await final(place, member)
    for offset in range(1, 4):
        place.clock.advance(minutes=9)
        await place.append(member.id, offset, b"0")
        await sweeper_of(place).sweep()
        assert (await place.lifecycle.status(upload.id)).is_pending
    place.clock.advance(minutes=11)
    with pytest.raises(UploadExpired):
        await place.lifecycle.status(upload.id)
    sweeper = sweeper_of(place)
    swept = [*(await sweeper.sweep()).expired, *(await sweeper.sweep()).expired]
    assert set(swept) == {member.id, upload.id}
    with pytest.raises(UploadNotFound):
        await place.lifecycle.status(upload.id)


@on_a_jumping_loop
async def test_looking_at_what_expires_removes_no_final() -> None:
    place = Place()
    member = await partial(place, b"0", 9)
    await final(place, member)
    await place.store.delete(member.id)
    await sweeper_of(place).sweep(dry_run=True)
    assert await place.count() == 1


@on_a_jumping_loop
async def test_a_record_does_not_grow_with_every_final_and_all_of_them_complete() -> None:
    place = Place()
    member = await partial(place, b"0", 2)
    finals = [await final(place, member) for _ in range(MAX_AWAITING + 2)]
    assert len((await place.store.get(member.id)).awaited_by) == MAX_AWAITING
    await place.append(member.id, 1, b"1")
    await sweeper_of(place).sweep()
    assert all([(await place.store.get(upload.id)).is_complete for upload in finals])
