"""The client's name for its file, out of a field that every client writes in its own way."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tusd_py.protocol.disposition import parse_disposition
from tusd_py.web.download import build_disposition, clean_name


@pytest.mark.parametrize(
    ("text", "name"),
    [
        # realistic
        ('attachment; filename="holiday film.mov"', "holiday film.mov"),
        ("attachment; filename=film.mov", "film.mov"),
        ("attachment; filename=\"EUR.mp3\"; filename*=UTF-8''%e2%82%ac.mp3", "€.mp3"),
        ("attachment; filename*=UTF-8'de'gr%C3%BC%C3%9Fe.mp3; filename=\"x.mp3\"", "grüße.mp3"),
        ('form-data; name="file"; filename="a.mp3"', "a.mp3"),
        ('attachment; filename="grüße.mp3"'.encode().decode("latin-1"), "grüße.mp3"),
        # odd
        ('ATTACHMENT;FILENAME="a.mp3"', "a.mp3"),
        ('attachment ; filename = "a.mp3" ', "a.mp3"),
        ('attachment; filename="a\\"b\\\\.mp3"', 'a"b\\.mp3'),
        ('attachment; filename="gr\xfc\xdfe.mp3"', "grüße.mp3"),
        ("attachment; filename*=iso-8859-1''gr%FC%DFe.mp3", "grüße.mp3"),
        ("attachment; filename*=UTF-8''%ff.mp3; filename=b.mp3", "b.mp3"),
        ("attachment; filename*=KOI8-R''a.mp3; filename=b.mp3", "b.mp3"),
        ("attachment; filename=a.mp3; filename=b.exe", "a.mp3"),
        ('attachment; filename="a.mp3";', "a.mp3"),
        ('attachment; filename="../../etc/passwd"', "../../etc/passwd"),
        # nothing that could be read
        ("", ""),
        ("attachment", ""),
        ("filename=a.mp3", ""),
        ('attachment; filename=""', ""),
        ('attachment; filename="unclosed', ""),
        ("attachment; filename=two words.mp3", ""),
        ("attachment, inline; filename=a.mp3", ""),
        ('attachment; filename="a\r\nb.mp3"', ""),
        ('attachment; filename="a\x00b.mp3"', ""),
        ("attachment; filename*=UTF-8''%zz; x", ""),
        (";" * 10_000, ""),
        ('attachment; filename="' + "\\" * 10_001, ""),
    ],
)
def test_the_name_is_found_where_it_can_be_read(text: str, name: str) -> None:
    assert parse_disposition(text) == name


@given(st.text())
def test_a_name_that_we_would_write_is_read_again(name: str) -> None:
    assert parse_disposition(build_disposition(name)) == clean_name(name)


@given(st.text(st.characters(max_codepoint=255)) | st.text("; filename=\"\\*'%aU"))
def test_whatever_comes_is_a_name_or_none(text: str) -> None:
    assert isinstance(parse_disposition(text), str)
