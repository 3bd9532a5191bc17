"""Structured fields: what is one and what is none, and that whatever is built is parsed again."""

from __future__ import annotations

import string
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tusd_py.protocol.fields import Fields
from tusd_py.protocol.structured import (
    LARGEST,
    Bare,
    Date,
    Display,
    InnerList,
    Item,
    Malformed,
    Member,
    Token,
    boolean,
    build_dictionary,
    build_item,
    dictionary,
    integer,
    parse_dictionary,
    parse_item,
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        # realistic
        ("?1", True),
        ("?0", False),
        ("0", 0),
        ("4294967296", 4294967296),
        (":aGVsbG8=:", b"hello"),
        ("sha-256", Token("sha-256")),
        ("true", Token("true")),
        ('"two words"', "two words"),
        # odd
        ("  ?1  ", True),
        ("?1;x=1;y", True),
        ("007", 7),
        ("-0", 0),
        ("-17", -17),
        ("999999999999999", LARGEST),
        ("1.5", Decimal("1.5")),
        ("-123456789012.125", Decimal("-123456789012.125")),
        (r'"a \"b\" \\"', r'a "b" \ '.rstrip(" ")),
        ('""', ""),
        ("::", b""),
        (":aGVsbG8:", b"hello"),
        ("*/x:y", Token("*/x:y")),
        ("@1659578233", Date(1659578233)),
        ("@-62135596800", Date(-62135596800)),
        ('%"f%c3%bc%c3%bc"', Display("füü")),
    ],
)
def test_an_item_is_read_as_it_is_meant(text: str, value: Bare) -> None:
    item = parse_item(text)
    assert item.value == value
    assert type(item.value) is type(value)


@pytest.mark.parametrize(
    "text",
    [
        # realistic: what clients send by mistake
        "",
        "1, 1",
        "?1, ?1",
        "1;",
        "10 bytes",
        # odd
        "?2",
        "? 1",
        "+5",
        "1_000",
        "0x10",
        "1.",
        ".5",
        "1.2345",
        "1.2.3",
        "--1",
        "- 1",
        "?1;X=1",
        "?1 ;x",
        "\t?1",
        '"unclosed',
        '"a\\b"',
        ":a b:",
        ":a:",
        ":aGk=aGk=:",
        "@1.5",
        '%"%C3%BC"',
        '%"%ff"',
        '%"%zz"',
        # hostile
        "1234567890123456",
        "9" * 10_000,
        "-" * 10_000,
        "1234567890123.1",
        "٣",
        "１２",
        "?1\n",
        "1\r\nUpload-Offset: 5",
        '"ü"',
        "\x00",
    ],
)
def test_what_is_no_item_is_malformed(text: str) -> None:
    with pytest.raises(Malformed):
        parse_item(text)


@pytest.mark.parametrize(
    ("text", "members"),
    [
        ("", {}),
        ("max-size=5, min-size=0", {"max-size": Item(5), "min-size": Item(0)}),
        ("max-size=5 ,\tmax-age=60", {"max-size": Item(5), "max-age": Item(60)}),
        ("a, b;x=1, c=?0", {"a": Item(True), "b": Item(True, (("x", 1),)), "c": Item(False)}),
        ("a=1, b=2, a=3", {"b": Item(2), "a": Item(3)}),
        ("a=(1 2);x", {"a": InnerList((Item(1), Item(2)), (("x", True),))}),
        ("a=( )", {"a": InnerList(())}),
        ("a=1; x", {"a": Item(1, (("x", True),))}),
        ("a=1;x=1;x=2", {"a": Item(1, (("x", 2),))}),
        ("*a_-.*=tok", {"*a_-.*": Item(Token("tok"))}),
        ("  a=1  ", {"a": Item(1)}),
    ],
)
def test_a_dictionary_is_read_as_it_is_meant(text: str, members: dict[str, Member]) -> None:
    assert parse_dictionary(text) == members
    assert list(parse_dictionary(text)) == list(members)


