"""What a browser may show: real files as themselves, and nothing as something else."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.media_files import FFMPEG, make_media_file, run
from tusd_py.media import SNIFF_SIZE
from tusd_py.web.display import MEDIA_TYPES, display_type

PICTURES = {
    ".png": "png",
    ".jpg": "jpg",
    ".jpeg": "jpeg",
    ".gif": "gif",
    ".bmp": "bmp",
    ".webp": "webp",
}

# No browser plays them, or their first bytes prove too little.
SAVED = {".avi", ".wma", ".wmv", ".awb", ".amr"}


def beginning(path: Path) -> bytes:
    return path.read_bytes()[:SNIFF_SIZE]


@pytest.mark.parametrize("name", [name for name in FFMPEG if Path(name).suffix not in SAVED])
def test_sound_and_film_are_shown(name: str, tmp_path: Path) -> None:
    extension = Path(name).suffix
    assert display_type(extension, beginning(make_media_file(name, tmp_path))) == MEDIA_TYPES[extension]


@pytest.mark.parametrize("extension", PICTURES)
def test_pictures_are_shown(extension: str, tmp_path: Path) -> None:
    path = tmp_path / f"picture{extension}"
    run("ffmpeg", "-v", "error", "-f", "lavfi", "-i", "testsrc=size=64x64", "-frames:v", "1", str(path))
    assert display_type(extension, beginning(path)) == MEDIA_TYPES[extension]


@pytest.mark.parametrize("text", ["", "Hello.\n", "Grüße, 录音\n", "ä" * 3000, "x" + "录" * 2000])
def test_plain_text_is_shown(text: str) -> None:
    assert display_type(".txt", text.encode()[:SNIFF_SIZE]) == "text/plain; charset=utf-8"


@pytest.mark.parametrize(
    "content",
    [
        b"<!DOCTYPE html><script>alert(1)</script>",
        b"  <html><body onload=alert(1)>",
        b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>',
        b"%PDF-1.7\n" + b"x" * 100,
        b"MZ" + b"\0" * 100,
        b"PK\3\4" + b"\0" * 100,
        b"Gr\xfc\xdfe in Latin-1\n",
        b"\0\1\2\3" * 10,
    ],
)
@pytest.mark.parametrize("extension", sorted(MEDIA_TYPES))
def test_what_is_something_else_is_saved_whatever_its_name(extension: str, content: bytes) -> None:
    assert display_type(extension, content) is None


@pytest.mark.parametrize("extension", [".html", ".htm", ".svg", ".pdf", ".xml", ".js", ".swf", ".exe", ".bin", ""])
@pytest.mark.parametrize("content", [b"\x89PNG\r\n\x1a\n" + b"\0" * 100, b"Hello.\n", b"<html>"])
def test_a_name_that_is_not_in_the_table_is_saved_whatever_its_content(extension: str, content: bytes) -> None:
    assert display_type(extension, content) is None


def test_a_sound_is_not_shown_as_a_picture(tmp_path: Path) -> None:
    sound = beginning(make_media_file("pcm.wav", tmp_path))
    assert display_type(".wav", sound) == "audio/wav"
    assert display_type(".webp", sound) is None
    assert display_type(".png", sound) is None
    assert display_type(".mp4", sound) is None


def test_the_table_holds_nothing_that_can_run() -> None:
    kinds = {media_type.partition("/")[0] for media_type in MEDIA_TYPES.values()}
    assert kinds == {"audio", "video", "image", "text"}
    assert not any("svg" in media_type or "html" in media_type for media_type in MEDIA_TYPES.values())
