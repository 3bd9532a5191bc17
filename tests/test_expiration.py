"""The sweeper: what it removes, what it leaves alone, and that it is still there after trouble."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Collection, Sequence
from datetime import datetime, timedelta

import pytest

from tests.bodies import Sent
from tests.loops import on_a_jumping_loop
from tests.test_lifecycle import MP3_ONLY, PNG, Clock, Faltering, Place, named
from tusd_py.errors import StorageUnavailable, UploadExpired, UploadInterrupted, UploadNotFound
from tusd_py.expiration import Sweeper, Swept
from tusd_py.storage.memory import MemoryStore
from tusd_py.upload import Upload

INTERVAL = 60.0


class Watched(Faltering):
    """A store that counts the passes, and remembers which leftovers it was asked for."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(now=clock)
        self.passes = 0
        self.tidied: list[tuple[datetime, bool]] = []

    async def list(self, *, complete: bool = False) -> AsyncIterator[Upload]:
        if not complete:
            self.passes += 1
            self._falter("list")
        async for upload in super().list(complete=complete):
            yield upload

    async def delete(self, id: str) -> None:
        self._falter("delete")
        await super().delete(id)

    async def tidy(self, *, before: datetime, dry_run: bool = False, keep: Collection[str] = ()) -> Sequence[str]:
        self.tidied.append((before, dry_run))
        return ["partial/leftover"]


def sweeper(place: Place, *, completed_expiry: timedelta | None = None) -> Sweeper:
    return Sweeper(
        place.store,
        place.locks,
        place.lifecycle,
        place.limits,
        interval=INTERVAL,
        completed_expiry=completed_expiry,
        now=place.clock,
    )


def watched_place() -> tuple[Place, Watched]:
    clock = Clock()
    store = Watched(clock)
    return Place(store=store, clock=clock), store


async def exists(place: Place, upload: Upload) -> bool:
    try:
        await MemoryStore.get(place.store, upload.id)
    except UploadNotFound:
        return False
    return True


# One pass


@on_a_jumping_loop
async def test_an_upload_that_was_left_unfinished_for_too_long_is_removed() -> None:
    place = Place()
    upload = await place.create(10, b"01234")
    place.clock.advance(minutes=10)
    assert await sweeper(place).sweep() == Swept()
    place.clock.advance(seconds=1)
    assert await sweeper(place).sweep() == Swept(expired=[upload.id])
    assert await place.count() == 0
    assert await sweeper(place).sweep() == Swept()
    place.assert_idle()


@on_a_jumping_loop
async def test_only_what_is_expired_is_removed() -> None:
    place = Place()
    old, complete = await place.create(10), await place.create(5, b"01234")
    place.clock.advance(minutes=8)
    young = await place.create(10)
    place.clock.advance(minutes=8)
    assert (await sweeper(place).sweep()).expired == [old.id]
    assert await exists(place, complete)
    assert await exists(place, young)


@on_a_jumping_loop
async def test_an_upload_that_is_being_written_is_neither_removed_nor_disturbed() -> None:
    place, body = Place(), Sent()
    upload = await place.create(10)
    appending = place.start(upload.id, 0, body)
    await body.send(b"01234")
    place.clock.advance(days=1)
    assert await sweeper(place).sweep() == Swept()
    await body.send(b"56789")
    body.end()
    assert (await appending).is_complete


@on_a_jumping_loop
async def test_an_upload_that_creeps_is_ended_where_its_lifetime_is_bounded() -> None:
    place, body = Place(lifetime=timedelta(hours=1)), Sent()
    upload = await place.create(10)
    appending = place.start(upload.id, 0, body)
    for _ in range(7):
        await body.send(b"0")
        place.clock.advance(minutes=9)
    assert await sweeper(place).sweep() == Swept(expired=[upload.id])
    with pytest.raises(UploadInterrupted):
        await appending
    assert await place.count() == 0
    place.assert_idle()


@on_a_jumping_loop
async def test_an_append_after_the_lifetime_is_refused_however_young_the_last_byte_is() -> None:
    place = Place(lifetime=timedelta(hours=1))
    upload = await place.create(10)
    for offset in range(6):
        place.clock.advance(minutes=9)
        await place.append(upload.id, offset, b"0")
    place.clock.advance(minutes=7)
    for attempt in (place.append(upload.id, 6, b"0"), place.lifecycle.status(upload.id)):
        with pytest.raises(UploadExpired):
            await attempt
    assert (await place.store.get(upload.id)).offset == 6


