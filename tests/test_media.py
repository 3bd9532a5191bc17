"""The media rules: names, contents, and real files of every extension that is allowed by default."""

from __future__ import annotations

import contextlib
import gzip
import io
import random
import struct
import sys
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.media_files import RECIPES, make_media_file, run
from tusd_py import media as media_module
from tusd_py.errors import ContentRefused, ExtensionRefused
from tusd_py.media import ENOUGH, EXTENSION_GRAMMAR, FAMILY, SNIFF_SIZE, MediaRules, Sniff, sniff
from tusd_py.upload import Metadata

LENIENT = MediaRules.of(".mp3 .wav .awb .aac .ogg .oga .m4a .wma .amr .mp4 .mov .avi .wmv .mkv .flac .webm")
DEFAULT = LENIENT.allowed
STRICT = MediaRules.of(DEFAULT, "strict")
EVERYTHING = MediaRules.of("*")
TEXT = b"Dear Sir or Madam,\nplease find the recording enclosed.\n" * 20


@pytest.fixture(scope="session")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for real files, each made once."""
    return tmp_path_factory.mktemp("media")


def named(filename: str) -> Metadata:
    return Metadata(pairs=(("filename", filename.encode("utf-8", "surrogatepass")),))


def is_accepted(rules: MediaRules, extension: str, prefix: bytes, *, whole: bool = True) -> bool:
    try:
        rules.check_content(extension, prefix, whole=whole)
    except ContentRefused:
        return False
    return True


def told_by_puremagic(content: bytes, *, sure: bool) -> set[str]:
    """Return what puremagic says when it is asked, by ``sniff`` without anything of ours."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(media_module, "_may_be_known_to_puremagic", bool)
        return media_module._ask_puremagic(content, sure=sure)


# --- configuration ---


@pytest.mark.parametrize(
    ("written", "allowed"),
    [
        ([".mp3", ".wav"], (".mp3", ".wav")),
        (["MP3", " Wav "], (".mp3", ".wav")),
        (["wav", ".mp3", "WAV"], (".wav", ".mp3")),
        ("mp3, .wav flac", (".mp3", ".wav", ".flac")),
        (["*"], ("*",)),
        ([".mp3", "*"], ("*",)),
    ],
)
def test_extensions_are_understood_as_people_write_them(written: str | list[str], allowed: tuple[str, ...]) -> None:
    assert MediaRules.of(written).allowed == allowed


@pytest.mark.parametrize(
    "nonsense", ["tar.gz", "*.mp3", ".", "..mp3", "mp3/wav", "a" * 17, "mp³", "\N{KELVIN SIGN}mv", "m p"]
)
def test_nonsense_is_refused_with_the_word_that_is_wrong(nonsense: str) -> None:
    with pytest.raises(ValueError, match=r"is no extension; write a dot and 1 to 16 letters or digits") as refusal:
        MediaRules.of([nonsense])
    assert repr(nonsense) in str(refusal.value)


@pytest.mark.parametrize("nothing", [[], "", " , ", [""]])
def test_an_empty_list_does_not_quietly_allow_all_or_nothing(nothing: str | list[str]) -> None:
    with pytest.raises(ValueError, match=r"name at least one, such as \.mp3, or \* for all"):
        MediaRules.of(nothing)


# --- names ---

REALISTIC = [
    ("song.mp3", ".mp3"),
    ("SONG.MP3", ".mp3"),
    ("Das Lied (live).Mp3", ".mp3"),
    ("запись.wav", ".wav"),
    ("2026.11.22 interview.m4a", ".m4a"),
    ("a.tar.gz", ".gz"),
    ("C:\\fakepath\\song.mp3", ".mp3"),
    ("album/01 song.mp3", ".mp3"),
]
ODD = [
    ("", ""),
    ("song", ""),
    (".mp3", ""),
    ("...mp3", ""),
    ("song.", ""),
    ("song.mp3.", ""),
    ("song.mp3 ", ""),
    ("song.mp3\n", ""),
    ("song. mp3", ""),
    ("song.mp3/", ""),
    ("folder.mp3/song", ""),
    ("folder.mp3\\song", ""),
    ("song.abcdefghijklmnopq", ""),
    ("song.mp3?download=1", ""),
]
HOSTILE = [
    ("x.mp3\0.exe", ".exe"),
    ("x.exe\0.mp3", ".mp3"),
    ("x.mp3\0", ""),
    ("x.mp3::$DATA", ""),
    ("x.\N{FULLWIDTH LATIN SMALL LETTER M}p3", ""),
    ("x.\N{CYRILLIC SMALL LETTER ER}ng", ""),
    ("x.m\N{KELVIN SIGN}v", ""),
    ("x.mp\N{SUPERSCRIPT THREE}", ""),
    ("x.mp\N{ARABIC-INDIC DIGIT THREE}", ""),
    ("x.\N{RIGHT-TO-LEFT OVERRIDE}3pm", ""),
    ("../../etc/passwd", ""),
    ("x./../../y", ""),
    ("x.\udcff", ""),
]


