"""What forms say of themselves and of their parts: realistic, odd and hostile."""

from __future__ import annotations

import time

import pytest

from tusd_py.errors import BadRequest
from tusd_py.protocol.forms import PartHead, parse_boundary, parse_head, parse_name

LONGEST = "a" * 70


def head(disposition: str | bytes, **fields: bytes) -> PartHead:
    told = disposition.encode() if isinstance(disposition, str) else disposition
    others = {name.replace("_", "-").encode(): value for name, value in fields.items()}
    return parse_head({b"content-disposition": told, **others})


@pytest.mark.parametrize(
    ("content_type", "boundary"),
    [
        (
            "multipart/form-data; boundary=----WebKitFormBoundary7MA4YWxkTrZu0gW",
            "----WebKitFormBoundary7MA4YWxkTrZu0gW",
        ),
        (
            "multipart/form-data; boundary=------------------------d74496d66958873e",
            "------------------------d74496d66958873e",
        ),
        ('multipart/form-data; boundary="gc0p4Jq0M2Yt08jU534c0p"', "gc0p4Jq0M2Yt08jU534c0p"),
        ("Multipart/Form-Data;Boundary=abc;charset=utf-8", "abc"),
        ("multipart/form-data; charset=utf-8 ; boundary = abc ", "abc"),
        ('multipart/form-data; boundary="a b\'()+_,-./:=?"', "a b'()+_,-./:=?"),
        ("multipart/form-data; boundary=*****", "*****"),
        ("multipart/form-data; boundary=a;", "a"),
        (f"multipart/form-data; boundary={LONGEST}", LONGEST),
    ],
)
def test_the_boundary_is_found(content_type: str, boundary: str) -> None:
    assert parse_boundary(content_type) == boundary.encode()


@pytest.mark.parametrize(
    ("content_type", "trouble"),
    [
        ("", "the content type is not multipart/form-data"),
        ("application/json", "the content type is not multipart/form-data"),
        ("application/x-www-form-urlencoded; boundary=a", "the content type is not multipart/form-data"),
        ("multipart/mixed; boundary=a", "the content type is not multipart/form-data"),
        ("multipart/form-data", "Content-Type names no boundary"),
        ("multipart/form-data; boundary=", "Content-Type names no boundary"),
        ('multipart/form-data; boundary=""', "Content-Type names no boundary"),
        (f"multipart/form-data; boundary={LONGEST}a", "more than 70 characters"),
        ('multipart/form-data; boundary="a "', "that no boundary has"),
        ("multipart/form-data; boundary=\xe4", "that no boundary has"),
        ("multipart/form-data; boundary=a; boundary=b", "the parameter boundary is there twice"),
        ("multipart/form-data; boundary=a; BOUNDARY=a", "the parameter boundary is there twice"),
        ('multipart/form-data; boundary="a', "cannot be read"),
        ("multipart/form-data; boundary", "cannot be read"),
    ],
)
def test_what_is_no_boundary_is_told_so(content_type: str, trouble: str) -> None:
    with pytest.raises(BadRequest, match=trouble) as caught:
        parse_boundary(content_type)
    assert "send the file as multipart/form-data" in str(caught.value)


