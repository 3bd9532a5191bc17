"""The README's own lines, run as they stand there: whoever copies them gets a file uploaded."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.end_to_end.uploads import assert_stored
from tests.media_files import make_media_file
from tests.server_process import ServerProcess

README = Path(__file__).parents[2] / "README.md"
ENDPOINT = "http://127.0.0.1:8080/files/"
FORM_ENDPOINT = "http://127.0.0.1:8080/upload/stream"
SECONDS = 60


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """The file that all examples upload, in the folder in which they are run."""
    return make_media_file("id3.mp3", tmp_path).rename(tmp_path / "recording.mp3")


def block_with(marker: str) -> str:
    """Return the README's code block with ``marker`` in it."""
    blocks = re.findall(r"^```\w+\n(.*?)^```$", README.read_text(), re.MULTILINE | re.DOTALL)
    [block] = [block for block in blocks if marker in block]
    return str(block)


def example(marker: str, endpoint: str) -> str:
    """Return the README's code block with ``marker`` in it, pointed at ``endpoint``."""
    block = block_with(marker)
    assert ENDPOINT in block
    return block.replace(ENDPOINT, endpoint)


def form_example(marker: str, server: ServerProcess) -> str:
    """Return the README's code block with ``marker`` in it, pointed at where ``server`` takes forms."""
    block = block_with(marker)
    assert FORM_ENDPOINT in block
    return block.replace(FORM_ENDPOINT, f"http://127.0.0.1:{server.port}/upload/stream")


def run(arguments: list[str], folder: Path) -> str:
    """Run a program in ``folder`` and return the last line of its output."""
    done = subprocess.run(arguments, cwd=folder, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()[-1]


def test_the_lines_for_tuspy_upload_the_file(server: ServerProcess, upload_dir: Path, recording: Path) -> None:
    url = run([sys.executable, "-c", example("TusClient(", server.url)], recording.parent)

    assert_stored(upload_dir, url, recording)


@pytest.mark.usefixtures("curl")
def test_the_lines_for_curl_upload_the_file(server: ServerProcess, upload_dir: Path, recording: Path) -> None:
    url = run(["sh", "-eu", "-c", example("curl -sS -X PATCH", server.url) + '\nprintf %s "$url"'], recording.parent)

    assert_stored(upload_dir, url, recording)


@pytest.mark.usefixtures("curl")
def test_the_line_for_curl_sends_a_form_and_is_answered_as_it_says(
    server: ServerProcess, upload_dir: Path, recording: Path
) -> None:
    said = json.loads(run(["sh", "-eu", "-c", form_example("curl -sS -F", server)], recording.parent))
    promised = json.loads(block_with('{"upload_id"'))

    assert said["filename"] == promised["filename"]
    assert said.keys() == promised.keys()
    assert (upload_dir / said["path"]).read_bytes() == recording.read_bytes()
    assert_stored(upload_dir, f"{server.url}{said['upload_id']}", recording)


def test_the_lines_for_httpx2_send_a_form(server: ServerProcess, upload_dir: Path, recording: Path) -> None:
    path = run([sys.executable, "-c", form_example("httpx2.post(", server)], recording.parent)

    assert (upload_dir / path).read_bytes() == recording.read_bytes()


@pytest.mark.usefixtures("curl")
def test_the_lines_for_curl_go_on_with_a_download(server: ServerProcess, recording: Path) -> None:
    content = recording.read_bytes()
    copy = recording.parent / "copy.mp3"
    copy.write_bytes(content[:1000])
    upload, download = example("curl -sS -X PATCH", server.url), block_with("-o copy.mp3")

    run(["sh", "-eu", "-c", f'{upload}\n{download}\nprintf %s "$url"'], recording.parent)

    assert copy.read_bytes() == content


def test_the_lines_for_tus_js_client_upload_the_file(
    server: ServerProcess, upload_dir: Path, recording: Path, node: str, node_modules: Path
) -> None:
    (recording.parent / "node_modules").symlink_to(node_modules.resolve())
    (recording.parent / "upload.mjs").write_text(example("new tus.Upload(", server.url))

    url = run([node, "upload.mjs"], recording.parent)

    assert_stored(upload_dir, url, recording)
