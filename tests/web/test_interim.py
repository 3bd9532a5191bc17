"""Answers on the way (104), with the app called as a server calls it that can send them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from starlette.types import Message, Scope

from tests.loops import on_a_plain_loop
from tests.web.drafts import VERSIONS
from tusd_py import TusApp
from tusd_py.web import progress
from tusd_py.web.reception import INTERIM

Fields = list[tuple[bytes, bytes]]

# More than the first slabs hold, so that there is something to tell before the end.
DATA = bytes(500_000)
CHUNK = 50_000


@dataclass
class Told:
    """One response, or an interim one."""

    status: int
    fields: dict[str, str]


@dataclass
class Exchange:
    """What a server and the app say to each other over one request; ``log`` is all of it in order.

    Where the body ``is_cut``, the client is gone behind its chunks.
    """

    app: TusApp
    chunks: Sequence[bytes] = ()
    is_cut: bool = False
    log: list[str] = field(default_factory=list)
    told: list[Told] = field(default_factory=list)

    async def ask(
        self, method: str, path: str, fields: Fields, *, can_send_interim: bool = True, http_version: str = "1.1"
    ) -> Told:
        """Send the request and return the final answer."""
        scope: Scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": http_version,
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [(b"host", b"localhost"), *fields],
            "client": ("127.0.0.1", 5),
            "server": ("127.0.0.1", 80),
            "extensions": {INTERIM: {}} if can_send_interim else {},
        }
        left = list(self.chunks)

        async def receive() -> Message:
            self.log.append("receive")
            if left:
                chunk = left.pop(0)
                return {"type": "http.request", "body": chunk, "more_body": bool(left) or self.is_cut}
            if not self.is_cut:
                await asyncio.Event().wait()
            return {"type": "http.disconnect"}

        await self.app(scope, receive, self._send)
        return self.told[-1]

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.body":
            return
        status = message["status"]
        self.log.append(str(status))
        assert message["type"] == (INTERIM if status < 200 else "http.response.start")
        self.told.append(Told(status, {name.decode(): value.decode() for name, value in message["headers"]}))

    @property
    def interim(self) -> list[Told]:
        return [told for told in self.told if told.status < 200]


@pytest.fixture
def app(tmp_path: Path) -> TusApp:
    return TusApp(upload_dir=tmp_path / "uploads", allowed_upload_extensions="*", sniff="off")


@pytest.fixture
def talkative(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tell of every slab."""
    monkeypatch.setattr(progress, "INTERVAL", 0.0)


def in_words_of(number: int, *, complete: bool, size: int | None, **more: str) -> Fields:
    told = {
        "upload-draft-interop-version": str(number),
        **({"upload-incomplete": f"?{not complete:d}"} if number == 3 else {"upload-complete": f"?{complete:d}"}),
        **({"transfer-encoding": "chunked"} if size is None else {"content-length": str(size)}),
        **{name.replace("_", "-"): value for name, value in more.items()},
    }
    return [(name.encode(), value.encode()) for name, value in told.items()]


def cut(data: bytes) -> list[bytes]:
    return [data[start : start + CHUNK] for start in range(0, len(data), CHUNK)]


async def new_upload(app: TusApp, number: int = 6) -> str:
    answer = await Exchange(app).ask("POST", "/files/", in_words_of(number, complete=False, size=0))
    return answer.fields["location"].removeprefix("http://localhost")


@pytest.mark.parametrize("number", VERSIONS)
@pytest.mark.parametrize("size", [5, None])
@on_a_plain_loop
async def test_a_creation_is_told_its_place_before_its_body_is_read(app: TusApp, number: int, size: int | None) -> None:
    exchange = Exchange(app, [b"01", b"234"])
    async with app.lifespan():
        final = await exchange.ask("POST", "/files/", in_words_of(number, complete=True, size=size))
    assert exchange.log == ["104", "receive", "receive", "201"]
    [told] = exchange.interim
    assert told.fields["location"] == final.fields["location"]
    assert told.fields["upload-draft-interop-version"] == str(number)
    assert ("upload-limit" in told.fields) is (number >= 6)
    assert "upload-offset" not in told.fields


@on_a_plain_loop
async def test_the_place_that_was_told_can_be_asked_at_once(app: TusApp) -> None:
    """A phone that lost its network in the middle of its only request asks there how far it came."""
    exchange = Exchange(app, [b"01234"], is_cut=True)
    async with app.lifespan():
        await exchange.ask("POST", "/files/", in_words_of(6, complete=True, size=10))
        assert exchange.log == ["104", "receive", "receive"]
        path = exchange.interim[0].fields["location"].removeprefix("http://localhost")
        found = await Exchange(app).ask("HEAD", path, in_words_of(6, complete=False, size=0)[:1])
        assert (found.status, found.fields["upload-offset"], found.fields["upload-complete"]) == (204, "5", "?0")
        rest = in_words_of(6, complete=True, size=5, upload_offset="5", content_type="application/partial-upload")
        final = await Exchange(app, [b"56789"]).ask("PATCH", path, rest)
        assert (final.status, final.fields["upload-offset"]) == (201, "10")