@pytest.mark.parametrize(("filename", "extension"), REALISTIC + ODD + HOSTILE)
def test_the_extension_is_the_literal_end_of_the_name(filename: str, extension: str) -> None:
    assert EVERYTHING.extension_of(filename) == extension


@given(st.one_of(st.text(), st.text(alphabet="./\\ \0aA3\N{KELVIN SIGN}")))
def test_an_extension_is_always_safe_to_end_a_path(filename: str) -> None:
    extension = EVERYTHING.extension_of(filename)
    assert extension == "" or (EXTENSION_GRAMMAR.fullmatch(extension) and extension == extension.lower())


@given(st.binary(max_size=40))
def test_any_bytes_as_a_name_give_an_allowed_extension_or_are_refused(value: bytes) -> None:
    with contextlib.suppress(ExtensionRefused):
        assert LENIENT.check_name(Metadata(pairs=(("filename", value),))) in ("", *DEFAULT)


@pytest.mark.parametrize("extension", DEFAULT)
def test_names_with_an_allowed_extension_pass(extension: str) -> None:
    assert LENIENT.check_name(named(f"take one{extension.upper()}")) == extension


@pytest.mark.parametrize("filename", ["x.exe", "x.mp3.exe", "x", "x.mp3 ", ".mp3", " ", "x.mp3\0.exe"])
def test_other_names_are_refused_with_the_list(filename: str) -> None:
    with pytest.raises(ExtensionRefused) as refusal:
        LENIENT.check_name(named(filename))
    assert refusal.value.status == 400
    assert str(refusal.value).endswith(", ".join(DEFAULT))


@pytest.mark.parametrize(
    ("pairs", "extension"),
    [
        ((("name", b"x.wav"),), ".wav"),
        ((("name", b"x.exe"), ("filename", b"x.wav")), ".wav"),
        ((("filename", b""), ("name", b"x.wav")), ".wav"),
        ((("filename", b""),), ""),
        ((("filetype", b"audio/mpeg"),), ""),
        ((), ""),
    ],
)
def test_filename_counts_then_name_and_an_empty_value_is_no_name(
    pairs: tuple[tuple[str, bytes], ...], extension: str
) -> None:
    assert LENIENT.check_name(Metadata(pairs=pairs)) == extension


@pytest.mark.parametrize(("filename", "extension"), [("x.EXE", ".exe"), ("README", ""), ("x.??", ""), ("", "")])
def test_where_all_names_are_allowed_only_a_safe_extension_is_kept(filename: str, extension: str) -> None:
    assert EVERYTHING.check_name(named(filename)) == extension


# --- real files ---

# What passes beside the family of the file's own extension: without ftyp, a mov may as well be an mp4.
ALSO = {"no_ftyp.mov": FAMILY[".mp4"]}


def test_every_extension_of_the_default_list_has_a_real_file() -> None:
    assert {Path(name).suffix for name in RECIPES} == set(DEFAULT)


@pytest.mark.parametrize("name", RECIPES)
def test_the_files_that_we_test_with_are_real(name: str, media: Path) -> None:
    """ffmpeg decodes them; the ones that are written by hand are no exception."""
    path = make_media_file(name, media)
    assert float(run("ffprobe", "-v", "error", "-show_entries", "format=duration", "-of", "csv=p=0", str(path))) > 0.3
    run("ffmpeg", "-v", "error", "-i", str(path), "-f", "null", "-")


@pytest.mark.parametrize("rules", [LENIENT, STRICT, MediaRules.of("*", "strict")], ids=["lenient", "strict", "all"])
@pytest.mark.parametrize("name", RECIPES)
def test_a_real_file_passes_under_its_own_extension_and_without_a_name(
    name: str, rules: MediaRules, media: Path
) -> None:
    content = make_media_file(name, media).read_bytes()
    rules.check_content(Path(name).suffix, content, whole=True)
    rules.check_content(Path(name).suffix, content[:SNIFF_SIZE], whole=False)
    rules.check_content("", content, whole=True)


