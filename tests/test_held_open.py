"""Uploads that end by their client's word alone: having all bytes of their length does not complete them."""

from __future__ import annotations

import asyncio
import hashlib
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.bodies import Chunks, Sent
from tests.loops import on_a_jumping_loop, on_a_plain_loop, run
from tests.test_expiration import exists, sweeper
from tests.test_lifecycle import ANYTHING, PNG, Clock, Place, turns
from tusd_py.errors import (
    AppendTooLarge,
    AppendTooSmall,
    BadRequest,
    ChecksumMismatch,
    CompletedUpload,
    ConnectionLost,
    ContentRefused,
    DigestMismatch,
    InconsistentLength,
    OffsetMismatch,
    ServerStopping,
    UploadError,
    UploadExpired,
    UploadInterrupted,
    UploadNotFound,
    UploadOverrun,
    UploadTooLarge,
    UploadTooSmall,
    WrongRepresentation,
)
from tusd_py.intake import Body, SlabPool
from tusd_py.lifecycle import Lifecycle, Surroundings
from tusd_py.locks.memory import MemoryLocks
from tusd_py.media import MediaRules
from tusd_py.protocol.digests import Checksum, algorithms
from tusd_py.protocol.messages import Append, Create
from tusd_py.protocol.rules import Limits
from tusd_py.storage.disk import DiskStore, Fsync
from tusd_py.storage.record import Record, read_record, write_record
from tusd_py.upload import Upload


async def held_open(place: Place, length: int | None, body: bytes = b"") -> Upload:
    create = Create(length=length, has_body=bool(body), size=len(body), ends_by_word=True)
    return await place.lifecycle.create(create, Chunks(body))


async def more(place: Place, id: str, offset: int, data: bytes, *, sized: bool = True) -> Upload:
    """Append with the word that more comes."""
    append = Append(offset=offset, size=len(data) if sized else None, holds_open=True)
    return await place.lifecycle.append(id, append, Chunks(data))


async def last(place: Place, id: str, offset: int, data: bytes = b"", body: Body | None = None) -> Upload:
    """Append with the word that this is all: the length is where the body ends."""
    append = Append(offset=offset, size=len(data), is_last=True)
    return await place.lifecycle.append(id, append, body or Chunks(data))


async def last_of_any_size(place: Place, id: str, offset: int, *chunks: bytes, length: int | None = None) -> Upload:
    append = Append(offset=offset, length=length, is_last=True)
    return await place.lifecycle.append(id, append, Chunks(*chunks))


def digest(data: bytes) -> Checksum:
    return Checksum("sha256", hashlib.sha256(data).digest())


def field(data: bytes) -> str:
    return f"sha-256=:{b64encode(digest(data).digest).decode()}:"


# The word


@pytest.mark.parametrize("sized", [True, False])
@on_a_jumping_loop
async def test_all_bytes_are_not_the_end(sized: bool) -> None:
    place = Place()
    upload = await held_open(place, 10)
    whole = await more(place, upload.id, 0, b"0123456789", sized=sized)
    assert (whole.offset, whole.length, whole.is_complete) == (10, 10, False)
    assert not (await place.lifecycle.status(upload.id)).is_complete
    place.assert_idle()


@on_a_jumping_loop
async def test_an_empty_last_append_completes() -> None:
    place = Place()
    upload = await held_open(place, 10, b"0123456789")
    assert (await last(place, upload.id, 10)).is_complete


@on_a_jumping_loop
async def test_an_empty_last_append_settles_a_length_that_nobody_knew() -> None:
    place = Place()
    upload = await held_open(place, None, b"0123456789")
    complete = await last_of_any_size(place, upload.id, 10)
    assert (complete.length, complete.is_complete) == (10, True)


@pytest.mark.parametrize("content", [b"", b"01234"])
@on_a_jumping_loop
async def test_a_creation_with_everything_is_complete(content: bytes) -> None:
    place = Place()
    create = Create(length=len(content), has_body=bool(content), size=len(content), is_last=True, ends_by_word=True)
    upload = await place.lifecycle.create(create, Chunks(content))
    assert upload.is_complete
    assert await place.content(upload.id) == content


@on_a_jumping_loop
async def test_an_empty_creation_of_no_length_is_held_open_too() -> None:
    upload = await held_open(Place(), 0)
    assert not upload.is_complete


