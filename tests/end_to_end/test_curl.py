"""curl, as somebody with a shell would use it: no client library, and every step by hand."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.end_to_end.uploads import (
    KIB,
    MIB,
    assert_stored,
    build_metadata,
    create,
    make_recording,
    offset_of,
    wait_for_data,
)
from tests.media_files import make_media_file
from tests.server_process import ServerProcess

RECORDING_SIZE = 3 * MIB + 17
CURL_SECONDS = 60

TUS = ["-H", "Tus-Resumable: 1.0.0"]
APPEND = [*TUS, "-X", "PATCH", "-H", "Content-Type: application/offset+octet-stream"]


@dataclass(frozen=True)
class Answer:
    """The last answer that curl got: its status, its fields by lower-case name, and all that curl told on the way."""

    status: int
    fields: dict[str, str]
    told: str


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    return make_recording(tmp_path / "noise.wav", RECORDING_SIZE)


def ask(curl: str, *arguments: str, stdin: Path | None = None, skip: int = 0) -> Answer:
    """Run curl and return the answer; ``stdin`` is what it may read there, without the first ``skip`` bytes."""
    data = stdin.read_bytes()[skip:] if stdin is not None else b""
    done = subprocess.run(
        [curl, "--silent", "--verbose", "--dump-header", "-", "--max-time", str(CURL_SECONDS), *arguments],
        input=data,
        capture_output=True,
        check=False,
    )
    told = done.stderr.decode("utf-8", "replace")
    assert done.returncode == 0, told
    heads = done.stdout.decode("latin-1").split("\r\n\r\n")
    first, *lines = [head for head in heads if head.startswith("HTTP/")][-1].split("\r\n")
    fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return Answer(int(first.split()[1]), fields, told)


def created(curl: str, endpoint: str, source: Path, *arguments: str) -> str:
    """Create an upload for ``source`` and return its URL."""
    answer = ask(
        curl,
        *TUS,
        *(arguments or ("-X", "POST")),
        *("-H", f"Upload-Length: {source.stat().st_size}"),
        *("-H", f"Upload-Metadata: {build_metadata(source.name)}"),
        endpoint,
    )
    assert answer.status == 201, answer.told
    return answer.fields["location"]


def at(offset: int) -> list[str]:
    return ["-H", f"Upload-Offset: {offset}"]


@pytest.mark.parametrize(
    "empty_post",
    [pytest.param(["-X", "POST"], id="-X POST"), pytest.param(["-d", ""], id="-d with nothing")],
)
def test_a_real_recording_goes_up_by_hand(
    server: ServerProcess, upload_dir: Path, curl: str, tmp_path: Path, empty_post: list[str]
) -> None:
    source = make_media_file("picture.mp4", tmp_path)
    url = created(curl, server.url, source, *empty_post)

    answer = ask(curl, *APPEND, *at(0), "--data-binary", f"@{source}", url)
    assert (answer.status, answer.fields["upload-offset"]) == (204, str(source.stat().st_size))
    ask(curl, "--output", str(tmp_path / "copy.mp4"), url)

    subprocess.run(["cmp", source, tmp_path / "copy.mp4"], check=True)
    assert_stored(upload_dir, url, source)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(["--data-binary", "@-"], id="with its length"),
        pytest.param(["--upload-file", "-"], id="chunked"),
        pytest.param(["--data-binary", "@-", "-H", "Expect:"], id="without asking first"),
        pytest.param(["--data-binary", "@-", "--http1.0"], id="with HTTP/1.0"),
        pytest.param(["--data-binary", "@-", "-H", "X-HTTP-Method-Override: PATCH", "-X", "POST"], id="with POST"),
    ],
)
def test_an_upload_is_stored_byte_for_byte(
    server: ServerProcess, upload_dir: Path, curl: str, recording: Path, body: list[str]
) -> None:
    url = created(curl, server.url, recording)

    answer = ask(curl, *APPEND, *at(0), *body, url, stdin=recording)

    assert answer.status == 204, answer.told
    assert_stored(upload_dir, url, recording)


def test_a_file_goes_up_with_its_creation(server: ServerProcess, upload_dir: Path, curl: str, recording: Path) -> None:
    content_type = ["-H", "Content-Type: application/offset+octet-stream"]

    url = created(curl, server.url, recording, *content_type, "--data-binary", f"@{recording}")

    assert_stored(upload_dir, url, recording)


@pytest.mark.parametrize(
    "rest",
    [pytest.param(["--data-binary", "@-"], id="with its length"), pytest.param(["--upload-file", "-"], id="chunked")],
)
def test_an_upload_that_is_killed_halfway_goes_on_with_the_rest(
    server: ServerProcess, upload_dir: Path, curl: str, recording: Path, rest: list[str]
) -> None:
    url = created(curl, server.url, recording)
    slow = [curl, "--silent", "--limit-rate", "1M", *APPEND, *at(0), "--data-binary", f"@{recording}", url]
    with subprocess.Popen(slow, stdout=subprocess.DEVNULL) as process:
        wait_for_data(upload_dir, url, 512 * KIB)
        process.kill()

    head = ask(curl, *TUS, "--head", url)
    offset = int(head.fields["upload-offset"])
    assert 512 * KIB <= offset < RECORDING_SIZE
    assert head.fields["upload-length"] == str(RECORDING_SIZE)
    answer = ask(curl, *APPEND, *at(offset), *rest, url, stdin=recording, skip=offset)

    assert (answer.status, answer.fields["upload-offset"]) == (204, str(RECORDING_SIZE))
    assert_stored(upload_dir, url, recording)


def test_a_large_body_is_asked_for(server: ServerProcess, curl: str, recording: Path) -> None:
    """curl waits for a second before it sends a body of more than 1 MiB, unless it is told to go on."""
    url = created(curl, server.url, recording)

    answer = ask(curl, *APPEND, *at(0), "--data-binary", f"@{recording}", url)

    assert "Expect: 100-continue" in answer.told
    assert "HTTP/1.1 100 Continue" in answer.told


def test_a_large_body_that_will_be_refused_is_not_asked_for(server: ServerProcess, curl: str, recording: Path) -> None:
    url = created(curl, server.url, recording)

    answer = ask(curl, *APPEND, *at(5), "--data-binary", f"@{recording}", url)

    assert answer.status == 409, answer.told
    assert "100 Continue" not in answer.told
    assert offset_of(url) == 0


@pytest.mark.parametrize("slash", ["", "/"])
def test_both_forms_of_the_endpoint_create_without_a_redirect(
    server: ServerProcess, curl: str, recording: Path, slash: str
) -> None:
    url = created(curl, server.url.rstrip("/") + slash, recording)

    assert url.startswith(server.url.rstrip("/") + "/")


@pytest.mark.parametrize("slash", ["", "/"])
def test_both_forms_of_an_upload_are_the_same_without_a_redirect(server: ServerProcess, curl: str, slash: str) -> None:
    url = create(server.url, 10)

    answer = ask(curl, *APPEND, *at(0), "--data-binary", "RIFF", url.rstrip("/") + slash)

    assert (answer.status, answer.fields["upload-offset"]) == (204, "4")