@pytest.mark.usefixtures("talkative")
@pytest.mark.parametrize("number", VERSIONS)
@on_a_plain_loop
async def test_a_creation_is_told_how_far_it_is(app: TusApp, number: int) -> None:
    exchange = Exchange(app, cut(DATA))
    async with app.lifespan():
        await exchange.ask("POST", "/files/", in_words_of(number, complete=True, size=len(DATA)))
    first, *progress = exchange.interim
    assert "location" in first.fields
    assert bool(progress) is (number >= 5)
    assert_growing(progress, number)
    assert exchange.log[-1] == "201"


@pytest.mark.usefixtures("talkative")
@pytest.mark.parametrize("number", VERSIONS)
@on_a_plain_loop
async def test_an_append_is_told_how_far_it_is_and_never_its_place(app: TusApp, number: int) -> None:
    exchange = Exchange(app, cut(DATA))
    async with app.lifespan():
        path = await new_upload(app)
        lines = in_words_of(
            number,
            complete=True,
            size=len(DATA),
            upload_offset="0",
            content_type="application/partial-upload",
        )
        await exchange.ask("PATCH", path, lines)
    assert bool(exchange.interim) is (number >= 5)
    assert_growing(exchange.interim, number)
    assert exchange.log[-1] == "201"


def assert_growing(progress: Sequence[Told], number: int) -> None:
    """Demand offsets that grow, with nothing beside them but the version."""
    offsets = [int(told.fields["upload-offset"]) for told in progress]
    assert offsets == sorted(set(offsets))
    assert all(0 < offset < len(DATA) for offset in offsets)
    assert all(
        told.fields == {"upload-draft-interop-version": str(number), "upload-offset": told.fields["upload-offset"]}
        for told in progress
    )


@on_a_plain_loop
async def test_progress_is_not_told_more_often_than_anybody_needs(app: TusApp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "INTERVAL", 3600.0)
    exchange = Exchange(app, cut(DATA))
    async with app.lifespan():
        await exchange.ask("POST", "/files/", in_words_of(6, complete=True, size=len(DATA)))
    assert [told.fields.get("upload-offset") for told in exchange.interim] == [None]


@pytest.mark.usefixtures("talkative")
@pytest.mark.parametrize(
    ("more", "size"),
    [
        pytest.param({}, None, id="it may turn out to be too long"),
        pytest.param({"content_digest": "sha-256=:" + "A" * 43 + "=:"}, len(DATA), id="it may turn out to be damaged"),
    ],
)
@on_a_plain_loop
async def test_what_may_still_be_dropped_is_no_progress(app: TusApp, more: dict[str, str], size: int | None) -> None:
    exchange = Exchange(app, cut(DATA))
    async with app.lifespan():
        await exchange.ask("POST", "/files/", in_words_of(6, complete=True, size=size, **more))
    assert len(exchange.interim) == 1


TUS: Fields = [(b"tus-resumable", b"1.0.0"), (b"content-type", b"application/offset+octet-stream")]


@pytest.mark.usefixtures("talkative")
@pytest.mark.parametrize(
    ("fields", "interim", "http_version"),
    [
        pytest.param([*TUS, (b"upload-length", b"500000"), (b"content-length", b"500000")], True, "1.1", id="tus"),
        pytest.param(in_words_of(2, complete=True, size=len(DATA)), True, "1.1", id="a version of the past"),
        pytest.param(in_words_of(11, complete=True, size=len(DATA)), True, "1.1", id="a version of the future"),
        pytest.param(in_words_of(6, complete=True, size=len(DATA))[1:], True, "1.1", id="no version"),
        pytest.param(in_words_of(6, complete=True, size=len(DATA)), True, "1.0", id="HTTP/1.0"),
        pytest.param(in_words_of(6, complete=True, size=len(DATA)), False, "1.1", id="another server"),
    ],
)
@on_a_plain_loop
async def test_nobody_is_told_on_the_way_who_cannot_use_it(
    app: TusApp, fields: Fields, interim: bool, http_version: str
) -> None:
    exchange = Exchange(app, cut(DATA))
    async with app.lifespan():
        final = await exchange.ask("POST", "/files/", fields, can_send_interim=interim, http_version=http_version)
    assert final.status == 201
    assert exchange.interim == []


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        (in_words_of(6, complete=False, size=0), 201),
        (in_words_of(6, complete=True, size=0), 201),
        (in_words_of(6, complete=False, size=5, upload_length="99999999999"), 413),
        (in_words_of(8, complete=True, size=5, upload_length="6"), 400),
    ],
)
@on_a_plain_loop
async def test_what_is_answered_at_once_is_not_told_before(app: TusApp, fields: Fields, status: int) -> None:
    exchange = Exchange(app)
    async with app.lifespan():
        # A refusal reads on for a while, for a client that is still sending.
        final = await exchange.ask("POST", "/files/", fields)
    assert (final.status, exchange.interim) == (status, [])
