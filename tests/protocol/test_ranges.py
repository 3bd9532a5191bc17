"""Which bytes a GET is answered with, as a table of what clients ask."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tusd_py.errors import PreconditionFailed, RangeNotSatisfiable
from tusd_py.protocol.fields import Fields
from tusd_py.protocol.ranges import (
    ByteRange,
    Representation,
    build_content_range,
    check_preconditions,
    is_not_modified,
    parse_range,
    select_range,
)

ETAG = '"0123abcd"'
DATE = "Sun, 06 Nov 1994 08:49:37 GMT"
BEFORE = "Sun, 06 Nov 1994 08:49:36 GMT"
AFTER = "Sun, 06 Nov 1994 08:49:38 GMT"

CONTENT = Representation(length=10, etag=ETAG, modified_at=datetime(1994, 11, 6, 8, 49, 37, 999_999, tzinfo=UTC))


def fields(**values: str) -> Fields:
    return Fields([(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in values.items()])


@pytest.mark.parametrize(
    ("text", "start", "stop"),
    [
        # realistic
        ("bytes=0-", 0, 10),
        ("bytes=0-0", 0, 1),
        ("bytes=0-9", 0, 10),
        ("bytes=3-6", 3, 7),
        ("bytes=9-", 9, 10),
        ("bytes=0-1048575", 0, 10),
        ("bytes=-1", 9, 10),
        ("bytes=-10", 0, 10),
        # odd
        ("bytes=-11", 0, 10),
        ("BYTES=3-6", 3, 7),
        ("bytes= 3-6 ", 3, 7),
        ("bytes=,3-6,\t,", 3, 7),
        ("bytes=003-006", 3, 7),
        # hostile
        (f"bytes=3-{'9' * 60_000}", 3, 10),
        (f"bytes=-{'9' * 60_000}", 0, 10),
        (f"bytes={'0' * 60_000}3-6", 3, 7),
    ],
)
def test_one_range_is_served(text: str, start: int, stop: int) -> None:
    assert parse_range(text, 10) == ByteRange(start, stop)


@pytest.mark.parametrize(
    "text",
    [
        # realistic
        "bytes=0-1,3-4",
        "bytes=0-1, -1",
        # odd
        "",
        "bytes",
        "bytes=",
        "bytes=-",
        "bytes=,",
        "items=0-1",
        "bytes=6-3",
        "bytes=0-1-2",
        "bytes:0-1",
        "bytes 0-1",
        "bytes =0-1",
        "bytes=0 - 1",
        "bytes=--1",
        # hostile
        "bytes=+0-1",
        "bytes=0-1_0",
        "bytes=0x0-0x1",
        "bytes=a-b",
        "bytes=\xb2-\xb3",
        "bytes=1e1-2e1",
        "bytes=0-1\0",
        "bytes=" + "0-," * 20_000,
        "bytes=3-6" + "," * 60_000,
        "bytes=" + "=" * 60_000,
    ],
)
def test_several_ranges_and_what_is_none_mean_the_whole(text: str) -> None:
    assert parse_range(text, 10) is None


@pytest.mark.parametrize("text", ["bytes=10-", "bytes=10-20", "bytes=-0", "bytes=-000", f"bytes={'9' * 60_000}-"])
def test_a_range_without_any_byte_is_refused_with_the_length(text: str) -> None:
    with pytest.raises(RangeNotSatisfiable) as caught:
        parse_range(text, 10)
    assert caught.value.length == 10


def test_empty_content_has_no_ranges() -> None:
    assert parse_range("bytes=-5", 0) is None
    with pytest.raises(RangeNotSatisfiable):
        parse_range("bytes=0-", 0)


@given(st.integers(0, 30), st.integers(0, 30), st.integers(1, 30))
def test_a_range_is_what_slicing_gives(first: int, last: int, length: int) -> None:
    content = range(length)
    try:
        found = parse_range(f"bytes={first}-{last}", length)
    except RangeNotSatisfiable:
        assert first >= length
        return
    if last < first:
        assert found is None
    else:
        assert found is not None
        assert content[found.start : found.stop] == content[first : last + 1]
        assert found.size == len(content[first : last + 1])


@given(st.text(st.characters(max_codepoint=255)), st.integers(0, 100))
def test_no_field_does_more_than_choose_bytes_that_are_there(text: str, length: int) -> None:
    for value in (text, f"bytes={text}"):
        try:
            found = parse_range(value, length)
        except RangeNotSatisfiable:
            continue
        assert found is None or 0 <= found.start < found.stop <= length


def test_a_content_range_counts_as_the_field_of_the_request_does() -> None:
    assert build_content_range(ByteRange(3, 7), 10) == "bytes 3-6/10"
    assert build_content_range(None, 10) == "bytes */10"


@pytest.mark.parametrize(
    ("condition", "is_wanted"),
    [
        (ETAG, True),
        (DATE, True),
        ('"other"', False),
        (f"W/{ETAG}", False),
        (BEFORE, False),
        (AFTER, False),
        ("0123abcd", False),
        (f"{ETAG}, {ETAG}", False),
        ("", False),
        ("*", False),
    ],
)
def test_a_range_is_served_to_who_has_the_rest_of_the_same_content(condition: str, is_wanted: bool) -> None:
    found = select_range(fields(range="bytes=3-6", if_range=condition), CONTENT)
    assert found == (ByteRange(3, 7) if is_wanted else None)


def test_a_range_of_other_content_is_not_even_looked_at() -> None:
    assert select_range(fields(range="bytes=99-", if_range='"other"'), CONTENT) is None


def test_two_lines_of_range_are_two_ranges() -> None:
    assert select_range(Fields([(b"range", b"bytes=0-1"), (b"range", b"bytes=0-1")]), CONTENT) is None


@pytest.mark.parametrize(
    ("tags", "has_it"),
    [
        (ETAG, True),
        (f"W/{ETAG}", True),
        (f'"a", {ETAG}', True),
        (f'"a,b" ,,\t{ETAG}', True),
        ("*", True),
        ('"other"', False),
        ("", False),
        ("0123abcd", False),
        (f"junk, {ETAG}", False),
        (f'"a{ETAG}', False),
        ('"a",' * 15_000 + ETAG, False),
        ('"' * 60_000, False),
        ("," * 60_000, False),
    ],
)
def test_who_has_the_content_is_not_sent_it_again(tags: str, has_it: bool) -> None:
    assert is_not_modified(fields(if_none_match=tags), CONTENT) is has_it


@pytest.mark.parametrize(
    ("moment", "has_it"), [(DATE, True), (AFTER, True), (BEFORE, False), ("yesterday", False), ("", False)]
)
def test_a_date_tells_that_the_client_has_the_content(moment: str, has_it: bool) -> None:
    assert is_not_modified(fields(if_modified_since=moment), CONTENT) is has_it


def test_a_date_does_not_count_beside_tags() -> None:
    assert not is_not_modified(fields(if_none_match='"other"', if_modified_since=AFTER), CONTENT)


@pytest.mark.parametrize(
    ("name", "value", "is_met"),
    [
        ("if_match", ETAG, True),
        ("if_match", f'"a", {ETAG}', True),
        ("if_match", "*", True),
        ("if_match", f"W/{ETAG}", False),
        ("if_match", '"other"', False),
        ("if_match", "", False),
        ("if_unmodified_since", DATE, True),
        ("if_unmodified_since", AFTER, True),
        ("if_unmodified_since", BEFORE, False),
        ("if_unmodified_since", "yesterday", True),
    ],
)
def test_a_precondition_is_held(name: str, value: str, is_met: bool) -> None:
    if is_met:
        check_preconditions(fields(**{name: value}), CONTENT)
    else:
        with pytest.raises(PreconditionFailed):
            check_preconditions(fields(**{name: value}), CONTENT)


def test_tags_count_more_than_a_date() -> None:
    check_preconditions(fields(if_match=ETAG, if_unmodified_since=BEFORE), CONTENT)


def test_without_a_moment_no_date_says_anything() -> None:
    content = replace(CONTENT, modified_at=None)
    check_preconditions(fields(if_unmodified_since=BEFORE), content)
    assert not is_not_modified(fields(if_modified_since=AFTER), content)
    assert select_range(fields(range="bytes=3-6", if_range=DATE), content) is None


def test_nothing_asked_is_the_whole() -> None:
    check_preconditions(fields(), CONTENT)
    assert not is_not_modified(fields(), CONTENT)
    assert select_range(fields(), CONTENT) is None