@pytest.mark.parametrize("rules", [LENIENT, STRICT], ids=["lenient", "strict"])
@pytest.mark.parametrize("name", RECIPES)
def test_a_real_file_is_refused_under_every_other_family(name: str, rules: MediaRules, media: Path) -> None:
    prefix = make_media_file(name, media).read_bytes()[:SNIFF_SIZE]
    right = FAMILY[Path(name).suffix] | ALSO.get(name, frozenset())
    accepted = {extension for extension in DEFAULT if is_accepted(rules, extension, prefix, whole=False)}
    assert accepted == right.intersection(DEFAULT)


@pytest.mark.parametrize("name", RECIPES)
def test_a_right_file_is_never_refused_wherever_its_prefix_is_cut(name: str, media: Path) -> None:
    prefix = make_media_file(name, media).read_bytes()[:SNIFF_SIZE]
    extension = Path(name).suffix
    for size in (*range(80), *range(80, len(prefix), 61)):
        STRICT.check_content(extension, prefix[:size], whole=False)
        LENIENT.check_content(extension, prefix[:size], whole=True)


@pytest.mark.parametrize("name", RECIPES)
def test_a_file_without_a_name_gets_an_extension_of_its_family(name: str, media: Path) -> None:
    prefix = make_media_file(name, media).read_bytes()[:SNIFF_SIZE]
    family = FAMILY[Path(name).suffix] | ALSO.get(name, frozenset())
    assert LENIENT.extension_from_content(prefix) in family
    assert EVERYTHING.extension_from_content(prefix) in family


@pytest.mark.parametrize("name", ["id3.mp3", "aac.m4a", "picture.mp4", "picture.mkv", "picture.webm", "wide.awb"])
def test_the_suggested_extension_is_the_exact_one_where_the_content_tells(name: str, media: Path) -> None:
    prefix = make_media_file(name, media).read_bytes()[:SNIFF_SIZE]
    assert LENIENT.extension_from_content(prefix) == Path(name).suffix


@pytest.mark.parametrize("name", ["bare.mp3", "adts.aac", "tone.flac"])
@pytest.mark.parametrize("size", [0, 100, 100_000])
def test_content_behind_id3_tags_is_judged_by_what_can_be_seen_of_it(name: str, size: int, media: Path) -> None:
    """A cover picture makes the tag longer than what is looked at; then all that carries such tags may follow."""
    tag = b"ID3\x04\x00\x00" + bytes(size >> shift & 0x7F for shift in (21, 14, 7, 0)) + bytes(size)
    prefix = (tag + tag + make_media_file(name, media).read_bytes())[:SNIFF_SIZE]
    assert is_accepted(STRICT, Path(name).suffix, prefix, whole=False)
    assert not is_accepted(LENIENT, ".wav", prefix, whole=False)
    assert is_accepted(LENIENT, ".aac", prefix, whole=False) == (name == "adts.aac" or size > SNIFF_SIZE)


# --- everything else ---


def zipped() -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as writing:
        writing.writestr("song.mp3", TEXT)
    return archive.getvalue()


def windows_program() -> bytes:
    header = bytearray(b"MZ" + bytes(62))
    header[60:64] = struct.pack("<I", 0x80)
    return bytes(header) + bytes(64) + b"PE\0\0" + bytes(300)


FOREIGN = {
    "pdf": b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj\n<< /Type /Catalog >>\nendobj\n" + TEXT,
    "pdf of text only": b"%PDF-1.4\n" + TEXT,
    "png": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x40\0\0\0\x40\x08\x06\0\0\0" + bytes(300),
    "jpeg": b"\xff\xd8\xff\xe0\0\x10JFIF\0\x01\x01" + bytes(300),
    "webp": b"RIFF\x24\x10\0\0WEBPVP8 " + bytes(300),
    "heic": b"\0\0\0\x24ftypheic\0\0\0\0mif1MiHEmiafheic" + bytes(300),
    "zip": zipped(),
    "gzip": gzip.compress(TEXT),
    "elf": b"\x7fELF\x02\x01\x01" + bytes(300),
    "exe": windows_program(),
    "html": b"<!DOCTYPE html>\n<html><body><script>alert(1)</script>" + TEXT,
    "html with a blank line": b"\n  <html>\n" + TEXT,
    "script": b"#!/bin/sh\n" + TEXT,
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg">' + TEXT,
}


@pytest.mark.parametrize("extension", ["", *DEFAULT])
@pytest.mark.parametrize("kind", FOREIGN)
def test_what_is_positively_no_media_is_refused_under_every_name(kind: str, extension: str) -> None:
    assert not is_accepted(LENIENT, extension, FOREIGN[kind])
    assert not is_accepted(STRICT, extension, FOREIGN[kind])


