"""A real browser plays a film from where it was uploaded to, jumps about in it, and runs nothing that was uploaded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.end_to_end.pages import serving_page
from tests.end_to_end.uploads import append, create
from tests.media_files import make_media_file, run
from tests.server_process import ServerProcess

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Response

# One browser is enough for all of them.
pytestmark = pytest.mark.xdist_group("browser")

SECONDS = 60

# Noise cannot be compressed, so that the end of the film is too far away to be loaded together with its beginning.
# It takes long to encode, so there is a quarter of it four times.
QUARTER = f"-f lavfi -i testsrc=duration={SECONDS // 4}:size=320x240:rate=5,noise=alls=100:allf=t"
FORMS = {
    "film.webm": "-c:v libvpx -deadline realtime -cpu-used 8 -b:v 8M -g 25",
    "film.mp4": "-c:v libx264 -preset ultrafast -pix_fmt yuv420p -g 25",
}

PAGE = b"<!DOCTYPE html><title>player</title><video muted crossorigin=anonymous></video>"

# Loads the film, plays a moment of it, jumps, and plays on. Resolves to what the page saw, pixels included: those of
# another origin are only for pages that CORS allows.
WATCH = """
async ([url, moment]) => {
  const video = document.querySelector('video')
  const next = (event) => new Promise((resolve, reject) => {
    video.addEventListener(event, resolve, { once: true })
    video.addEventListener('error', () => reject(new Error(video.error.message)), { once: true })
  })
  const plays = async (from) => {
    await video.play()
    while (video.currentTime <= from) await next('timeupdate')
    video.pause()
  }
  const loaded = next('loadeddata')
  video.src = url
  await loaded
  await plays(0)
  const seeked = next('seeked')
  video.currentTime = moment
  await seeked
  const landed = video.currentTime
  await plays(moment)
  const canvas = document.createElement('canvas')
  const drawing = canvas.getContext('2d')
  drawing.drawImage(video, 0, 0)
  const pixels = drawing.getImageData(0, 0, 100, 100).data
  return { duration: video.duration, landed, colours: new Set(pixels).size }
}
"""


def upload(server: ServerProcess, film: Path) -> str:
    content = film.read_bytes()
    url = create(server.url, len(content), film.name)
    assert append(url, 0, content).status_code == 204
    return url


def make_film(path: Path) -> Path:
    quarter = path.with_stem("quarter")
    run("ffmpeg", "-v", "error", *QUARTER.split(), *FORMS[path.name].split(), str(quarter))
    run("ffmpeg", "-v", "error", "-stream_loop", "3", "-i", str(quarter), "-c", "copy", str(path))
    return path


@pytest.mark.parametrize("name", FORMS)
def test_an_uploaded_film_plays_and_seeks_in_the_browser(
    server: ServerProcess, browser: Browser, tmp_path: Path, name: str
) -> None:
    film = make_film(tmp_path / name)
    url = upload(server, film)
    responses: list[Response] = []

    with serving_page(PAGE) as player, browser.new_page() as page:
        page.on("response", lambda response: responses.append(response))
        page.goto(player)
        seen = page.evaluate(WATCH, [url, SECONDS * 0.75])

    assert seen["duration"] == pytest.approx(SECONDS, abs=1)
    assert seen["landed"] == pytest.approx(SECONDS * 0.75, abs=0.5)
    assert seen["colours"] > 10
    parts = [response for response in responses if response.url == url and response.status == 206]
    starts = [int(part.headers["content-range"].removeprefix("bytes ").partition("-")[0]) for part in parts]
    # The index lies at the end; what is in between was asked for because of the jump.
    assert any(0.5 < start / film.stat().st_size < 0.9 for start in starts)


@pytest.mark.parametrize("name", ["picture.webm", "picture.mp4"])
def test_a_film_is_shown_to_who_opens_its_url(
    server: ServerProcess, browser: Browser, tmp_path: Path, name: str
) -> None:
    """The browser makes a page for it, which its own Content-Security-Policy applies to."""
    url = upload(server, make_media_file(name, tmp_path))

    with browser.new_page() as page:
        page.goto(url)
        page.wait_for_function("document.querySelector('video').readyState >= 2")


def test_a_page_that_was_uploaded_is_saved_and_does_not_run(browser: Browser, tmp_path: Path) -> None:
    content = tmp_path / "page.html"
    content.write_text("<!DOCTYPE html><script>document.title = 'it ran'</script>")
    with ServerProcess(tmp_path / "uploads", "--allowed-upload-extensions", "*") as server:
        url = upload(server, content)

        with browser.new_page() as page, page.expect_download() as saved:
            page.evaluate("url => { location = url }", url)

        assert saved.value.suggested_filename == "page.html"
