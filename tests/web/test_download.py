from __future__ import annotations

import pytest

from tusd_py.web.download import build_disposition


@pytest.mark.parametrize(
    ("filename", "field"),
    [
        # realistic
        ("", "attachment"),
        ("talk.mp3", 'attachment; filename="talk.mp3"'),
        ("my talk (2).mp3", 'attachment; filename="my talk (2).mp3"'),
        ("Käse.mp3", "attachment; filename=\"K_se.mp3\"; filename*=UTF-8''K%C3%A4se.mp3"),
        ("录音.wav", "attachment; filename=\"__.wav\"; filename*=UTF-8''%E5%BD%95%E9%9F%B3.wav"),
        # odd
        ("a\\b\\c.mp3", 'attachment; filename="c.mp3"'),
        ("/", "attachment"),
        ('say "hi".mp3', "attachment; filename=\"say _hi_.mp3\"; filename*=UTF-8''say%20%22hi%22.mp3"),
        ("100%.mp3", "attachment; filename=\"100_.mp3\"; filename*=UTF-8''100%25.mp3"),
        # hostile
        ("../../etc/passwd", 'attachment; filename="passwd"'),
        ("a\r\nSet-Cookie: x=y.mp3", 'attachment; filename="aSet-Cookie: x=y.mp3"'),
        ("a\0b.mp3", 'attachment; filename="ab.mp3"'),
        ("\u202egpj.exe", 'attachment; filename="gpj.exe"'),
    ],
)
def test_a_client_name_is_shown_but_cannot_do_anything(filename: str, field: str) -> None:
    assert build_disposition(filename) == field


def test_a_long_name_is_cut() -> None:
    assert len(build_disposition("x" * 100_000)) < 300
