"""What URLSession of iOS and macOS does, from raw sockets: the whole exchange of an upload that breaks off.

It POSTs the file in one request that says that this is all, and reads the answers on the way (104) while it sends. Cut
off, it asks at the place that it was told for the offset, and sends the rest with one PATCH.
"""

from __future__ import annotations

import re
import select
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.end_to_end import urlsession_log
from tests.end_to_end.uploads import KIB, MIB, assert_stored, make_recording, wait_for_data
from tests.server_process import ServerProcess

PAGE = Path(__file__).parents[2] / "docs" / "draft.md"
SIZE = 4 * MIB + 17
PIECE = 64 * KIB
SECONDS = 20.0

# iOS 17, 18.0, 18.1 and later.
VERSIONS = (3, 5, 6)
every_phone = pytest.mark.parametrize("version", VERSIONS)


@dataclass(frozen=True)
class Told:
    """A response or an interim one: its status, and its fields by lower-case names."""

    status: int
    fields: Mapping[str, str]


class Phone:
    """A connection of a phone that speaks ``version``."""

    def __init__(self, server: ServerProcess, version: int) -> None:
        self._version = version
        self._host = f"127.0.0.1:{server.port}"
        self._socket = socket.create_connection(("127.0.0.1", server.port), timeout=SECONDS)
        self._read = b""

    def __enter__(self) -> Phone:
        return self

    def __exit__(self, *exc: object) -> None:
        self._socket.close()

    def begin(self, method: str, path: str, fields: Mapping[str, str]) -> Phone:
        """Send the head of a request."""
        lines = {
            "Host": self._host,
            "Accept": "*/*",
            "User-Agent": "Uploader/1 CFNetwork/1490.0.4 Darwin/23.2.0",
            "Upload-Draft-Interop-Version": str(self._version),
            **fields,
        }
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        return self.send(f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode())

    def send(self, data: bytes | memoryview) -> Phone:
        self._socket.sendall(data)
        return self

    def listen(self) -> Told:
        """Read the next response, interim or final; no body."""
        while b"\r\n\r\n" not in self._read:
            data = self._socket.recv(65536)
            assert data, "the server closed the connection"
            self._read += data
        head, _, self._read = self._read.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        return Told(int(first.split(" ")[1]), fields)

    def hears_something(self, seconds: float) -> bool:
        return b"\r\n\r\n" in self._read or bool(select.select([self._socket], [], [], seconds)[0])


def everything(version: int) -> dict[str, str]:
    """Return the flag that says that the request is all of it."""
    return {"Upload-Incomplete": "?0"} if version == 3 else {"Upload-Complete": "?1"}


def says_complete(told: Told, version: int) -> bool:
    name, value = ("upload-incomplete", "?0") if version == 3 else ("upload-complete", "?1")
    return told.fields[name] == value


def append_fields(version: int, offset: int, size: int) -> dict[str, str]:
    content_type = {"Content-Type": "application/partial-upload"} if version == 6 else {}
    return {**everything(version), **content_type, "Upload-Offset": str(offset), "Content-Length": str(size)}


def path_of(told: Told) -> str:
    return urlsplit(told.fields["location"]).path


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    return make_recording(tmp_path / "noise.wav", SIZE)


@every_phone
def test_an_upload_that_breaks_off_twice_is_resumed(
    server: ServerProcess, upload_dir: Path, recording: Path, version: int
) -> None:
    content = memoryview(recording.read_bytes())
    with Phone(server, version) as phone:
        phone.begin(
            "POST", "/files/", {**everything(version), "Content-Type": "audio/wav", "Content-Length": str(SIZE)}
        )
        told = phone.listen()
        assert told.status == 104
        assert told.fields["upload-draft-interop-version"] == str(version)
        url = told.fields["location"]
        assert ("upload-limit" in told.fields) is (version == 6)
        phone.send(content[: 2 * MIB])
        wait_for_data(upload_dir, url, MIB)

    for sent in (3 * MIB, SIZE):
        with Phone(server, version) as phone:
            found = phone.begin("HEAD", path_of(told), {}).listen()
            assert found.status == 204
            assert not says_complete(found, version)
            offset = int(found.fields["upload-offset"])
            assert MIB <= offset < sent
        with Phone(server, version) as phone:
            phone.begin("PATCH", path_of(told), append_fields(version, offset, SIZE - offset))
            phone.send(content[offset:sent])
            if sent < SIZE:
                wait_for_data(upload_dir, url, sent - MIB)
                continue
            final = phone.listen()
            while final.status == 104:
                assert "location" not in final.fields
                final = phone.listen()

    assert final.status == 201
    assert int(final.fields["upload-offset"]) == SIZE
    assert says_complete(final, version)
    assert_stored(upload_dir, url, recording)


