"""The server is killed again and again under its clients, and no byte that it acknowledged is lost.

Clients upload one recording after the other. Meanwhile a worker, or the parent of the workers, or all of them get
SIGKILL, at moments that are counted in bytes sent, so that they fall anywhere into a request. The server is started
again on the same port and folder, and the clients go on as the protocol tells them to: HEAD, then PATCH from there.
"""

from __future__ import annotations

import hashlib
import os
import random
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import psutil
import pytest

from tests.end_to_end.uploads import APPEND, KIB, MIB, TUS, build_metadata, id_of, make_recording
from tests.server_process import ServerProcess

CLIENTS = 4
REQUEST_SIZE = 256 * KIB
PIECE_SIZE = 32 * KIB
RECORDING_SIZE = 3 * MIB + 17
MOST_BETWEEN_KILLS = 6 * MIB

# A killed server is back within a second or two; nothing here waits for longer than this.
PATIENCE_SECONDS = 30.0
RETRY_SECONDS = 0.05

# A client goes on after these, with HEAD: overtaken, busy, stopping.
PASSING = (409, 423, 503)


class Crowd:
    """What the clients have sent together, so that the killer can choose its moments by it."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._sent = 0
        self._is_broken = False
        self.is_over = False

    def count(self, sent: int) -> None:
        with self._changed:
            self._sent += sent
            self._changed.notify_all()

    def give_up(self) -> None:
        """Tell that a client has failed, so that nobody waits for it."""
        with self._changed:
            self._is_broken = True
            self._changed.notify_all()

    def wait_for(self, more: int) -> None:
        """Wait until the clients have sent so many bytes more."""
        with self._changed:
            mark = self._sent + more
            assert self._changed.wait_for(lambda: self._is_broken or self._sent >= mark, PATIENCE_SECONDS), (
                "the clients do not get on"
            )


@dataclass(frozen=True)
class Answer:
    status: int
    fields: Mapping[str, str]


class Client:
    """Uploads ``content`` again and again, and holds the server to what it acknowledged.

    ``with_checksums``: each request announces one, and then it is kept as a whole or not at all.
    """

    def __init__(self, endpoint: str, content: bytes, crowd: Crowd, *, with_checksums: bool) -> None:
        self._endpoint = endpoint
        self._content = content
        self._crowd = crowd
        self._with_checksums = with_checksums
        self.finished: list[str] = []

    def run(self) -> None:
        """Upload until the crowd is told that it is over."""
        try:
            while not self._crowd.is_over:
                url = self._create()
                self._upload(url)
                self.finished.append(url)
        except BaseException:
            self._crowd.give_up()
            raise

    def _create(self) -> str:
        fields = {"Upload-Length": str(len(self._content)), "Upload-Metadata": build_metadata("noise.wav")}
        answer = self._ask("POST", self._endpoint, {**TUS, **fields})
        assert answer.status == 201, answer
        return answer.fields["location"]

    def _upload(self, url: str) -> None:
        offset = acknowledged = 0
        while offset < len(self._content):
            head = self._ask("HEAD", url, TUS)
            assert head.status == 200, (url, acknowledged, head)
            offset = int(head.fields["upload-offset"])
            assert offset >= acknowledged, f"{url} was at {acknowledged} and is at {offset} now"
            if self._with_checksums:
                assert offset % REQUEST_SIZE == 0 or offset == len(self._content), f"{url} has unverified bytes"
            acknowledged = offset = self._append(url, offset)

    def _append(self, url: str, offset: int) -> int:
        """Send as much as the server takes, and return the last offset that it acknowledged."""
        while offset < len(self._content):
            data = self._content[offset : offset + REQUEST_SIZE]
            fields = {**APPEND, "Upload-Offset": str(offset)}
            if self._with_checksums:
                fields["Upload-Checksum"] = f"sha1 {b64encode(hashlib.sha1(data).digest()).decode()}"
            answer = self._try("PATCH", url, fields, data)
            if answer is None or answer.status in PASSING:
                break
            assert answer.status == 204, (url, offset, answer)
            assert int(answer.fields["upload-offset"]) == offset + len(data), (url, offset, answer)
            offset += len(data)
        return offset

    def _ask(self, method: str, url: str, fields: Mapping[str, str]) -> Answer:
        """Ask until there is an answer that means something."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            answer = self._try(method, url, fields)
            if answer is not None and answer.status not in PASSING:
                return answer
            time.sleep(RETRY_SECONDS)  # As clients do: nobody tells them when the server is back.
        raise AssertionError(f"no answer to {method} {url}")

    def _try(self, method: str, url: str, fields: Mapping[str, str], body: bytes = b"") -> Answer | None:
        """Send one request over a connection of its own; ``None`` when that was cut."""
        target = urlsplit(url)
        connection = HTTPConnection(str(target.hostname), target.port, timeout=PATIENCE_SECONDS)
        try:
            connection.putrequest(method, target.path)
            for name, value in {**fields, "Content-Length": str(len(body))}.items():
                connection.putheader(name, value)
            connection.endheaders()
            for start in range(0, len(body), PIECE_SIZE):
                piece = body[start : start + PIECE_SIZE]
                connection.send(piece)
                self._crowd.count(len(piece))
            response = connection.getresponse()
            response.read()
            return Answer(response.status, {name.lower(): value for name, value in response.getheaders()})
        except (OSError, HTTPException):
            return None
        finally:
            connection.close()


