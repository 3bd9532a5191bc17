"""An upload that has all its bytes and waits for its client's word, through everything that may happen meanwhile."""

from __future__ import annotations

import subprocess
from pathlib import Path

import httpx2

from tests.end_to_end.uploads import KIB, assert_stored, make_recording
from tests.server_process import ServerProcess, program, surroundings

VERSION = {"Upload-Draft-Interop-Version": "8"}


def tusd_py(*arguments: str) -> str:
    """Run a command of ours and return what it wrote; it must end well."""
    done = subprocess.run(
        program(*arguments), capture_output=True, text=True, timeout=60, check=False, env=surroundings()
    )
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


def test_it_waits_through_a_kill_a_sweep_and_a_verification(tmp_path: Path) -> None:
    folder = tmp_path / "uploads"
    recording = make_recording(tmp_path / "noise.wav", 100 * KIB)
    with ServerProcess(folder) as server:
        fields = {**VERSION, "Upload-Complete": "?0", "Upload-Length": str(100 * KIB)}
        created = httpx2.post(server.url, headers=fields, content=recording.read_bytes())
        assert (created.status_code, created.headers["upload-offset"]) == (201, str(100 * KIB))
        server.kill()

    with ServerProcess(folder, "--port", str(server.port)) as server:
        url = created.headers["location"]
        tusd_py("sweep", "--upload-dir", str(folder))
        tusd_py("verify", "--upload-dir", str(folder))
        found = httpx2.head(url, headers=VERSION)
        assert (found.status_code, found.headers["upload-complete"]) == (204, "?0")
        assert found.headers["upload-offset"] == found.headers["upload-length"] == str(100 * KIB)
        assert list(folder.glob("*.wav")) == []

        fields = {
            **VERSION,
            "Upload-Complete": "?1",
            "Upload-Offset": found.headers["upload-offset"],
            "Content-Type": "application/partial-upload",
        }
        final = httpx2.patch(url, headers=fields)
        assert (final.status_code, final.headers["upload-complete"]) == (201, "?1")
        assert_stored(folder, url, recording)
