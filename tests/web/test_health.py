"""What load balancers and service managers are told."""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from starlette.types import Message

from tests.live import Server, serving
from tusd_py import TusApp
from tusd_py.errors import StorageFailed, StorageFull, StorageUnavailable
from tusd_py.locks.base import Locks
from tusd_py.locks.memory import MemoryLocks
from tusd_py.settings import InvalidSettings, Settings
from tusd_py.storage.base import Store
from tusd_py.storage.disk import DiskStore
from tusd_py.storage.memory import MemoryStore
from tusd_py.web.health import FRESH, Health


class TroubledStore(MemoryStore):
    """A store that has ``trouble``, and counts how often it is asked."""

    def __init__(self, trouble: Exception | None = None) -> None:
        super().__init__()
        self.trouble = trouble
        self.asked = 0

    async def check_ready(self) -> None:
        self.asked += 1
        await asyncio.sleep(0)
        if self.trouble is not None:
            raise self.trouble


class TroubledLocks(MemoryLocks):
    @asynccontextmanager
    async def try_lead(self) -> AsyncIterator[bool]:
        yield await self._fail()

    async def _fail(self) -> bool:
        raise StorageFailed


class Questions:
    """Asks ``health`` without a server."""

    def __init__(self, store: Store, locks: Locks | None = None) -> None:
        self.health = Health(store, locks or MemoryLocks(), health_path="/healthz", ready_path="/readyz")

    async def ask(self, path: str = "/readyz") -> tuple[int, str]:
        told: list[Message] = []

        async def send(message: Message) -> None:
            told.append(message)

        async def receive() -> dict[str, object]:
            return {"type": "http.disconnect"}

        await self.health.answer(path, {"type": "http", "method": "GET"}, receive, send)
        start, body = told
        return start["status"], body["body"].decode().strip()


@pytest.mark.parametrize(("path", "word"), [("/healthz", b"alive\n"), ("/readyz", b"ready\n")])
def test_a_server_in_order_is_alive_and_ready(server: Server, path: str, word: bytes) -> None:
    answer = server.ask("GET", path)
    assert (answer.status, answer.body, answer.fields["cache-control"]) == (200, word, "no-store")
    head = server.ask("HEAD", path)
    assert (head.status, head.fields["content-length"]) == (200, str(len(word)))


def test_other_methods_are_refused_and_change_nothing(server: Server) -> None:
    answer = server.ask("POST", "/readyz", body=b"abc")
    assert (answer.status, answer.fields["allow"]) == (405, "GET, HEAD")


def test_looking_leaves_nothing_behind(server: Server, folder: Path) -> None:
    server.ask("GET", "/readyz")
    assert not list(folder.glob("partial/*"))


def test_a_folder_that_went_away_is_told_without_its_path(server: Server, folder: Path) -> None:
    shutil.rmtree(folder)
    answer = server.ask("GET", "/readyz")
    assert (answer.status, answer.text) == (503, "not ready: the storage fails\n")
    assert server.ask("GET", "/healthz").status == 200


def test_a_folder_that_cannot_be_made_is_not_ready_instead_of_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    async def ask() -> tuple[int, str]:
        store = DiskStore(tmp_path / "file" / "uploads")
        try:
            return await Questions(store).ask()
        finally:
            await store.close()

    status, sentence = asyncio.run(ask())
    assert status == 503
    assert str(tmp_path) not in sentence


def test_a_disk_without_its_reserve_is_not_ready(tmp_path: Path) -> None:
    app = TusApp(upload_dir=tmp_path, space_reserve="900000TiB")
    with serving(app) as server:
        answer = server.ask("GET", "/readyz")
    assert (answer.status, answer.text) == (503, "not ready: the storage has no room beyond its reserve\n")
    assert answer.fields["retry-after"] == "1"


@pytest.mark.parametrize(
    ("store", "locks", "sentence"),
    [
        (TroubledStore(StorageFull()), None, "the storage has no room beyond its reserve"),
        (TroubledStore(StorageUnavailable()), None, "the storage cannot be written at the moment"),
        (TroubledStore(ValueError("/etc/secret")), None, "the storage fails"),
        (TroubledStore(), TroubledLocks(), "uploads cannot be locked"),
    ],
)
def test_each_trouble_has_its_sentence(store: Store, locks: Locks | None, sentence: str) -> None:
    assert asyncio.run(Questions(store, locks).ask()) == (503, f"not ready: {sentence}")


def test_many_questions_are_one_look() -> None:
    async def ask_often() -> int:
        store = TroubledStore()
        questions = Questions(store)
        answers = await asyncio.gather(*(questions.ask() for _ in range(50)))
        assert set(answers) == {(200, "ready")}
        await questions.ask()
        return store.asked

    assert asyncio.run(ask_often()) == 1


def test_an_answer_is_old_after_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    async def ask_later() -> None:
        store = TroubledStore()
        questions = Questions(store)
        assert (await questions.ask())[0] == 200
        store.trouble = StorageFull()
        assert (await questions.ask())[0] == 200
        now = asyncio.get_running_loop().time()
        monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now + FRESH + 0.1)
        assert (await questions.ask())[0] == 503

    asyncio.run(ask_later())


def test_a_storage_that_hangs_is_not_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    class Hanging(MemoryStore):
        async def check_ready(self) -> None:
            await asyncio.Event().wait()

    monkeypatch.setattr("tusd_py.web.health.PATIENCE", 0.01)
    assert asyncio.run(Questions(Hanging()).ask()) == (503, "not ready: the storage does not answer")


def test_trouble_is_logged_once_and_so_is_its_end(caplog: pytest.LogCaptureFixture) -> None:
    async def ask() -> None:
        store = TroubledStore(StorageFull())
        questions = Questions(store)
        for trouble in (StorageFull(), StorageFull(), None):
            store.trouble = trouble
            await questions.ask()
            questions.health._looking = None
        assert store.asked == 3

    with caplog.at_level(logging.INFO, "tusd_py"):
        asyncio.run(ask())
    assert [record.getMessage() for record in caplog.records] == [
        "not ready for uploads: the storage has no room beyond its reserve",
        "ready for uploads again",
    ]


def test_a_server_that_ends_is_alive_but_not_ready() -> None:
    questions = Questions(MemoryStore())
    questions.health.stop()
    assert asyncio.run(questions.ask()) == (503, "not ready: the server is about to end")
    assert asyncio.run(questions.ask("/healthz")) == (200, "alive")


def test_the_paths_can_be_others_or_none() -> None:
    app = TusApp(store=MemoryStore(), health_path="/up", ready_path="none")
    with serving(app) as server:
        assert server.ask("GET", "/up").text == "alive\n"
        assert server.ask("GET", "/healthz").status == 404
        assert server.ask("GET", "/readyz").status == 404


@pytest.mark.parametrize(
    ("knobs", "sentence"),
    [
        ({"health_path": "/files/health"}, "health_path: /files/health lies where uploads are"),
        ({"health_path": "/files"}, "health_path: /files lies where uploads are"),
        ({"ready_path": "/healthz"}, "ready_path: /healthz is health_path already"),
        ({"ready_path": "/a b"}, "ready_path: '/a b' is no path"),
    ],
)
def test_paths_stay_beside_those_of_uploads(knobs: dict[str, str], sentence: str) -> None:
    with pytest.raises(InvalidSettings) as caught:
        Settings(**knobs)  # type: ignore[arg-type]  # wrong on purpose
    assert str(caught.value).startswith(sentence)
