"""What the end-to-end tests share: real sound of any size, plain tus requests, and the comparison at the end."""

from __future__ import annotations

import random
import time
import wave
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path

import httpx2

KIB = 1024
MIB = 1024 * KIB

TUS = {"Tus-Resumable": "1.0.0"}
APPEND = {**TUS, "Content-Type": "application/offset+octet-stream"}

_WAVE_HEADER = 44


def make_recording(path: Path, size: int, *, seed: int = 440) -> Path:
    """Write a real WAV file of ``size`` bytes to ``path``: noise, so that every byte out of its place is noticed."""
    with wave.open(str(path), "wb") as recording:
        recording.setnchannels(1)
        recording.setsampwidth(1)
        recording.setframerate(48000)
        recording.writeframes(random.Random(seed).randbytes(size - _WAVE_HEADER))
    assert path.stat().st_size == size
    return path


def build_metadata(name: str) -> str:
    """Return ``Upload-Metadata`` with ``name`` as the file's name."""
    return f"filename {b64encode(name.encode()).decode()}"


def create(endpoint: str, length: int, name: str = "noise.wav") -> str:
    """Create an upload and return its URL."""
    fields = {**TUS, "Upload-Length": str(length), "Upload-Metadata": build_metadata(name)}
    answer = httpx2.post(endpoint, headers=fields)
    assert answer.status_code == 201, answer.text
    return answer.headers["location"]


def append(url: str, offset: int, data: bytes) -> httpx2.Response:
    """Send ``data`` for ``offset`` in one PATCH."""
    return httpx2.patch(url, headers={**APPEND, "Upload-Offset": str(offset)}, content=data)


def offset_of(url: str) -> int:
    """Return the offset that HEAD tells."""
    answer = httpx2.head(url, headers=TUS)
    assert answer.status_code == 200, answer
    return int(answer.headers["upload-offset"])


def id_of(url: str) -> str:
    """Return the id of the upload at ``url``."""
    return url.rstrip("/").rpartition("/")[2]


def stored_size(upload_dir: Path, url: str) -> int:
    """Return how many bytes of an unfinished upload are on the disk; 0 when it is not there."""
    try:
        return (upload_dir / "partial" / f"{id_of(url)}.part").stat().st_size
    except FileNotFoundError:
        return 0


def assert_stored(upload_dir: Path, url: str, source: Path) -> None:
    """Demand that the finished upload is ``source`` byte for byte, in the folder and by GET, and that nothing else of
    it is left over."""
    expected = source.read_bytes()
    finished = upload_dir / f"{id_of(url)}{source.suffix}"
    assert finished.read_bytes() == expected
    assert httpx2.get(url).content == expected
    assert list((upload_dir / "partial").glob(f"{id_of(url)}*")) == []


def wait_until(condition: Callable[[], bool], *, seconds: float = 15) -> None:
    """Wait for something that another process does, and that nobody tells us of."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"this did not happen within {seconds} s"
        time.sleep(0.01)


def wait_for_data(upload_dir: Path, url: str, size: int) -> None:
    """Wait until ``size`` bytes of an unfinished upload, or more, are on the disk."""
    wait_until(lambda: stored_size(upload_dir, url) >= size)
