"""Clients that know no tus: they send a form, and find a file in the folder."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
import requests

from tests.end_to_end.pages import serving_page
from tests.end_to_end.uploads import KIB, MIB, TUS, make_recording, wait_until
from tests.forms import PATH, begin, detail, file_part, form
from tests.live import Connection
from tests.server_process import ServerProcess

if TYPE_CHECKING:
    from playwright.sync_api import Browser

SIZE = 3 * MIB + 17


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_recording(tmp_path_factory.mktemp("source") / "noise.wav", SIZE)


def endpoint(server: ServerProcess) -> str:
    return f"http://127.0.0.1:{server.port}{PATH}"


def assert_kept(upload_dir: Path, said: Any, source: Path, name: str) -> None:
    """Demand that what was answered is so."""
    assert (said["filename"], said["size_bytes"]) == (name, source.stat().st_size)
    assert said["path"] == said["upload_id"] + Path(name).suffix
    assert (upload_dir / said["path"]).read_bytes() == source.read_bytes()


def run_curl(curl: str, server: ServerProcess, *arguments: str) -> tuple[int, Any]:
    command = [curl, "-sS", "-w", "\n%{http_code}", *arguments, endpoint(server)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    body, _, status = done.stdout.rpartition("\n")
    return int(status), json.loads(body)


def test_curl(server: ServerProcess, upload_dir: Path, recording: Path, curl: str) -> None:
    """More than a MiB: it asks with ``Expect`` first."""
    status, said = run_curl(curl, server, "-F", f"file=@{recording}")
    assert status == 200
    assert_kept(upload_dir, said, recording, "noise.wav")


@pytest.mark.parametrize("name", ["Ärger mit €.wav", 'a "quoted" name.wav', "semi;colon, comma.wav", "100%22.wav"])
def test_curl_with_a_name_that_is_hard_to_write(
    server: ServerProcess, upload_dir: Path, tmp_path: Path, curl: str, name: str
) -> None:
    source = make_recording(tmp_path / name, 1000)
    quoted = str(source).replace('"', r"\"")
    status, said = run_curl(curl, server, "-F", f'file=@"{quoted}"')
    assert status == 200
    # The one that browsers and curl write a quote as is read as a quote.
    assert_kept(upload_dir, said, source, name.replace("%22", '"'))


@pytest.mark.parametrize("order", [1, -1])
def test_curl_with_the_name_in_a_field_before_and_behind_the_file(
    server: ServerProcess, upload_dir: Path, recording: Path, curl: str, order: int
) -> None:
    parts = ["filename=named.wav", f"file=@{recording};filename="][::order]
    status, said = run_curl(curl, server, *(argument for part in parts for argument in ("-F", part)))
    assert status == 200
    assert_kept(upload_dir, said, recording, "named.wav")


def test_curl_from_a_pipe_sends_chunks(server: ServerProcess, upload_dir: Path, recording: Path, curl: str) -> None:
    command = f"cat '{recording}' | {curl} -sS -F 'file=@-;filename=noise.wav' {endpoint(server)}"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=60, check=True)
    assert_kept(upload_dir, json.loads(done.stdout), recording, "noise.wav")


def test_curl_is_told_what_is_wrong(server: ServerProcess, recording: Path, curl: str) -> None:
    status, said = run_curl(curl, server, "-F", f"file=@{recording};filename=program.exe")
    assert status == 400
    assert "send a file with one of .mp3, .wav" in said["detail"]


def test_httpx2(server: ServerProcess, upload_dir: Path, recording: Path) -> None:
    with recording.open("rb") as file:
        answer = httpx2.post(endpoint(server), files={"file": file}, data={"other": "field"})
    assert answer.status_code == 200
    assert_kept(upload_dir, answer.json(), recording, "noise.wav")
    url = answer.headers["Location"]
    head = httpx2.head(url, headers=TUS)
    assert head.headers["Upload-Offset"] == head.headers["Upload-Length"] == str(SIZE)
    assert httpx2.get(url).content == recording.read_bytes()
    assert httpx2.delete(url, headers=TUS).status_code == 204
    assert not (upload_dir / answer.json()["path"]).exists()


@pytest.mark.parametrize("name", ["noise.wav", "Ärger.wav"])
def test_requests(server: ServerProcess, upload_dir: Path, recording: Path, name: str) -> None:
    with recording.open("rb") as file:
        answer = requests.post(endpoint(server), files={"file": (name, file, "audio/x-wav")}, timeout=60)
    assert answer.status_code == 200
    assert_kept(upload_dir, answer.json(), recording, name)


def test_what_is_too_large_is_refused_while_it_is_sent(tmp_path: Path, recording: Path, curl: str) -> None:
    with ServerProcess(tmp_path / "uploads", "--max-file-size", "1MiB") as server:
        for expect in ("Expect: 100-continue", "Expect:"):
            status, said = run_curl(curl, server, "-H", expect, "-F", f"file=@{recording}")
            assert (status, said["detail"]) == (
                413,
                "the file is larger than the 1 MiB that are accepted; send a smaller one",
            )
        with recording.open("rb") as file:
            assert requests.post(endpoint(server), files={"file": file}, timeout=60).status_code == 413
        with recording.open("rb") as file:
            assert httpx2.post(endpoint(server), files={"file": file}).status_code == 413
    assert not [path for path in (tmp_path / "uploads").rglob("*") if path.is_file()]


# A browser


def page(action: str) -> bytes:
    return f"""<!DOCTYPE html><title>form</title>