UNRECOGNISED = {
    "empty": b"",
    "one byte": b"\xff",
    "text": TEXT,
    "text in UTF-8": "Größe, размер, 大小\n".encode() * 30,
    "text in UTF-16": "\ufeffHello, world\n".encode("utf-16-le") * 30,
    "text that begins with ID3": b"ID3 is how songs are tagged. " * 20,
    "text that begins with RIFF": b"RIFFs are what he plays, WAVEs are what we hear. " * 20,
    "text that begins with a keyword": b"import duties rose again. " * 20,
    "text with the word free": b"the free world " * 20,
    "text with ornaments": b"*** Notice ***\n" * 30,
    "text that begins like a letter": b"Subject: the recording\n" * 20,
    "text that begins with MZ": b"MZ is the mark of Mark Zbikowski. " * 20,
    "json": b'{"title": "song"}\n' * 30,
    "zeros": bytes(SNIFF_SIZE),
    "ones": b"\xff" * SNIFF_SIZE,
    "random": random.Random(3).randbytes(SNIFF_SIZE),
}


@pytest.mark.parametrize("extension", ["", *DEFAULT])
@pytest.mark.parametrize("kind", UNRECOGNISED)
def test_what_nothing_recognises_passes_under_lenient_alone(kind: str, extension: str) -> None:
    assert is_accepted(LENIENT, extension, UNRECOGNISED[kind])
    assert not is_accepted(STRICT, extension, UNRECOGNISED[kind])


def test_off_looks_at_no_content() -> None:
    assert is_accepted(MediaRules.of(DEFAULT, "off"), ".mp3", FOREIGN["pdf"])


def test_a_short_beginning_is_deferred_until_it_is_enough_or_all_there_is() -> None:
    pdf = FOREIGN["pdf"]
    assert is_accepted(STRICT, ".mp3", pdf[: ENOUGH - 1], whole=False)
    assert not is_accepted(STRICT, ".mp3", pdf[: ENOUGH - 1], whole=True)
    assert not is_accepted(LENIENT, ".mp3", pdf[:ENOUGH], whole=False)


def test_random_bytes_are_not_positively_anything() -> None:
    """An encrypted or unknown recording looks like this. Two audio frames in a row take some 30 million files."""
    source = random.Random(20261122)
    recognised = [kinds for _ in range(5_000) if (kinds := sniff(source.randbytes(600), sure=True))]
    assert recognised == []


@given(st.binary(max_size=700), st.booleans(), st.sampled_from(["", *DEFAULT, ".pdf", ".csv"]))
def test_no_content_raises_anything_but_its_refusal(content: bytes, whole: bool, extension: str) -> None:
    for rules in (LENIENT, STRICT, EVERYTHING):
        is_accepted(rules, extension, content, whole=whole)
        assert EXTENSION_GRAMMAR.fullmatch(rules.extension_from_content(content))


@given(
    st.sampled_from(
        [b"ID3\x04\0\0", b"ID3\x03\0\x10", b"\xff\xfb", b"\xff\xf1", b"RIFF", b"\0\0\0\x18ftyp", b"#!AMR", b"MZ"]
    ),
    st.binary(max_size=40),
)
def test_a_right_beginning_with_a_broken_rest_breaks_nothing(beginning: bytes, rest: bytes) -> None:
    for size in range(len(beginning + rest) + 1):
        assert sniff((beginning + rest)[:size], sure=True) <= sniff((beginning + rest)[:size])


def test_tags_within_tags_do_not_exhaust_the_stack() -> None:
    assert sniff(b"ID3\x04\0\0\0\0\0\0" * (2 * sys.getrecursionlimit())) >= {".mp3", ".aac"}


# --- other extensions than ours ---


@pytest.mark.parametrize("mode", ["lenient", "strict"])
def test_an_extension_outside_our_families_is_judged_by_puremagic(mode: Sniff) -> None:
    rules = MediaRules.of(".pdf .png .gz .webp .docx", mode)
    for extension, kind in ((".pdf", "pdf"), (".png", "png"), (".gz", "gzip"), (".webp", "webp"), (".docx", "zip")):
        assert is_accepted(rules, extension, FOREIGN[kind])
        assert not is_accepted(rules, extension, FOREIGN["exe"])
        assert is_accepted(rules, extension, TEXT) == (mode == "lenient")