@on_a_jumping_loop
async def test_a_sweeper_that_runs_ends_what_creeps_with_its_second_look() -> None:
    """A clock that jumps forward for a moment ends nothing."""
    place, body = Place(lifetime=timedelta(hours=1)), Sent()
    upload = await place.create(10)
    appending = place.start(upload.id, 0, body)
    await body.send(b"0")
    place.clock.advance(hours=2)
    running = asyncio.create_task(sweeper(place).run())
    await asyncio.sleep(1)
    place.clock.advance(hours=-2)
    await asyncio.sleep(INTERVAL * 2.5)
    assert await exists(place, upload)
    place.clock.advance(hours=2)
    await asyncio.sleep(INTERVAL)
    await body.send(b"1")
    assert await exists(place, upload)
    await asyncio.sleep(INTERVAL)
    assert not await exists(place, upload)
    with pytest.raises(UploadInterrupted):
        await appending
    running.cancel()


@on_a_jumping_loop
async def test_an_upload_that_is_whole_but_unmarked_is_completed_however_old_it_is() -> None:
    place, store = watched_place()
    store.failures["finish"] = 1
    upload = await place.create(5)
    with pytest.raises(StorageUnavailable):
        await place.append(upload.id, 0, b"01234")
    place.clock.advance(days=1)
    assert (await sweeper(place).sweep()).expired == []
    assert (await store.get(upload.id)).is_complete
    assert await place.content(upload.id) == b"01234"


@on_a_jumping_loop
async def test_a_whole_upload_that_somebody_is_about_to_complete_is_left_to_them() -> None:
    place, store = watched_place()
    store.failures["finish"] = 1
    upload = await place.create(5)
    with pytest.raises(StorageUnavailable):
        await place.append(upload.id, 0, b"01234")
    async with place.locks.hold(upload.id) as hold:
        await sweeper(place).sweep()
        assert not hold.is_wanted
    assert not (await store.get(upload.id)).is_complete


@on_a_jumping_loop
async def test_refused_content_that_is_found_by_a_sweep_is_removed() -> None:
    place = Place(media=MP3_ONLY)
    length = 20
    upload = await place.create(length, PNG[:10], named("a.mp3"))
    async with place.store.append(upload) as appender:  # a crash came before the verdict
        await appender.commit(PNG[10:length])
    await sweeper(place).sweep()
    assert not await exists(place, upload)


@on_a_jumping_loop
async def test_a_dry_run_tells_and_changes_nothing() -> None:
    place, store = watched_place()
    expired, complete = await place.create(10), await place.create(5, b"01234")
    store.failures["finish"] = 1
    whole = await place.create(5)
    with pytest.raises(StorageUnavailable):
        await place.append(whole.id, 0, b"01234")
    place.clock.advance(days=2)
    swept = await sweeper(place, completed_expiry=timedelta(days=1)).sweep(dry_run=True)
    assert swept == Swept(expired=[expired.id], completed=[complete.id], leftovers=["partial/leftover"])
    assert store.tidied[-1][1] is True
    assert await place.count() == 3
    assert not (await store.get(whole.id)).is_complete


@on_a_jumping_loop
async def test_nothing_expires_without_an_expiry() -> None:
    place = Place(expiry=None)
    await place.create(10)
    place.clock.advance(days=10_000)
    assert await sweeper(place).sweep() == Swept()


# Complete uploads


@on_a_jumping_loop
async def test_complete_uploads_stay_for_ever() -> None:
    place = Place()
    upload = await place.create(5, b"01234")
    place.clock.advance(days=10_000)
    assert await sweeper(place).sweep() == Swept()
    assert await exists(place, upload)


@on_a_jumping_loop
async def test_complete_uploads_are_removed_where_that_is_wanted() -> None:
    place = Place()
    old = await place.create(5, b"01234")
    place.clock.advance(hours=1)
    young = await place.create(5, b"01234")
    place.clock.advance(hours=23, seconds=1)
    assert await sweeper(place, completed_expiry=timedelta(days=1)).sweep() == Swept(completed=[old.id])
    assert not await exists(place, old)
    assert await exists(place, young)


# Leftovers


@pytest.mark.parametrize(
    ("expiry", "age"),
    [
        (timedelta(minutes=10), timedelta(hours=1)),
        (timedelta(hours=5), timedelta(hours=5)),
        (None, timedelta(hours=1)),
    ],
)
@on_a_jumping_loop
async def test_leftovers_are_removed_once_nothing_that_is_being_made_can_be_so_old(
    expiry: timedelta | None, age: timedelta
) -> None:
    clock = Clock()
    store = Watched(clock)
    place = Place(store=store, clock=clock, expiry=expiry)
    assert (await sweeper(place).sweep()).leftovers == ["partial/leftover"]
    assert store.tidied == [(place.clock.moment - age, False)]


@on_a_jumping_loop
async def test_a_clock_that_jumps_forward_makes_no_leftover_of_what_is_being_made() -> None:
    (place, store), seconds = watched_place(), 0.0
    sweeping = Sweeper(
        place.store,
        place.locks,
        place.lifecycle,
        place.limits,
        interval=INTERVAL,
        now=place.clock,
        monotonic=lambda: seconds,
    )
    before = place.clock.moment - timedelta(hours=1)
    await sweeping.sweep()
    place.clock.advance(days=40)
    seconds = 60
    await sweeping.sweep()
    seconds = 3661
    await sweeping.sweep()
    assert [told for told, _ in store.tidied] == [
        before,
        before + timedelta(minutes=1),
        before + timedelta(days=40),
    ]


