"""Another server than uvicorn: one that sends files by itself (ASGI, Path Send extension)."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest

from tests.end_to_end.uploads import MIB, append, assert_stored, create, make_recording, wait_until
from tests.server_process import surroundings


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def answers(url: str) -> bool:
    try:
        return httpx2.options(url).status_code == 204
    except httpx2.TransportError:
        return False


@contextmanager
def granian(upload_dir: Path) -> Iterator[str]:
    """Serve uploads with granian, and give the endpoint."""
    program = shutil.which("granian", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    if program is None:
        pytest.skip("granian is missing; install it with: pip install granian")
    port = free_port()
    # Its own warnings are not ours to judge.
    environment = {**surroundings({"TUSD_PY_UPLOAD_DIR": str(upload_dir)}), "PYTHONWARNINGS": "default"}
    command = [
        program,
        "--interface",
        "asgi",
        "--factory",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "tusd_py:TusApp",
    ]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    try:
        url = f"http://127.0.0.1:{port}/files/"
        wait_until(lambda: answers(url))
        yield url
    finally:
        process.terminate()
        process.wait(30)


def test_a_form_works_under_another_server(tmp_path: Path) -> None:
    recording = make_recording(tmp_path / "noise.wav", 3 * MIB)
    with granian(tmp_path / "uploads") as endpoint:
        url = endpoint.removesuffix("files/") + "upload/stream"
        with recording.open("rb") as file:
            answer = httpx2.post(url, files={"file": file})
        assert answer.status_code == 200
        assert_stored(tmp_path / "uploads", answer.headers["location"], recording)
        # It ends a body that is not wanted any more as it likes.
        assert httpx2.post(url, files={"file": ("noise.exe", recording.read_bytes())}).status_code == 400


def test_an_upload_and_its_download_work_under_a_server_that_sends_files_itself(tmp_path: Path) -> None:
    recording = make_recording(tmp_path / "noise.wav", 3 * MIB)
    content = recording.read_bytes()
    with granian(tmp_path / "uploads") as endpoint:
        url = create(endpoint, len(content))
        assert append(url, 0, content[:MIB]).status_code == 204
        assert append(url, MIB, content[MIB:]).status_code == 204

        assert_stored(tmp_path / "uploads", url, recording)
        answer = httpx2.get(url, headers={"Range": f"bytes={MIB}-"})
        assert (answer.status_code, answer.content) == (206, content[MIB:])
        assert answer.headers["etag"] == httpx2.get(url).headers["etag"]
        recording.write_bytes(b"")
        [stored] = (tmp_path / "uploads").glob("*.wav")
        stored.unlink()
        assert httpx2.get(url).status_code == 404
