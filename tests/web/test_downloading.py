"""Downloads over real connections: what is sent, what is not, and what happens when the data goes away."""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
import threading
import time
from base64 import b64encode
from collections.abc import AsyncGenerator, Generator, Iterator, MutableMapping
from contextlib import aclosing
from datetime import timedelta
from email.utils import format_datetime, parsedate_to_datetime
from errno import EIO
from pathlib import Path

import pytest
from starlette.types import Message

from tests.live import APPEND, TUS, Answer, Server, serving
from tests.media_files import make_media_file
from tests.server_process import wait_until
from tusd_py import TusApp
from tusd_py.storage.disk import DiskStore
from tusd_py.storage.faults import translated
from tusd_py.upload import Upload

CONTENT = b"0123456789"
LARGE = 32 * 1024 * 1024  # more than the buffers of a connection hold
ORIGIN = "Origin: https://app.example\r\n"


class WatchedStore(DiskStore):
    """A store that tells when it is no longer read, how much it gave, and that can fail in the middle."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.was_left = threading.Event()
        self.given = 0
        self.fails_after = LARGE * 2

    async def read(self, upload: Upload, start: int = 0, stop: int | None = None) -> AsyncGenerator[bytes, None]:
        try:
            async with aclosing(super().read(upload, start, stop)) as chunks:
                async for chunk in chunks:
                    yield chunk
                    self.given += len(chunk)
                    if self.given > self.fails_after:
                        error = OSError(EIO, "the disk is broken")
                        raise translated(error) from error
        finally:
            self.was_left.set()


@pytest.fixture
def store(folder: Path) -> WatchedStore:
    return WatchedStore(folder)


@pytest.fixture
def large(store: WatchedStore) -> Iterator[Server]:
    """A server that takes what is large, out of a store that is watched."""
    with serving(TusApp(store=store, allowed_upload_extensions="*", sniff="off")) as server:
        yield server


def finish(server: Server, content: bytes = CONTENT, name: str = "") -> str:
    """Upload ``content`` and return the path of its URL."""
    metadata = f"Upload-Metadata: filename {b64encode(name.encode()).decode()}\r\n" if name else ""
    answer = server.ask("POST", "/files/", f"{APPEND}Upload-Length: {len(content)}\r\n{metadata}", content)
    assert answer.fields["upload-offset"] == str(len(content)), answer
    return "/" + answer.fields["location"].split("/", 3)[3]


def data_of(folder: Path, path: str) -> Path:
    [found] = folder.glob(f"{path.rpartition('/')[2]}*")
    return found


def test_a_download_says_what_it_is_known_by(server: Server) -> None:
    path = finish(server)
    answer = server.ask("GET", path)
    assert (answer.status, answer.body) == (200, CONTENT)
    assert answer.fields["content-length"] == "10"
    assert answer.fields["accept-ranges"] == "bytes"
    assert answer.fields["cache-control"] == "private, no-cache"
    assert answer.fields["tus-resumable"] == "1.0.0"
    assert answer.fields["content-security-policy"] == "sandbox; default-src 'none'"
    assert parsedate_to_datetime(answer.fields["last-modified"]) <= parsedate_to_datetime(answer.fields["date"])
    assert answer.fields["etag"].strip('"').isalnum()
    again = server.ask("GET", path)
    assert [again.fields[name] for name in ("etag", "last-modified")] == [
        answer.fields[name] for name in ("etag", "last-modified")
    ]


def test_uploads_of_the_same_bytes_have_tags_of_their_own(server: Server) -> None:
    assert server.ask("GET", finish(server)).fields["etag"] != server.ask("GET", finish(server)).fields["etag"]


def test_data_that_is_touched_where_it_lies_has_another_tag(server: Server, folder: Path) -> None:
    path = finish(server)
    before = server.ask("GET", path).fields["etag"]
    os.utime(data_of(folder, path), (1_000_000_000, 1_000_000_000))
    assert server.ask("GET", path).fields["etag"] != before


def test_a_change_in_the_future_is_not_told(server: Server, folder: Path) -> None:
    path = finish(server)
    os.utime(data_of(folder, path), (33_000_000_000, 33_000_000_000))
    assert "last-modified" not in server.ask("GET", path).fields


@pytest.mark.parametrize(
    ("range", "content_range", "body"),
    [
        ("bytes=0-", "bytes 0-9/10", CONTENT),
        ("bytes=3-6", "bytes 3-6/10", b"3456"),
        ("bytes=-3", "bytes 7-9/10", b"789"),
        ("bytes=5-99", "bytes 5-9/10", b"56789"),
    ],
)
def test_a_range_is_answered_with_its_bytes_alone(server: Server, range: str, content_range: str, body: bytes) -> None:
    path = finish(server)
    answer = server.ask("GET", path, f"Range: {range}\r\n")
    assert (answer.status, answer.fields["content-range"], answer.body) == (206, content_range, body)
    assert answer.fields["content-length"] == str(len(body))
    whole = server.ask("GET", path)
    assert "content-range" not in whole.fields
    for name in ("etag", "last-modified", "content-type", "content-disposition", "cache-control"):
        assert answer.fields[name] == whole.fields[name]


@pytest.mark.parametrize("range", ["bytes=0-1,4-5", "bytes=x", "items=0-1", "bytes=" + "0-," * 5_000])
def test_several_ranges_and_malformed_ones_are_answered_with_the_whole(server: Server, range: str) -> None:
    answer = server.ask("GET", finish(server), f"Range: {range}\r\n")
    assert (answer.status, answer.body) == (200, CONTENT)


def test_a_range_behind_the_end_is_refused_with_the_length(server: Server) -> None:
    answer = server.ask("GET", finish(server), "Range: bytes=10-\r\n")
    assert (answer.status, answer.fields["content-range"]) == (416, "bytes */10")
    assert answer.text.startswith("ERR_RANGE_NOT_SATISFIABLE")


def test_an_empty_upload_is_downloaded(server: Server) -> None:
    path = server.create(length=0)
    answer = server.ask("GET", path, "Range: bytes=-5\r\n")
    assert (answer.status, answer.body, answer.fields["content-length"]) == (200, b"", "0")
    assert server.ask("GET", path, "Range: bytes=0-\r\n").status == 416


def test_who_has_the_content_is_not_sent_it_again_and_the_connection_goes_on(server: Server) -> None:
    path = finish(server)
    known = server.ask("GET", path).fields
    for condition in (f"If-None-Match: {known['etag']}", f"If-Modified-Since: {known['last-modified']}"):
        with server.connect() as connection:
            connection.send(
                f"GET {path} HTTP/1.1\r\nHost: x\r\n{condition}\r\n\r\nGET {path} HTTP/1.1\r\nHost: x\r\n\r\n"
            )
            answer = connection.answer()
            assert (answer.status, answer.fields["etag"]) == (304, known["etag"])
            assert "content-length" not in answer.fields
            assert connection.answer().body == CONTENT


def test_a_range_goes_on_only_where_the_content_is_the_same(server: Server) -> None:
    path = finish(server)
    known = server.ask("GET", path).fields
    for validator in (known["etag"], known["last-modified"]):
        answer = server.ask("GET", path, f"Range: bytes=4-\r\nIf-Range: {validator}\r\n")
        assert (answer.status, answer.body) == (206, b"456789")
    older = format_datetime(parsedate_to_datetime(known["last-modified"]) - timedelta(days=1), usegmt=True)
    for validator in ('"other"', "W/" + known["etag"], older):
        answer = server.ask("GET", path, f"Range: bytes=4-\r\nIf-Range: {validator}\r\n")
        assert (answer.status, answer.body) == (200, CONTENT)


def test_a_download_of_another_content_is_refused(server: Server) -> None:
    answer = server.ask("GET", finish(server), 'If-Match: "other"\r\n')
    assert (answer.status, answer.text.partition(":")[0]) == (412, "ERR_PRECONDITION_FAILED")
    assert "tus-version" not in answer.fields


def test_head_of_a_finished_upload_tells_that_it_can_be_downloaded(server: Server) -> None:
    path = finish(server)
    got, head = server.ask("GET", path), server.ask("HEAD", path, TUS + "Range: bytes=99-\r\nIf-None-Match: *\r\n")
    assert (head.status, head.fields["upload-offset"], head.fields["cache-control"]) == (200, "10", "no-store")
    for name in ("accept-ranges", "etag", "last-modified"):
        assert head.fields[name] == got.fields[name]
    assert "accept-ranges" not in server.ask("HEAD", server.create(), TUS).fields


def test_an_overridden_get_sends_no_body_to_a_head(server: Server) -> None:
    path = finish(server)
    with server.connect() as connection:
        connection.send(
            f"HEAD {path} HTTP/1.1\r\nHost: x\r\nX-HTTP-Method-Override: GET\r\n\r\n"
            f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"
        )
        assert connection.answer("HEAD").fields["content-length"] == "10"
        assert connection.answer().body == CONTENT


def test_a_download_needs_no_lock(server: Server, folder: Path) -> None:
    path = finish(server)
    with data_of(folder, path).open() as data:
        fcntl.flock(data, fcntl.LOCK_EX)
        assert server.ask("GET", path).body == CONTENT
        assert server.ask("GET", path, "Range: bytes=3-6\r\n").body == b"3456"


def test_downloads_can_be_switched_off(tmp_path: Path) -> None:
    app = TusApp(upload_dir=tmp_path, allowed_upload_extensions="*", sniff="off", disable_download=True)
    with serving(app) as server:
        path = finish(server)
        answer = server.ask("GET", path)
        assert (answer.status, answer.fields["allow"]) == (405, "OPTIONS, HEAD, PATCH, DELETE")
        assert CONTENT not in answer.body
        assert "accept-ranges" not in server.ask("HEAD", path, TUS).fields
        assert server.offset(path) == 10


def test_a_page_of_another_origin_can_download_parts(server: Server) -> None:
    path = finish(server)
    preflight = server.ask(
        "OPTIONS",
        path,
        ORIGIN
        + "Access-Control-Request-Method: GET\r\nAccess-Control-Request-Headers: range,if-range,if-none-match\r\n",
    )
    assert preflight.status == 200
    for fields, status in (
        ("", 200),
        ("Range: bytes=3-\r\n", 206),
        ("Range: bytes=10-\r\n", 416),
        ("If-None-Match: *\r\n", 304),
    ):
        answer = server.ask("GET", path, ORIGIN + fields)
        assert (answer.status, answer.fields["access-control-allow-origin"]) == (status, "*")
        for name in ("ETag", "Content-Range", "Accept-Ranges", "Content-Disposition"):
            assert name in answer.fields["access-control-expose-headers"]


def shown(answer: Answer) -> tuple[str, str]:
    return answer.fields["content-type"], answer.fields["content-disposition"]


def test_a_sound_is_shown_as_what_it_is(media_server: Server, tmp_path: Path) -> None:
    sound = make_media_file("id3.mp3", tmp_path).read_bytes()
    path = finish(media_server, sound, "talk.mp3")
    for fields in ("", "Range: bytes=100-\r\n"):
        answer = media_server.ask("GET", path, fields)
        assert shown(answer) == ("audio/mpeg", 'inline; filename="talk.mp3"')
        assert answer.fields["content-security-policy"].startswith("sandbox; default-src 'none'; ")
        assert answer.fields["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("picture.png", b"<html><script>alert(1)</script></html>"),
        ("page.html", b"<html><script>alert(1)</script></html>"),
        ("drawing.svg", b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>'),
        ("note.txt", b"<!DOCTYPE html><script>alert(1)</script>"),
        ("document.pdf", b"%PDF-1.7\n"),
        ("noise.mp3", b"\0\1\2\3" * 100),
    ],
)
def test_what_could_run_or_lies_is_saved(server: Server, name: str, content: bytes) -> None:
    kind, disposition = shown(server.ask("GET", finish(server, content, name)))
    assert (kind, disposition) == ("application/octet-stream", f'attachment; filename="{name}"')


def test_a_name_that_only_looks_right_is_saved(server: Server) -> None:
    # Its content gives the file the extension; its name says something else.
    answer = server.ask("GET", finish(server, b"\x89PNG\r\n\x1a\n" + b"\0\0\0\rIHDR" * 9, "page.html "))
    assert shown(answer) == ("application/octet-stream", 'attachment; filename="page.html"')


def replace_by_fifo(data: Path) -> None:
    data.unlink()
    os.mkfifo(data)


def replace_by_link(data: Path) -> None:
    data.unlink()
    data.symlink_to("/etc/passwd")


def replace_by_folder(data: Path) -> None:
    data.unlink()
    data.mkdir()


def cut_short(data: Path) -> None:
    os.truncate(data, 5)


def lengthen(data: Path) -> None:
    with data.open("ab") as file:
        file.write(b"more")


@pytest.mark.parametrize(
    "change", [Path.unlink, replace_by_fifo, replace_by_link, replace_by_folder, cut_short, lengthen]
)
def test_what_is_not_what_was_uploaded_is_not_found(server: Server, folder: Path, change: object) -> None:
    assert callable(change)
    path = finish(server)
    change(data_of(folder, path))
    for fields in ("", "Range: bytes=3-6\r\n"):
        answer = server.ask("GET", path, fields)
        assert answer.status == 404
        assert answer.text.startswith("ERR_UPLOAD_NOT_FOUND")


def begin_download(server: Server, path: str) -> Generator[bytes, None, None]:
    """Give the first bytes of a download as soon as some came, and the others when asked for."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        while data := connection.recv(65536):
            yield data