@every_phone
def test_an_upload_that_does_not_break_off_is_answered_once(
    server: ServerProcess, upload_dir: Path, recording: Path, version: int
) -> None:
    with Phone(server, version) as phone:
        phone.begin("POST", "/files/", {**everything(version), "Content-Length": str(SIZE)})
        phone.send(recording.read_bytes())
        answers = [phone.listen()]
        while answers[-1].status < 200:
            answers.append(phone.listen())
    first, *_, final = answers
    assert (first.status, final.status) == (104, 201)
    assert first.fields["location"] == final.fields["location"]
    assert says_complete(final, version)
    assert_stored(upload_dir, final.fields["location"], recording)


@every_phone
def test_a_phone_that_waits_for_leave_to_send_gets_it_and_its_place(
    server: ServerProcess, upload_dir: Path, recording: Path, version: int
) -> None:
    with Phone(server, version) as phone:
        phone.begin("POST", "/files/", {**everything(version), "Content-Length": str(SIZE), "Expect": "100-continue"})
        before = {phone.listen().status, phone.listen().status}
        assert before == {100, 104}
        final = phone.send(recording.read_bytes()).listen()
        while final.status < 200:
            final = phone.listen()
    assert final.status == 201
    assert_stored(upload_dir, final.fields["location"], recording)


@pytest.mark.parametrize("version", [5, 6])
def test_a_phone_that_sends_slowly_hears_how_far_it_is(
    server: ServerProcess, upload_dir: Path, recording: Path, version: int
) -> None:
    content = recording.read_bytes()
    sent, offsets = 0, list[int]()
    with Phone(server, version) as phone:
        phone.begin("POST", "/files/", {**everything(version), "Content-Length": str(SIZE)})
        place = phone.listen()
        while sent < SIZE:
            phone.send(content[sent : sent + PIECE])
            sent = min(sent + PIECE, SIZE)
            # Slow until it has heard something twice, then as fast as it goes.
            while phone.hears_something(0.15 if len(offsets) < 2 else 0) and sent < SIZE:
                told = phone.listen()
                assert told.status == 104
                assert told.fields.keys() == {"upload-draft-interop-version", "upload-offset"}
                offsets.append(int(told.fields["upload-offset"]))
                assert offsets[-1] <= sent
        final = phone.listen()
        while final.status < 200:
            final = phone.listen()
    assert len(offsets) >= 2
    assert offsets == sorted(set(offsets))
    assert final.fields["location"] == place.fields["location"]
    assert_stored(upload_dir, final.fields["location"], recording)


@pytest.mark.parametrize("version", [2, 11])
def test_a_phone_of_another_version_is_served_without_a_word_on_the_way(
    server: ServerProcess, upload_dir: Path, recording: Path, version: int
) -> None:
    with Phone(server, version) as phone:
        phone.begin("POST", "/files/", {"Upload-Complete": "?1", "Content-Length": str(SIZE)})
        final = phone.send(recording.read_bytes()).listen()
    assert final.status == 201
    assert_stored(upload_dir, final.fields["location"], recording)


def test_the_page_shows_what_goes_over_the_wire(server: ServerProcess, upload_dir: Path, tmp_path: Path) -> None:
    recording = make_recording(tmp_path / "noise.wav", urlsession_log.SIZE)

    log, url = urlsession_log.play(server, upload_dir, recording)

    shown = re.findall(r"^```http\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert shown == [urlsession_log.normalized(log)]
    assert_stored(upload_dir, url, recording)
