"""tus-js-client under Node in the words of the IETF draft: its protocols ietf-draft-03 and ietf-draft-05."""

from __future__ import annotations

from pathlib import Path

import httpx2
import pytest

from tests.end_to_end.proxy import Fault, Trouble, bad_network
from tests.end_to_end.test_tus_js_client import (
    CARRIED,
    DRIVER_SECONDS,
    RECORDING_SIZE,
    Driver,
    driver,
    methods_of,
    recording,
    remembered_url,
    requests_of,
    resumed_at,
    url_of,
)
from tests.end_to_end.uploads import MIB, assert_stored, id_of, wait_for_data
from tests.server_process import ServerProcess

__all__ = ["driver", "recording"]  # fixtures

# The name of a protocol there, and the interop version that it sends.
PROTOCOLS = {"ietf-draft-03": 5, "ietf-draft-05": 6}

every_protocol = pytest.mark.parametrize("protocol", PROTOCOLS)
# A file that is a stream to the client, and content in memory: it sends different flags for them.
every_source = pytest.mark.parametrize("source", [{}, {"buffer": True}], ids=["file", "buffer"])


def assert_complete(url: str, protocol: str) -> None:
    """Demand that a HEAD in the same words tells a finished upload."""
    answer = httpx2.head(url, headers={"Upload-Draft-Interop-Version": str(PROTOCOLS[protocol])})
    assert (answer.status_code, answer.headers["upload-complete"]) == (204, "?1")
    assert answer.headers["upload-offset"] == answer.headers["upload-length"]


@every_protocol
@every_source
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
    ],
)
def test_an_upload_is_stored_byte_for_byte(
    server: ServerProcess,
    upload_dir: Path,
    driver: Driver,
    recording: Path,
    protocol: str,
    source: dict[str, bool],
    options: dict[str, object],
    methods: list[str],
) -> None:
    events = driver.run(server.url, recording, {"protocol": protocol, **options}, **source)

    assert methods_of(events) == methods
    assert_stored(upload_dir, url_of(events), recording)
    assert_complete(url_of(events), protocol)


@every_protocol
def test_a_file_in_chunks_is_never_said_to_end(
    server: ServerProcess, driver: Driver, recording: Path, protocol: str
) -> None:
    """Why such an upload ends by its length. Where this fails, the client was mended, and ``_means_length`` can go."""
    events = driver.run(server.url, recording, {"protocol": protocol, "chunkSize": MIB})

    assert {request["upload-complete"] for request in requests_of(events)} == {"?0"}


@every_protocol
@every_source
def test_a_connection_that_is_cut_again_and_again_is_no_matter(
    server: ServerProcess, upload_dir: Path, driver: Driver, recording: Path, protocol: str, source: dict[str, bool]
) -> None:
    with bad_network(server.url, Fault(MIB, Trouble.CUT), Fault(MIB, Trouble.CUT)) as network:
        events = driver.run(network.url, recording, {"protocol": protocol}, **source)

    assert methods_of(events) == ["POST", "PATCH", "HEAD", "PATCH", "HEAD", "PATCH"]
    assert resumed_at(events) > 0
    url = server.url + id_of(url_of(events))
    assert_stored(upload_dir, url, recording)
    assert_complete(url, protocol)


@every_protocol
def test_a_later_process_goes_on_where_an_earlier_one_was_ended(
    server: ServerProcess, upload_dir: Path, driver: Driver, recording: Path, tmp_path: Path, protocol: str
) -> None:
    storage = tmp_path / "urls.json"
    storage.touch()
    with bad_network(server.url, Fault(2 * MIB, Trouble.SILENCE)) as network:
        with driver.running(network.url, recording, {"protocol": protocol}, storage=str(storage)) as process:
            assert network.happened.wait(DRIVER_SECONDS)
            wait_for_data(upload_dir, remembered_url(storage), CARRIED)
            process.communicate("abort\n", timeout=DRIVER_SECONDS)

        events = driver.run(network.url, recording, {"protocol": protocol}, storage=str(storage))

    assert methods_of(events) == ["HEAD", "PATCH"]
    assert CARRIED <= resumed_at(events) < RECORDING_SIZE
    url = server.url + id_of(url_of(events))
    assert_stored(upload_dir, url, recording)
    assert_complete(url, protocol)


@every_protocol
def test_a_stream_of_unknown_length_declares_it_at_its_end(
    server: ServerProcess, upload_dir: Path, driver: Driver, recording: Path, protocol: str
) -> None:
    """Its last request has neither bytes nor a flag."""
    options = {"uploadLengthDeferred": True, "chunkSize": MIB, "protocol": protocol}

    events = driver.run(server.url, recording, options, stream=True)

    *_, last = requests_of(events)
    assert last["upload-length"] == str(RECORDING_SIZE)
    assert_stored(upload_dir, url_of(events), recording)
    assert_complete(url_of(events), protocol)


@every_protocol
def test_an_empty_file_is_complete_with_its_creation(
    server: ServerProcess, upload_dir: Path, driver: Driver, tmp_path: Path, protocol: str
) -> None:
    source = tmp_path / "empty.wav"
    source.touch()

    events = driver.run(server.url, source, {"protocol": protocol})

    assert methods_of(events) == ["POST"]
    assert_stored(upload_dir, url_of(events), source)


@every_protocol
def test_a_terminated_upload_is_gone(server: ServerProcess, driver: Driver, recording: Path, protocol: str) -> None:
    events = driver.run(server.url, recording, {"protocol": protocol}, terminate=True)

    assert events[-1]["event"] == "terminated"
    assert httpx2.get(url_of(events)).status_code == 404


@every_protocol
def test_a_file_that_is_not_accepted_is_refused_with_a_sentence(
    server: ServerProcess, driver: Driver, tmp_path: Path, protocol: str
) -> None:
    source = tmp_path / "program.exe"
    source.write_bytes(b"MZ")

    *_, error = driver.run(server.url, source, {"protocol": protocol})

    assert error["event"] == "error"
    assert "response code: 400" in str(error["message"])
    assert ".exe is not accepted here" in str(error["message"])
