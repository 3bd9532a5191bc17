"""aiotus, the asyncio client: asks for the offset before every upload and takes no Location but an absolute one."""

from __future__ import annotations

import asyncio
from io import BytesIO
from pathlib import Path

import aiotus
import pytest
import yarl

from tests.end_to_end.proxy import Fault, Trouble, bad_network
from tests.end_to_end.uploads import KIB, MIB, assert_stored, id_of, make_recording
from tests.media_files import make_media_file
from tests.server_process import ServerProcess

# aiotus hands 4 MiB to aiohttp at once, which finds that a lot.
pytestmark = pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")


def upload(endpoint: str, source: Path, metadata: aiotus.Metadata, *, chunk_size: int = 4 * MIB) -> str:
    """Upload ``source`` and return its URL. aiotus tries again ten times, a second after the first trouble."""

    async def run() -> yarl.URL | None:
        with source.open("rb") as file:
            return await aiotus.upload(endpoint, file, metadata, chunksize=chunk_size)

    url = asyncio.run(run())
    assert url is not None, "aiotus gave up"
    return str(url)


@pytest.mark.parametrize("chunk_size", [4 * MIB, 256 * KIB])
def test_an_upload_is_stored_byte_for_byte(
    server: ServerProcess, upload_dir: Path, tmp_path: Path, chunk_size: int
) -> None:
    source = make_recording(tmp_path / "noise.wav", 3 * MIB + 17)

    url = upload(server.url, source, {"filename": b"noise.wav"}, chunk_size=chunk_size)

    assert_stored(upload_dir, url, source)


def test_a_real_recording_goes_up_whole(server: ServerProcess, upload_dir: Path, tmp_path: Path) -> None:
    source = make_media_file("tone.flac", tmp_path)

    url = upload(server.url, source, {"filename": b"tone.flac"})

    assert_stored(upload_dir, url, source)


def test_metadata_is_read_back_as_it_was_given(server: ServerProcess, tmp_path: Path) -> None:
    metadata: aiotus.Metadata = {"filename": "Grüße.wav".encode(), "is_public": None, "Take": bytes(range(256))}
    url = upload(server.url, make_recording(tmp_path / "noise.wav", 64 * KIB), metadata)

    assert asyncio.run(aiotus.metadata(url)) == metadata


def test_an_upload_goes_on_after_a_cut(server: ServerProcess, upload_dir: Path, tmp_path: Path) -> None:
    source = make_recording(tmp_path / "noise.wav", 3 * MIB + 17)

    with bad_network(server.url, Fault(2 * MIB, Trouble.CUT)) as network:
        url = upload(network.url, source, {"filename": b"noise.wav"})
        assert network.happened.is_set()

    assert_stored(upload_dir, server.url + id_of(url), source)


@pytest.mark.parametrize("count", [1, 2, 7])
def test_several_files_become_one_upload(server: ServerProcess, upload_dir: Path, tmp_path: Path, count: int) -> None:
    source = make_recording(tmp_path / "noise.wav", 2 * MIB + 17)
    data = source.read_bytes()
    size = len(data) // count + 1
    parts = [BytesIO(data[start : start + size]) for start in range(0, len(data), size)]

    url = asyncio.run(aiotus.upload_multiple(server.url, parts, {"filename": b"noise.wav"}, chunksize=256 * KIB))

    assert url is not None, "aiotus gave up"
    assert_stored(upload_dir, str(url), source)
