"""The upload folder as its consumers see it: nothing but finished uploads, and each of them whole."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from tests.end_to_end.uploads import KIB, append, assert_stored, create, id_of, make_recording, offset_of, wait_until
from tests.server_process import ServerProcess

CHUNKS = 8
CHUNK_SIZE = 64 * KIB


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    return make_recording(tmp_path / "noise.wav", CHUNKS * CHUNK_SIZE)


@pytest.fixture
def upload_dir(tmp_path: Path) -> Path:
    return tmp_path / "uploads"


@pytest.fixture
def server(upload_dir: Path) -> Iterator[ServerProcess]:
    with ServerProcess(upload_dir) as process:
        yield process


def consumer_view(upload_dir: Path) -> set[str]:
    """Return the names of the files that somebody who watches the folder takes for uploads."""
    return {path.name for path in upload_dir.iterdir() if path.is_file()}


def test_a_file_is_there_only_when_it_is_whole(server: ServerProcess, upload_dir: Path, recording: Path) -> None:
    content = recording.read_bytes()
    url = create(server.url, len(content))

    for offset in range(0, len(content), CHUNK_SIZE):
        assert consumer_view(upload_dir) == set()
        assert httpx2.get(url).status_code == 404
        assert append(url, offset, content[offset : offset + CHUNK_SIZE]).status_code == 204

    assert consumer_view(upload_dir) == {f"{id_of(url)}.wav"}
    assert list((upload_dir / "partial").iterdir()) == []
    assert_stored(upload_dir, url, recording)


def test_a_watcher_never_sees_a_part_of_a_file(server: ServerProcess, upload_dir: Path, recording: Path) -> None:
    content = recording.read_bytes()
    is_over = threading.Event()
    first_sizes: dict[str, int] = {}

    def watch() -> None:
        while not is_over.is_set():
            for path in upload_dir.glob("*.wav"):
                first_sizes.setdefault(path.name, path.stat().st_size)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        for _ in range(20):
            url = create(server.url, len(content))
            append(url, 0, content)
            wait_until(lambda: f"{id_of(url)}.wav" in first_sizes)  # noqa: B023 (called in this turn only)
    finally:
        is_over.set()
        watcher.join()

    assert set(first_sizes.values()) == {len(content)}


def test_finished_uploads_are_there_after_a_restart(server: ServerProcess, upload_dir: Path, recording: Path) -> None:
    finished = create(server.url, len(recording.read_bytes()))
    append(finished, 0, recording.read_bytes())
    unfinished = create(server.url, len(recording.read_bytes()))
    append(unfinished, 0, recording.read_bytes()[:CHUNK_SIZE])
    server.stop()

    with ServerProcess(upload_dir, "--port", str(server.port)):
        assert_stored(upload_dir, finished, recording)
        assert offset_of(unfinished) == CHUNK_SIZE
