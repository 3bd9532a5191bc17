"""The process ends, or the power goes, at every single system call: what is found then is old or new, never half."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import pytest

from tests.storage.power import Ended, Power
from tests.storage.uploads import ID, NOW, content, new, stored
from tusd_py.errors import UploadNotFound
from tusd_py.storage import appender as appender_module
from tusd_py.storage import concatenation
from tusd_py.storage.base import Store
from tusd_py.storage.disk import DiskStore, Fsync
from tusd_py.upload import Upload

SOURCE = bytes(range(1, 101))  # no NULs: those are what a file system leaves for bytes that it lost
HALF = 50

LEVELS: tuple[Fsync, ...] = ("never", "completion", "request")


@dataclass
class Witness:
    """What a client was told before the process ended."""

    offset: int = 0
    done: bool = field(default=False)


Act = Callable[[Store, Upload, Witness], Awaitable[None]]


async def create(store: Store, upload: Upload, witness: Witness) -> None:
    """Nothing before this: each scene begins with a creation."""


async def append(store: Store, upload: Upload, witness: Witness) -> None:
    async with store.append(upload) as appender:
        for start in range(upload.offset, 90, 20):
            await appender.write(SOURCE[start : start + 20])
        witness.offset = await appender.commit(SOURCE[90:])


async def append_unverified(store: Store, upload: Upload, witness: Witness) -> None:
    async with store.append(upload, verified=False) as appender:
        for start in range(upload.offset, 90, 20):
            await appender.write(SOURCE[start : start + 20])
        witness.offset = await appender.commit(SOURCE[90:])


async def discard(store: Store, upload: Upload, witness: Witness) -> None:
    async with store.append(upload, verified=False) as appender:
        await appender.write(bytes(50))
        await appender.discard()


async def save(store: Store, upload: Upload, witness: Witness) -> None:
    await store.save(replace(upload, length=len(SOURCE), extension=".webm"))


async def finish(store: Store, upload: Upload, witness: Witness) -> None:
    upload = await stored(store, upload, SOURCE[upload.offset :])
    witness.offset = upload.offset
    await store.finish(replace(upload, completed_at=NOW))


async def concatenate(store: Store, upload: Upload, witness: Witness) -> None:
    """In two pieces: a partial that holds the first half, and one that holds the others."""
    partials = [
        await partial(store, "the-first-partial", SOURCE[:HALF]),
        await partial(store, "the-second-partial", SOURCE[HALF:]),
    ]
    await store.delete(upload.id)
    witness.offset = 0
    upload = await store.create(replace(new(length=len(SOURCE)), members=tuple(partial.id for partial in partials)))
    final = await store.concatenate(upload, partials)
    witness.offset = final.offset
    await store.finish(replace(final, completed_at=NOW))
    for member in partials:
        await store.delete(member.id)


async def partial(store: Store, id: str, data: bytes) -> Upload:
    upload = await stored(store, await store.create(replace(new(id, length=len(data)), is_partial=True)), data)
    return await store.finish(replace(upload, completed_at=NOW))


async def delete(store: Store, upload: Upload, witness: Witness) -> None:
    witness.offset = 0
    await store.delete(upload.id)


async def finish_and_delete(store: Store, upload: Upload, witness: Witness) -> None:
    await finish(store, upload, witness)
    await delete(store, upload, witness)


ACTS: dict[str, Act] = {
    act.__name__: act for act in (create, append, append_unverified, discard, save, finish, delete, finish_and_delete)
}


async def play(store: DiskStore, act: Act, witness: Witness) -> None:
    upload = await store.create(new(length=len(SOURCE)))
    upload = await stored(store, upload, SOURCE[:HALF])
    witness.offset = HALF
    await act(store, upload, witness)
    witness.done = True


def ended_everywhere(folder: Path, act: Act, level: Fsync) -> Iterator[tuple[Path, Power, Witness]]:
    """Give, for each call at which the process can end, the folder that it leaves and what was told until then.

    The last time it ends after all of them, when everything was told.
    """
    for at in count():
        uploads = folder / str(at)
        witness, power = Witness(), Power(at)
        with power.on(), suppress(Ended):
            asyncio.run(play(DiskStore(uploads, fsync=level, boot_id="first boot"), act, witness))
        yield uploads, power, witness
        if not power.is_off:
            assert witness.done
            assert at > 3
            return


async def found(store: DiskStore) -> Upload | None:
    """Return the upload unless it is gone, or its data at least: then somebody was deleting it."""
    with suppress(UploadNotFound):
        upload = await store.get(ID)
        path = store.data_path(ID)
        return upload if path is not None and path.suffix != ".json" else None
    return None


async def check_goes_on(store: DiskStore, upload: Upload | None) -> None:
    """The upload is resumed where it stands, ends byte for byte, and nothing else is left."""
    if upload is None:
        await store.delete(ID)  # again, for a client that was not told that it is done
        await store.tidy(before=datetime.now(UTC) + timedelta(days=1))
        upload = await store.create(new(length=len(SOURCE)))
    if not upload.is_complete:
        assert await content(store, upload) == SOURCE[: upload.offset]
        upload = await stored(store, upload, SOURCE[upload.offset :])
        upload = await store.finish(replace(upload, completed_at=NOW))
    assert upload.offset == len(SOURCE)
    assert await content(store, upload) == SOURCE
    await store.tidy(before=datetime.now(UTC) + timedelta(days=1))


def check_nothing_else(uploads: Path) -> None:
    assert not list((uploads / "partial").iterdir())
    assert [path.name for path in (uploads / "records").iterdir()] == [f"{ID}.json"]
    assert [path.stem for path in uploads.iterdir() if path.is_file()] == [ID]


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("act", ACTS)
def test_no_acknowledged_byte_is_lost_when_the_process_ends_at_any_call(act: str, level: Fsync, tmp_path: Path) -> None:
    for uploads, _, witness in ended_everywhere(tmp_path, ACTS[act], level):

        async def scene(store: DiskStore, witness: Witness) -> None:
            upload = await found(store)
            if upload is not None:
                assert upload.offset >= witness.offset
            elif witness.offset:
                assert "delete" in act
            await check_goes_on(store, upload)

        asyncio.run(scene(DiskStore(uploads, fsync=level, boot_id="first boot"), witness))
        check_nothing_else(uploads)


@pytest.mark.parametrize("act", ["append_unverified", "discard"])
def test_no_byte_of_an_unverified_append_counts_before_the_last_call_of_its_commit(act: str, tmp_path: Path) -> None:
    for uploads, _, witness in ended_everywhere(tmp_path, ACTS[act], "completion"):
        if witness.offset == HALF:
            assert asyncio.run(DiskStore(uploads, boot_id="first boot").get(ID)).offset == HALF


def test_a_file_shows_up_in_the_folder_only_when_it_is_whole(tmp_path: Path) -> None:
    for uploads, _, _ in ended_everywhere(tmp_path, finish, "completion"):
        for path in uploads.glob(f"{ID}*"):
            assert path.read_bytes() == SOURCE
            assert asyncio.run(DiskStore(uploads).get(ID)).is_complete


@pytest.mark.parametrize("keep_bounds", [False, True])
@pytest.mark.parametrize("level", ["completion", "request"])
@pytest.mark.parametrize("act", ACTS)
def test_no_wrong_byte_is_ever_told_when_the_power_goes_at_any_call(
    act: str, level: Fsync, keep_bounds: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(appender_module, "CHECKPOINT_SIZE", 15)
    for uploads, power, witness in ended_everywhere(tmp_path, ACTS[act], level):
        power.lose(uploads, keep_bounds=keep_bounds)

        async def scene(store: DiskStore, witness: Witness) -> None:
            upload = await found(store)
            if level == "request" and "delete" not in act and witness.offset:
                assert upload is not None
                assert upload.offset >= witness.offset
            await check_goes_on(store, upload)

        asyncio.run(scene(DiskStore(uploads, fsync=level, boot_id="second boot"), witness))
        check_nothing_else(uploads)


@pytest.mark.parametrize("level", ["completion", "request"])
def test_a_completed_upload_outlives_a_loss_of_power(level: Fsync, tmp_path: Path) -> None:
    power = Power()
    with power.on():
        asyncio.run(play(DiskStore(tmp_path, fsync=level, boot_id="first boot"), finish, Witness()))
    power.lose(tmp_path, keep_bounds=False)

    async def scene(store: DiskStore) -> None:
        upload = await store.get(ID)
        assert upload.is_complete
        assert await content(store, upload) == SOURCE

    asyncio.run(scene(DiskStore(tmp_path, boot_id="second boot")))


def test_at_the_level_never_nothing_is_ever_synced(tmp_path: Path) -> None:
    class Counting(Power):
        def _note(self, descriptor: int) -> None:
            raise AssertionError("something was synced")

    with Counting().on():
        asyncio.run(play(DiskStore(tmp_path, fsync="never"), finish_and_delete, Witness()))


async def create_complete(store: DiskStore, witness: Witness) -> None:
    upload = await store.create_complete(replace(new(length=len(SOURCE)), completed_at=NOW), SOURCE)
    witness.offset = upload.offset
    witness.done = True


@pytest.mark.parametrize("keep_bounds", [None, False, True])
@pytest.mark.parametrize("level", LEVELS)
def test_an_upload_that_is_created_complete_is_there_as_a_whole_or_not_at_all_at_any_call(
    level: Fsync, keep_bounds: bool | None, tmp_path: Path
) -> None:
    """``keep_bounds`` is ``None`` where the process ends alone and the power stays."""
    boot = "first boot" if keep_bounds is None else "second boot"
    for at in count():
        uploads = tmp_path / str(at)
        witness, power = Witness(), Power(at)
        with power.on(), suppress(Ended):
            asyncio.run(create_complete(DiskStore(uploads, fsync=level, boot_id="first boot"), witness))
        for path in uploads.glob(f"{ID}*"):
            assert path.read_bytes() == SOURCE
        if keep_bounds is not None:
            power.lose(uploads, keep_bounds=keep_bounds)

        async def scene(store: DiskStore, witness: Witness, uploads: Path) -> None:
            upload = await found(store)
            if upload is None:
                assert level == "never" or not witness.done
                assert [listed async for listed in store.list(complete=True)] == []
                assert [listed async for listed in store.list()] == []
            elif level != "never" or keep_bounds is None:
                assert upload.is_complete
                assert await content(store, upload) == SOURCE
            if upload is None and (level != "never" or keep_bounds is None):
                await store.tidy(before=datetime.now(UTC) + timedelta(days=1))
                assert not list((uploads / "partial").iterdir())
                assert not list((uploads / "records").iterdir())
                await store.create_complete(replace(new(length=len(SOURCE)), completed_at=NOW), SOURCE)
                check_nothing_else(uploads)

        asyncio.run(scene(DiskStore(uploads, fsync=level, boot_id=boot), witness, uploads))
        if not power.is_off:
            assert witness.done
            assert at > 4
            return


@pytest.mark.parametrize("level", LEVELS)
def test_a_tidying_that_ends_at_any_call_leaves_no_record_of_data_that_never_got_its_name(
    level: Fsync, tmp_path: Path
) -> None:
    for at in count():
        uploads = tmp_path / str(at)
        with Power(3).on(), suppress(Ended):  # data and record are there, and the rename is not
            asyncio.run(create_complete(DiskStore(uploads, fsync="never"), Witness()))
        assert len(list((uploads / "records").iterdir())) == 1
        power = Power(at)

        async def tidy(store: DiskStore) -> None:
            await store.tidy(before=datetime.now(UTC) + timedelta(days=1))

        async def check(store: DiskStore) -> None:
            with pytest.raises(UploadNotFound):
                await store.get(ID)

        with power.on(), suppress(Ended):
            asyncio.run(tidy(DiskStore(uploads, fsync=level)))
        asyncio.run(check(DiskStore(uploads, fsync=level)))
        if not power.is_off:
            assert not list((uploads / "partial").iterdir())
            return


@pytest.mark.parametrize("keep_bounds", [None, False, True])
@pytest.mark.parametrize("level", LEVELS)
def test_a_final_has_all_of_its_bytes_or_none_at_any_call(
    level: Fsync, keep_bounds: bool | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``keep_bounds`` is ``None`` where the process ends alone and the power stays."""
    monkeypatch.setattr(concatenation, "CHECKPOINT_SIZE", 15)
    monkeypatch.setattr(concatenation, "PIECE_SIZE", 20)
    boot = "first boot" if keep_bounds is None else "second boot"
    for uploads, power, witness in ended_everywhere(tmp_path, concatenate, level):
        if keep_bounds is not None:
            power.lose(uploads, keep_bounds=keep_bounds)

        async def scene(store: DiskStore, witness: Witness) -> None:
            with suppress(UploadNotFound):
                final = await store.get(ID)
                if final.is_final:
                    assert final.offset in (0, len(SOURCE))
                    assert await content(store, final) == SOURCE[: final.offset]
                    if level != "never" or keep_bounds is None:
                        assert not final.is_complete or final.offset == len(SOURCE)
            for number, id in enumerate(("the-first-partial", "the-second-partial")):
                with suppress(UploadNotFound):
                    partial = await store.get(id)
                    assert not partial.is_complete or partial.is_whole
                    expected = SOURCE[:HALF] if number == 0 else SOURCE[HALF:]
                    if store.data_path(id) is not None:
                        assert await content(store, partial) == expected[: partial.offset]

        asyncio.run(scene(DiskStore(uploads, fsync=level, boot_id=boot), witness))