@on_a_jumping_loop
async def test_a_client_of_tus_that_takes_over_ends_it_by_its_length() -> None:
    """Nothing else tells the end in tus."""
    place = Place()
    upload = await held_open(place, 10, b"01234")
    assert (await place.append(upload.id, 5, b"56789")).is_complete
    waiting = await held_open(place, 10, b"0123456789")
    assert (await place.append(waiting.id, 10)).is_complete


@on_a_jumping_loop
async def test_a_client_of_the_draft_that_takes_a_tus_upload_over_ends_it_by_its_length() -> None:
    place = Place()
    upload = await place.create(10, b"01234")
    assert (await more(place, upload.id, 5, b"56789")).is_complete


@on_a_jumping_loop
async def test_the_word_counts_as_soon_as_the_end_is_known() -> None:
    """The last byte is stored, and the server is killed before it can mark the upload."""
    place = Place()
    upload = await held_open(place, None, b"01234")
    with pytest.raises(ConnectionLost):
        await last(place, upload.id, 5, b"56789", Chunks(b"567", error=ConnectionLost()))
    left = await place.store.get(upload.id)
    assert (left.length, left.is_ended, left.is_complete) == (10, True, False)
    async with place.store.append(left) as appender:
        await appender.commit(b"89")
    assert (await place.lifecycle.status(upload.id)).is_complete


@on_a_jumping_loop
async def test_the_word_that_more_comes_takes_it_back() -> None:
    place = Place()
    upload = await held_open(place, None, b"01234")
    with pytest.raises(ConnectionLost):
        await last(place, upload.id, 5, b"56789", Chunks(b"567", error=ConnectionLost()))
    whole = await more(place, upload.id, 8, b"89")
    assert (whole.offset, whole.length, whole.is_complete) == (10, 10, False)
    assert (await last(place, upload.id, 10)).is_complete


@on_a_jumping_loop
async def test_the_end_of_a_body_of_unknown_size_is_not_believed_before_it_came() -> None:
    place = Place()
    upload = await held_open(place, 10, b"01234")
    with pytest.raises(ConnectionLost):
        await place.lifecycle.append(
            upload.id, Append(offset=5, is_last=True), Chunks(b"56789", error=ConnectionLost())
        )
    assert not (await place.lifecycle.status(upload.id)).is_complete
    assert (await last(place, upload.id, 10)).is_complete


