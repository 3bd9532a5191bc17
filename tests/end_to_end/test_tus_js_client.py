"""tus-js-client under Node, the client of most browsers and of Uppy."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest

from tests.end_to_end.proxy import Fault, Trouble, bad_network
from tests.end_to_end.uploads import KIB, MIB, TUS, assert_stored, id_of, make_recording, wait_for_data
from tests.media_files import make_media_file
from tests.server_process import ServerProcess

RECORDING_SIZE = 3 * MIB + 17
DRIVER = Path(__file__).parent / "node" / "driver.mjs"
DRIVER_SECONDS = 60

# What a network that falls silent after 2 MiB has carried of an upload at least; the rest are heads of requests.
CARRIED = 2 * MIB - 4 * KIB

Event = dict[str, str | int | None]


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    return make_recording(tmp_path / "noise.wav", RECORDING_SIZE)


@dataclass(frozen=True)
class Driver:
    """The program beside this file that runs one upload with tus-js-client."""

    node: str
    modules: Path

    def run(
        self, endpoint: str, source: Path, options: Mapping[str, object] | None = None, **order: object
    ) -> list[Event]:
        """Upload ``source`` and return what happened.

        ``options`` are those of ``tus.Upload``, on top of the usual ones; ``order`` is what ``driver.mjs`` tells.
        """
        with self.running(endpoint, source, options, **order) as process:
            output, errors = process.communicate(timeout=DRIVER_SECONDS)
        assert not errors, errors
        return [json.loads(line) for line in output.splitlines()]

    @contextmanager
    def running(
        self, endpoint: str, source: Path, options: Mapping[str, object] | None = None, **order: object
    ) -> Iterator[subprocess.Popen[str]]:
        """Begin to upload ``source``; the process is ended with the context at the latest."""
        usual = {"endpoint": endpoint, "retryDelays": [0, 100, 300], "metadata": {"filename": source.name}}
        told = {"modules": str(self.modules), "file": str(source), **order, "options": {**usual, **(options or {})}}
        with subprocess.Popen(
            [self.node, str(DRIVER), json.dumps(told)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                yield process
            finally:
                process.kill()


@pytest.fixture
def driver(node: str, node_modules: Path) -> Driver:
    return Driver(node, node_modules)


def url_of(events: list[Event]) -> str:
    """Return the URL of the upload that succeeded."""
    [url] = [event["url"] for event in events if event["event"] == "success"]
    return str(url)


def remembered_url(storage: Path) -> str:
    """Return the URL of the only upload that the client has written down to go on with it later."""
    [remembered] = json.loads(storage.read_text()).values()
    return str(remembered["uploadUrl"])


def requests_of(events: list[Event]) -> list[Event]:
    return [event for event in events if event["event"] == "request"]


def methods_of(events: list[Event]) -> list[str | int | None]:
    return [event["method"] for event in requests_of(events)]


def resumed_at(events: list[Event]) -> int:
    """Return the offset that the last HEAD gave, having checked that the next PATCH begins there."""
    last_head = max(
        index for index, event in enumerate(events) if event["event"] == "response" and event["method"] == "HEAD"
    )
    told = int(str(events[last_head]["upload-offset"]))
    following = next(event for event in events[last_head:] if event["event"] == "request")
    assert following["method"] == "PATCH"
    assert following["upload-offset"] == str(told)
    return told


@pytest.mark.parametrize("name", ["picture.mp4", "id3.mp3"])
def test_a_real_recording_goes_up_whole(
    server: ServerProcess, upload_dir: Path, driver: Driver, tmp_path: Path, name: str
) -> None:
    source = make_media_file(name, tmp_path)

    events = driver.run(server.url, source)

    assert methods_of(events) == ["POST", "PATCH"]
    assert_stored(upload_dir, url_of(events), source)


@pytest.mark.parametrize(
    ("options", "methods"),
    [
        pytest.param({}, ["POST", "PATCH"], id="in one request"),
        pytest.param({"chunkSize": MIB}, ["POST", *["PATCH"] * 4], id="in chunks"),
        pytest.param({"uploadDataDuringCreation": True}, ["POST"], id="with its creation"),
        pytest.param(
            {"uploadDataDuringCreation": True, "chunkSize": MIB},
            ["POST", *["PATCH"] * 3],
            id="in chunks, the first one with its creation",
        ),
        pytest.param({"overridePatchMethod": True}, ["POST", "POST"], id="with POST for PATCH"),
        pytest.param({"addRequestId": True, "metadata": {}}, ["POST", "PATCH"], id="without metadata"),
    ],
)
def test_an_upload_is_stored_byte_for_byte(
    server: ServerProcess,
    upload_dir: Path,
    driver: Driver,
    recording: Path,
    options: dict[str, object],
    methods: list[str],
) -> None:
    events = driver.run(server.url, recording, options=options)

    assert methods_of(events) == methods
    assert_stored(upload_dir, url_of(events), recording)


def test_a_stream_of_unknown_length_declares_it_at_its_end(
    server: ServerProcess, upload_dir: Path, driver: Driver, recording: Path
) -> None:
    options = {"uploadLengthDeferred": True, "chunkSize": MIB}

    events = driver.run(server.url, recording, stream=True, options=options)

    creation, *_, last = requests_of(events)
    assert creation["upload-defer-length"] == "1"
    assert last["upload-length"] == str(RECORDING_SIZE)
    assert_stored(upload_dir, url_of(events), recording)


def test_an_empty_file_is_complete_with_its_creation(
    server: ServerProcess, upload_dir: Path, driver: Driver, tmp_path: Path
) -> None:
    source = tmp_path / "empty.wav"
    source.touch()

    events = driver.run(server.url, source)

    assert methods_of(events) == ["POST"]
    assert_stored(upload_dir, url_of(events), source)


def test_an_upload_aborted_in_the_middle_of_a_request_goes_on_where_it_was(
    server: ServerProcess, upload_dir: Path, driver: Driver, recording: Path, tmp_path: Path
) -> None:
    storage = tmp_path / "urls.json"
    storage.touch()
    with bad_network(server.url, Fault(2 * MIB, Trouble.SILENCE)) as network:
        with driver.running(network.url, recording, storage=str(storage)) as process:
            assert network.happened.wait(DRIVER_SECONDS)
            wait_for_data(upload_dir, remembered_url(storage), CARRIED)
            output, _ = process.communicate("abort\n", timeout=DRIVER_SECONDS)
        aborted = json.loads(output.splitlines()[-1])
        assert aborted["event"] == "aborted"

        events = driver.run(network.url, recording, storage=str(storage))

    assert methods_of(events) == ["HEAD", "PATCH"]
    assert CARRIED <= resumed_at(events) < RECORDING_SIZE
    assert url_of(events) == aborted["url"]
    assert_stored(upload_dir, server.url + id_of(url_of(events)), recording)


def test_a_connection_that_is_cut_again_and_again_is_no_matter(
    server: ServerProcess, upload_dir: Path, driver: Driver, recording: Path
) -> None:
    with bad_network(server.url, Fault(MIB, Trouble.CUT), Fault(MIB, Trouble.CUT)) as network:
        events = driver.run(network.url, recording)

    assert methods_of(events) == ["POST", "PATCH", "HEAD", "PATCH", "HEAD", "PATCH"]
    assert resumed_at(events) > 0
    assert_stored(upload_dir, server.url + id_of(url_of(events)), recording)


def test_what_a_silent_network_carried_is_kept_when_the_client_takes_over(
    server: ServerProcess, upload_dir: Path, driver: Driver, recording: Path, tmp_path: Path
) -> None:
    storage = tmp_path / "urls.json"
    storage.touch()
    with (
        bad_network(server.url, Fault(2 * MIB, Trouble.SILENCE)) as network,
        # The first one does not try again: it would take the upload back as soon as it is answered 409.
        driver.running(network.url, recording, storage=str(storage), options={"retryDelays": None}) as overtaken,
    ):
        assert network.happened.wait(DRIVER_SECONDS)
        wait_for_data(upload_dir, remembered_url(storage), CARRIED)

        events = driver.run(network.url, recording, storage=str(storage))
        output, _ = overtaken.communicate(timeout=DRIVER_SECONDS)

    assert "ERR_UPLOAD_INTERRUPTED" in output
    assert resumed_at(events) >= CARRIED
    assert_stored(upload_dir, server.url + id_of(url_of(events)), recording)


def test_a_restart_of_the_server_in_the_middle_of_a_request_is_no_matter(
    driver: Driver, recording: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "uploads"
    storage = tmp_path / "urls.json"
    storage.touch()
    with (
        ServerProcess(folder) as first,
        bad_network(first.url, Fault(2 * MIB, Trouble.SILENCE)) as network,
        driver.running(network.url, recording, {"retryDelays": [100] * 100}, storage=str(storage)) as process,
    ):
        assert network.happened.wait(DRIVER_SECONDS)
        wait_for_data(folder, remembered_url(storage), CARRIED)
        assert first.stop() == 0

        with ServerProcess(folder, "--port", str(first.port)) as second:
            output, _ = process.communicate(timeout=DRIVER_SECONDS)
            events = [json.loads(line) for line in output.splitlines()]
            assert_stored(folder, second.url + id_of(url_of(events)), recording)

    assert [event["status"] for event in events if event["event"] == "response"] == [201, 503, 200, 204]
    assert resumed_at(events) >= CARRIED


def test_a_terminated_upload_is_gone(server: ServerProcess, upload_dir: Path, driver: Driver, recording: Path) -> None:
    events = driver.run(server.url, recording, terminate=True)

    assert events[-1]["event"] == "terminated"
    assert httpx2.head(url_of(events), headers=TUS).status_code == 404
    assert list(upload_dir.rglob(f"{id_of(url_of(events))}*")) == []


def test_a_file_that_is_not_accepted_is_refused_with_a_sentence(
    server: ServerProcess, driver: Driver, tmp_path: Path
) -> None:
    source = tmp_path / "program.exe"
    source.write_bytes(b"MZ")

    *_, error = driver.run(server.url, source)

    assert error["event"] == "error"
    assert "response code: 400" in str(error["message"])
    assert ".exe is not accepted here" in str(error["message"])


@pytest.mark.parametrize(
    "options", [{}, {"chunkSize": 300 * KIB}, {"metadataForPartialUploads": {"filename": "a.exe"}}]
)
def test_four_parallel_uploads_make_one(
    server: ServerProcess, upload_dir: Path, driver: Driver, recording: Path, options: dict[str, object]
) -> None:
    events = driver.run(server.url, recording, {"parallelUploads": 4, **options})

    assert methods_of(events).count("POST") == 5
    assert_stored(upload_dir, url_of(events), recording)
