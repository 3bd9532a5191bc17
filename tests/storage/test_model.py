"""A disk store against a store in memory: any order of steps, with crashes in between, shows the same uploads."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tests.storage.power import Ended, Power
from tests.storage.uploads import NOW, content, new, stored
from tusd_py.errors import OffsetMismatch, UploadError, UploadNotFound
from tusd_py.storage.base import Appender, Store
from tusd_py.storage.disk import DiskStore, Fsync
from tusd_py.storage.memory import MemoryStore
from tusd_py.upload import Upload

T = TypeVar("T")

IDS = st.sampled_from([f"one-of-three-uploads-{number}" for number in range(3)])
CHUNKS = st.lists(st.binary(max_size=20), max_size=4)
LEVELS: list[Fsync] = ["never", "completion", "request"]

Told = tuple[str, int, int | None, bool, bytes]


async def append(store: Store, id: str, back: int, chunks: list[bytes], verified: bool, end: str) -> int:
    """Append from ``back`` bytes before the end, and end the append by a commit, a discard or just so."""
    upload = await store.get(id)
    upload = replace(upload, offset=max(0, upload.offset - back))
    async with store.append(upload, verified=verified) as appender:
        for chunk in chunks:
            await appender.write(chunk)
        return await ending(appender, end)


async def ending(appender: Appender, end: str) -> int:
    if end == "commit":
        return await appender.commit(b"the end")
    if end == "discard":
        await appender.discard()
    return appender.offset


async def finish(store: Store, id: str) -> None:
    upload = await store.get(id)
    await store.finish(replace(upload, length=upload.offset, completed_at=NOW))


async def told(store: Store) -> set[Told]:
    """Return all that can be seen from outside, but for times."""
    seen = set()
    for complete in (False, True):
        async for upload in store.list(complete=complete):
            assert await store.get(upload.id) == upload
            data = await content(store, upload)
            seen.add((upload.id, upload.offset, upload.length, upload.is_complete, data))
    return seen


class Stores(RuleBasedStateMachine):
    """Does everything twice, on the disk and in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.runner = asyncio.Runner()
        self.memory = MemoryStore()
        self.disk = DiskStore(self.folder, fsync="completion", threads=1)

    def teardown(self) -> None:
        self.run(self.disk.close())
        self.runner.close()
        shutil.rmtree(self.folder)

    def run(self, step: Coroutine[None, None, T]) -> T | type[UploadError]:
        try:
            return self.runner.run(step)
        except UploadError as error:
            return type(error)

    @rule(id=IDS, length=st.none() | st.integers(0, 100))
    def create(self, id: str, length: int | None) -> None:
        upload = new(id, length=length)
        outcomes = [self.run(store.create(upload)) for store in (self.memory, self.disk)]
        assert isinstance(outcomes[0], Upload) == isinstance(outcomes[1], Upload)

    @rule(
        id=IDS,
        back=st.sampled_from([0, 0, 0, 1, 5]),
        chunks=CHUNKS,
        verified=st.booleans(),
        end=st.sampled_from(["commit", "discard", "leave"]),
    )
    def append(self, id: str, back: int, chunks: list[bytes], verified: bool, end: str) -> None:
        outcomes = [self.run(append(store, id, back, chunks, verified, end)) for store in (self.memory, self.disk)]
        assert outcomes[0] == outcomes[1]

    @rule(id=IDS, beyond=st.integers(1, 9))
    def append_beyond_the_end(self, id: str, beyond: int) -> None:
        for store in (self.memory, self.disk):
            assert self.run(append(store, id, -beyond, [b"x"], True, "commit")) in {OffsetMismatch, UploadNotFound}

    @rule(id=IDS, length=st.integers(0, 100))
    def save(self, id: str, length: int) -> None:
        outcomes = [self.run(store.save(new(id, length=length))) for store in (self.memory, self.disk)]
        assert outcomes[0] == outcomes[1]

    @rule(id=IDS)
    def finish(self, id: str) -> None:
        assert self.run(finish(self.memory, id)) == self.run(finish(self.disk, id))

    @rule(id=IDS)
    def delete(self, id: str) -> None:
        assert self.run(self.memory.delete(id)) == self.run(self.disk.delete(id))

    @rule(id=IDS, chunks=CHUNKS, verified=st.booleans(), at=st.integers(0, 8))
    def crash(self, id: str, chunks: list[bytes], verified: bool, at: int) -> None:
        """The process ends in the middle of an append; what is found then is what memory is given."""
        before = self.run(self.disk.get(id))
        if not isinstance(before, Upload) or before.is_complete:
            return
        power = Power(at)
        with power.on(), suppress(Ended):
            self.run(append(self.disk, id, 0, chunks, verified, "commit"))
        self.run(self.disk.close())
        self.disk = DiskStore(self.folder, threads=1)
        after = self.run(self.disk.get(id))
        assert isinstance(after, Upload)
        sent = b"".join([*chunks, b"the end"])
        kept = sent[: after.offset - before.offset]
        assert kept == sent or (power.is_off and (verified or not kept))
        self.run(stored(self.memory, before, kept))

    @rule(level=st.sampled_from(LEVELS))
    def restart(self, level: Fsync) -> None:
        self.run(self.disk.close())
        self.disk = DiskStore(self.folder, fsync=level, threads=1)

    @invariant()
    def both_tell_the_same(self) -> None:
        assert self.run(told(self.memory)) == self.run(told(self.disk))


Stores.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
test_a_disk_and_a_memory_tell_the_same_after_any_steps = Stores.TestCase