@pytest.mark.parametrize(
    "text", ["a=1,", ",a=1", "a=1,,b=2", "a=1 b=2", "A=1", "1=1", "a=", "a=(1 2", "a=(1,2)", "a=(1)b", "a =1"]
)
def test_what_is_no_dictionary_is_malformed(text: str) -> None:
    with pytest.raises(Malformed):
        parse_dictionary(text)


keys = st.from_regex(r"\A[a-z*][a-z0-9_\-.*]{0,9}\Z")
tokens = st.from_regex(r"\A[A-Za-z*][!#$%&'*+\-.^_`|~0-9A-Za-z:/]{0,9}\Z").map(Token)
bare = st.one_of(
    st.booleans(),
    st.integers(-LARGEST, LARGEST),
    st.decimals(-(10**12) + 1, 10**12 - 1, places=3, allow_nan=False),
    st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E)),
    tokens,
    st.binary(),
    st.integers(-LARGEST, LARGEST).map(Date),
    st.text().filter(lambda text: text.isprintable()).map(Display),
)
parameters = st.dictionaries(keys, bare, max_size=3).map(lambda found: tuple(found.items()))
items = st.builds(Item, bare, parameters)
members = st.one_of(items, st.builds(InnerList, st.lists(items, max_size=3).map(tuple), parameters))


@given(items)
def test_an_item_that_was_built_is_parsed_again(item: Item) -> None:
    assert parse_item(build_item(item)) == item


@given(st.dictionaries(keys, members, max_size=4))
def test_a_dictionary_that_was_built_is_parsed_again(found: dict[str, Member]) -> None:
    assert parse_dictionary(build_dictionary(found)) == found


@given(st.text(string.printable) | st.text() | st.text('?01;=,"\\:()%@* a-Z'))
def test_whatever_comes_is_a_value_or_malformed_and_nothing_else(text: str) -> None:
    for parse in (parse_item, parse_dictionary):
        try:
            parse(text)
        except Malformed:
            continue


@pytest.mark.parametrize(
    "value", [LARGEST + 1, -LARGEST - 1, "ü", Token("a b"), Token(""), Token("1"), Decimal("1.2345"), Date(10**15)]
)
def test_what_there_is_no_way_to_write_is_not_written(value: Bare) -> None:
    with pytest.raises(Malformed):
        build_item(Item(value))


@pytest.mark.parametrize("key", ["", "A", "ü", "a b", "1a"])
def test_a_key_that_is_none_is_not_written(key: str) -> None:
    with pytest.raises(Malformed):
        build_dictionary({key: Item(1)})


def fields(*lines: str) -> Fields:
    return Fields([(b"upload-complete", line.encode("latin-1")) for line in lines])


@pytest.mark.parametrize(
    ("lines", "as_boolean", "as_integer"),
    [
        (["?1"], True, None),
        (["?0;x=5"], False, None),
        (["1"], None, 1),
        (["0;a"], None, 0),
        (["1.0"], None, None),
        (["yes"], None, None),
        (["?1", "?1"], None, None),
        (["5", "5"], None, None),
        ([""], None, None),
        (["\xff"], None, None),
        ([], None, None),
    ],
)
def test_a_field_of_another_type_counts_as_missing(
    lines: list[str], as_boolean: bool | None, as_integer: int | None
) -> None:
    assert boolean(fields(*lines), "upload-complete") is as_boolean
    assert integer(fields(*lines), "upload-complete") == as_integer


def test_a_dictionary_on_several_lines_is_one() -> None:
    assert dictionary(fields("a=1", "b=2"), "upload-complete") == {"a": Item(1), "b": Item(2)}


@pytest.mark.parametrize("lines", [[], ["a="], ["a=1", "b="]])
def test_a_malformed_dictionary_is_an_empty_one(lines: list[str]) -> None:
    assert dictionary(fields(*lines), "upload-complete") == {}
