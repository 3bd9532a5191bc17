"""tuspy, the Python client: what it uploads lies in the folder byte for byte."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest
from tusclient.client import TusClient
from tusclient.storage.filestorage import FileStorage
from tusclient.uploader.uploader import Uploader

from tests.end_to_end.uploads import KIB, MIB, TUS, assert_stored, build_metadata, make_recording, offset_of
from tests.media_files import make_media_file
from tests.server_process import ServerProcess

RECORDING_SIZE = 3 * MIB + 17

# tuspy opens its source anew for each request, and leaves it to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    return make_recording(tmp_path / "noise.wav", RECORDING_SIZE)


def uploader_of(server: ServerProcess, source: Path, **options: object) -> Uploader:
    """Return tuspy's uploader of ``source``, with its name as metadata unless ``options`` say otherwise."""
    return TusClient(server.url).uploader(str(source), **{"metadata": {"filename": source.name}, **options})


def url_of(uploader: Uploader) -> str:
    return str(uploader.url)


@contextmanager
def url_storage(path: Path) -> Iterator[FileStorage]:
    """Open tuspy's storage of URLs at ``path``."""
    storage = FileStorage(str(path))  # type: ignore[no-untyped-call]
    yield storage
    storage.close()  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("name", ["id3.mp3", "pcm.wav", "opus.ogg", "aac.m4a", "picture.mp4", "picture.webm"])
def test_a_real_recording_goes_up_whole(server: ServerProcess, upload_dir: Path, tmp_path: Path, name: str) -> None:
    source = make_media_file(name, tmp_path)
    uploader = uploader_of(server, source)

    uploader.upload()

    assert_stored(upload_dir, url_of(uploader), source)


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, id="in one request"),
        pytest.param({"chunk_size": 256 * KIB}, id="in chunks"),
        pytest.param({"chunk_size": RECORDING_SIZE // 5}, id="in chunks with a short last one"),
        pytest.param({"upload_checksum": True, "chunk_size": 512 * KIB}, id="with checksums"),
        pytest.param({"metadata": {}}, id="without metadata"),
        pytest.param({"metadata": {"filename": "Grüße, 東京.wav", "filetype": ""}}, id="with a name beyond ASCII"),
    ],
)
def test_an_upload_is_stored_byte_for_byte(
    server: ServerProcess, upload_dir: Path, recording: Path, options: dict[str, object]
) -> None:
    uploader = uploader_of(server, recording, **options)

    uploader.upload()

    assert_stored(upload_dir, url_of(uploader), recording)


def test_a_stopped_upload_is_found_in_the_url_storage_and_goes_on(
    server: ServerProcess, upload_dir: Path, recording: Path, tmp_path: Path
) -> None:
    options: dict[str, object] = {"store_url": True, "chunk_size": MIB}
    with url_storage(tmp_path / "urls.json") as storage:
        stopped = uploader_of(server, recording, url_storage=storage, **options)
        stopped.upload(stop_at=2 * MIB)

    with url_storage(tmp_path / "urls.json") as storage:
        resumed = uploader_of(server, recording, url_storage=storage, **options)
        assert (resumed.url, resumed.offset) == (stopped.url, 2 * MIB)
        resumed.upload()

    assert_stored(upload_dir, url_of(resumed), recording)


def test_an_upload_that_stops_in_the_middle_keeps_its_offset(server: ServerProcess, recording: Path) -> None:
    uploader = uploader_of(server, recording, chunk_size=MIB)

    uploader.upload(stop_at=MIB + 5)

    assert offset_of(url_of(uploader)) == MIB + 5


def test_an_empty_file_is_complete_with_its_creation(server: ServerProcess, upload_dir: Path, tmp_path: Path) -> None:
    source = tmp_path / "empty.wav"
    source.touch()
    uploader = uploader_of(server, source)

    uploader.upload()

    assert_stored(upload_dir, url_of(uploader), source)


def test_the_metadata_is_shown_back(server: ServerProcess, tmp_path: Path) -> None:
    source = make_media_file("pcm.wav", tmp_path)
    uploader = uploader_of(server, source)

    uploader.upload()

    assert httpx2.head(url_of(uploader), headers=TUS).headers["upload-metadata"] == build_metadata("pcm.wav")