@pytest.mark.parametrize(
    ("content", "under_lenient", "under_strict"),
    [(TEXT, True, True), (b"", True, True), (zipped(), True, False), (FOREIGN["exe"], False, False)],
    ids=["text", "empty", "zip", "exe"],
)
def test_of_an_extension_that_nobody_knows_nothing_can_be_demanded(
    content: bytes, under_lenient: bool, under_strict: bool
) -> None:
    assert is_accepted(MediaRules.of(".csv", "lenient"), ".csv", content) == under_lenient
    assert is_accepted(MediaRules.of(".csv", "strict"), ".csv", content) == under_strict


@pytest.mark.parametrize("kind", FOREIGN)
@pytest.mark.parametrize("mode", ["lenient", "strict"])
def test_where_all_names_are_allowed_only_a_claim_of_sound_or_video_is_held(mode: Sniff, kind: str) -> None:
    rules = MediaRules.of("*", mode)
    assert is_accepted(rules, "", FOREIGN[kind])
    assert is_accepted(rules, ".smith", FOREIGN[kind])
    assert not is_accepted(rules, ".mp3", FOREIGN[kind])


@pytest.mark.parametrize("content", [TEXT, b"", FOREIGN["zip"]], ids=["text", "empty", "zip"])
def test_content_that_suggests_nothing_allowed_is_named_bin(content: bytes) -> None:
    assert LENIENT.extension_from_content(content) == ".bin"
    assert EVERYTHING.extension_from_content(content) == ".bin"


def test_a_refusal_says_what_was_claimed_and_what_to_send() -> None:
    with pytest.raises(
        ContentRefused, match=r"the content is not that of a \.mp3 file; send real content of \.mp3, \.wav"
    ):
        LENIENT.check_content(".mp3", FOREIGN["pdf"], whole=True)
    with pytest.raises(ContentRefused, match=r"send real content of \.mp3$"):
        EVERYTHING.check_content(".mp3", FOREIGN["pdf"], whole=True)


def test_a_file_of_the_servers_disk_is_never_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """puremagic 2 opens the file whose name it is given; the names that clients send must not get there."""
    opened: list[str] = []
    sniff(TEXT)  # what is imported lazily is read now
    (tmp_path / "song.mp3").write_bytes(FOREIGN["pdf"])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("builtins.open", lambda name, *_: opened.append(str(name)))
    LENIENT.check_content(LENIENT.check_name(named("song.mp3")), TEXT, whole=True)
    assert opened == []


# --- asking puremagic only where it may know something ---


@pytest.mark.parametrize("sure", [False, True])
def test_whatever_puremagic_knows_it_is_asked_about(sure: bool) -> None:
    from puremagic import main

    for row in (*main.magic_header_array, *main.magic_footer_array):
        if row.offset >= 0:
            content = bytes(row.offset) + row.byte_match + b"behind"
        else:
            content = b"before" + row.byte_match + bytes(-row.offset - len(row.byte_match))
        assert media_module._ask_puremagic(content, sure=sure) == told_by_puremagic(content, sure=sure)


@given(st.binary(max_size=600), st.booleans())
def test_where_it_is_not_asked_it_would_have_said_nothing(content: bytes, sure: bool) -> None:
    assert media_module._ask_puremagic(content, sure=sure) == told_by_puremagic(content, sure=sure)


@pytest.mark.parametrize("sure", [False, True])
@pytest.mark.parametrize(
    "beginning",
    [
        b"fLaC\0\0\0\x22",
        b"fLaC\x80\0\0\x22",
        b"OggS\0\2",
        b"\x1aE\xdf\xa3",
        bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c"),
    ],
)
def test_of_the_types_that_arrive_most_we_say_what_puremagic_says(beginning: bytes, sure: bool) -> None:
    content = beginning + bytes(range(100))
    ours: set[str] = set().union(
        *(kinds for pattern, kinds in media_module.SIGNATURES if pattern.match(content)),
    )
    assert ours
    assert ours <= told_by_puremagic(content, sure=sure) == sniff(content, sure=sure)


def test_an_accepted_file_of_a_common_type_needs_no_puremagic(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(start: bytes, *, sure: bool) -> set[str]:
        raise AssertionError("it was asked")

    monkeypatch.setattr(media_module, "_ask_puremagic", refuse)
    LENIENT.check_content(".wav", b"RIFF\x24\x10\0\0WAVEfmt ".ljust(SNIFF_SIZE, b"\x07"), whole=True)
    LENIENT.check_content(".mkv", b"\x1aE\xdf\xa3".ljust(SNIFF_SIZE, b"\x07"), whole=True)
