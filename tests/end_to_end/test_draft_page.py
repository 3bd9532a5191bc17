"""The lines for curl in docs/draft.md, run as they stand there."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.end_to_end.uploads import assert_stored
from tests.media_files import make_media_file
from tests.server_process import ServerProcess

PAGE = Path(__file__).parents[2] / "docs" / "draft.md"
ENDPOINT = "http://127.0.0.1:8080/files/"
LOCATION = re.compile(r"^location: (\S+)\r?$", re.IGNORECASE | re.MULTILINE)


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    return make_media_file("id3.mp3", tmp_path).rename(tmp_path / "recording.mp3")


def run(number: int, endpoint: str, folder: Path, *, more: str = "") -> str:
    """Run a block of the page, by its number, and return what it wrote."""
    block = re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)[number]
    assert ENDPOINT in block
    command = ["sh", "-eu", "-c", block.replace(ENDPOINT, endpoint) + more]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout


@pytest.mark.usefixtures("curl")
def test_the_lines_for_a_whole_file_upload_it(server: ServerProcess, upload_dir: Path, recording: Path) -> None:
    answer = run(0, server.url, recording.parent)

    assert " 201 " in answer
    location = LOCATION.search(answer)
    assert location is not None
    assert_stored(upload_dir, location[1], recording)


@pytest.mark.usefixtures("curl")
def test_the_lines_for_pieces_upload_the_file(server: ServerProcess, upload_dir: Path, recording: Path) -> None:
    url = run(1, server.url, recording.parent, more='\nprintf %s "$url"')

    assert_stored(upload_dir, url, recording)