def size_of_the_rest(first: bytes, rest: Iterator[bytes]) -> int:
    return len(first.partition(b"\r\n\r\n")[2]) + sum(map(len, rest))


def test_a_client_that_takes_nothing_is_left(store: WatchedStore) -> None:
    app = TusApp(store=store, allowed_upload_extensions="*", sniff="off", send_timeout_seconds="200ms")
    with serving(app) as server:
        path = finish(server, bytes(LARGE))
        download = begin_download(server, path)
        first = next(download)
        assert store.was_left.wait(20)
        assert store.given < LARGE
        # What had been sent before can still be had, and its end shows that it is not all.
        assert size_of_the_rest(first, download) < LARGE


def test_a_client_that_takes_a_little_now_and_then_gets_everything(store: WatchedStore) -> None:
    """The time counts from the last bytes that it took, not from the beginning."""
    app = TusApp(store=store, allowed_upload_extensions="*", sniff="off", send_timeout_seconds="1s")
    with serving(app) as server, socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        path = finish(server, bytes(LARGE))
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        size, began = 0, time.monotonic()
        while data := connection.recv(1024 * 1024):
            size += len(data)
            if time.monotonic() - began < 2:
                time.sleep(0.1)  # A slow client.
        assert size > LARGE


def test_data_that_is_cut_while_it_is_read_cuts_the_connection(large: Server, folder: Path) -> None:
    path = finish(large, bytes(LARGE))
    download = begin_download(large, path)
    first = next(download)
    assert b" 200 OK" in first
    assert b"content-length: %d\r\n" % LARGE in first
    os.truncate(data_of(folder, path), LARGE // 2)
    assert size_of_the_rest(first, download) < LARGE


def test_a_disk_that_fails_cuts_the_connection(large: Server, store: WatchedStore) -> None:
    path = finish(large, bytes(LARGE))
    store.given, store.fails_after = 0, LARGE // 2
    download = begin_download(large, path)
    assert size_of_the_rest(next(download), download) < LARGE


def test_data_that_is_removed_while_it_is_read_is_sent_to_the_end(large: Server, folder: Path) -> None:
    path = finish(large, bytes(LARGE))
    download = begin_download(large, path)
    first = next(download)
    data_of(folder, path).unlink()
    # The answer keeps the connection open; we know when we have everything.
    left = LARGE - len(first.partition(b"\r\n\r\n")[2])
    while left:
        left -= len(next(download))
    assert large.ask("GET", path).status == 404


def test_nothing_is_read_for_a_client_that_left(large: Server, store: WatchedStore) -> None:
    path = finish(large, bytes(LARGE))
    store.given = 0
    store.was_left.clear()
    download = begin_download(large, path)
    next(download)
    download.close()
    assert store.was_left.wait(20)
    assert store.given < LARGE


async def ask_in_memory(
    app: TusApp, method: str, path: str, *fields: tuple[bytes, bytes], extensions: dict[str, object]
) -> list[MutableMapping[str, object]]:
    """Return what the app sends to a server that offers ``extensions``."""
    sent: list[MutableMapping[str, object]] = []

    async def receive() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "headers": [(b"host", b"a"), *fields],
        "extensions": extensions,
    }
    await app(scope, receive, send)
    return sent


