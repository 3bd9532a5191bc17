"""Every promise of ``tusd_py/storage/base.py``, kept by every store."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.storage.uploads import ID, NOW, abandoned, completed, content, ids, new, stored
from tusd_py.errors import OffsetMismatch, StorageFailed, UploadNotFound
from tusd_py.storage.base import Store
from tusd_py.storage.disk import DiskStore
from tusd_py.storage.memory import MemoryStore
from tusd_py.upload import Upload

UNKNOWN_ID = "an-upload-never-made"
STRANGE_IDS = [
    "",
    "short",
    "../../../etc/passwd",
    "an-upload/with-a-slash",
    ".hidden-name-of-a-file",
    "a" * 65,
    "ä" * 20,
]

STORES: dict[str, Callable[[Path], Store]] = {
    "memory": lambda folder: MemoryStore(),
    "disk-never": lambda folder: DiskStore(folder, fsync="never"),
    "disk-completion": lambda folder: DiskStore(folder, fsync="completion"),
    "disk-request": lambda folder: DiskStore(folder, fsync="request"),
}

Scene = Callable[[Store], Awaitable[None]]
Play = Callable[[Scene], None]


@pytest.fixture(params=STORES)
def play(request: pytest.FixtureRequest, tmp_path: Path) -> Play:
    """Runs a scene with an open store of each kind."""

    async def with_store(scene: Scene) -> None:
        store = STORES[request.param](tmp_path / "uploads")
        await store.open()
        try:
            await scene(store)
        finally:
            await store.close()

    return lambda scene: asyncio.run(with_store(scene))


# ── creation and lookup ──────────────────────────────────────────────────────────────────────────────────────────────


def test_opening_twice_and_closing_twice_is_harmless(play: Play) -> None:
    async def scene(store: Store) -> None:
        await store.open()
        await store.create(new())
        await store.close()
        await store.close()
        await store.open()
        assert (await store.get(ID)).id == ID

    play(scene)


def test_a_created_upload_is_found_as_it_was_created(play: Play) -> None:
    async def scene(store: Store) -> None:
        created = await store.create(new())
        found = await store.get(ID)
        assert found == created
        assert found == replace(new(), written_at=found.written_at)
        assert found.written_at.tzinfo is UTC

    play(scene)


def test_a_new_upload_has_no_bytes_whatever_its_creator_says(play: Play) -> None:
    async def scene(store: Store) -> None:
        created = await store.create(replace(new(), offset=7))
        assert created.offset == (await store.get(ID)).offset == 0

    play(scene)


@pytest.mark.parametrize("length", [None, 0, 1, 5 * 1024**2])
def test_any_length_is_kept_and_so_is_its_absence(play: Play, length: int | None) -> None:
    async def scene(store: Store) -> None:
        await store.create(new(length=length))
        assert (await store.get(ID)).length == length

    play(scene)


@pytest.mark.parametrize("finished", [False, True])
def test_an_id_is_not_given_twice_and_what_has_it_stays(play: Play, finished: bool) -> None:
    async def scene(store: Store) -> None:
        upload = await (completed(store) if finished else store.create(new()))
        with pytest.raises(StorageFailed):
            await store.create(new())
        assert await store.get(ID) == upload

    play(scene)


@pytest.mark.parametrize("id", [UNKNOWN_ID, *STRANGE_IDS])
def test_what_is_not_there_is_not_found(play: Play, id: str) -> None:
    async def scene(store: Store) -> None:
        upload = replace(new(), id=id)
        with pytest.raises(UploadNotFound):
            await store.get(id)
        with pytest.raises(UploadNotFound):
            await store.save(upload)
        with pytest.raises(UploadNotFound):
            await stored(store, upload, b"x")
        with pytest.raises(UploadNotFound):
            await store.finish(replace(upload, completed_at=NOW))
        with pytest.raises(UploadNotFound):
            await content(store, replace(upload, offset=1))
        await store.delete(id)

    play(scene)


@pytest.mark.parametrize("id", STRANGE_IDS)
def test_an_id_against_the_grammar_is_refused_at_creation(play: Play, id: str) -> None:
    async def scene(store: Store) -> None:
        with pytest.raises(UploadNotFound):
            await store.create(new(id))
        assert await ids(store.list()) == set()

    play(scene)


# ── creation of what is whole already ────────────────────────────────────────────────────────────────────────────────


def whole(data: bytes = b"0123456789", id: str = ID) -> Upload:
    return replace(new(id, length=len(data)), completed_at=NOW)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
@pytest.mark.parametrize("data", [b"", b"0123456789", bytes(100_000)])
def test_an_upload_may_be_created_complete(play: Play, data: bytes, kind: type) -> None:
    async def scene(store: Store) -> None:
        created = await store.create_complete(whole(data), kind(data))
        found = await store.get(ID)
        assert created == found == replace(whole(data), offset=len(data), written_at=found.written_at)
        assert await content(store, found) == data
        assert await ids(store.list(complete=True)) == {ID}
        assert await ids(store.list()) == set()

    play(scene)


def test_a_partial_may_be_created_complete_and_stays_out_of_sight(play: Play) -> None:
    async def scene(store: Store) -> None:
        created = await store.create_complete(replace(whole(), is_partial=True), b"0123456789")
        assert created == await store.get(ID)
        assert created.is_complete
        assert await content(store, created) == b"0123456789"
        assert await ids(store.list()) == {ID}

    play(scene)


def test_an_upload_that_was_created_complete_can_be_finished_again_and_deleted(play: Play) -> None:
    async def scene(store: Store) -> None:
        created = await store.create_complete(whole(), b"0123456789")
        assert await store.finish(created) == created
        await store.delete(ID)
        with pytest.raises(UploadNotFound):
            await store.get(ID)
        assert await ids(store.list(complete=True)) == set()

    play(scene)


@pytest.mark.parametrize("finished", [False, True])
def test_an_id_is_not_given_twice_to_what_is_created_complete(play: Play, finished: bool) -> None:
    async def scene(store: Store) -> None:
        upload = await (completed(store) if finished else store.create(new()))
        with pytest.raises(StorageFailed):
            await store.create_complete(whole(b"something else"), b"something else")
        assert await store.get(ID) == upload
        assert await content(store, upload) == (b"0123456789" if finished else b"")

    play(scene)


@pytest.mark.parametrize("id", STRANGE_IDS)
def test_an_id_against_the_grammar_is_refused_where_all_is_there(play: Play, id: str) -> None:
    async def scene(store: Store) -> None:
        with pytest.raises(UploadNotFound):
            await store.create_complete(whole(id=id), b"0123456789")

    play(scene)


def test_saving_replaces_the_record_and_leaves_the_bytes(play: Play) -> None:
    async def scene(store: Store) -> None:
        upload = await stored(store, await store.create(new(length=None)), b"abc")
        await store.save(replace(upload, length=3, extension=".webm", offset=1))
        found = await store.get(ID)
        assert (found.length, found.extension, found.offset) == (3, ".webm", 3)
        assert await content(store, found) == b"abc"

    play(scene)


def test_what_is_known_of_the_end_is_recorded(play: Play) -> None:
    async def scene(store: Store) -> None:
        upload = await store.create(replace(new(length=3), ends_by_word=True, repr_digest="sha-256=:AAAA:"))
        assert (await store.get(ID)).ends_by_word
        await store.save(replace(upload, is_ended=True))
        ended = await stored(store, await store.get(ID), b"abc")
        finished = await store.finish(replace(ended, completed_at=NOW))
        for found in (ended, finished, await store.get(ID)):
            assert (found.ends_by_word, found.is_ended, found.repr_digest) == (True, True, "sha-256=:AAAA:")

    play(scene)


def test_saving_does_not_bring_a_deleted_upload_back(play: Play) -> None:
    async def scene(store: Store) -> None:
        upload = await store.create(new())
        await store.delete(ID)
        with pytest.raises(UploadNotFound):
            await store.save(upload)
        assert await ids(store.list()) == set()

    play(scene)


# ── appends whose bytes count as they are written ───────────────────────────────────────────────────────────────────


def test_appends_follow_each_other_byte_for_byte(play: Play) -> None:
    async def scene(store: Store) -> None:
        upload = await store.create(new())
        for data in (b"012", b"", b"3456", b"789"):
            upload = await stored(store, upload, data)
        assert upload.offset == 10
        assert upload.is_whole
        assert not upload.is_complete
        assert await content(store, upload) == b"0123456789"

    play(scene)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_every_kind_of_buffer_is_taken_and_given_back(play: Play, kind: type) -> None:
    async def scene(store: Store) -> None:
        slab = bytearray(b"0123456789")
        upload = await store.create(new())
        async with store.append(upload) as appender:
            await appender.write(kind(slab[:4]))
            slab[:] = b"----"  # resized: nobody holds on to it
            await appender.commit(kind(b"456789"))
        assert await content(store, await store.get(ID)) == b"0123456789"

    play(scene)


def test_the_offset_of_an_appender_moves_with_every_write(play: Play) -> None:
    async def scene(store: Store) -> None:
        upload = await stored(store, await store.create(new()), b"01")
        async with store.append(upload) as appender:
            assert appender.offset == 2
            await appender.write(b"234")
            assert appender.offset == 5
            assert await appender.commit(b"56") == 7
        assert (await store.get(ID)).offset == 7

    play(scene)


def test_written_bytes_count_before_they_are_committed(play: Play) -> None:
    async def scene(store: Store) -> None:
        async with store.append(await store.create(new())) as appender:
            await appender.write(b"0123")
            assert (await store.get(ID)).offset == 4
            await appender.commit()

    play(scene)


@pytest.mark.parametrize("error", [RuntimeError("the client is gone"), asyncio.CancelledError()])
def test_bytes_stay_when_an_append_is_left_without_commit(play: Play, error: BaseException) -> None:
    async def scene(store: Store) -> None:
        upload = await store.create(new())
        with pytest.raises(type(error)):
            await abandoned(store, upload, b"0123", error)
        upload = await store.get(ID)
        assert upload.offset == 4
        assert await content(store, await stored(store, upload, b"456789")) == b"0123456789"

    play(scene)


def test_an_append_without_bytes_changes_nothing(play: Play) -> None:
    async def scene(store: Store) -> None:
        upload = await stored(store, await store.create(new()), b"012")
        async with store.append(upload):
            pass
        async with store.append(upload) as appender:
            assert await appender.commit() == 3
        assert (await store.get(ID)).offset == 3

    play(scene)


def test_whatever_lies_beyond_the_offset_is_cut_off_first(play: Play) -> None:
    async def scene(store: Store) -> None:
        upload = await stored(store, await store.create(new()), b"01234567")
        upload = await stored(store, replace(upload, offset=2), b"ab")
        assert upload.offset == 4
        assert await content(store, upload) == b"01ab"

    play(scene)


def test_an_append_beyond_the_end_is_refused_and_leaves_no_hole(play: Play) -> None:
    async def scene(store: Store) -> None:
        upload = await stored(store, await store.create(new()), b"012")
        with pytest.raises(OffsetMismatch) as caught:
            await stored(store, replace(upload, offset=5), b"56789")
        assert (caught.value.expected, caught.value.provided) == (3, 5)
        assert await store.get(ID) == upload

    play(scene)


@pytest.mark.parametrize("verified", [True, False])
def test_what_an_append_has_written_can_be_read_back(play: Play, verified: bool) -> None:
    """For checksums that come behind what they are of."""

    async def scene(store: Store) -> None:
        upload = await stored(store, await store.create(new(length=None)), b"before")
        async with store.append(upload, verified=verified) as appender:
            assert [chunk async for chunk in appender.written()] == []
            await appender.write(b"hello ")
            await appender.write(bytes(3_000_000))
            assert b"".join([chunk async for chunk in appender.written()]) == b"hello " + bytes(3_000_000)
            assert await appender.commit(b"!") == 6 + 6 + 3_000_000 + 1

    play(scene)


def test_a_discarded_append_never_was(play: Play) -> None:
    async def scene(store: Store) -> None:
        upload = await stored(store, await store.create(new()), b"012")
        async with store.append(upload) as appender:
            await appender.write(b"xyz")
            await appender.discard()
            await appender.discard()
            assert appender.offset == 3
        assert await store.get(ID) == upload
        assert await content(store, await stored(store, upload, b"3456789")) == b"0123456789"

    play(scene)


def test_an_append_may_begin_again_after_it_was_discarded(play: Play) -> None:
    async def scene(store: Store) -> None:
        upload = await store.create(new())
        async with store.append(upload) as appender:
            await appender.write(b"xyz")
            await appender.discard()
            await appender.write(b"01")
            assert await appender.commit(b"2") == 3
        assert await content(store, await store.get(ID)) == b"012"

    play(scene)


def test_a_cancelled_append_writes_nothing_after_it_was_left(play: Play) -> None:
    async def scene(store: Store) -> None:
        upload = await store.create(new(length=None))
        begun = asyncio.Event()

        async def append() -> None:
            async with store.append(upload) as appender:
                while True:
                    begun.set()
                    await appender.write(b"x" * 100_000)
                    await asyncio.sleep(0)

        task = asyncio.create_task(append())
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        left = (await store.get(ID)).offset
        assert left % 100_000 == 0
        upload = await stored(store, await store.get(ID), b"end")
        assert await content(store, upload, left) == b"end"

    play(scene)


# ── appends that are to be verified ──────────────────────────────────────────────────────────────────────────────────


def test_unverified_bytes_count_from_their_commit_on(play: Play) -> None:
    async def scene(store: Store) -> None:
        upload = await stored(store, await store.create(new()), b"01")
        async with store.append(upload, verified=False) as appender:
            await appender.write(b"234")
            assert appender.offset == 5
            assert (await store.get(ID)).offset == 2
            assert await appender.commit(b"5") == 6
        upload = await store.get(ID)
        assert upload.offset == 6
        assert await content(store, upload) == b"012345"

    play(scene)


@pytest.mark.parametrize("error", [RuntimeError("the digest is another one"), asyncio.CancelledError()])
def test_unverified_bytes_are_dropped_when_an_append_is_left_without_commit(play: Play, error: BaseException) -> None:
    async def scene(store: Store) -> None:
        upload = await stored(store, await store.create(new()), b"01")
        with pytest.raises(type(error)):
            await abandoned(store, upload, b"xyz", error, verified=False)
        upload = await store.get(ID)
        assert upload.offset == 2
        assert await content(store, await stored(store, upload, b"23456789")) == b"0123456789"

    play(scene)


def test_discarding_unverified_bytes_leaves_what_was_there_before(play: Play) -> None:
    async def scene(store: Store) -> None:
        upload = await stored(store, await store.create(new()), b"01")
        async with store.append(upload, verified=False) as appender:
            await appender.discard()
            await appender.write(b"xyz")
            await appender.discard()
        assert (await store.get(ID)).offset == 2
        assert (await stored(store, upload, b"23", verified=False)).offset == 4

    play(scene)


# ── completion ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_finished_upload_is_complete_and_has_its_bytes(play: Play) -> None:
    async def scene(store: Store) -> None:
        upload = await completed(store)
        assert upload.completed_at == NOW
        assert upload.is_complete
        assert upload.is_whole
        assert await store.get(ID) == upload
        assert await content(store, upload) == b"0123456789"

    play(scene)


def test_an_upload_may_be_finished_with_another_extension(play: Play) -> None:
    async def scene(store: Store) -> None:
        upload = await store.create(new(length=0, extension=""))
        upload = await store.finish(replace(upload, completed_at=NOW, extension=".webm"))
        assert (await store.get(ID)).extension == ".webm"
        assert await content(store, upload) == b""

    play(scene)


def test_finishing_twice_is_harmless_and_the_first_time_counts(play: Play) -> None:
    async def scene(store: Store) -> None:
        upload = await completed(store)
        assert await store.finish(replace(upload, completed_at=NOW + timedelta(hours=1))) == upload

    play(scene)


def test_finishing_with_a_stale_offset_is_refused(play: Play) -> None:
    async def scene(store: Store) -> None:
        upload = await stored(store, await store.create(new(length=None)), b"012")
        with pytest.raises(OffsetMismatch):
            await store.finish(replace(upload, offset=2, completed_at=NOW))
        assert await store.get(ID) == upload

    play(scene)


def test_nothing_is_written_to_a_complete_upload(play: Play) -> None:
    async def scene(store: Store) -> None:
        upload = await completed(store)
        with pytest.raises(UploadNotFound):
            await stored(store, upload, b"more")
        with pytest.raises(UploadNotFound):
            await store.save(replace(upload, length=99))
        assert await store.get(ID) == upload

    play(scene)


# ── reading, listing, removing ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("start", "stop", "expected"),
    [(0, None, b"0123456789"), (3, None, b"3456789"), (0, 4, b"0123"), (3, 4, b"3"), (4, 4, b""), (10, None, b"")],
)
@pytest.mark.parametrize("finished", [False, True])
def test_any_range_of_an_upload_is_read(
    play: Play, start: int, stop: int | None, expected: bytes, finished: bool
) -> None:
    async def scene(store: Store) -> None:
        upload = await completed(store) if finished else await stored(store, await store.create(new()), b"0123456789")
        assert await content(store, upload, start, stop) == expected

    play(scene)


def test_large_data_is_read_in_chunks_that_are_never_empty(play: Play) -> None:
    async def scene(store: Store) -> None:
        data = bytes(range(256)) * 4096
        upload = await completed(store, data)
        chunks = [chunk async for chunk in store.read(upload, 1)]
        assert b"".join(chunks) == data[1:]
        assert all(0 < len(chunk) <= 256 * 1024 for chunk in chunks)

    play(scene)


def test_a_read_that_finds_less_than_it_was_asked_for_fails_aloud(play: Play) -> None:
    async def scene(store: Store) -> None:
        upload = await completed(store)
        with pytest.raises(StorageFailed):
            await content(store, upload, 0, 11)

    play(scene)


def test_listing_tells_unfinished_uploads_from_complete_ones(play: Play) -> None:
    async def scene(store: Store) -> None:
        unfinished = {f"an-unfinished-upload-{number}" for number in range(300)}
        for id in unfinished:
            await store.create(new(id))
        await completed(store)
        assert await ids(store.list()) == unfinished
        assert await ids(store.list(complete=True)) == {ID}

    play(scene)


def test_uploads_may_go_while_they_are_listed(play: Play) -> None:
    async def scene(store: Store) -> None:
        for number in range(5):
            await store.create(new(f"an-unfinished-upload-{number}"))
        async for upload in store.list():
            await store.delete(upload.id)
        assert await ids(store.list()) == set()

    play(scene)


@pytest.mark.parametrize("finished", [False, True])
def test_a_deleted_upload_is_gone_with_its_bytes_and_deleting_it_again_is_harmless(play: Play, finished: bool) -> None:
    async def scene(store: Store) -> None:
        upload = await completed(store) if finished else await stored(store, await store.create(new()), b"0123")
        await store.delete(ID)
        await store.delete(ID)
        with pytest.raises(UploadNotFound):
            await store.get(ID)
        with pytest.raises(UploadNotFound):
            await content(store, upload)
        assert await ids(store.list(complete=finished)) == set()

    play(scene)


def test_the_id_of_a_deleted_upload_is_free_again(play: Play) -> None:
    async def scene(store: Store) -> None:
        await completed(store)
        await store.delete(ID)
        assert (await store.create(new())).offset == 0

    play(scene)


def test_tidying_leaves_everything_that_is_an_upload(play: Play) -> None:
    async def scene(store: Store) -> None:
        unfinished = await stored(store, await store.create(new()), b"0123")
        finished = await completed(store, id="another-upload-0001")
        assert await store.tidy(before=datetime.now(UTC) + timedelta(days=1)) == []
        assert await store.get(unfinished.id) == unfinished
        assert await store.get(finished.id) == finished

    play(scene)


def test_many_uploads_are_written_at_once_without_mixing(play: Play) -> None:
    async def scene(store: Store) -> None:
        async def send(number: int) -> None:
            upload = await store.create(new(f"one-of-many-uploads-{number:02}", length=None))
            async with store.append(upload, verified=number % 2 == 0) as appender:
                for _ in range(8):
                    await appender.write(bytes([number]) * 1000)
                await appender.commit()

        await asyncio.gather(*map(send, range(32)))
        for number in range(32):
            upload = await store.get(f"one-of-many-uploads-{number:02}")
            assert await content(store, upload) == bytes([number]) * 8000

    play(scene)


# ── concatenation ────────────────────────────────────────────────────────────────────────────────────────────────────


async def partial(store: Store, id: str, data: bytes) -> Upload:
    """Keep a complete partial."""
    upload = await store.create(replace(new(id, length=len(data), extension=""), concat="partial", is_partial=True))
    upload = await stored(store, upload, data)
    return await store.finish(replace(upload, completed_at=NOW))


async def pending(store: Store, *partials: Upload) -> Upload:
    """Keep a final that has no bytes yet."""
    length = sum(partial.offset for partial in partials)
    members = tuple(partial.id for partial in partials)
    return await store.create(replace(new(length=length), concat="final;/a  /b", members=members))


def test_what_is_known_of_a_concatenation_is_kept(play: Play) -> None:
    async def scene(store: Store) -> None:
        final = await pending(store, await partial(store, "the-first-partial", b"one"))
        assert (final.concat, final.members) == ("final;/a  /b", ("the-first-partial",))
        assert await store.get(ID) == final
        awaited = replace(new("the-second-partial"), is_partial=True, awaited_by=(ID,))
        assert await store.get((await store.create(awaited)).id) == replace(
            awaited, written_at=(await store.get("the-second-partial")).written_at
        )

    play(scene)


def test_a_complete_partial_stays_among_the_unfinished_uploads(play: Play) -> None:
    async def scene(store: Store) -> None:
        complete = await partial(store, ID, b"0123456789")
        assert complete == await store.get(ID)
        assert complete.completed_at == NOW
        assert complete.offset == 10
        assert await ids(store.list()) == {ID}
        assert await ids(store.list(complete=True)) == set()
        assert await content(store, complete, 3, 7) == b"3456"
        assert await store.tidy(before=datetime.now(UTC) + timedelta(days=1)) == []

    play(scene)


def test_a_final_notes_itself_in_a_partial_that_is_complete(play: Play) -> None:
    async def scene(store: Store) -> None:
        complete = await partial(store, ID, b"0123456789")
        noted = replace(complete, awaited_by=("the-final-that-waits",))
        await store.save(noted)
        assert await store.get(ID) == noted
        assert await content(store, noted) == b"0123456789"

    play(scene)


def test_finishing_a_partial_twice_is_harmless(play: Play) -> None:
    async def scene(store: Store) -> None:
        complete = await partial(store, ID, b"0123456789")
        assert await store.finish(complete) == complete

    play(scene)


def test_a_final_gets_the_bytes_of_its_partials_in_their_order(play: Play) -> None:
    async def scene(store: Store) -> None:
        first, second = (
            await partial(store, "the-first-partial", b"one"),
            await partial(store, "the-other-partial", b"two!"),
        )
        empty = await partial(store, "an-empty-partial", b"")
        members = [second, first, empty, second]
        final = await store.concatenate(await pending(store, *members), members)
        assert final == await store.get(ID)
        assert final.offset == 11
        assert not final.is_complete
        assert await content(store, final) == b"two!onetwo!"
        final = await store.finish(replace(final, completed_at=NOW))
        assert await content(store, final) == b"two!onetwo!"
        assert await content(store, first) == b"one"

    play(scene)


def test_a_final_without_a_partial_that_was_there_has_no_bytes(play: Play) -> None:
    async def scene(store: Store) -> None:
        first, gone = (
            await partial(store, "the-first-partial", b"one"),
            await partial(store, "a-partial-that-goes", b"two"),
        )
        final = await pending(store, first, gone)
        await store.delete(gone.id)
        with pytest.raises(UploadNotFound):
            await store.concatenate(final, [first, gone])
        assert await store.get(ID) == final
        assert (await store.concatenate(final, [first])).offset == 3

    play(scene)


def test_nobody_is_given_bytes_who_is_not_there(play: Play) -> None:
    async def scene(store: Store) -> None:
        first = await partial(store, "the-first-partial", b"one")
        with pytest.raises(UploadNotFound):
            await store.concatenate(new(), [first])

    play(scene)
