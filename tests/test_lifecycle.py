"""Uploads from creation to completion or expiration, in memory, with every way in which a request may end."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import logging
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.bodies import Chunks, Sent, cut
from tests.loops import on_a_jumping_loop, on_a_plain_loop
from tusd_py.errors import (
    BadRequest,
    BodyTimedOut,
    ChecksumMismatch,
    ConnectionLost,
    ContentRefused,
    ExtensionRefused,
    OffsetMismatch,
    ServerStopping,
    StorageFull,
    StorageUnavailable,
    UploadError,
    UploadExpired,
    UploadInterrupted,
    UploadLocked,
    UploadNotFound,
    UploadOverrun,
    UploadTooLarge,
)
from tusd_py.intake import Body, Intake, SlabPool
from tusd_py.lifecycle import Lifecycle, Surroundings, random_id
from tusd_py.locks.memory import MemoryLocks
from tusd_py.media import MediaRules
from tusd_py.protocol.digests import Checksum, algorithms
from tusd_py.protocol.fields import build_metadata, parse_metadata
from tusd_py.protocol.messages import Append, Create
from tusd_py.protocol.rules import Limits, expires_at, is_expired
from tusd_py.storage.base import Appender
from tusd_py.storage.memory import MemoryStore
from tusd_py.upload import Metadata, Upload, is_id

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
UNKNOWN = "0123456789abcdef"
ANYTHING = MediaRules.of("*", "off")
PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(600)
WAV = b"RIFF\x24\x08\0\0WAVEfmt \x10\0\0\0\1\0\1\0" + bytes(600)


class Clock:
    """A clock that moves when a test says so."""

    def __init__(self) -> None:
        self.moment = NOW

    def __call__(self) -> datetime:
        return self.moment

    def advance(self, **span: float) -> None:
        self.moment += timedelta(**span)


class Faltering(MemoryStore):
    """A store of which some operations fail, as often as ``failures`` says."""

    def __init__(self, *, now: Callable[[], datetime]) -> None:
        super().__init__(now=now)
        self.failures: dict[str, int] = {}
        self.finished = 0

    async def get(self, id: str) -> Upload:
        self._falter("get")
        return await super().get(id)

    @asynccontextmanager
    async def append(self, upload: Upload, *, verified: bool = True) -> AsyncIterator[Appender]:
        self._falter("append")
        async with super().append(upload, verified=verified) as appender:
            yield appender

    async def finish(self, upload: Upload) -> Upload:
        self.finished += 1
        self._falter("finish")
        return await super().finish(upload)

    def _falter(self, operation: str) -> None:
        if self.failures.get(operation):
            self.failures[operation] -= 1
            raise StorageUnavailable


class Place:
    """A lifecycle and all that it works with, on one clock."""

    def __init__(
        self,
        *,
        store: MemoryStore | None = None,
        capacity: int | None = None,
        media: MediaRules = ANYTHING,
        max_size: int | None = 1_000_000,
        min_size: int = 0,
        idle_timeout: float | None = None,
        patience: float = 20.0,
        expiry: timedelta | None = timedelta(minutes=10),
        clock: Clock | None = None,
        remove_partials: bool = False,
        lifetime: timedelta | None = None,
    ) -> None:
        self.clock = clock or Clock()
        self.store = store or MemoryStore(capacity=capacity, now=self.clock)
        self.locks = MemoryLocks(timeout=patience)
        self.limits = Limits(max_size=max_size, min_size=min_size, partial_expiry=expiry, partial_lifetime=lifetime)
        self.pool = SlabPool(1024 * 1024, 256 * 1024)
        self.lifecycle = Lifecycle(
            self.store,
            self.locks,
            Surroundings(
                limits=self.limits,
                media=media,
                algorithms=algorithms(),
                pool=self.pool,
                body_idle_timeout=idle_timeout,
                remove_partials=remove_partials,
                now=self.clock,
            ),
        )

    async def create(self, length: int | None, body: bytes = b"", metadata: Metadata | None = None) -> Upload:
        create = Create(
            length=length, has_body=bool(body), size=len(body), metadata=metadata or parse_metadata("filename YQ==")
        )
        return await self.lifecycle.create(create, Chunks(body))

    async def append(self, id: str, offset: int, data: bytes = b"", length: int | None = None) -> Upload:
        append = Append(offset=offset, size=len(data), length=length)
        return await self.lifecycle.append(id, append, Chunks(data))

    def start(self, id: str, offset: int, body: Body) -> asyncio.Task[Upload]:
        return asyncio.create_task(self.lifecycle.append(id, Append(offset=offset), body))

    async def content(self, id: str) -> bytes:
        upload = await self.store.get(id)
        return b"".join([chunk async for chunk in self.store.read(upload)])

    async def count(self) -> int:
        """Return how many uploads there are."""
        return len([u async for u in self.store.list()]) + len([u async for u in self.store.list(complete=True)])

    def assert_idle(self) -> None:
        """Nothing is held by anybody any more."""
        assert self.locks.in_use == 0
        assert self.pool.taken == 0


def sha1(data: bytes) -> Checksum:
    return Checksum("sha1", hashlib.sha1(data).digest())


def named(filename: str) -> Metadata:
    return parse_metadata(build_metadata([("filename", filename.encode())]))


async def turns(count: int = 20) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


# Creation


@on_a_jumping_loop
async def test_a_creation_makes_an_upload_without_bytes() -> None:
    place = Place()
    upload = await place.create(10, metadata=named("song.mp3"))
    assert is_id(upload.id)
    assert upload == await place.store.get(upload.id)
    assert (upload.offset, upload.length, upload.extension) == (0, 10, ".mp3")
    assert upload.metadata == named("song.mp3")
    assert upload.created_at == upload.written_at == NOW
    assert not upload.is_complete
    place.assert_idle()


@on_a_jumping_loop
async def test_each_creation_makes_an_upload_of_its_own() -> None:
    place = Place()
    assert (await place.create(10)).id != (await place.create(10)).id
    assert await place.count() == 2


def test_ids_are_random_and_obey_their_grammar() -> None:
    ids = {random_id() for _ in range(100)}
    assert len(ids) == 100
    assert all(map(is_id, ids))


@on_a_jumping_loop
async def test_an_upload_without_bytes_is_complete_at_once() -> None:
    place = Place()
    upload = await place.create(0)
    assert upload.completed_at == NOW
    assert (await place.store.get(upload.id)).is_complete
    place.assert_idle()


@on_a_jumping_loop
async def test_an_upload_of_deferred_length_is_not_complete() -> None:
    upload = await Place().create(None)
    assert upload.length is None
    assert not upload.is_complete


@pytest.mark.parametrize("content", [b"", b"0123456789"])
@on_a_jumping_loop
async def test_the_last_body_settles_a_length_that_is_not_known_before(content: bytes) -> None:
    place = Place()
    created = await place.lifecycle.create(Create(length=None, has_body=True, is_last=True), Chunks(content))
    begun = await place.create(None, b"01")
    ended = await place.lifecycle.append(begun.id, Append(offset=2, is_last=True), Chunks(content))
    assert (created.length, ended.length) == (len(content), 2 + len(content))
    assert created.is_complete
    assert ended.is_complete
    assert await place.content(ended.id) == b"01" + content


@on_a_jumping_loop
async def test_a_last_body_that_breaks_off_settles_nothing() -> None:
    place = Place()
    begun = await place.create(None, b"01")
    with pytest.raises(ConnectionLost):
        await place.lifecycle.append(begun.id, Append(offset=2, is_last=True), Chunks(b"234", error=ConnectionLost()))
    left = await place.store.get(begun.id)
    assert (left.offset, left.length, left.is_complete) == (5, None, False)


@pytest.mark.parametrize("length", [10, None])
@pytest.mark.parametrize("is_sized", [True, False])
@on_a_jumping_loop
async def test_a_creation_may_bring_first_bytes(length: int | None, is_sized: bool) -> None:
    place = Place()
    create = Create(length=length, has_body=True, size=5 if is_sized else None)
    upload = await place.lifecycle.create(create, Chunks(b"01", b"234"))
    assert upload.offset == 5
    assert not upload.is_complete
    assert await place.content(upload.id) == b"01234"
    place.assert_idle()


@on_a_jumping_loop
async def test_a_creation_may_bring_all_bytes() -> None:
    place = Place()
    upload = await place.create(10, b"0123456789")
    assert upload.is_complete
    assert upload == await place.store.get(upload.id)
    assert await place.content(upload.id) == b"0123456789"


MP3_ONLY = MediaRules.of(".mp3")
REFUSED_CREATIONS: dict[str, tuple[Create, Body, type[UploadError]]] = {
    "length above the maximum": (Create(length=1001), Chunks(), UploadTooLarge),
    "sized body above the length": (Create(length=5, has_body=True, size=6), Chunks(b"123456"), UploadOverrun),
    "chunked body above the length": (Create(length=5, has_body=True), Chunks(b"12345", b"6"), UploadOverrun),
    "chunked body for no bytes": (Create(length=0, has_body=True), Chunks(b"1"), UploadOverrun),
    "sized body above the maximum": (Create(length=None, has_body=True, size=1001), Chunks(), UploadTooLarge),
    "chunked body above the maximum": (Create(length=None, has_body=True), Chunks(bytes(1001)), UploadTooLarge),
    "name": (Create(length=5, metadata=named("virus.exe")), Chunks(), ExtensionRefused),
    "content": (Create(length=1000, has_body=True, metadata=named("a.mp3")), Chunks(PNG), ContentRefused),
    "content at the end": (
        Create(length=len(PNG), has_body=True, metadata=named("a.mp3")),
        Chunks(PNG),
        ContentRefused,
    ),
    "unknown checksum": (Create(length=5, checksum=Checksum("sha0", b"x")), Chunks(), BadRequest),
    "wrong checksum": (Create(length=5, has_body=True, checksum=sha1(b"x")), Chunks(b"12345"), ChecksumMismatch),
    "broken framing": (
        Create(length=9, has_body=True),
        Chunks(b"12", error=BadRequest("ERR_INVALID_CONTENT_LENGTH", "too long; do not")),
        BadRequest,
    ),
    "no space for the length": (Create(length=900), Chunks(), StorageFull),
    "an empty body with another checksum": (
        Create(length=900, checksum=Checksum("sha1", bytes(20))),
        Chunks(),
        ChecksumMismatch,
    ),
}


@pytest.mark.parametrize(("create", "body", "error"), REFUSED_CREATIONS.values(), ids=REFUSED_CREATIONS)
@on_a_plain_loop
async def test_a_refused_creation_leaves_nothing(create: Create, body: Body, error: type[UploadError]) -> None:
    capacity = 800 if error is StorageFull else None
    place = Place(media=MP3_ONLY, max_size=1000, capacity=capacity)
    with pytest.raises(error):
        await place.lifecycle.create(create, body)
    assert await place.count() == 0
    place.assert_idle()


@on_a_jumping_loop
async def test_bodies_are_taken_again_after_a_new_start() -> None:
    place = Place()
    place.lifecycle.stop()
    with pytest.raises(ServerStopping):
        await place.create(5)
    place.lifecycle.start()
    assert (await place.create(5)).length == 5


@on_a_jumping_loop
async def test_a_creation_that_fills_the_disk_tells_how_far_it_came() -> None:
    place = Place(capacity=800)
    upload = await place.lifecycle.create(Create(length=None, has_body=True), Chunks(bytes(900)))
    assert upload.offset == 800
    assert upload == await place.store.get(upload.id)
    place.assert_idle()


@on_a_jumping_loop
async def test_a_creation_whose_end_fails_leaves_nothing() -> None:
    """The client never learnt where its upload is."""

    store = Faltering(now=Clock())
    store.failures["finish"] = 1
    place = Place(store=store)
    with pytest.raises(StorageUnavailable):
        await place.create(5, b"01234")
    assert await place.count() == 0


@on_a_jumping_loop
async def test_a_connection_that_is_lost_in_a_creation_leaves_the_bytes_to_their_expiration() -> None:
    place = Place()
    with pytest.raises(ConnectionLost):
        await place.lifecycle.create(Create(length=10, has_body=True), Chunks(b"01234", error=ConnectionLost()))
    [upload] = [upload async for upload in place.store.list()]
    assert upload.offset == 5
    place.assert_idle()


@on_a_jumping_loop
async def test_a_creation_that_the_stop_of_the_server_ends_tells_how_far_it_came() -> None:
    place, body = Place(), Sent()
    creating = asyncio.create_task(place.lifecycle.create(Create(length=10, has_body=True), body))
    await body.send(b"01234")
    place.lifecycle.stop()
    upload = await creating
    assert upload.offset == 5
    assert upload == await place.store.get(upload.id)
    place.assert_idle()


@on_a_jumping_loop
async def test_a_creation_whose_client_falls_silent_tells_how_far_it_came() -> None:
    place, body = Place(idle_timeout=30), Sent()
    creating = asyncio.create_task(place.lifecycle.create(Create(length=10, has_body=True), body))
    await body.send(b"01234")
    upload = await creating
    assert upload.offset == 5
    assert await place.content(upload.id) == b"01234"


@on_a_jumping_loop
async def test_a_creation_that_somebody_else_interrupts_leaves_the_upload_to_them() -> None:
    """The operator, say, who found its id in a list."""
    place, body = Place(), Sent()
    creating = asyncio.create_task(place.lifecycle.create(Create(length=10, has_body=True), body))
    await body.send(b"01234")
    [found] = [upload async for upload in place.store.list()]
    assert (await place.lifecycle.status(found.id)).offset == 5
    with pytest.raises(UploadInterrupted):
        await creating
    assert await place.count() == 1


@on_a_jumping_loop
async def test_nothing_is_created_once_the_server_stops() -> None:
    place = Place()
    place.lifecycle.stop()
    with pytest.raises(ServerStopping):
        await place.create(10)
    assert await place.count() == 0


# Appends


@pytest.mark.parametrize("size", [1, 3, 10])
@on_a_jumping_loop
async def test_an_upload_grows_by_appends_and_is_complete_with_its_last_byte(size: int) -> None:
    place = Place()
    upload = await place.create(10, metadata=named("song.mp3"))
    for data in cut(b"0123456789", size):
        assert not upload.is_complete
        place.clock.advance(seconds=1)
        upload = await place.append(upload.id, upload.offset, data)
        assert upload == await place.store.get(upload.id)
    assert upload.completed_at == place.clock.moment
    assert upload.extension == ".mp3"
    assert await place.content(upload.id) == b"0123456789"
    place.assert_idle()


@pytest.mark.parametrize("offset", [0, 5])
@on_a_jumping_loop
async def test_an_append_without_bytes_changes_nothing(offset: int) -> None:
    place = Place()
    upload = await place.create(10, b"01234"[:offset])
    place.clock.advance(seconds=5)
    assert await place.append(upload.id, offset) == upload


@pytest.mark.parametrize("offset", [0, 4, 6, 10**17])
@on_a_jumping_loop
async def test_an_append_at_another_offset_is_refused_and_told_the_right_one(offset: int) -> None:
    place = Place()
    upload = await place.create(10, b"01234")
    with pytest.raises(OffsetMismatch) as caught:
        await place.append(upload.id, offset, b"5")
    assert caught.value.upload == upload == await place.store.get(upload.id)
    place.assert_idle()


@on_a_jumping_loop
async def test_an_append_to_nothing_is_refused() -> None:
    place = Place()
    with pytest.raises(UploadNotFound):
        await place.append(UNKNOWN, 0, b"x")
    place.assert_idle()


REFUSED_BODIES: dict[str, tuple[Append, Body, type[UploadError]]] = {
    "sized": (Append(offset=5, size=6), Chunks(b"567890"), UploadOverrun),
    "chunked": (Append(offset=5), Chunks(b"56789", b"0"), UploadOverrun),
    "chunked, in one": (Append(offset=5), Chunks(bytes(200_000)), UploadOverrun),
    "other length": (Append(offset=5, size=1, length=11), Chunks(b"5"), BadRequest),
    "unknown checksum": (Append(offset=5, checksum=Checksum("sha0", b"x")), Chunks(b"5"), BadRequest),
    "short checksum": (Append(offset=5, checksum=Checksum("sha1", b"x")), Chunks(b"5"), BadRequest),
    "wrong checksum": (Append(offset=5, checksum=sha1(b"x")), Chunks(b"56789"), ChecksumMismatch),
    "wrong checksum of nothing": (Append(offset=5, size=0, checksum=sha1(b"x")), Chunks(), ChecksumMismatch),
    "broken framing": (
        Append(offset=5, size=2),
        Chunks(b"56", error=BadRequest("ERR_INVALID_CONTENT_LENGTH", "too long; do not")),
        BadRequest,
    ),
}


@pytest.mark.parametrize(("append", "body", "error"), REFUSED_BODIES.values(), ids=REFUSED_BODIES)
@on_a_plain_loop
async def test_a_refused_append_changes_nothing_and_tells_how_far_the_upload_is(
    append: Append, body: Body, error: type[UploadError]
) -> None:
    place = Place()
    upload = await place.create(10, b"01234")
    with pytest.raises(error) as caught:
        await place.lifecycle.append(upload.id, append, body)
    assert await place.store.get(upload.id) == upload
    assert caught.value.upload == upload
    assert await place.content(upload.id) == b"01234"
    assert (await place.append(upload.id, 5, b"56789")).is_complete
    place.assert_idle()


@on_a_plain_loop
async def test_content_that_matches_its_checksum_completes_the_upload() -> None:
    place = Place()
    upload = await place.create(10, b"01234")
    append = Append(offset=5, checksum=sha1(b"56789"))
    assert (await place.lifecycle.append(upload.id, append, Chunks(b"56", b"789"))).is_complete
    assert await place.content(upload.id) == b"0123456789"


@pytest.mark.parametrize("error", [ConnectionLost(), asyncio.CancelledError()], ids=lambda e: type(e).__name__)
@on_a_plain_loop
async def test_what_cannot_be_verified_is_not_kept(error: BaseException) -> None:
    place = Place()
    upload = await place.create(10)
    append = Append(offset=0, checksum=sha1(b"0123456789"))
    with pytest.raises(type(error)):
        await place.lifecycle.append(upload.id, append, Chunks(b"01234", error=error))
    assert await place.store.get(upload.id) == upload
    place.assert_idle()


@pytest.mark.parametrize("body", [Chunks(), Chunks(b"")])
@on_a_jumping_loop
async def test_an_append_without_bytes_to_a_complete_upload_is_accepted_and_does_nothing(body: Body) -> None:
    store = Faltering(now=Clock())
    place = Place(store=store)
    upload = await place.create(5, b"01234")
    assert await place.lifecycle.append(upload.id, Append(offset=5), body) == upload
    assert store.finished == 1


@on_a_jumping_loop
async def test_an_upload_that_takes_no_more_is_not_opened_for_writing() -> None:
    store = Faltering(now=Clock())
    place = Place(store=store)
    upload = await place.create(5, b"01234")
    store.failures["append"] = 1
    assert await place.append(upload.id, 5) == upload
    with pytest.raises(UploadOverrun):
        await place.lifecycle.append(upload.id, Append(offset=5), Chunks(b"5"))


@pytest.mark.parametrize("size", [1, None])
@on_a_jumping_loop
async def test_a_complete_upload_takes_no_more_bytes(size: int | None) -> None:
    place = Place()
    upload = await place.create(5, b"01234")
    with pytest.raises(UploadOverrun):
        await place.lifecycle.append(upload.id, Append(offset=5, size=size), Chunks(b"5"))
    assert await place.store.get(upload.id) == upload
    assert await place.content(upload.id) == b"01234"


@on_a_jumping_loop
async def test_when_there_is_no_space_left_what_fitted_is_kept_and_told() -> None:
    place = Place(capacity=100_000)
    upload = await place.create(None)
    with pytest.raises(StorageFull) as caught:
        await place.lifecycle.append(upload.id, Append(offset=0), Chunks(*cut(bytes(300_000), 5000)))
    assert caught.value.upload is not None
    assert caught.value.upload.offset == 100_000
    assert (await place.store.get(upload.id)).offset == 100_000
    place.assert_idle()


# Deferred lengths


@on_a_jumping_loop
async def test_a_declared_length_holds_from_its_append_on() -> None:
    place = Place()
    upload = await place.create(None)
    assert (await place.append(upload.id, 0, b"01234", length=10)).length == 10
    assert (await place.store.get(upload.id)).length == 10
    assert (await place.append(upload.id, 5, b"56789", length=10)).is_complete


@on_a_jumping_loop
async def test_a_length_may_be_declared_without_bytes() -> None:
    place = Place()
    upload = await place.create(None, b"01234")
    assert (await place.append(upload.id, 5, length=6)).length == 6
    assert not (await place.store.get(upload.id)).is_complete


@pytest.mark.parametrize("stored", [b"", b"01234"])
@on_a_jumping_loop
async def test_declaring_the_length_that_is_reached_already_completes_the_upload(stored: bytes) -> None:
    place = Place()
    upload = await place.create(None, stored)
    assert (await place.append(upload.id, len(stored), length=len(stored))).is_complete
    assert await place.content(upload.id) == stored


@pytest.mark.parametrize(
    ("append", "body", "error"),
    [
        (Append(offset=5, size=6, length=10), Chunks(b"567890"), UploadOverrun),
        (Append(offset=5, length=10), Chunks(b"567890"), UploadOverrun),
        (Append(offset=5, length=4), Chunks(), BadRequest),
        (Append(offset=5, length=1_000_001), Chunks(), UploadTooLarge),
        (Append(offset=5, length=10, checksum=sha1(b"x")), Chunks(b"56789"), ChecksumMismatch),
        (
            Append(offset=5, length=10),
            Chunks(b"56", error=BadRequest("ERR_INVALID_CONTENT_LENGTH", "too long; do not")),
            BadRequest,
        ),
    ],
)
@on_a_plain_loop
async def test_a_length_that_a_refused_append_declares_does_not_hold(
    append: Append, body: Body, error: type[UploadError]
) -> None:
    place = Place()
    upload = await place.create(None, b"01234")
    with pytest.raises(error) as caught:
        await place.lifecycle.append(upload.id, append, body)
    assert caught.value.upload == upload == await place.store.get(upload.id)


@on_a_jumping_loop
async def test_a_declared_length_stays_when_its_body_breaks_off() -> None:
    place = Place()
    upload = await place.create(None)
    with pytest.raises(ConnectionLost):
        await place.lifecycle.append(upload.id, Append(offset=0, length=10), Chunks(b"01234", error=ConnectionLost()))
    stored = await place.store.get(upload.id)
    assert (stored.offset, stored.length) == (5, 10)


@on_a_plain_loop
async def test_a_length_that_comes_with_a_checksum_holds_once_its_bytes_are_verified() -> None:
    place = Place()
    upload = await place.create(None)
    append = Append(offset=0, length=10, checksum=sha1(b"01234"))
    await place.lifecycle.append(upload.id, append, Chunks(b"01234"))
    stored = await place.store.get(upload.id)
    assert (stored.offset, stored.length) == (5, 10)


# Requests that end early, and requests that come meanwhile


@on_a_jumping_loop
async def test_a_lost_connection_keeps_what_came() -> None:
    place = Place()
    upload = await place.create(10)
    with pytest.raises(ConnectionLost):
        await place.lifecycle.append(upload.id, Append(offset=0), Chunks(b"01234", error=ConnectionLost()))
    assert (await place.append(upload.id, 5, b"56789")).is_complete
    assert await place.content(upload.id) == b"0123456789"


@on_a_jumping_loop
async def test_a_connection_that_is_lost_behind_the_last_byte_loses_nothing() -> None:
    """The client never saw its 204; it asks, and the upload is complete."""

    place = Place()
    upload = await place.create(5)
    with pytest.raises(ConnectionLost):
        await place.lifecycle.append(upload.id, Append(offset=0), Chunks(b"01234", error=ConnectionLost()))
    assert (await place.lifecycle.status(upload.id)).is_complete


@on_a_jumping_loop
async def test_a_silent_client_is_answered_and_what_came_is_kept() -> None:
    place, body = Place(idle_timeout=30), Sent()
    upload = await place.create(10)
    appending = place.start(upload.id, 0, body)
    await body.send(b"01234")
    with pytest.raises(BodyTimedOut) as caught:
        await appending
    assert caught.value.upload is not None
    assert caught.value.upload.offset == 5
    place.assert_idle()


@on_a_jumping_loop
async def test_a_stop_ends_running_appends_and_keeps_what_came() -> None:
    place, body = Place(), Sent()
    upload = await place.create(10)
    appending = place.start(upload.id, 0, body)
    await body.send(b"01234")
    place.lifecycle.stop()
    with pytest.raises(ServerStopping) as caught:
        await appending
    assert caught.value.upload is not None
    assert caught.value.upload.offset == 5
    assert await place.content(upload.id) == b"01234"
    with pytest.raises(ServerStopping):
        await place.append(upload.id, 5, b"5")
    place.assert_idle()


@on_a_jumping_loop
async def test_a_stop_ends_an_append_that_is_about_to_begin() -> None:
    place, body = Place(), Sent()
    upload = await place.create(10)
    async with place.locks.hold(upload.id):
        appending = place.start(upload.id, 0, body)
        await turns()
        place.lifecycle.stop()
    with pytest.raises(ServerStopping):
        await appending
    place.assert_idle()


@on_a_jumping_loop
async def test_a_cancelled_append_keeps_what_came_and_lets_everything_go() -> None:
    place, body = Place(), Sent()
    upload = await place.create(10)
    appending = place.start(upload.id, 0, body)
    await body.send(b"01234")
    appending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await appending
    assert await place.content(upload.id) == b"01234"
    place.assert_idle()


@pytest.mark.parametrize("sent", [b"", b"0", b"01234"])
@on_a_jumping_loop
async def test_asking_for_the_status_ends_a_stalled_append_and_tells_an_offset_that_is_good_to_go_on_from(
    sent: bytes,
) -> None:
    place, body = Place(), Sent()
    upload = await place.create(10)
    stalled = place.start(upload.id, 0, body)
    await body.send(sent)
    await turns()
    status = await place.lifecycle.status(upload.id)
    assert status.offset == len(sent)
    with pytest.raises(UploadInterrupted) as caught:
        await stalled
    assert caught.value.upload == status
    assert (await place.append(upload.id, status.offset, b"0123456789"[status.offset :])).is_complete
    assert await place.content(upload.id) == b"0123456789"
    place.assert_idle()


@on_a_jumping_loop
async def test_an_append_takes_a_stalled_one_over() -> None:
    place, body = Place(), Sent()
    upload = await place.create(10)
    stalled = place.start(upload.id, 0, body)
    await body.send(b"01234")
    assert (await place.append(upload.id, 5, b"56789")).is_complete
    with pytest.raises(UploadInterrupted):
        await stalled
    assert await place.content(upload.id) == b"0123456789"


@on_a_jumping_loop
async def test_of_many_appends_at_one_offset_their_bytes_never_mix() -> None:
    data = bytes(100_000)
    place = Place()
    upload = await place.create(len(data))
    bodies = [Chunks(*cut(bytes([i]) * len(data), 7000)) for i in range(10)]
    results = await asyncio.gather(*(place.start(upload.id, 0, body) for body in bodies), return_exceptions=True)
    taken = [result for result in results if isinstance(result, Upload)]
    assert len(taken) == 1
    assert {type(result) for result in results if result not in taken} <= {OffsetMismatch, UploadInterrupted}
    assert len(set(await place.content(upload.id))) == 1
    place.assert_idle()


@on_a_jumping_loop
async def test_what_is_busy_for_too_long_is_locked() -> None:
    place = Place(patience=5)
    upload = await place.create(10)
    async with place.locks.hold(upload.id):
        with pytest.raises(UploadLocked):
            await place.lifecycle.status(upload.id)
        with pytest.raises(UploadLocked):
            await place.append(upload.id, 0, b"0")
        with pytest.raises(UploadLocked):
            await place.lifecycle.terminate(upload.id)
    assert await place.store.get(upload.id) == upload


@on_a_jumping_loop
async def test_nothing_of_a_request_remains_once_it_is_answered() -> None:
    class Watching(Chunks):
        async def feed(self, intake: Intake) -> None:
            self.intake = weakref.ref(intake)
            await super().feed(intake)

    place, body = Place(), Watching(b"01234")
    upload = await place.create(10)
    await place.lifecycle.append(upload.id, Append(offset=0), body)
    gc.collect()
    assert body.intake() is None


# Status


@on_a_jumping_loop
async def test_the_status_of_a_complete_upload_takes_no_lock() -> None:
    place = Place(patience=0)
    upload = await place.create(5, b"01234")
    async with place.locks.hold(upload.id) as hold:
        assert await place.lifecycle.status(upload.id) == upload
        assert not hold.is_wanted


@pytest.mark.parametrize("failures", [1, 2])
@on_a_jumping_loop
async def test_trouble_of_the_storage_is_told_as_a_lock_that_is_held(failures: int) -> None:
    """tus-js-client gives the upload up for every other answer to a HEAD."""

    store = Faltering(now=Clock())
    place = Place(store=store)
    upload = await place.create(10)
    store.failures["get"] = failures
    with pytest.raises(UploadLocked):
        await place.lifecycle.status(upload.id)
    store.failures.clear()
    assert await place.lifecycle.status(upload.id) == upload
    place.assert_idle()


@on_a_jumping_loop
async def test_there_is_no_status_of_nothing() -> None:
    with pytest.raises(UploadNotFound):
        await Place().lifecycle.status(UNKNOWN)


# Completion that failed


@pytest.mark.parametrize("touch", ["append", "status", "expire"])
@on_a_jumping_loop
async def test_a_completion_that_failed_is_driven_again_by_the_next_touch(touch: str) -> None:
    store = Faltering(now=Clock())
    store.failures["finish"] = 1
    place = Place(store=store)
    upload = await place.create(5)
    with pytest.raises(StorageUnavailable) as caught:
        await place.append(upload.id, 0, b"01234")
    # Clients take an offset that equals the length for success, which this is not yet.
    assert caught.value.upload is None
    assert not (await store.get(upload.id)).is_complete
    place.clock.advance(days=1)
    if touch == "append":
        await place.append(upload.id, 5)
    elif touch == "status":
        await place.lifecycle.status(upload.id)
    else:
        assert await place.lifecycle.expire(upload.id) is None
    assert (await store.get(upload.id)).is_complete
    assert await place.content(upload.id) == b"01234"
    assert store.finished == 2


@on_a_jumping_loop
async def test_a_completion_that_fails_again_is_told_again() -> None:
    store = Faltering(now=Clock())
    store.failures["finish"] = 3
    place = Place(store=store)
    upload = await place.create(5)
    for _ in range(2):
        with pytest.raises(StorageUnavailable):
            await place.append(upload.id, 0 if store.finished == 0 else 5, b"01234" if not store.finished else b"")
    with pytest.raises(UploadLocked):
        await place.lifecycle.status(upload.id)
    assert (await place.lifecycle.status(upload.id)).is_complete


# Content


@pytest.mark.parametrize("size", [1, 100, 10_000])
@on_a_jumping_loop
async def test_refused_content_removes_the_upload_as_soon_as_it_is_seen(size: int) -> None:
    place = Place(media=MP3_ONLY)
    upload = await place.create(100_000, metadata=named("a.mp3"))

    async def send() -> None:
        offset = 0
        for data in cut(PNG, size):
            offset = (await place.append(upload.id, offset, data)).offset

    with pytest.raises(ContentRefused) as caught:
        await send()
    assert caught.value.upload is None
    assert await place.count() == 0
    place.assert_idle()


@on_a_jumping_loop
async def test_refused_content_of_a_short_upload_is_seen_at_its_end() -> None:
    place = Place(media=MP3_ONLY)
    upload = await place.create(20, metadata=named("a.mp3"))
    upload = await place.append(upload.id, 0, PNG[:19])
    with pytest.raises(ContentRefused):
        await place.append(upload.id, 19, PNG[19:20])
    assert await place.count() == 0


@on_a_jumping_loop
async def test_content_behind_the_beginning_is_not_looked_at() -> None:
    place = Place(media=MediaRules.of(".wav"))
    upload = await place.create(10_000, WAV + bytes(5000), named("a.wav"))
    rest = 10_000 - upload.offset
    assert (await place.append(upload.id, upload.offset, (PNG * 20)[:rest])).is_complete


@on_a_jumping_loop
async def test_an_upload_without_a_name_gets_the_extension_of_its_content() -> None:
    place = Place(media=MediaRules.of(".mp3 .wav"))
    upload = await place.create(len(WAV), metadata=parse_metadata("other YQ=="))
    assert upload.extension == ""
    assert (await place.append(upload.id, 0, WAV)).extension == ".wav"


# Termination and reading


@pytest.mark.parametrize("stored", [b"", b"01234", b"0123456789"])
@on_a_jumping_loop
async def test_a_terminated_upload_is_gone(stored: bytes) -> None:
    place = Place()
    upload = await place.create(10, stored)
    await place.lifecycle.terminate(upload.id)
    assert await place.count() == 0
    for again in (place.lifecycle.status, place.lifecycle.terminate, place.lifecycle.read):
        with pytest.raises(UploadNotFound):
            await again(upload.id)
    place.assert_idle()


@on_a_jumping_loop
async def test_a_termination_ends_a_running_append_which_does_not_bring_the_upload_back() -> None:
    place, body = Place(), Sent()
    upload = await place.create(10)
    other = await place.create(10, b"01234")
    appending = place.start(upload.id, 0, body)
    await body.send(b"01234")
    await place.lifecycle.terminate(upload.id)
    with pytest.raises(UploadInterrupted):
        await appending
    with pytest.raises(UploadNotFound):
        await place.store.get(upload.id)
    assert await place.store.get(other.id) == other
    place.assert_idle()


@on_a_jumping_loop
async def test_a_complete_upload_can_be_read() -> None:
    place = Place()
    created = await place.create(5, b"01234")
    upload, read = await place.lifecycle.read(created.id)
    assert upload == created
    assert b"".join([chunk async for chunk in read(1, 4)]) == b"123"


@on_a_jumping_loop
async def test_an_unfinished_upload_cannot_be_read() -> None:
    place = Place()
    upload = await place.create(10, b"01234")
    with pytest.raises(UploadNotFound):
        await place.lifecycle.read(upload.id)


# Expiration


@on_a_jumping_loop
async def test_an_expired_upload_is_told_to_be_so_until_it_is_removed() -> None:
    place = Place()
    upload = await place.create(10, b"01234")
    place.clock.advance(minutes=10)
    assert await place.lifecycle.status(upload.id) == upload
    place.clock.advance(seconds=1)
    with pytest.raises(UploadExpired):
        await place.lifecycle.status(upload.id)
    with pytest.raises(UploadExpired) as caught:
        await place.append(upload.id, 5, b"5")
    assert caught.value.upload is None
    with pytest.raises(UploadExpired):
        await place.lifecycle.terminate(upload.id)
    assert await place.store.get(upload.id) == upload
    assert await place.lifecycle.expire(upload.id) == upload
    with pytest.raises(UploadNotFound):
        await place.lifecycle.status(upload.id)
    place.assert_idle()


@on_a_jumping_loop
async def test_every_byte_puts_the_expiration_off() -> None:
    place = Place()
    upload = await place.create(10)
    for offset in range(9):
        place.clock.advance(minutes=9)
        upload = await place.append(upload.id, offset, b"x")
        assert expires_at(upload, place.limits) == place.clock.moment + timedelta(minutes=10)


@on_a_jumping_loop
async def test_neither_a_look_nor_an_append_without_bytes_puts_the_expiration_off() -> None:
    place = Place()
    upload = await place.create(10, b"01234")
    place.clock.advance(minutes=9)
    await place.lifecycle.status(upload.id)
    await place.append(upload.id, 5)
    place.clock.advance(minutes=2)
    with pytest.raises(UploadExpired):
        await place.lifecycle.status(upload.id)


@on_a_jumping_loop
async def test_a_complete_upload_never_expires() -> None:
    place = Place()
    upload = await place.create(5, b"01234")
    place.clock.advance(days=10_000)
    assert await place.lifecycle.status(upload.id) == upload
    assert await place.lifecycle.expire(upload.id) is None


@on_a_jumping_loop
async def test_an_answer_promises_no_more_time_than_the_last_byte_gives() -> None:
    """Bytes are stored after a second, and the client may go on to say nothing for long before it ends the body."""

    place, body = Place(), Sent()
    upload = await place.create(10)
    appending = place.start(upload.id, 0, body)
    await body.send(b"01234")
    await asyncio.sleep(2)
    place.clock.advance(minutes=5)
    body.end()
    answered = await appending
    stored = await place.store.get(upload.id)
    assert stored.written_at == NOW
    assert expires_at(answered, place.limits) == expires_at(stored, place.limits)
    assert not is_expired(stored, place.limits, place.clock.moment)


# The log


@on_a_jumping_loop
async def test_the_log_tells_what_happened_in_words_that_no_client_chose(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "tusd_py")
    place = Place()
    id = (await place.create(10, metadata=named("x\r\nforged line\n.mp3"))).id
    await place.append(id, 0, b"01234")
    with pytest.raises(OffsetMismatch):
        await place.append(id, 0, b"01234")
    await place.append(id, 5, b"56789")
    await place.lifecycle.terminate(id)
    assert caplog.messages == [
        f"upload created id={id} length=10",
        f"upload received id={id} bytes=5 offset=5",
        f"upload refused id={id} error=ERR_MISMATCHED_OFFSET",
        f"upload received id={id} bytes=5 offset=10",
        f"upload completed id={id} length=10",
        f"upload terminated id={id} offset=10",
    ]


# Any sequence of requests

steps = st.lists(
    st.tuples(
        st.sampled_from(["whole", "lost", "cancelled", "excess", "wrong offset", "status"]),
        st.lists(st.integers(0, 40), max_size=4),
    ),
    max_size=12,
)


@settings(deadline=None)
@given(length=st.integers(0, 150), is_deferred=st.booleans(), steps=steps)
@on_a_jumping_loop
async def test_whatever_requests_come_the_bytes_are_those_that_were_sent(
    length: int, is_deferred: bool, steps: list[tuple[str, list[int]]]
) -> None:
    data = bytes(range(256))[:length]
    place = Place(max_size=200)
    upload = await place.create(None if is_deferred else length)
    declared = length if is_deferred else None
    for end, sizes in steps:
        offset = (await place.store.get(upload.id)).offset
        body = data[offset : offset + sum(sizes)]
        chunks = [*cut(body, max(sizes, default=0) or 1)]
        if end == "status":
            assert (await place.lifecycle.status(upload.id)).offset == offset
        elif end == "wrong offset":
            with pytest.raises(OffsetMismatch):
                await place.append(upload.id, offset + 1, body)
        elif end == "excess":
            excessive = Chunks(*chunks, bytes(201))
            with pytest.raises((UploadOverrun, UploadTooLarge)):
                await place.lifecycle.append(upload.id, Append(offset=offset, length=declared), excessive)
        elif end in ("lost", "cancelled"):
            error = ConnectionLost() if end == "lost" else asyncio.CancelledError()
            broken = Chunks(*chunks, error=error)
            with pytest.raises(type(error)):
                await place.lifecycle.append(upload.id, Append(offset=offset, length=declared), broken)
        else:
            await place.lifecycle.append(upload.id, Append(offset=offset, length=declared), Chunks(*chunks))
        place.assert_idle()
        stored = await place.store.get(upload.id)
        assert stored.offset == offset + (0 if end in ("status", "wrong offset", "excess") else len(body))
        assert await place.content(upload.id) == data[: stored.offset]
        assert stored.is_complete <= stored.is_whole
    offset = (await place.store.get(upload.id)).offset
    final = await place.append(upload.id, offset, length=declared)
    if not final.is_complete:
        final = await place.append(upload.id, offset, data[offset:])
    assert final.is_complete
    assert await place.content(upload.id) == data


# ── uploads that nobody is told of before they are whole ─────────────────────────────────────────────────────────────


@on_a_jumping_loop
async def test_a_provisional_upload_is_unfinished_and_locked_until_it_is_completed() -> None:
    place = Place(media=MediaRules.of(".txt", "off"))
    body = Create(length=None, has_body=True)
    async with place.lifecycle.provisional(body, Chunks(b"0123456789")) as upload:
        kept = await place.store.get(upload.id)
        assert (kept.offset, kept.length, kept.is_complete) == (10, None, False)
        async with place.locks.try_hold(upload.id) as is_held:
            assert not is_held
        completed = await place.lifecycle.complete_as(upload, parse_metadata("filename YS50eHQ="))
    assert completed == await place.store.get(upload.id)
    assert (completed.length, completed.extension, completed.metadata.filename) == (10, ".txt", "a.txt")
    assert completed.is_complete
    assert await place.content(completed.id) == b"0123456789"


@pytest.mark.parametrize("is_completed", [False, True])
@pytest.mark.parametrize("error", [ConnectionLost(), BadRequest("ERR", "no"), asyncio.CancelledError(), ValueError()])
@on_a_jumping_loop
async def test_whatever_goes_wrong_removes_a_provisional_upload(error: BaseException, is_completed: bool) -> None:
    place = Place()

    async def fail() -> None:
        async with place.lifecycle.provisional(Create(length=None, has_body=True), Chunks(b"01234")) as upload:
            if is_completed:
                await place.lifecycle.complete_as(upload, parse_metadata(""))
            raise error

    with pytest.raises(type(error)):
        await fail()
    for complete in (False, True):
        assert [upload async for upload in place.store.list(complete=complete)] == []


@pytest.mark.parametrize(
    "error", [ConnectionLost(), BadRequest("ERR", "no"), ServerStopping(), StorageFull(), StorageUnavailable()]
)
@on_a_jumping_loop
async def test_a_provisional_upload_whose_body_fails_is_gone(error: Exception) -> None:
    """One that is created for good is told of as far as it came, where that is worth something."""
    place = Place()
    with pytest.raises(type(error)):
        async with place.lifecycle.provisional(Create(length=None, has_body=True), Chunks(b"01234", error=error)):
            pytest.fail("it has no end")
    assert [upload async for upload in place.store.list()] == []


@pytest.mark.parametrize("by", ["the server", "somebody else"])
@on_a_jumping_loop
async def test_a_provisional_upload_that_is_interrupted_is_gone(by: str) -> None:
    place = Place()
    body = Sent()

    async def provide() -> None:
        async with place.lifecycle.provisional(Create(length=None, has_body=True), body):
            pytest.fail("it was interrupted")

    providing = asyncio.create_task(provide())
    await body.send(b"01234")
    if by == "the server":
        place.lifecycle.stop()
    else:
        [upload] = [upload async for upload in place.store.list()]
        with pytest.raises(UploadNotFound):
            await place.lifecycle.terminate(upload.id)
    with pytest.raises((ServerStopping, UploadInterrupted)):
        await providing
    assert [upload async for upload in place.store.list()] == []


@on_a_jumping_loop
async def test_nothing_provisional_is_begun_while_the_server_stops() -> None:
    place = Place()
    place.lifecycle.stop()
    with pytest.raises(ServerStopping):
        async with place.lifecycle.provisional(Create(length=None, has_body=True), Chunks()):
            pytest.fail("it was begun")


@on_a_jumping_loop
async def test_what_a_provisional_upload_is_completed_as_is_judged() -> None:
    place = Place(media=MediaRules.of(".wav"))
    names = {"filename YS5wbmc=": ExtensionRefused, "x " + "YWFh" * 11_000: BadRequest}
    for metadata, error in names.items():
        with pytest.raises(error):
            async with place.lifecycle.provisional(Create(length=None, has_body=True), Chunks(WAV)) as upload:
                await place.lifecycle.complete_as(upload, parse_metadata(metadata))
    place = Place(media=MediaRules.of(".wav, .mp3"))
    with pytest.raises(ContentRefused):
        async with place.lifecycle.provisional(Create(length=None, has_body=True), Chunks(WAV)) as upload:
            await place.lifecycle.complete_as(upload, parse_metadata("filename YS5tcDM="))
    assert [upload async for upload in place.store.list()] == []