<form action="{action}" method="post" enctype="multipart/form-data">
<input type="hidden" name="token" value="secret"><input type="file" name="file"><button name="send">Upload</button>
</form>""".encode()


@pytest.mark.xdist_group("browser")
def test_a_form_of_a_page(server: ServerProcess, upload_dir: Path, browser: Browser, tmp_path: Path) -> None:
    source = make_recording(tmp_path / 'Ärger "mit" €.wav', SIZE)
    with serving_page(page(endpoint(server))) as url, browser.new_page() as tab:
        tab.goto(url)
        tab.set_input_files("input[type=file]", source)
        with tab.expect_navigation():
            tab.click("button")
        said = json.loads(tab.inner_text("body"))
    assert_kept(upload_dir, said, source, source.name)


@pytest.mark.xdist_group("browser")
def test_a_form_of_a_page_in_which_nothing_was_chosen(server: ServerProcess, browser: Browser) -> None:
    with serving_page(page(endpoint(server))) as url, browser.new_page() as tab:
        tab.goto(url)
        with tab.expect_navigation():
            tab.click("button")
        assert "there is no file in the form" in json.loads(tab.inner_text("body"))["detail"]


SEND = """
async ([url, name, size]) => {
  const form = new FormData()
  form.append('file', new Blob([new Uint8Array(size)]), name)
  const answer = await fetch(url, { method: 'POST', body: form, headers: { 'X-Requested-With': 'page' } })
  return { status: answer.status, location: answer.headers.get('Location'), said: await answer.json() }
}
"""


@pytest.mark.xdist_group("browser")
def test_a_script_of_another_origin(server: ServerProcess, upload_dir: Path, browser: Browser) -> None:
    with serving_page(b"<!DOCTYPE html><title>script</title>") as url, browser.new_page() as tab:
        tab.goto(url)
        seen = tab.evaluate(SEND, [endpoint(server), "zeros.wav", 100_000])
        refused = tab.evaluate(SEND, [endpoint(server), "zeros.exe", 100_000])
    assert seen["status"] == 200
    assert seen["location"].endswith(seen["said"]["upload_id"])
    assert (upload_dir / seen["said"]["path"]).read_bytes() == bytes(100_000)
    assert refused["status"] == 400
    assert ".exe is not accepted" in refused["said"]["detail"]


# Ends of the server


def files_in(upload_dir: Path) -> list[Path]:
    return [path for path in upload_dir.rglob("*") if path.is_file()]


@contextmanager
def unfinished(server: ServerProcess, recording: Path) -> Iterator[Connection]:
    """Send a form without its end."""
    body = form(file_part(recording.read_bytes(), "noise.wav"))
    with Connection(server.port) as connection:
        yield begin(connection, length=len(body)).send(body[:-1000])


def test_what_a_killed_server_leaves_of_a_form_is_swept(tmp_path: Path, recording: Path) -> None:
    upload_dir = tmp_path / "uploads"
    with ServerProcess(upload_dir) as server, unfinished(server, recording):
        wait_until(lambda: any(path.stat().st_size > 64 * KIB for path in upload_dir.glob("partial/*.part")))
        server.kill()
    assert not list(upload_dir.glob("*.wav"))
    assert list(upload_dir.glob("partial/*.part"))

    flags = ("--partial-upload-expiry-seconds", "0.5", "--sweep-interval-seconds", "0.1")
    with ServerProcess(upload_dir, *flags):
        wait_until(lambda: not files_in(upload_dir))


def test_a_server_that_stops_tells_the_client_and_keeps_nothing(tmp_path: Path, recording: Path) -> None:
    upload_dir = tmp_path / "uploads"
    with (
        ServerProcess(upload_dir) as server,
        unfinished(server, recording) as in_its_file,
        Connection(server.port) as before_its_file,
    ):
        wait_until(lambda: bool(list(upload_dir.glob("partial/*.part"))))
        begin(before_its_file, fields="Expect: 100-continue\r\n", length=1000)
        assert before_its_file.interim() == 100

        server.terminate()

        for connection in (in_its_file, before_its_file):
            answer = connection.answer()
            assert answer.status == 503
            assert detail(answer) == "the server is stopping; send the form again in a few seconds"
        assert server.wait() == 0
    assert not files_in(upload_dir)
