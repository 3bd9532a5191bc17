"""The clients that most people use, through nginx as the documentation prints it, to an address and a Unix socket."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tusclient.client import TusClient

from tests.end_to_end.proxy import Fault, Trouble, bad_network
from tests.end_to_end.test_tus_js_client import Driver, methods_of, resumed_at, url_of
from tests.end_to_end.uploads import MIB, assert_stored, id_of, make_recording, offset_of
from tests.proxies.programs import free_port, nginx, printed, replaced, running
from tests.server_process import ServerProcess

RECORDING_SIZE = 3 * MIB + 17

# tuspy opens its source anew for each request, and leaves it to the garbage collector.
pytestmark = [
    pytest.mark.xdist_group("nginx"),
    pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning"),
]


@dataclass(frozen=True)
class Front:
    """What clients reach, and where the uploads behind it are."""

    url: str
    upload_dir: Path


@pytest.fixture(scope="module", params=["address", "Unix socket"])
def front(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    """nginx without TLS, for clients that know no certificate of ours."""
    folder = tmp_path_factory.mktemp("nginx")
    socket, port = folder / "tusd.sock", free_port()
    is_unix = request.param == "Unix socket"
    with ServerProcess(folder / "uploads", *(["--unix-sock", str(socket)] if is_unix else [])) as server:
        machine = {
            "443 ssl http2": f"127.0.0.1:{port}",
            "ssl_certificate /etc/ssl/uploads.pem;": "",
            "ssl_certificate_key /etc/ssl/uploads.key;": "",
            "http://127.0.0.1:8080/;": f"http://unix:{socket}:/;" if is_unix else f"http://127.0.0.1:{server.port}/;",
        }
        with running(nginx(folder, replaced(printed("nginx"), machine)), folder, port):
            yield Front(f"http://127.0.0.1:{port}/media/files/", folder / "uploads")


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_recording(tmp_path_factory.mktemp("source") / "noise.wav", RECORDING_SIZE)


@pytest.fixture
def driver(node: str, node_modules: Path) -> Driver:
    return Driver(node, node_modules)


@pytest.mark.parametrize("options", [{}, {"chunkSize": MIB}, {"parallelUploads": 4}], ids=str)
def test_tus_js_client_uploads(front: Front, driver: Driver, recording: Path, options: dict[str, object]) -> None:
    events = driver.run(front.url, recording, options=options)

    assert url_of(events).startswith(front.url)
    assert_stored(front.upload_dir, url_of(events), recording)


def test_tus_js_client_goes_on_after_cuts(front: Front, driver: Driver, recording: Path) -> None:
    with bad_network(front.url, Fault(MIB, Trouble.CUT), Fault(MIB, Trouble.CUT)) as network:
        events = driver.run(network.url, recording)

    assert methods_of(events) == ["POST", "PATCH", "HEAD", "PATCH", "HEAD", "PATCH"]
    assert resumed_at(events) > 0
    assert_stored(front.upload_dir, front.url + id_of(url_of(events)), recording)


@pytest.mark.parametrize("chunk_size", [RECORDING_SIZE, MIB], ids=["in one request", "in chunks"])
def test_tuspy_uploads(front: Front, recording: Path, chunk_size: int) -> None:
    uploader = TusClient(front.url).uploader(str(recording), chunk_size=chunk_size, metadata={"filename": "noise.wav"})

    uploader.upload()

    assert str(uploader.url).startswith(front.url)
    assert_stored(front.upload_dir, str(uploader.url), recording)


def test_tuspy_goes_on_where_it_stopped(front: Front, recording: Path) -> None:
    client = TusClient(front.url)
    stopped = client.uploader(str(recording), chunk_size=MIB, metadata={"filename": "noise.wav"})
    stopped.upload(stop_at=2 * MIB)
    assert offset_of(str(stopped.url)) == 2 * MIB

    resumed = client.uploader(str(recording), chunk_size=MIB, url=stopped.url)
    assert resumed.offset == 2 * MIB
    resumed.upload()

    assert_stored(front.upload_dir, str(resumed.url), recording)
