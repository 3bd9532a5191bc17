"""Real sound and video, made by ffmpeg and sox: a file for every extension of the default allow list, in all the forms
that they come in.

``make_media_file("id3.mp3", folder)`` makes one, half a second long; asked again with the same folder, it is there.
"""

from __future__ import annotations

import random
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

PACKAGES = {"ffmpeg": "ffmpeg", "ffprobe": "ffmpeg", "sox": "sox libsox-fmt-all"}

SOUND = "-f lavfi -i sine=frequency=440:duration=0.5"
VIDEO = "-f lavfi -i testsrc=duration=0.5:size=64x64:rate=10"

# Names say what is special; the extension is the right one.
FFMPEG: dict[str, str] = {
    "id3.mp3": f"{SOUND}",
    "xing.mp3": f"{SOUND} -id3v2_version 0",
    "bare.mp3": f"{SOUND} -id3v2_version 0 -write_xing 0",
    "loud.mp3": f"{SOUND} -id3v2_version 0 -write_xing 0 -b:a 320k",
    "mpeg2.mp3": f"{SOUND} -id3v2_version 0 -write_xing 0 -ar 22050",
    "mpeg25.mp3": f"{SOUND} -id3v2_version 0 -write_xing 0 -ar 8000",
    "layer2.mp3": f"{SOUND} -c:a mp2 -f mp2",
    "pcm.wav": f"{SOUND}",
    "rf64.wav": f"{SOUND} -rf64 always",
    "adts.aac": f"{SOUND}",
    "mpeg2.aac": f"{SOUND} -write_mpeg2 1",
    "id3.aac": f"{SOUND} -write_id3v2 1 -metadata title=tone",
    "vorbis.ogg": f"{SOUND} -c:a libvorbis",
    "opus.ogg": f"{SOUND} -c:a libopus",
    "theora.ogg": f"{VIDEO} -c:v libtheora",
    "flac.oga": f"{SOUND} -c:a flac",
    "aac.m4a": f"{SOUND} -c:a aac",
    "alac.m4a": f"{SOUND} -c:a alac",
    "tone.wma": f"{SOUND}",
    "picture.wmv": f"{VIDEO}",
    "picture.mp4": f"{VIDEO} {SOUND}",
    "fragmented.mp4": f"{VIDEO} -movflags frag_keyframe+empty_moov",
    "picture.mov": f"{VIDEO} {SOUND}",
    "faststart.mov": f"{VIDEO} -movflags faststart",
    "picture.avi": f"{VIDEO}",
    "picture.mkv": f"{VIDEO} {SOUND}",
    "tone.flac": f"{SOUND}",
    "picture.webm": f"{VIDEO} -c:v libvpx",
}


def _make_with_ffmpeg(arguments: str) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        run("ffmpeg", "-v", "error", *arguments.split(), str(path))

    return make


def _make_amr(path: Path) -> None:
    run("sox", "-n", "-r", "8000", "-c", "1", "-t", "amr-nb", str(path), "synth", "0.5", "sine", "440")


def _make_awb(path: Path) -> None:
    """Write AMR-WB by hand, because Debian has nothing that encodes it: a noise that every decoder plays.

    RFC 4867, 5.1 and 5.3: the magic, then 50 frames a second, each a byte with its type (0, quality good) and, for
    6.60 kbit/s, the 132 bits of speech.
    """
    noise = random.Random(440)
    path.write_bytes(b"#!AMR-WB\n" + b"".join(b"\x04" + noise.randbytes(17) for _ in range(25)))


def _make_mov_without_ftyp(path: Path) -> None:
    """Do as cameras did before there was ftyp, moving no byte that the index points at."""
    begins = make_media_file("picture.mov", path.parent).read_bytes()
    assert begins[4:8] == b"ftyp"
    path.write_bytes(begins[:4] + b"free" + begins[8:])


RECIPES: dict[str, Callable[[Path], None]] = {
    **{name: _make_with_ffmpeg(arguments) for name, arguments in FFMPEG.items()},
    "narrow.amr": _make_amr,
    "wide.awb": _make_awb,
    "no_ftyp.mov": _make_mov_without_ftyp,
}


def run(program: str, *arguments: str) -> str:
    """Run a program and return what it printed; skip the test when the program is not there."""
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"{program} is missing; install it with: apt-get install {PACKAGES[program]}")
    return subprocess.run(
        [found, *arguments], check=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    ).stdout


def make_media_file(name: str, folder: Path) -> Path:
    """Return the real media file ``name`` (a key of ``RECIPES``) in ``folder``, made now if it is not there yet."""
    path = folder / name
    if not path.exists():
        RECIPES[name](path)
    return path
