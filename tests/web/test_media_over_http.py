"""The rules on names and content, as a client meets them."""

from __future__ import annotations

import os
from base64 import b64encode
from pathlib import Path

import pytest

from tests.live import APPEND, TUS, Server
from tests.media_files import make_media_file

PDF = b"%PDF-1.7\n" + b"x" * 5000


def name(filename: str, key: str = "filename") -> str:
    return f"Upload-Metadata: {key} {b64encode(filename.encode()).decode()}\r\n"


@pytest.mark.parametrize("key", ["filename", "name"])
@pytest.mark.parametrize("filename", ["report.pdf", "mp3", "song.mp3.exe", "noextension", "x.mp3/../y.txt"])
def test_a_name_that_is_not_allowed_is_refused_at_creation(
    media_server: Server, folder: Path, filename: str, key: str
) -> None:
    answer = media_server.ask("POST", "/files/", TUS + "Upload-Length: 10\r\n" + name(filename, key), b"")
    assert answer.status == 400
    assert ".mp3, .wav, .awb" in answer.text
    assert list((folder / "partial").iterdir()) == []


def test_an_upload_over_5_gib_is_refused_before_anything_is_made(media_server: Server, folder: Path) -> None:
    limit = 5 * 1024**3
    answer = media_server.ask("POST", "/files/", f"{TUS}Upload-Length: {limit + 1}\r\n{name('a.mp3')}", b"")
    assert answer.status == 413
    assert str(limit) in answer.text
    assert list((folder / "partial").iterdir()) == []


def test_an_upload_of_5_gib_is_begun(media_server: Server) -> None:
    answer = media_server.ask("POST", "/files/", f"{TUS}Upload-Length: {5 * 1024**3}\r\n{name('a.mp3')}", b"")
    assert answer.status == 201


def test_foreign_content_is_refused_in_the_first_append_and_removed(media_server: Server, folder: Path) -> None:
    path = media_server.create(name("a.mp3"), length=1_000_000)
    answer = media_server.append(path, 0, PDF)
    assert answer.status == 415
    assert answer.text.startswith("ERR_CONTENT_NOT_ALLOWED")
    assert media_server.ask("HEAD", path, TUS).status == 404
    assert list((folder / "partial").iterdir()) == []


def test_foreign_content_in_small_pieces_is_refused_as_soon_as_enough_has_come(media_server: Server) -> None:
    path = media_server.create(name("a.mp3"), length=1_000_000)
    statuses = []
    for offset in range(0, 500, 50):
        statuses.append(media_server.append(path, offset, PDF[offset : offset + 50]).status)
        if statuses[-1] != 204:
            break
    assert statuses[-1] == 415
    assert set(statuses[:-1]) == {204}


def test_foreign_content_with_the_creation_leaves_nothing(media_server: Server, folder: Path) -> None:
    fields = f"{APPEND}Upload-Length: {len(PDF)}\r\n{name('a.mp3')}"
    assert media_server.ask("POST", "/files/", fields, PDF).status == 415
    assert list((folder / "partial").iterdir()) == []


def test_a_small_foreign_file_is_refused_at_completion(media_server: Server) -> None:
    path = media_server.create(name("a.mp3"), length=20)
    assert media_server.append(path, 0, PDF[:20]).status == 415


def test_a_real_recording_lies_in_the_folder_under_its_extension(
    media_server: Server, folder: Path, tmp_path: Path
) -> None:
    content = make_media_file("id3.mp3", tmp_path).read_bytes()
    path = media_server.create(name("My Recording.MP3"), length=len(content))
    middle = len(content) // 2
    media_server.append(path, 0, content[:middle])
    assert media_server.append(path, middle, content[middle:]).status == 204
    assert (folder / f"{path.rpartition('/')[2]}.mp3").read_bytes() == content


def test_an_upload_without_a_name_is_judged_by_its_content(media_server: Server, folder: Path, tmp_path: Path) -> None:
    content = make_media_file("tone.flac", tmp_path).read_bytes()
    path = media_server.create(length=len(content))
    assert media_server.append(path, 0, content).status == 204
    assert (folder / f"{path.rpartition('/')[2]}.flac").read_bytes() == content
    refused = media_server.create(length=len(PDF))
    assert media_server.append(refused, 0, PDF).status == 415


def test_random_bytes_pass_where_nothing_speaks_against_them(media_server: Server) -> None:
    content = b"\x00\x01" + os.urandom(2000)
    path = media_server.create(length=len(content))
    assert media_server.append(path, 0, content).status == 204


def test_foreign_content_with_a_checksum_is_refused_long_before_its_end(media_server: Server) -> None:
    """It may be damage, so the upload stays; but nobody has to send all of it to learn that."""
    path = media_server.create(name("a.mp3"), length=1_000_000_000)
    with media_server.connect() as connection:
        checksum = f"Upload-Checksum: sha1 {b64encode(bytes(20)).decode()}"
        connection.send(
            f"PATCH {path} HTTP/1.1\r\nHost: x\r\n{APPEND}Upload-Offset: 0\r\n{checksum}\r\n"
            "Content-Length: 1000000000\r\n\r\n"
        ).send(PDF + bytes(300_000))
        assert connection.answer().status == 415
    assert media_server.offset(path) == 0


def test_damaged_content_is_a_wrong_checksum_and_not_a_wrong_file(media_server: Server) -> None:
    path = media_server.create(name("a.mp3"), length=len(PDF))
    wrong = f"Upload-Checksum: sha1 {b64encode(bytes(20)).decode()}\r\n"
    assert media_server.append(path, 0, PDF, wrong).status == 460
    assert media_server.offset(path) == 0
