"""What proxies tell: each field alone, then all of them together, and the way back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tusd_py.errors import BadRequest
from tusd_py.protocol.fields import Fields
from tusd_py.protocol.forwarded import (
    SCHEMES,
    Forwarded,
    Host,
    build_elements,
    build_host,
    build_node,
    build_prefix,
    build_scheme,
    parse_elements,
    parse_forwarded,
    parse_host,
    parse_node,
    parse_prefix,
    parse_scheme,
)


def told(*lines: tuple[str, str]) -> Forwarded:
    return parse_forwarded(Fields((name.encode(), value.encode("latin-1")) for name, value in lines))


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("uploads.example.org", Host("uploads.example.org")),
        ("Uploads.Example.Org:8443", Host("uploads.example.org", 8443)),
        ("127.0.0.1:8080", Host("127.0.0.1", 8080)),
        ("[::1]", Host("[::1]")),
        ("[FE80::1]:80", Host("[fe80::1]", 80)),
        ("tusd_py", Host("tusd_py")),
    ],
)
def test_a_host_is_a_name_or_an_address_with_or_without_a_port(text: str, host: Host) -> None:
    assert parse_host(text) == host
    assert parse_host(build_host(host)) == host


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "a b",
            "a/b",
            "a@b",
            "a?b",
            "a#b",
            "a\\b",
            "<script>",
            "a:b",
            "a:",
            "a:0",
            "a:65536",
            "a:1:2",
            "::1",
            "[::1",
        ),
        *("a,b", "é.example", "a" * 256, "a\r\nb", "a\n", "a%2fb"),
    ],
)
def test_what_is_no_host_is_refused(text: str) -> None:
    with pytest.raises(BadRequest):
        parse_host(text)


@pytest.mark.parametrize("text", ["http", "https", "HTTPS"])
def test_the_schemes_are_http_and_https(text: str) -> None:
    assert parse_scheme(build_scheme(parse_scheme(text))) == text.lower()


@pytest.mark.parametrize("text", ["", "ftp", "javascript", "https://", "wss", "https https"])
def test_there_are_no_other_schemes(text: str) -> None:
    with pytest.raises(BadRequest):
        parse_scheme(text)


@pytest.mark.parametrize(
    ("text", "prefix"), [("/", ""), ("/media", "/media"), ("/media/", "/media"), ("/a/b-c_d.e~f", "/a/b-c_d.e~f")]
)
def test_a_prefix_is_a_path_without_its_end(text: str, prefix: str) -> None:
    assert parse_prefix(text) == prefix
    assert parse_prefix(build_prefix(prefix)) == prefix


@pytest.mark.parametrize(
    "text", ["media", "//evil.example", "/a//b", "/..", "/a/../b", "/.", "/a b", "/a?b", "/a%2f", "/\r\nX: y", "/é"]
)
def test_what_is_no_prefix_is_refused(text: str) -> None:
    """``//evil.example`` above all, which is another host in a relative URL."""
    with pytest.raises(BadRequest):
        parse_prefix(text)


@pytest.mark.parametrize(
    ("text", "elements"),
    [
        ("", ()),
        ("for=192.0.2.60;proto=http;by=203.0.113.43", ({"for": "192.0.2.60", "proto": "http", "by": "203.0.113.43"},)),
        ('For="[2001:db8:cafe::17]:4711"', ({"for": "[2001:db8:cafe::17]:4711"},)),
        ("for=192.0.2.43, for=198.51.100.17", ({"for": "192.0.2.43"}, {"for": "198.51.100.17"})),
        (
            'for=_hidden, host="a.example:8443";Proto=HTTPS',
            ({"for": "_hidden"}, {"host": "a.example:8443", "proto": "HTTPS"}),
        ),
        (r'for="a\"b\\c,d;e"', ({"for": 'a"b\\c,d;e'},)),
        (", ,for=a;;, ", ({"for": "a"},)),
    ],
)
def test_forwarded_is_a_list_of_pairs(text: str, elements: tuple[dict[str, str], ...]) -> None:
    assert parse_elements(text) == elements


@pytest.mark.parametrize(
    "text", ["for", "for=", '="a"', 'for="a', "for=a b=c,d", "for=a;for=b", "for=[::1]", 'for="a"b', "f\0=a"]
)
def test_what_is_no_list_of_pairs_is_refused(text: str) -> None:
    with pytest.raises(BadRequest):
        parse_elements(text)


VALUES = st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=0)


@given(st.lists(st.dictionaries(st.sampled_from(["for", "by", "host", "proto", "x"]), VALUES, min_size=1)))
def test_elements_come_back_as_they_were(elements: list[dict[str, str]]) -> None:
    assert parse_elements(build_elements(elements)) == tuple(elements)


@given(st.text(max_size=40))
def test_no_text_breaks_a_parser(text: str) -> None:
    for parse in (parse_elements, parse_host, parse_prefix, parse_scheme):
        try:
            parse(text)
        except BadRequest:
            continue
    parse_node(text)


@given(st.ip_addresses())
def test_an_address_comes_back_from_a_node_name(address: object) -> None:
    assert parse_node(build_node(str(address))) == str(address)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("192.0.2.1:4711", "192.0.2.1"),
        ("[2001:db8::1]:4711", "2001:db8::1"),
        ("2001:db8::1", "2001:db8::1"),
        ("unknown", None),
        ("_hidden:80", None),
        ("1.2.3.4.5", None),
        ("", None),
    ],
)
def test_a_node_is_an_address_or_hides_itself(text: str, address: str | None) -> None:
    assert parse_node(text) == address


def test_the_first_member_of_each_list_counts() -> None:
    """It is that of the proxy which the client reached; those behind it see only the one before."""
    assert told(
        ("x-forwarded-proto", "https, http"),
        ("x-forwarded-host", "a.example, b.internal"),
        ("x-forwarded-prefix", "/media, /x"),
        ("x-forwarded-for", "192.0.2.1, 10.0.0.1"),
    ) == Forwarded("https", Host("a.example"), "/media", ("192.0.2.1", "10.0.0.1"))


def test_lines_of_one_field_are_one_list() -> None:
    assert told(("x-forwarded-host", "a.example"), ("x-forwarded-host", "b.internal")).host == Host("a.example")


def test_the_field_of_the_standard_says_the_same() -> None:
    assert told(
        ("forwarded", 'for="[::1]:80";proto=https;host="a.example:8443", for=10.0.0.1;proto=http')
    ) == Forwarded("https", Host("a.example", 8443), None, ("[::1]:80", "10.0.0.1"))


def test_the_older_fields_win_over_the_standard_where_both_are_there() -> None:
    both = told(("forwarded", "proto=http;host=evil.example;for=6.6.6.6"), ("x-forwarded-host", "a.example"))
    assert both == Forwarded("http", Host("a.example"), None, ("6.6.6.6",))


def test_nothing_is_told_by_nothing() -> None:
    assert told(("x-forwarded-host", ""), ("x-forwarded-for", " , ")) == Forwarded()


def test_every_scheme_is_known() -> None:
    assert [parse_scheme(scheme) for scheme in SCHEMES] == ["http", "https"]