def test_a_whole_file_is_left_to_a_server_that_sends_files(server: Server, folder: Path) -> None:
    path = finish(server)
    data = data_of(folder, path)
    extension: dict[str, object] = {"http.response.pathsend": {}}

    async def ask() -> None:
        app = TusApp(upload_dir=folder)
        async with app.lifespan():
            _, whole = await ask_in_memory(app, "GET", path, extensions=extension)
            assert whole == {"type": "http.response.pathsend", "path": str(data)}
            _, part, _ = await ask_in_memory(app, "GET", path, (b"range", b"bytes=3-6"), extensions=extension)
            assert part["body"] == b"3456"
            _, without, _ = await ask_in_memory(app, "GET", path, extensions={})
            assert without["body"] == CONTENT
            override = (b"x-http-method-override", b"GET")
            _, head = await ask_in_memory(app, "HEAD", path, override, extensions=extension)
            assert head["body"] == b""
            replace_by_link(data)
            gone, _ = await ask_in_memory(app, "GET", path, extensions=extension)
            assert gone["status"] == 404

    asyncio.run(ask())


@pytest.mark.parametrize("error", [OSError("gone"), RuntimeError("the transport is closed")], ids=repr)
def test_a_download_whose_sending_fails_is_given_up_and_nothing_of_it_is_left(
    store: WatchedStore, folder: Path, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    """Servers tell of a client that is gone by an error, each by its own."""
    with serving(TusApp(store=store, allowed_upload_extensions="*", sniff="off")) as server:
        path = finish(server, bytes(1024 * 1024))
    store.was_left.clear()

    async def receive() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: Message) -> None:
        if message["type"] == "http.response.body":
            raise error

    async def main() -> None:
        app = TusApp(store=store, allowed_upload_extensions="*", sniff="off")
        async with app.lifespan():
            before = asyncio.all_tasks()
            scope = {"type": "http", "method": "GET", "path": path, "headers": [(b"host", b"a")]}
            async with asyncio.timeout(20):
                await app(scope, receive, send)
            assert asyncio.all_tasks() == before

    with caplog.at_level("INFO", "tusd_py"):
        asyncio.run(main())
    assert store.was_left.is_set()
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []
    assert "status=200" in caplog.text


def test_a_download_that_is_broken_off_is_logged_with_the_status_that_its_client_saw(
    large: Server, store: WatchedStore, caplog: pytest.LogCaptureFixture
) -> None:
    path = finish(large, bytes(LARGE))
    with caplog.at_level("INFO", "tusd_py"):
        download = begin_download(large, path)
        next(download)
        download.close()
        wait_until(lambda: "method=GET" in caplog.text)
    [line] = [message for message in caplog.messages if "method=GET" in message]
    assert "status=200" in line