@pytest.mark.parametrize(
    ("disposition", "filename"),
    [
        ('form-data; name="file"; filename="song.mp3"', "song.mp3"),
        ("form-data; name=file; filename=song.mp3", "song.mp3"),
        ("form-data; name=file; filename=my song.mp3", "my song.mp3"),
        ('form-data; filename="song.mp3"; name="file"', "song.mp3"),
        ('Form-Data ; Name="file" ; FileName="song.mp3"', "song.mp3"),
        ('form-data; name="file"; filename="Ärger €.mp3"', "Ärger €.mp3"),
        ("form-data; name=\"file\"; filename*=UTF-8''%e2%82%ac%20rates.mp3", "€ rates.mp3"),
        ('form-data; name="file"; filename*=utf-8\'en\'song.mp3; filename="other.mp3"', "song.mp3"),
        ("form-data; name=\"file\"; filename*=ISO-8859-1''%E4.mp3", "ä.mp3"),
        # What cannot be read is as if it were not there.
        ('form-data; name="file"; filename*=koi8-r\'\'%E4.mp3; filename="song.mp3"', "song.mp3"),
        ('form-data; name="file"; filename*=UTF-8\'\'; filename="song.mp3"', "song.mp3"),
        # Browsers write a quote so, curl once wrote it so.
        ('form-data; name="file"; filename="a %22b%22.mp3"', 'a "b".mp3'),
        (r'form-data; name="file"; filename="a \"b\".mp3"', 'a "b".mp3'),
        ('form-data; name="file"; filename="a;b=c.mp3"', "a;b=c.mp3"),
        ('form-data; name="file"; filename="100%.mp3"', "100%.mp3"),
        ('form-data; name="file"; filename=""', ""),
        ('form-data; name="file"', ""),
        # Folders of the client are nobody's business, and climb nowhere.
        (r'form-data; name="file"; filename="C:\Music\song.mp3"', "song.mp3"),
        ('form-data; name="file"; filename="../../etc/passwd"', "passwd"),
        ('form-data; name="file"; filename="/song.mp3"', "song.mp3"),
        ('form-data; name="file"; filename="folder/"', ""),
        ("form-data; name=\"file\"; filename*=UTF-8''..%2F..%2Fsong.mp3", "song.mp3"),
        # Nothing is told that could turn into a line, or into another name.
        ("form-data; name=\"file\"; filename*=UTF-8''a%0D%0AX-Evil%3A%201.mp3", "aX-Evil: 1.mp3"),
        ('form-data; name="file"; filename="a%0D%0Ab.mp3"', "ab.mp3"),
        ('form-data; name="file"; filename="a\x00b.mp3"', "ab.mp3"),
        ('form-data; name="file"; filename="exe.\u202e3pm.bat"', "exe.3pm.bat"),
    ],
)
def test_the_name_of_a_file_is_found_and_harmless(disposition: str, filename: str) -> None:
    found = head(disposition)
    assert (found.name, found.filename) == ("file", filename)
    assert found.has_filename == ("filename" in disposition.lower())


def test_names_of_clients_that_know_no_utf_8_are_read() -> None:
    assert head('form-data; name="file"; filename="Ä.mp3"'.encode("latin-1")).filename == "Ä.mp3"
    assert parse_name("Ä/Ö.mp3".encode("latin-1")) == parse_name("Ö.mp3".encode()) == "Ö.mp3"


@pytest.mark.parametrize(
    ("content_type", "media_type"),
    [
        (b"audio/mpeg", "audio/mpeg"),
        (b"Text/Plain; charset=utf-8", "text/plain"),
        (
            b"application/vnd.ms-excel.sheet.binary.macroEnabled.12",
            "application/vnd.ms-excel.sheet.binary.macroenabled.12",
        ),
        (b"image/svg+xml", "image/svg+xml"),
        (b"", ""),
        (b"audio", ""),
        (b"audio/mpeg/3", ""),
        (b"a/b\xff", ""),
        (b"a/" + b"b" * 128, ""),
        (b"a b/c", ""),
    ],
)
def test_a_media_type_is_kept_if_it_is_one(content_type: bytes, media_type: str) -> None:
    assert head('form-data; name="file"', content_type=content_type).media_type == media_type


@pytest.mark.parametrize("encoding", [b"binary", b"8bit", b"7BIT"])
def test_encodings_that_change_nothing_are_fine(encoding: bytes) -> None:
    assert head('form-data; name="file"', content_transfer_encoding=encoding).name == "file"


@pytest.mark.parametrize(
    ("fields", "trouble"),
    [
        ({}, "has no name"),
        ({b"content-disposition": b""}, "has no name"),
        ({b"content-disposition": b"form-data"}, "has no name"),
        ({b"content-disposition": b'form-data; name=""'}, "has no name"),
        ({b"content-disposition": b'attachment; name="file"'}, "has no name"),
        ({b"content-disposition": b'form-data; name="file"; name="other"'}, "name is there twice"),
        ({b"content-disposition": b'form-data; name="file"; filename="a'}, "cannot be read"),
        ({b"content-disposition": b'form-data; name="file" filename="a"'}, "cannot be read"),
        (
            {b"content-disposition": b'form-data; name="file"', b"content-transfer-encoding": b"base64"},
            "Content-Transfer-Encoding",
        ),
    ],
)
def test_a_head_that_cannot_be_used_is_told_so(fields: dict[bytes, bytes], trouble: str) -> None:
    with pytest.raises(BadRequest, match=trouble):
        parse_head(fields)


@pytest.mark.parametrize("piece", ['; a="', ";", '"', "\\", "; a=\\", ' ; "=', "; a*0=b"])
def test_no_head_takes_long(piece: str) -> None:
    """Eight times as much takes about eight times as long, not sixty-four times."""

    def seconds(size: int) -> float:
        began = time.perf_counter()
        with pytest.raises(BadRequest):
            head("form-data" + piece * (size // len(piece)))
        return time.perf_counter() - began

    short = min(seconds(10_000) for _ in range(3))
    assert min(seconds(80_000) for _ in range(3)) < 30 * short + 0.01
