"""The server gets SIGKILL in the middle of a concatenation, twenty times, and no final is ever less than whole.

Each time at another system call: from the first copy on, over the write that makes the bytes count, to the renames that
make the upload complete and the removal of what is left. What lies in the folder then is looked at, and the sweep that
follows a restart ends what was begun.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import signal
from pathlib import Path

import httpx2

from tests.end_to_end.uploads import APPEND, KIB, TUS, build_metadata, id_of, make_recording
from tests.server_process import ServerProcess, surroundings
from tusd_py.build import assemble
from tusd_py.settings import Settings

KILLS = 20
PARTIALS = 12
PARTIAL_SIZE = 256 * KIB

# Read by Python at its start. Of a copy, the first half happens.
ASSASSIN = """
import os, signal

calls = -1

def watched(name, call):
    def watched(*args, **options):
        global calls
        if calls >= 0 or name == "copy_file_range":
            calls += 1
            if calls == int(os.environ["KILLED_AT"]):
                if name == "copy_file_range":
                    call(args[0], args[1], args[2] // 2, *args[3:])
                os.kill(os.getpid(), signal.SIGKILL)
        return call(*args, **options)
    return watched

for name in ("copy_file_range", "pwrite", "ftruncate", "fdatasync", "fsync", "rename", "unlink"):
    setattr(os, name, watched(name, getattr(os, name)))
"""


def create_partial(endpoint: str, data: bytes) -> str:
    fields = {**APPEND, "Upload-Concat": "partial", "Upload-Length": str(len(data))}
    answer = httpx2.post(endpoint, headers=fields, content=data)
    assert answer.status_code == 201, answer.text
    return f"/files/{id_of(answer.headers['location'])}"


def ask_for_final(endpoint: str, partials: list[str]) -> httpx2.Response:
    metadata = build_metadata("noise.wav")
    fields = {**TUS, "Upload-Concat": f"final;{' '.join(partials)}", "Upload-Metadata": metadata}
    return httpx2.post(endpoint, headers=fields)


async def sweep(folder: Path) -> None:
    parts = assemble(Settings(upload_dir=folder))
    await parts.store.open()
    await parts.sweeper.sweep()
    unfinished = [upload async for upload in parts.store.list()]
    assert len(unfinished) == PARTIALS
    await parts.store.close()


def test_a_final_is_whole_or_not_there_although_the_server_is_killed_in_the_middle(tmp_path: Path) -> None:
    folder = tmp_path / "uploads"
    recording = make_recording(tmp_path / "noise.wav", PARTIALS * PARTIAL_SIZE - 5).read_bytes()
    digest = hashlib.sha256(recording).digest()
    parts = [recording[start : start + PARTIAL_SIZE] for start in range(0, len(recording), PARTIAL_SIZE)]
    assassin = tmp_path / "assassin"
    assassin.mkdir()
    (assassin / "sitecustomize.py").write_text(ASSASSIN)
    path = os.pathsep.join([str(assassin), surroundings()["PYTHONPATH"]])

    with ServerProcess(folder) as server:
        partials = [create_partial(server.url, part) for part in parts]
    for at in range(KILLS):
        with ServerProcess(folder, variables={"PYTHONPATH": path, "KILLED_AT": str(at)}) as server:
            with contextlib.suppress(httpx2.HTTPError):
                ask_for_final(server.url, partials)
            assert server.wait() == -signal.SIGKILL
        for final in folder.glob("*.wav"):
            assert hashlib.sha256(final.read_bytes()).digest() == digest
        assert at >= PARTIALS or not list(folder.glob("*.wav"))

        asyncio.run(sweep(folder))
        [final] = folder.glob("*.wav")
        assert hashlib.sha256(final.read_bytes()).digest() == digest
        final.unlink()
        kept = [(folder / "partial" / f"{id_of(partial)}.part").read_bytes() for partial in partials]
        assert kept == parts

    with ServerProcess(folder) as server:
        answer = ask_for_final(server.url, partials)
        assert answer.status_code == 201, answer.text
        assert httpx2.get(answer.headers["location"]).content == recording
