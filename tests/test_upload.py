from __future__ import annotations

from dataclasses import FrozenInstanceError, replace
from datetime import UTC, datetime

import pytest

from tusd_py.upload import NO_METADATA, Metadata, Upload, is_id

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
UPLOAD = Upload(id="0123456789abcdef", created_at=NOW, written_at=NOW, length=10)


@pytest.mark.parametrize(
    "text",
    [
        "0123456789abcdef",
        "6c84fb90-12c4-11e1-840d-7b25c5ee775a",
        "A" * 64,
        "0" + "_" * 15,
        "0" + "-" * 15,
    ],
)
def test_letters_digits_underscores_and_hyphens_make_an_id(text: str) -> None:
    assert is_id(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a" * 15,
        "a" * 65,
        "-" + "a" * 20,
        "_" + "a" * 20,
        "." + "a" * 20,
        "..",
        "../0123456789abcdef",
        "0123456789abcdef/..",
        "0123456789abcdef/0123456789abcdef",
        "0123456789abcdef\\0123456789abcdef",
        "0123456789abcdef.json",
        "0123456789abcdef%2e",
        "0123456789abcdef\0",
        "0123456789abcdef\n",
        "\n0123456789abcdef",
        " 0123456789abcdef",
        "0123456789abcdef ",
        "0123456789abcdeé",
        "٠١٢٣٤٥٦٧٨٩٠١٢٣٤٥٦",
        "ｆ" * 20,
    ],
)
def test_nothing_else_is_an_id(text: str) -> None:
    assert not is_id(text)


@pytest.mark.parametrize(
    ("pairs", "filename"),
    [
        ((("filename", b"song.mp3"),), "song.mp3"),
        ((("name", b"song.mp3"),), "song.mp3"),
        ((("name", b"other.mp3"), ("filename", b"song.mp3")), "song.mp3"),
        ((("filename", b""), ("name", b"song.mp3")), "song.mp3"),
        ((("filename", "Grüße.mp3".encode()),), "Grüße.mp3"),
        ((("filename", b"\xff.mp3"),), "\ufffd.mp3"),
        ((("Filename", b"song.mp3"),), ""),
        ((), ""),
    ],
)
def test_the_name_of_the_clients_file_is_read_from_its_metadata(
    pairs: tuple[tuple[str, bytes], ...], filename: str
) -> None:
    assert Metadata("", pairs).filename == filename


def test_metadata_tells_an_empty_value_from_a_missing_one() -> None:
    metadata = Metadata("empty", (("empty", b""),))
    assert metadata.get("empty") == b""
    assert metadata.get("missing") is None


def test_no_metadata_has_neither_a_field_nor_pairs() -> None:
    assert Metadata() == NO_METADATA
    assert NO_METADATA.field == ""
    assert NO_METADATA.pairs == ()


def test_an_upload_is_whole_when_every_byte_of_a_known_length_is_there() -> None:
    assert not UPLOAD.is_whole
    assert replace(UPLOAD, offset=10).is_whole
    assert replace(UPLOAD, length=0).is_whole
    assert not replace(UPLOAD, length=None).is_whole


def test_an_upload_is_complete_only_when_that_is_recorded() -> None:
    assert not replace(UPLOAD, offset=10).is_complete
    assert replace(UPLOAD, completed_at=NOW).is_complete


def test_an_upload_does_not_change() -> None:
    with pytest.raises(FrozenInstanceError):
        UPLOAD.offset = 5  # type: ignore[misc]
