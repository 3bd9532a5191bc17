"""Grammars of header fields: realistic, odd and hostile values for each, and the way back."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tusd_py.errors import BadRequest
from tusd_py.protocol.fields import (
    MAX_DIGITS,
    Fields,
    build_concat,
    build_content_type,
    build_defer_length,
    build_http_date,
    build_list,
    build_metadata,
    build_method,
    build_number,
    parse_concat,
    parse_content_type,
    parse_defer_length,
    parse_http_date,
    parse_list,
    parse_metadata,
    parse_method,
    parse_number,
    parse_url_path,
)

LARGEST = 10**MAX_DIGITS - 1


def number(text: str) -> int:
    return parse_number(text, field="Upload-Offset", code="ERR_INVALID_OFFSET")


# Fields of a request


def test_a_field_is_found_by_its_name_in_lower_case() -> None:
    fields = Fields([(b"upload-offset", b"10")])
    assert "upload-offset" in fields
    assert "upload-length" not in fields
    assert fields.single("upload-offset") == "10"


def test_a_missing_field_is_none() -> None:
    fields = Fields([])
    assert fields.single("upload-offset") is None
    assert fields.combined("upload-metadata") is None


def test_an_empty_field_is_not_a_missing_one() -> None:
    fields = Fields([(b"upload-metadata", b"")])
    assert fields.single("upload-metadata") == ""
    assert fields.combined("upload-metadata") == ""


@pytest.mark.parametrize("value", [b" 10", b"10 ", b"\t10 \t"])
def test_white_space_around_a_value_is_dropped(value: bytes) -> None:
    assert Fields([(b"upload-offset", value)]).single("upload-offset") == "10"


@pytest.mark.parametrize("value", [b"\x0b10", b"10\x0c", b"\xa010", b"10\x85"])
def test_only_blanks_and_tabs_are_white_space(value: bytes) -> None:
    """What ``str.strip`` would drop besides is part of the value, and no number."""
    text = Fields([(b"upload-offset", value)]).single("upload-offset")
    assert text == value.decode("latin-1")


@pytest.mark.parametrize("values", [(b"1", b"1"), (b"1", b"2"), (b"", b""), (b"1", b"")])
def test_a_single_field_on_two_lines_is_refused_even_when_both_say_the_same(values: tuple[bytes, bytes]) -> None:
    fields = Fields([(b"upload-offset", value) for value in values])
    with pytest.raises(BadRequest, match="upload-offset is there 2 times") as caught:
        fields.single("upload-offset")
    assert caught.value.status == 400


def test_the_lines_of_a_list_field_are_one_list() -> None:
    fields = Fields([(b"upload-metadata", b"a YQ== "), (b"host", b"x"), (b"upload-metadata", b" b Yg==")])
    assert fields.combined("upload-metadata") == "a YQ==,b Yg=="


@given(st.lists(st.tuples(st.binary(max_size=5), st.binary(max_size=20))))
def test_any_bytes_make_fields(lines: list[tuple[bytes, bytes]]) -> None:
    fields = Fields(lines)
    for name, _ in lines:
        assert fields.combined(name.decode("latin-1")) is not None


# Numbers

REALISTIC_NUMBERS = {"0": 0, "1": 1, "11": 11, "4294967296": 2**32, "9007199254740993": 2**53 + 1}
ODD_NUMBERS = {"010": 10, "000": 0, "9" * 18: LARGEST, "1" + "0" * 17: 10**17, "0" * 17 + "7": 7}
HOSTILE_NUMBERS = (
    "",
    "-1",
    "-0",
    "+10",
    " 10",
    "10 ",
    "1 0",
    "10\n",
    "10\0",
    "1_000",
    "1,000",
    "10,10",
    "1.0",
    "1e3",
    "0x10",
    "0b1",
    "ten",
    "NaN",
    "inf",
    "9" * 19,
    "0" * 19,
    "1" + "0" * 18,
    "9" * 100_000,
    "\u0661\u0662",  # Arabic digits
    "\u00b2",  # superscript two: str.isdigit() says yes
    "\uff11",  # full-width one
    "\u0967",  # Devanagari one
    "1\u00a0",
    "\u2212" + "1",
)


@pytest.mark.parametrize(("text", "value"), (REALISTIC_NUMBERS | ODD_NUMBERS).items())
def test_ascii_digits_are_a_number(text: str, value: int) -> None:
    assert number(text) == value


@pytest.mark.parametrize("text", HOSTILE_NUMBERS, ids=lambda text: ascii(text)[:30])
def test_anything_else_is_no_number(text: str) -> None:
    with pytest.raises(BadRequest, match="Upload-Offset is not a number") as caught:
        number(text)
    assert caught.value.code == "ERR_INVALID_OFFSET"


@given(st.integers(min_value=0, max_value=LARGEST))
def test_a_number_that_was_built_is_read_as_itself(value: int) -> None:
    assert number(build_number(value)) == value


# Upload-Defer-Length


def test_a_length_is_deferred_with_1() -> None:
    assert parse_defer_length(build_defer_length()) is True


@pytest.mark.parametrize("text", ["", "0", "2", "01", "1.0", "11", "1 ", "+1", "true", "\u0661", "1,1"])
def test_a_length_is_deferred_with_nothing_else(text: str) -> None:
    with pytest.raises(BadRequest) as caught:
        parse_defer_length(text)
    assert caught.value.code == "ERR_INVALID_UPLOAD_LENGTH_DEFER"


# Upload-Metadata

REALISTIC_METADATA = {
    "filename d29ybGRfZG9taW5hdGlvbl9wbGFuLnBkZg==,is_confidential": (
        ("filename", b"world_domination_plan.pdf"),
        ("is_confidential", b""),
    ),
    "filename c29uZy5tcDM=,filetype YXVkaW8vbXBlZw==": (("filename", b"song.mp3"), ("filetype", b"audio/mpeg")),
    "relativePath bnVsbA==,name c29uZy5tcDM=,type": (
        ("relativePath", b"null"),
        ("name", b"song.mp3"),
        ("type", b""),
    ),
}
ODD_METADATA = {
    "": (),
    "key": (("key", b""),),
    "key ": (("key", b""),),
    "key ,other": (("key", b""), ("other", b"")),
    "a YQ==, b Yg==": (("a", b"a"), ("b", b"b")),
    "a YQ== ,\tb Yg==": (("a", b"a"), ("b", b"b")),
    "YQ==": (("YQ==", b""),),
    "Key YQ==,key Yg==": (("Key", b"a"), ("key", b"b")),
    "a//b:c;d=e\"f' YQ==": (("a//b:c;d=e\"f'", b"a"),),
    "any AAECAwT/": (("any", b"\0\1\2\3\4\xff"),),
    "line DQpTZXQtQ29va2llOiBh": (("line", b"\r\nSet-Cookie: a"),),
    "path Li4vLi4vZXRjL3Bhc3N3ZA==": (("path", b"../../etc/passwd"),),
    "plus ++//": (("plus", b"\xfb\xef\xff"),),
}
HOSTILE_METADATA = {
    ",": "key",
    "a YQ==,": "key",
    ",a YQ==": "key",
    "a YQ==,,b Yg==": "key",
    "a YQ==, ,b Yg==": "key",
    "ключ YQ==": "key",
    "k\u00e9y YQ==": "key",
    "a\x7f YQ==": "key",
    "a\tYQ==": "key",
    "a\0 YQ==": "key",
    "a\r\nb YQ==": "key",
    "a YQ==,a Yg==": "twice",
    "a,a": "twice",
    "a YQ": "base64",
    "a Y": "base64",
    "a YQ=": "base64",
    "a YQ===": "base64",
    "a =YQ=": "base64",
    "a YQ==YQ==": "base64",
    "a  YQ==": "base64",
    "a YQ== YQ==": "base64",
    "a YQ ==": "base64",
    "a Y*==": "base64",
    "a _-8=": "base64",
    "a YQ==\n": "base64",
    "a Y\u0301Q=": "base64",
    "filename song.mp3": "base64",
}


@pytest.mark.parametrize(("text", "pairs"), (REALISTIC_METADATA | ODD_METADATA).items())
def test_metadata_are_pairs_and_the_field_as_it_came(text: str, pairs: tuple[tuple[str, bytes], ...]) -> None:
    metadata = parse_metadata(text)
    assert metadata.pairs == pairs
    assert metadata.field == text


@pytest.mark.parametrize(("text", "trouble"), HOSTILE_METADATA.items(), ids=ascii)
def test_malformed_metadata_is_refused_with_a_sentence_that_says_how(text: str, trouble: str) -> None:
    with pytest.raises(BadRequest, match=trouble) as caught:
        parse_metadata(text)
    assert caught.value.code == "ERR_INVALID_METADATA"


def test_metadata_of_many_keys_and_of_several_kib_is_read() -> None:
    pairs = tuple((f"key{i}", b"v" * i) for i in range(200))
    assert parse_metadata(build_metadata(pairs)).pairs == pairs


def test_an_empty_value_is_built_without_a_space_at_the_end() -> None:
    assert build_metadata([("a", b""), ("b", b"b")]) == "a,b Yg=="


metadata_keys = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters=","), min_size=1)


@given(st.dictionaries(metadata_keys, st.binary()))
def test_metadata_that_was_built_is_read_as_itself(values: dict[str, bytes]) -> None:
    pairs = tuple(values.items())
    assert parse_metadata(build_metadata(pairs)).pairs == pairs


metadata_like = st.lists(
    st.one_of(
        st.sampled_from(["a", "b", " ", ",", "\t", "=", "==", "YQ==", "Yg", "é", "\n"]),
        st.binary(max_size=6).map(lambda value: b64encode(value).decode()),
    )
).map("".join)


@given(st.one_of(metadata_like, st.text()))
def test_metadata_that_is_accepted_is_echoed_as_it_came_and_fits_into_a_header(text: str) -> None:
    try:
        metadata = parse_metadata(text)
    except BadRequest:
        return
    assert metadata.field == text
    assert re.fullmatch(r"[\t\x20-\x7e]*", metadata.field)
    assert len({key for key, _ in metadata.pairs}) == len(metadata.pairs)


# Content-Type

# Upload-Concat

LISTS = {
    "partial": (),
    "final;/files/a": ("/files/a",),
    "final;/files/a /files/b": ("/files/a", "/files/b"),
    "final;/files/a /files/a": ("/files/a", "/files/a"),
    "final;https://a.example/files/a b": ("https://a.example/files/a", "b"),
    "final; /files/a   /files/b": ("/files/a", "/files/b"),
    "final;/files/a;b": ("/files/a;b",),
}
NO_LISTS = [
    "",
    "final",
    "final;",
    "final;   ",
    "Partial",
    "partial;",
    "partial;/files/a",
    "partial,partial",
    "Final;/files/a",
    " final;/files/a",
    "final ;/files/a",
    "finally;/files/a",
    "final,/files/a",
    "final;/files/a\t/files/b",
    "final;/files/a\n",
    "final;/files/\0",
    "final;/files/\xe9",
    "/files/a",
]


@pytest.mark.parametrize(("text", "urls"), LISTS.items())
def test_a_concatenation_is_a_partial_or_a_final_with_its_urls(text: str, urls: tuple[str, ...]) -> None:
    assert parse_concat(text) == urls


@pytest.mark.parametrize("text", NO_LISTS, ids=ascii)
def test_anything_else_is_no_concatenation(text: str) -> None:
    with pytest.raises(BadRequest) as caught:
        parse_concat(text)
    assert caught.value.code == "ERR_INVALID_CONCAT"


@given(st.lists(st.from_regex(r"[!-~]+", fullmatch=True)))
def test_a_concatenation_that_was_built_is_read_as_itself(urls: list[str]) -> None:
    assert parse_concat(build_concat(urls)) == tuple(urls)


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("/files/a", "/files/a"),
        ("http://a.example/files/a", "/files/a"),
        ("HTTPS://a.example:8080/files/a/", "/files/a/"),
        ("//a.example/files/a", "/files/a"),
        ("https://user:word@[::1]:1/files/a", "/files/a"),
        ("a", "a"),
        ("/files/%61%2f%2561", "/files/a/%61"),
        ("/files/../a//b", "/files/../a//b"),
        ("ftp://a.example/files/a", "ftp://a.example/files/a"),
        ("http://a.example", "http://a.example"),
    ],
)
def test_the_path_of_a_url_has_no_host_and_is_decoded_once(url: str, path: str) -> None:
    assert parse_url_path(url) == path


@pytest.mark.parametrize("url", ["/files/a?b", "/files/a#b", "http://a.example?/files/a"])
def test_a_url_with_a_query_or_a_fragment_names_no_upload(url: str) -> None:
    with pytest.raises(BadRequest):
        parse_url_path(url)


@pytest.mark.parametrize(
    "text",
    [
        "application/offset+octet-stream",
        "Application/Offset+Octet-Stream",
        "application/offset+octet-stream; charset=utf-8",
        "application/offset+octet-stream;charset=utf-8;x=y",
        "application/offset+octet-stream ; q=1",
        "  application/offset+octet-stream\t",
        "application/offset+octet-stream;",
    ],
)
def test_case_and_parameters_of_a_content_type_do_not_matter(text: str) -> None:
    assert parse_content_type(text) == "application/offset+octet-stream"


@pytest.mark.parametrize(
    "text",
    [
        "",
        ";",
        "application/octet-stream",
        "application/offset+octet-stream, text/plain",
        "application/offset octet-stream",
        "text/plain; application/offset+octet-stream",
        "application/offset+octet-stream\0",
        "application/of\u017fet+octet-stream",
    ],
)
def test_another_content_type_stays_another(text: str) -> None:
    assert parse_content_type(text) != "application/offset+octet-stream"


@given(st.from_regex(r"[a-z0-9+.-]{1,10}/[a-z0-9+.-]{1,10}", fullmatch=True))
def test_a_content_type_that_was_built_is_read_as_itself(media_type: str) -> None:
    assert parse_content_type(build_content_type(media_type)) == media_type


# X-HTTP-Method-Override


@pytest.mark.parametrize("text", ["PATCH", "DELETE", "HEAD", "patch", "Patch", "M-SEARCH", "!#$%&'*+-.^_`|~"])
def test_a_method_is_any_token_and_keeps_its_case(text: str) -> None:
    assert parse_method(text) == text


@pytest.mark.parametrize("text", ["", " ", "PATCH,DELETE", "PATCH DELETE", "PATCH\n", "PÄTCH", "PATCH/1", "(PATCH)"])
def test_what_is_no_token_is_no_method(text: str) -> None:
    with pytest.raises(BadRequest) as caught:
        parse_method(text)
    assert caught.value.code == "ERR_INVALID_METHOD"


tokens = st.from_regex(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,20}", fullmatch=True)


@given(tokens)
def test_a_method_that_was_built_is_read_as_itself(method: str) -> None:
    assert parse_method(build_method(method)) == method


# Lists of names


@pytest.mark.parametrize(
    ("text", "members"),
    [
        ("1.0.0", ("1.0.0",)),
        ("creation,creation-with-upload", ("creation", "creation-with-upload")),
        ("sha1, md5", ("sha1", "md5")),
        ("sha1\t,\tmd5", ("sha1", "md5")),
        ("", ()),
        (",", ()),
        (",sha1,,md5 ,", ("sha1", "md5")),
    ],
)
def test_a_list_is_names_and_commas(text: str, members: tuple[str, ...]) -> None:
    assert parse_list(text) == members


@pytest.mark.parametrize("text", ["sha1 md5", "sha1;q=1", "é", "a\nb", '"a"', "a/b"])
def test_a_list_of_anything_else_is_refused(text: str) -> None:
    with pytest.raises(BadRequest):
        parse_list(text)


@given(st.lists(tokens).map(tuple))
def test_a_list_that_was_built_is_read_as_itself(members: tuple[str, ...]) -> None:
    assert parse_list(build_list(members)) == members


# HTTP dates

MOMENT = datetime(1994, 11, 6, 8, 49, 37, tzinfo=UTC)


def test_the_example_of_the_standard_is_read_and_built() -> None:
    text = "Sun, 06 Nov 1994 08:49:37 GMT"
    assert parse_http_date(text) == MOMENT
    assert build_http_date(MOMENT) == text


def test_a_date_is_cut_down_to_the_second() -> None:
    assert build_http_date(MOMENT + timedelta(microseconds=999_999)) == build_http_date(MOMENT)


def test_a_date_is_built_in_gmt_wherever_the_moment_comes_from() -> None:
    assert build_http_date(MOMENT.astimezone(timezone(timedelta(hours=5, minutes=45)))) == build_http_date(MOMENT)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        ",",
        "now",
        "1994-11-06T08:49:37Z",
        "784111777",
        "Sunday, 06-Nov-94 08:49:37 GMT",
        "Sun Nov  6 08:49:37 1994",
        "Sun, 06 Nov 1994 08:49:37",
        "Sun, 06 Nov 1994 08:49:37 +0000",
        "Sun, 06 Nov 1994 08:49:37 -0000",
        "Sun, 06 Nov 1994 08:49:37 CET",
        "Sun, 06 Nov 94 08:49:37 GMT",
        "Sun, 6 Nov 1994 08:49:37 GMT",
        "Sun, 31 Feb 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 24:00:00 GMT",
        "Sun, 06 Nov 0000 08:49:37 GMT",
        "sun, 06 nov 1994 08:49:37 gmt",
        "Sun, 06 Nov 1994 08:49:37 GMT\n",
        "Sun, ٠٦ Nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 999999999999999999999 08:49:37 GMT",
        "Mon, 01 Jan 0001 00:00:00 +2359",
    ],
)
def test_what_is_no_date_of_the_preferred_form_is_refused(text: str) -> None:
    with pytest.raises(BadRequest) as caught:
        parse_http_date(text)
    assert caught.value.code == "ERR_INVALID_DATE"


@given(st.datetimes(timezones=st.just(UTC)))
def test_a_date_that_was_built_is_read_as_itself_to_the_second(moment: datetime) -> None:
    parsed = parse_http_date(build_http_date(moment))
    assert parsed == moment.replace(microsecond=0)
    assert parsed.tzinfo is UTC


# All of them

PARSERS: tuple[Callable[[str], object], ...] = (
    number,
    parse_defer_length,
    parse_metadata,
    parse_concat,
    parse_url_path,
    parse_content_type,
    parse_method,
    parse_list,
    parse_http_date,
)


@pytest.mark.parametrize("parse", PARSERS, ids=lambda parse: parse.__name__)
@given(
    text=st.one_of(
        st.text(),
        st.binary().map(lambda value: value.decode("latin-1")),
        st.text(alphabet="0123456789 ,:-+=AGJMTadenosuv", max_size=40),
    )
)
def test_no_text_makes_a_parser_raise_anything_but_bad_request(parse: Callable[[str], object], text: str) -> None:
    with suppress(BadRequest):
        parse(text)