# Trouble


@on_a_jumping_loop
async def test_an_upload_that_cannot_be_removed_does_not_keep_the_others(caplog: pytest.LogCaptureFixture) -> None:
    place, store = watched_place()
    first, second = await place.create(10), await place.create(10)
    place.clock.advance(days=1)
    store.failures["delete"] = 1
    assert (await sweeper(place).sweep()).expired == [second.id]
    assert await exists(place, first)
    assert caplog.messages == [f"upload {first.id} could not be swept: {StorageUnavailable()}"]
    assert (await sweeper(place).sweep()).expired == [first.id]
    place.assert_idle()


# Again and again


@on_a_jumping_loop
async def test_what_looks_expired_is_removed_by_the_pass_after_the_one_that_saw_it_first() -> None:
    place = Place()
    upload = await place.create(10)
    sweeping = asyncio.create_task(sweeper(place).run())
    await asyncio.sleep(0)
    place.clock.advance(days=1)
    await asyncio.sleep(INTERVAL + 1)
    assert await exists(place, upload)
    await asyncio.sleep(INTERVAL)
    assert not await exists(place, upload)
    sweeping.cancel()


@on_a_jumping_loop
async def test_a_client_that_comes_back_within_an_interval_loses_nothing_to_a_clock_that_jumped() -> None:
    place = Place()
    upload = await place.create(10)
    sweeping = asyncio.create_task(sweeper(place).run())
    await asyncio.sleep(0)
    place.clock.advance(days=1)
    await asyncio.sleep(INTERVAL + 1)
    place.clock.advance(days=-1, seconds=61)  # the clock is put right again
    await place.append(upload.id, 0, b"01234")
    place.clock.advance(days=1)
    await asyncio.sleep(INTERVAL)
    assert await exists(place, upload)  # seen for the first time with these bytes
    await asyncio.sleep(INTERVAL)
    assert not await exists(place, upload)
    sweeping.cancel()


@on_a_jumping_loop
async def test_a_clock_that_jumps_back_keeps_an_upload_for_no_longer_than_twice_its_time() -> None:
    place, seconds = Place(), 0.0
    upload, complete = await place.create(10), await place.create(5, b"01234")
    place.clock.advance(days=-40)
    sweeping = Sweeper(
        place.store,
        place.locks,
        place.lifecycle,
        place.limits,
        interval=INTERVAL,
        now=place.clock,
        monotonic=lambda: seconds,
    )
    assert await sweeping.sweep() == Swept()
    seconds = 600
    assert await sweeping.sweep() == Swept()
    seconds = 601
    assert await sweeping.sweep() == Swept(expired=[upload.id])
    assert await exists(place, complete)


@on_a_jumping_loop
async def test_a_finished_upload_outlives_a_clock_that_jumps_forward_for_less_than_an_interval() -> None:
    place = Place()
    upload = await place.create(5, b"01234")
    sweeping = asyncio.create_task(sweeper(place, completed_expiry=timedelta(days=1)).run())
    place.clock.advance(days=40)
    await asyncio.sleep(0)
    assert await exists(place, upload)
    place.clock.advance(days=-40)
    await asyncio.sleep(INTERVAL + 1)
    assert await exists(place, upload)
    place.clock.advance(days=2)
    await asyncio.sleep(2 * INTERVAL)
    assert not await exists(place, upload)
    sweeping.cancel()


@on_a_jumping_loop
async def test_a_running_sweeper_outlives_trouble_of_the_storage(caplog: pytest.LogCaptureFixture) -> None:
    place, store = watched_place()
    upload = await place.create(10)
    place.clock.advance(days=1)
    store.failures["list"] = 2
    sweeping = asyncio.create_task(sweeper(place).run())
    await asyncio.sleep(5 * INTERVAL)
    assert not sweeping.done()
    assert not await exists(place, upload)
    sweeping.cancel()
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2


@on_a_jumping_loop
async def test_of_several_sweepers_one_sweeps_and_another_takes_over_when_it_ends() -> None:
    place, store = watched_place()
    first = asyncio.create_task(sweeper(place).run())
    await asyncio.sleep(1)
    second = asyncio.create_task(sweeper(place).run())
    await asyncio.sleep(2.5 * INTERVAL)
    assert store.passes == 3
    first.cancel()
    await asyncio.sleep(2 * INTERVAL)
    assert store.passes > 3
    second.cancel()


@on_a_jumping_loop
async def test_a_cancelled_sweeper_lets_the_lead_go() -> None:
    place = Place()
    sweeping = asyncio.create_task(sweeper(place).run())
    await asyncio.sleep(1)
    sweeping.cancel()
    await asyncio.gather(sweeping, return_exceptions=True)
    async with place.locks.try_lead() as is_leading:
        assert is_leading