@given(
    st.none() | st.integers(0, 12),
    st.lists(st.tuples(st.booleans(), st.integers(0, 6), st.booleans(), st.booleans()), max_size=8),
)
def test_whatever_is_sent_only_a_word_that_agrees_with_the_length_ends_it(
    length: int | None, requests: list[tuple[bool, int, bool, bool]]
) -> None:
    """A request: whether it is said to be the last, its size, whether that is told, and whether it is cut short."""

    async def play() -> None:
        place = Place()
        id = (await held_open(place, length)).id
        before = await place.store.get(id)
        content = b""
        for is_last, size, is_sized, is_cut in requests:
            data = bytes([65 + len(content) % 26]) * size
            append = Append(
                offset=before.offset, size=size if is_sized else None, is_last=is_last, holds_open=not is_last
            )
            body = Chunks(data[: size // 2], error=ConnectionLost()) if is_cut and size else Chunks(data)
            with suppress(UploadError, ConnectionLost):
                await place.lifecycle.append(id, append, body)
            after = await place.lifecycle.status(id)
            now = await place.content(id)
            assert now.startswith(content)
            assert data.startswith(now[len(content) :])
            assert before.length in (None, after.length)
            if is_last and not before.is_complete and not (is_cut and size):
                agrees = before.length in (None, before.offset + size)
                assert after.is_complete is agrees
            elif not is_last:
                assert after.is_complete is before.is_complete
            if after.is_complete:
                assert after.length == after.offset
            before, content = after, now

    run(play())


# Lengths that contradict each other


@on_a_jumping_loop
async def test_a_last_body_that_is_too_short_by_its_size_changes_nothing() -> None:
    place = Place()
    upload = await held_open(place, 10, b"01234")
    with pytest.raises(InconsistentLength) as caught:
        await last(place, upload.id, 5, b"567")
    assert caught.value.upload == await place.store.get(upload.id)
    assert (await place.store.get(upload.id)).offset == 5


@on_a_jumping_loop
async def test_a_last_body_that_turns_out_too_short_is_kept_and_ends_nothing() -> None:
    place = Place()
    upload = await held_open(place, 10, b"01234")
    with pytest.raises(InconsistentLength) as caught:
        await last_of_any_size(place, upload.id, 5, b"567")
    assert caught.value.upload is not None
    assert caught.value.upload.offset == 8
    assert not (await place.lifecycle.status(upload.id)).is_complete
    assert (await last(place, upload.id, 8, b"89")).is_complete


@on_a_jumping_loop
async def test_a_length_that_came_with_a_body_that_is_too_short_is_known_from_then_on() -> None:
    place = Place()
    upload = await held_open(place, None, b"01234")
    with pytest.raises(InconsistentLength):
        await last_of_any_size(place, upload.id, 5, b"567", length=10)
    left = await place.store.get(upload.id)
    assert (left.offset, left.length) == (8, 10)


@on_a_jumping_loop
async def test_a_creation_that_turns_out_too_short_leaves_nothing() -> None:
    place = Place()
    create = Create(length=10, has_body=True, is_last=True, ends_by_word=True)
    with pytest.raises(InconsistentLength):
        await place.lifecycle.create(create, Chunks(b"01234"))
    assert await place.count() == 0


@pytest.mark.parametrize("sized", [True, False])
@on_a_jumping_loop
async def test_bytes_beyond_the_length_spoil_an_upload_where_the_dialect_says_so(sized: bool) -> None:
    place = Place()
    upload = await held_open(place, 10, b"01234")
    append = Append(offset=5, size=6 if sized else None, holds_open=True, removes_overrun=True)
    with pytest.raises(UploadOverrun):
        await place.lifecycle.append(upload.id, append, Chunks(b"56789!"))
    with pytest.raises(UploadNotFound):
        await place.lifecycle.status(upload.id)
    place.assert_idle()


@pytest.mark.parametrize("sized", [True, False])
@on_a_jumping_loop
async def test_elsewhere_bytes_beyond_the_length_are_dropped(sized: bool) -> None:
    place = Place()
    upload = await held_open(place, 10, b"01234")
    with pytest.raises(UploadOverrun):
        await more(place, upload.id, 5, b"56789!", sized=sized)
    assert (await place.lifecycle.status(upload.id)).offset == 5


@on_a_jumping_loop
async def test_bytes_beyond_a_finished_upload_do_not_spoil_it() -> None:
    place = Place()
    upload = await place.create(5, b"01234")
    append = Append(offset=5, is_last=True, removes_overrun=True)
    with pytest.raises(UploadOverrun):
        await place.lifecycle.append(upload.id, append, Chunks(b"56789!"))
    assert await place.content(upload.id) == b"01234"


# A request that comes again


@on_a_jumping_loop
async def test_the_request_that_completed_may_come_again() -> None:
    place = Place()
    upload = await held_open(place, 5, b"01234")
    complete = await last(place, upload.id, 5)
    again = await last(place, upload.id, 5)
    assert again == complete


@pytest.mark.parametrize("data", [b"", b"5"])
@on_a_jumping_loop
async def test_where_the_dialect_knows_no_repeats_a_finished_upload_takes_nothing(data: bytes) -> None:
    place = Place()
    upload = await place.create(5, b"01234")
    append = Append(offset=5, size=len(data), holds_open=True, may_repeat=False)
    with pytest.raises(CompletedUpload) as caught:
        await place.lifecycle.append(upload.id, append, Chunks(data))
    assert caught.value.has_bytes is bool(data)
    assert caught.value.upload is not None
    assert caught.value.upload.is_complete


@on_a_jumping_loop
async def test_a_wrong_offset_is_told_as_such_although_the_upload_is_finished() -> None:
    place = Place()
    upload = await place.create(5, b"01234")
    with pytest.raises(OffsetMismatch):
        await place.lifecycle.append(upload.id, Append(offset=2, size=0, may_repeat=False), Chunks())


# Time, restarts, old records


@on_a_jumping_loop
async def test_it_expires_like_any_unfinished_upload() -> None:
    place = Place()
    upload = await held_open(place, 5, b"01234")
    place.clock.advance(minutes=11)
    with pytest.raises(UploadExpired):
        await place.lifecycle.status(upload.id)
    assert (await sweeper(place).sweep(dry_run=True)).expired == [upload.id]
    assert (await sweeper(place).sweep()).expired == [upload.id]
    assert not await exists(place, upload)


@on_a_jumping_loop
async def test_the_sweeper_leaves_it_open_until_then() -> None:
    place = Place()
    upload = await held_open(place, 5, b"01234")
    place.clock.advance(minutes=9)
    assert (await sweeper(place).sweep()).expired == []
    assert not (await place.store.get(upload.id)).is_complete


@on_a_jumping_loop
async def test_the_sweeper_finishes_what_its_client_has_ended() -> None:
    place = Place()
    upload = await held_open(place, 5, b"01234")
    await place.store.save(replace(upload, is_ended=True))
    await sweeper(place).sweep()
    assert (await place.store.get(upload.id)).is_complete


@on_a_plain_loop
async def test_it_is_held_open_through_a_restart(tmp_path: Path) -> None:
    async with on_disk(tmp_path / "uploads") as lifecycle:
        create = Create(length=5, has_body=True, size=5, ends_by_word=True)
        upload = await lifecycle.create(create, Chunks(b"01234"))
    async with on_disk(tmp_path / "uploads") as lifecycle:
        found = await lifecycle.status(upload.id)
        assert (found.offset, found.ends_by_word, found.is_complete) == (5, True, False)
        append = Append(offset=5, size=0, is_last=True)
        assert (await lifecycle.append(upload.id, append, Chunks())).is_complete


@asynccontextmanager
async def on_disk(folder: Path) -> AsyncIterator[Lifecycle]:
    """Give a lifecycle over a store of its own in ``folder``, as a server that starts has it."""
    store = DiskStore(folder)
    await store.open()
    surroundings = Surroundings(
        limits=Limits(), media=ANYTHING, algorithms=algorithms(), pool=SlabPool(1024 * 1024, 256 * 1024)
    )
    yield Lifecycle(store, MemoryLocks(timeout=20.0), surroundings)
    await store.close()


def test_a_record_of_before_is_read(tmp_path: Path) -> None:
    clock = Clock()
    upload = Upload(id="0123456789abcdef", created_at=clock(), written_at=clock(), length=5)
    path = str(tmp_path / "record.json")
    write_record(Record.of(upload), path, temporary=path + ".tmp", durable=False)
    text = Path(path).read_text()
    for name in ("ends_by_word", "is_ended"):
        text = text.replace(f',"{name}":false', "")
    Path(path).write_text(text.replace(',"repr_digest":""', ""))
    assert "ends_by_word" not in Path(path).read_text()
    record = read_record(path, upload.id)
    assert record is not None
    assert record.upload(offset=0, written_at=clock()) == upload


# Trouble in the middle of a whole file


@on_a_jumping_loop
async def test_trouble_in_a_whole_file_is_told_and_never_taken_for_success() -> None:
    place, body = Place(), Sent()
    create = Create(length=10, has_body=True, size=10, is_last=True, ends_by_word=True)
    creating = asyncio.create_task(place.lifecycle.create(create, body))
    await body.send(b"01234")
    place.lifecycle.stop()
    with pytest.raises(ServerStopping) as caught:
        await creating
    assert caught.value.upload is not None
    assert caught.value.upload.offset == 5
    place.lifecycle.start()
    assert (await last(place, caught.value.upload.id, 5, b"56789")).is_complete


@on_a_jumping_loop
async def test_a_whole_file_that_is_cut_is_gone_on_with_under_the_url_that_was_announced() -> None:
    place, told = Place(), list[Upload]()

    async def announce(upload: Upload) -> None:
        told.append(upload)

    create = Create(length=10, has_body=True, size=10, is_last=True, ends_by_word=True)
    with pytest.raises(ConnectionLost):
        await place.lifecycle.create(create, Chunks(b"01234", error=ConnectionLost()), announce=announce)
    [upload] = told
    assert (await place.lifecycle.status(upload.id)).offset == 5
    assert (await last(place, upload.id, 5, b"56789")).is_complete


@on_a_jumping_loop
async def test_who_asks_for_the_offset_in_the_middle_of_a_creation_ends_it() -> None:
    place, body, told = Place(), Sent(), list[Upload]()

    async def announce(upload: Upload) -> None:
        told.append(upload)

    create = Create(length=10, has_body=True, size=10, is_last=True, ends_by_word=True)
    creating = asyncio.create_task(place.lifecycle.create(create, body, announce=announce))
    await body.send(b"01234")
    found = await place.lifecycle.status(told[0].id)
    assert found.offset == 5
    with pytest.raises(UploadInterrupted) as caught:
        await creating
    assert caught.value.upload is not None
    assert caught.value.upload.offset == 5


# What is told on the way


@on_a_jumping_loop
async def test_an_upload_is_announced_before_its_first_byte_is_read() -> None:
    place, body, offsets = Place(), Sent(), list[int]()

    async def announce(upload: Upload) -> None:
        offsets.append((await place.store.get(upload.id)).offset)
        await turns()

    create = Create(length=None, has_body=True, ends_by_word=True)
    body.post(b"01234")
    body.end()
    assert (await place.lifecycle.create(create, body, announce=announce)).offset == 5
    assert offsets == [0]


@on_a_jumping_loop
async def test_a_creation_without_a_body_is_answered_and_not_announced() -> None:
    place, told = Place(), list[Upload]()

    async def announce(upload: Upload) -> None:
        told.append(upload)

    await place.lifecycle.create(Create(length=10, size=0, ends_by_word=True), Chunks(), announce=announce)
    assert told == []


@on_a_jumping_loop
async def test_progress_is_told_of_bytes_that_are_stored() -> None:
    place, offsets = Place(), list[int]()
    data = bytes(500_000)
    upload = await held_open(place, len(data))
    append = Append(offset=0, size=len(data), holds_open=True)
    await place.lifecycle.append(upload.id, append, Chunks(data), follow=offsets.append)
    assert offsets == sorted(set(offsets))
    assert offsets
    assert 0 < offsets[0] <= offsets[-1] <= len(data)


@pytest.mark.parametrize(
    "append",
    [
        pytest.param(Append(offset=0, holds_open=True), id="it may be put back for too many bytes"),
        pytest.param(
            Append(offset=0, size=500_000, checksum=Checksum("sha1", bytes(20))), id="it may be put back for its digest"
        ),
    ],
)
@on_a_plain_loop
async def test_no_progress_is_told_of_bytes_that_may_still_be_dropped(append: Append) -> None:
    place, offsets = Place(), list[int]()
    upload = await held_open(place, None)
    try:
        await place.lifecycle.append(upload.id, append, Chunks(bytes(500_000)), follow=offsets.append)
    except ChecksumMismatch:
        assert append.checksum
    assert offsets == []


@pytest.mark.parametrize(("fsync", "counts"), [("never", True), ("completion", True), ("request", False)])
@on_a_plain_loop
async def test_where_acknowledged_bytes_are_durable_those_on_the_way_are_not_told(
    tmp_path: Path, fsync: Fsync, counts: bool
) -> None:
    store = DiskStore(tmp_path / "uploads", fsync=fsync)
    await store.open()
    clock = Clock()
    upload = await store.create(Upload(id="0123456789abcdef", created_at=clock(), written_at=clock(), length=5))
    async with store.append(upload) as appender:
        assert appender.counts_as_written is counts
    async with store.append(upload, verified=False) as appender:
        assert not appender.counts_as_written
    await store.close()


# Limits


@on_a_jumping_loop
async def test_a_request_may_hold_no_more_than_its_limit() -> None:
    place = Place()
    upload = await held_open(place, 100)
    for size in (6, None):
        with pytest.raises(AppendTooLarge):
            await place.lifecycle.append(
                upload.id, Append(offset=0, size=size, holds_open=True, most=5), Chunks(b"012345")
            )
    five = Append(offset=0, size=5, holds_open=True, most=5)
    assert (await place.lifecycle.append(upload.id, five, Chunks(b"01234"))).offset == 5


@on_a_jumping_loop
async def test_of_two_limits_the_nearer_one_is_named() -> None:
    place = Place(max_size=10)
    upload = await held_open(place, None, b"01234")
    with pytest.raises(UploadTooLarge) as caught:
        await place.lifecycle.append(upload.id, Append(offset=5, most=6, holds_open=True), Chunks(b"0123456"))
    assert not isinstance(caught.value, AppendTooLarge)
    with pytest.raises(AppendTooLarge):
        await place.lifecycle.append(upload.id, Append(offset=5, most=4, holds_open=True), Chunks(b"0123456"))
    assert (await place.store.get(upload.id)).offset == 5


@on_a_jumping_loop
async def test_a_request_may_hold_no_less_than_its_limit() -> None:
    place = Place()
    upload = await held_open(place, 100)
    with pytest.raises(AppendTooSmall):
        await place.lifecycle.append(upload.id, Append(offset=0, size=4, holds_open=True, least=5), Chunks(b"0123"))
    with pytest.raises(AppendTooSmall):
        await place.lifecycle.create(Create(length=None, has_body=True, size=4, least=5), Chunks(b"0123"))
    assert (await place.store.get(upload.id)).offset == 0


@on_a_jumping_loop
async def test_an_upload_may_be_no_smaller_than_the_minimum() -> None:
    place = Place(min_size=5)
    for length, body in ((4, b""), (4, b"0123")):
        with pytest.raises(UploadTooSmall):
            await place.create(length, body)
    assert await place.count() == 0
    deferred = await place.create(None, b"0123")
    with pytest.raises(UploadTooSmall):
        await place.append(deferred.id, 4, length=4)
    with pytest.raises(UploadTooSmall):
        await last_of_any_size(place, deferred.id, 4)
    assert (await last(place, deferred.id, 4, b"4")).is_complete


@on_a_jumping_loop
async def test_a_part_of_an_upload_may_be_as_small_as_it_likes() -> None:
    place = Place(min_size=5)
    create = Create(length=2, has_body=True, size=2, concat="partial", is_partial=True)
    first = await place.lifecycle.create(create, Chunks(b"01"))
    second = await place.lifecycle.create(create, Chunks(b"23"))
    with pytest.raises(UploadTooSmall):
        await place.lifecycle.concatenate(Create(length=None, concat="final;a b"), [first.id, second.id])
    final = Create(length=None, concat="final;a b c")
    assert (await place.lifecycle.concatenate(final, [first.id, second.id, first.id])).is_complete


# Digests


@on_a_plain_loop
async def test_content_that_is_not_what_its_digest_says_is_dropped() -> None:
    place = Place()
    upload = await held_open(place, 10)
    wrong = Append(offset=0, size=5, holds_open=True, content_digests=(digest(b"other"),))
    with pytest.raises(DigestMismatch) as caught:
        await place.lifecycle.append(upload.id, wrong, Chunks(b"01234"))
    assert caught.value.upload is not None
    assert caught.value.upload.offset == 0
    right = replace(wrong, content_digests=(digest(b"01234"),))
    assert (await place.lifecycle.append(upload.id, right, Chunks(b"01234"))).offset == 5


@on_a_plain_loop
async def test_a_creation_with_a_wrong_digest_leaves_nothing() -> None:
    place = Place()
    for body in (b"", b"01234"):
        create = Create(length=5, has_body=bool(body), size=len(body), content_digests=(digest(b"other"),))
        with pytest.raises(DigestMismatch):
            await place.lifecycle.create(create, Chunks(body))
    assert await place.count() == 0


@on_a_plain_loop
async def test_the_whole_is_held_against_the_digest_that_was_told_at_its_creation() -> None:
    place = Place()
    create = Create(length=10, size=0, repr_digest=field(b"0123456789"), ends_by_word=True)
    upload = await place.lifecycle.create(create, Chunks())
    await more(place, upload.id, 0, b"01234")
    assert (await last(place, upload.id, 5, b"56789")).is_complete


@on_a_plain_loop
async def test_a_whole_with_another_digest_is_never_complete() -> None:
    place = Place()
    create = Create(length=10, size=0, repr_digest=field(b"other"), ends_by_word=True)
    upload = await place.lifecycle.create(create, Chunks())
    await more(place, upload.id, 0, b"01234")
    with pytest.raises(WrongRepresentation):
        await last(place, upload.id, 5, b"56789")
    assert await place.count() == 0


@on_a_plain_loop
async def test_a_digest_told_with_the_last_bytes_counts_too() -> None:
    place = Place()
    for told, is_right in ((field(b"0123456789"), True), (field(b"other"), False)):
        upload = await place.create(10, b"01234")
        append = Append(offset=5, size=5, repr_digest=told)
        if is_right:
            assert (await place.lifecycle.append(upload.id, append, Chunks(b"56789"))).repr_digest == told
        else:
            with pytest.raises(WrongRepresentation):
                await place.lifecycle.append(upload.id, append, Chunks(b"56789"))


@on_a_plain_loop
async def test_a_second_digest_that_contradicts_the_first_changes_nothing() -> None:
    place = Place()
    create = Create(length=10, size=0, repr_digest=field(b"0123456789"))
    upload = await place.lifecycle.create(create, Chunks())
    with pytest.raises(BadRequest, match="another one than before"):
        await place.lifecycle.append(upload.id, Append(offset=0, size=5, repr_digest=field(b"other")), Chunks(b"01234"))
    assert (await place.store.get(upload.id)).offset == 0


@on_a_jumping_loop
async def test_an_upload_without_a_name_is_judged_by_its_content() -> None:
    place = Place(media=MediaRules.of(".mp3, .wav"))
    create = Create(length=None, has_body=True, is_last=True, ends_by_word=True)
    with pytest.raises(ContentRefused):
        await place.lifecycle.create(create, Chunks(PNG))
    assert await place.count() == 0