class Victim:
    """A server with two workers that comes back on the same port and folder."""

    def __init__(self, upload_dir: Path) -> None:
        self._upload_dir = upload_dir
        self._process = self._start(port=0)
        self.url = self._process.url

    def __enter__(self) -> Victim:
        return self

    def __exit__(self, *exc: object) -> None:
        self._process.__exit__(*exc)

    def kill_worker(self, chance: random.Random) -> None:
        """Kill one worker; the parent is left to put another one in its place."""
        workers = self._process.workers
        if workers:
            chance.choice(workers).kill()

    def kill_parent(self, chance: random.Random) -> None:
        """Kill the parent alone, wait for the workers to notice, and start anew."""
        workers = self._process.workers
        psutil.Process(self._process.pid).kill()
        _, alive = psutil.wait_procs(workers, PATIENCE_SECONDS)
        assert not alive, "workers outlive their parent"
        self._restart()

    def kill_all(self, chance: random.Random) -> None:
        """Kill parent and workers, and start anew."""
        self._process.kill()
        self._restart()

    def _restart(self) -> None:
        port = self._process.port
        self._process.__exit__()
        self._process = self._start(port=port)

    def _start(self, *, port: int) -> ServerProcess:
        return ServerProcess(self._upload_dir, "--workers", "2", "--port", str(port))


# Twenty of them. A new worker is soon there, a new server takes a second or two.
KILLS: Mapping[Callable[[Victim, random.Random], None], int] = {
    Victim.kill_worker: 10,
    Victim.kill_parent: 3,
    Victim.kill_all: 7,
}


@pytest.mark.timeout(300)
@pytest.mark.xdist_group("kill")
def test_every_upload_ends_byte_exact_although_the_server_is_killed_at_random(tmp_path: Path) -> None:
    seed = int(os.environ.get("TUSD_PY_TEST_SEED") or random.randrange(2**32))
    print(f"TUSD_PY_TEST_SEED={seed}")
    chance = random.Random(seed)
    upload_dir = tmp_path / "uploads"
    crowd = Crowd()
    contents = [
        make_recording(tmp_path / f"{number}.wav", RECORDING_SIZE, seed=number).read_bytes()
        for number in range(CLIENTS)
    ]

    with Victim(upload_dir) as victim, ThreadPoolExecutor(CLIENTS) as pool:
        clients = [
            Client(victim.url, content, crowd, with_checksums=number % 2 == 1)
            for number, content in enumerate(contents)
        ]
        runs = [pool.submit(client.run) for client in clients]
        try:
            for kill in chance.sample(list(KILLS), sum(KILLS.values()), counts=KILLS.values()):
                crowd.wait_for(chance.randrange(MOST_BETWEEN_KILLS))
                kill(victim, chance)
        finally:
            crowd.is_over = True
        for run in runs:
            run.result()

        for client, content in zip(clients, contents, strict=True):
            assert httpx2.get(client.finished[-1]).content == content

    finished = {
        id_of(url): content for client, content in zip(clients, contents, strict=True) for url in client.finished
    }
    for id, content in finished.items():
        assert (upload_dir / f"{id}.wav").read_bytes() == content
        # Its old record may lie there yet: the sweeper takes away, much later, what a kill after the commit left.
        assert not (upload_dir / "partial" / f"{id}.part").exists()
    assert {path.stem for path in upload_dir.glob("*.wav")} == finished.keys()
    assert {path.stem for path in (upload_dir / "records").iterdir()} == finished.keys()
