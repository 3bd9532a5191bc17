"""What people write into settings: realistic, odd, hostile."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tusd_py import values


@pytest.mark.parametrize(
    ("written", "size"),
    [
        (0, 0),
        (1048576, 1048576),
        ("1048576", 1048576),
        ("5GiB", 5 * 1024**3),
        ("5 gib", 5 * 1024**3),
        ("100MB", 100_000_000),
        ("64KiB", 65536),
        ("64kb", 64000),
        ("2TiB", 2 * 1024**4),
        ("7B", 7),
        ("1.5GiB", 3 * 512 * 1024**2),
        (" 0.1 KB ", 100),
        ("9007199254740993", 2**53 + 1),
    ],
)
def test_sizes_are_bytes_or_numbers_with_units(written: object, size: int) -> None:
    assert values.parse_size(written) == size


@pytest.mark.parametrize(
    "written",
    [
        "",
        "5G",
        "5 i B",
        "iB",
        "GiB",
        "-1",
        "+1",
        "1e9",
        "1,5GiB",
        ".5MB",
        "5.MB",
        "٣",
        "5GiBs",
        "0x10",
        -1,
        1.5,
        True,
        None,
    ],
)
def test_other_sizes_are_refused_with_an_example(written: object) -> None:
    with pytest.raises(ValueError, match=r"is no size; write .* 5GiB"):
        values.parse_size(written)


@given(st.integers(min_value=0, max_value=10**18 - 1))
def test_a_whole_number_of_bytes_is_exact_however_it_is_written(size: int) -> None:
    assert values.parse_size(size) == values.parse_size(str(size)) == values.parse_size(f"{size}B") == size


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        (0, 0),
        (90, 90),
        (1.5, 1.5),
        (timedelta(minutes=10), 600),
        ("90", 90),
        ("1.5", 1.5),
        ("90s", 90),
        ("1.5s", 1.5),
        ("250ms", 0.25),
        ("10m", 600),
        ("1h30m", 5400),
        ("1h 30m", 5400),
        ("1.5H", 5400),
        ("2d", 172800),
        ("1w2d3h4m5s6ms", 788645.006),
        (" 10 m ", 600),
    ],
)
def test_durations_are_seconds_or_numbers_with_units(written: object, seconds: float) -> None:
    assert values.parse_duration(written) == seconds


@pytest.mark.parametrize(
    "written",
    [
        *("", " ", "m", "10 minutes", "30m1h", "1h30", "1m1m", "-1", "1e3", "inf", "nan", "٣", "9" * 400, "1001y"),
        *(-1, -0.5, float("inf"), float("nan"), 1e300, True, None, timedelta(seconds=-1), timedelta.max),
    ],
)
def test_other_durations_are_refused_with_an_example(written: object) -> None:
    with pytest.raises(ValueError, match=r"is no duration; write .* 1h30m"):
        values.parse_duration(written)


@pytest.mark.parametrize("written", [None, 0, "0", "none", "None", "OFF", " off ", "0B", "0.0", "0MiB"])
def test_a_limit_is_switched_off_by_nothing_in_any_words(written: object) -> None:
    assert values.or_none(values.parse_size)(written) is None


def test_a_limit_is_not_switched_off_by_an_empty_text() -> None:
    """That is what a shell makes of a variable that is not set."""
    with pytest.raises(ValueError, match="no size"):
        values.or_none(values.parse_size)("")


def test_a_limit_that_is_not_switched_off_is_parsed() -> None:
    assert values.or_none(values.parse_duration)("10m") == 600


@pytest.mark.parametrize(
    ("written", "entries"),
    [
        ("a,b", ("a", "b")),
        (" a , ,b, ", ("a", "b")),
        ("", ()),
        (["a", " b "], ("a", "b")),
        (("a,b",), ("a,b",)),
        ({"a": 1}, ("a",)),
    ],
)
def test_lists_are_texts_with_commas_or_sequences(written: object, entries: tuple[str, ...]) -> None:
    assert values.parse_list(written) == entries


@pytest.mark.parametrize(
    ("written", "path"),
    [
        ("/files/", "/files/"),
        ("files", "/files/"),
        ("//a//b", "/a/b/"),
        ("/", "/"),
        ("", "/"),
        ("api/v1.0/up_loads~", "/api/v1.0/up_loads~/"),
    ],
)
def test_a_base_path_begins_and_ends_with_a_slash(written: str, path: str) -> None:
    assert values.parse_base_path(written) == path
    assert values.parse_root_path(written) == path.removesuffix("/")


@pytest.mark.parametrize(
    "written", ["/a b/", "/ä/", "/a/../b", "./a", "/a?b", "/a#b", "/a%2fb", "/a\nb", "/a\\b", 3, None]
)
def test_a_path_that_would_need_escaping_is_refused(written: object) -> None:
    with pytest.raises(ValueError, match=r"is no path; write .* /files/"):
        values.parse_base_path(written)


@pytest.mark.parametrize(
    ("written", "url"),
    [
        (None, None),
        ("", None),
        ("none", None),
        ("https://uploads.example.org", "https://uploads.example.org"),
        ("https://example.org/some/place/", "https://example.org/some/place"),
        ("http://[::1]:8080", "http://[::1]:8080"),
    ],
)
def test_a_public_url_ends_where_a_path_can_follow(written: object, url: str | None) -> None:
    assert values.parse_public_url(written) == url


HOSTILE_URLS = [
    "example.org",
    "//example.org",
    "ftp://example.org",
    "https://",
    "https://user@example.org",
    "https://example.org?a",
    "https://example.org#a",
    "https://exa mple.org",
    "https://example.org\r\nX: y",
    "https://example.org:port",
    "https://[::1",
    "https://*.example.org",
]


@pytest.mark.parametrize("written", [*HOSTILE_URLS, 3, b"https://example.org"])
def test_what_is_no_url_is_refused(written: object) -> None:
    with pytest.raises(ValueError, match="is no URL that a path can follow; write"):
        values.parse_public_url(written)


@pytest.mark.parametrize(
    ("written", "origins"),
    [
        ("*", ("*",)),
        ("none", ()),
        ("off", ()),
        ((), ()),
        ("null", ("null",)),
        ("https://App.example.org/, http://localhost:3000", ("https://app.example.org", "http://localhost:3000")),
    ],
)
def test_origins_are_written_as_browsers_send_them(written: object, origins: tuple[str, ...]) -> None:
    assert values.parse_origins(written) == origins


@pytest.mark.parametrize("written", [*HOSTILE_URLS, "https://example.org/path", "https://a.example, none"])
def test_what_is_no_origin_is_refused(written: str) -> None:
    with pytest.raises(ValueError, match="is no origin; write"):
        values.parse_origins(written)


@pytest.mark.parametrize(
    ("written", "proxies"),
    [
        ("127.0.0.1, ::1, unix", ("127.0.0.1", "::1", "unix")),
        ("10.0.0.0/8, [2001:DB8::1]", ("10.0.0.0/8", "2001:db8::1")),
        (["*"], ("*",)),
        ("none", ()),
        ("", ()),
    ],
)
def test_proxies_are_addresses_and_networks(written: object, proxies: tuple[str, ...]) -> None:
    assert values.parse_proxies(written) == proxies


@pytest.mark.parametrize("written", ["proxy.example", "10.0.0.1/8", "10.0.0.0/33", "1.2.3", 7, "unix:/run/x"])
def test_other_proxies_are_refused(written: object) -> None:
    with pytest.raises(ValueError, match="write"):
        values.parse_proxies(written)


@pytest.mark.parametrize(
    ("written", "hosts"),
    [
        ("Uploads.Example.Org, [::1], 10.0.0.1", ("uploads.example.org", "[::1]", "10.0.0.1")),
        ("*", ("*",)),
        ("off", ()),
        ([], ()),
    ],
)
def test_hosts_are_names_without_ports(written: object, hosts: tuple[str, ...]) -> None:
    assert values.parse_hosts(written) == hosts


@pytest.mark.parametrize("written", ["a.example:80", "https://a.example", "a/b", "*.example", "::1", 7])
def test_other_hosts_are_refused(written: object) -> None:
    with pytest.raises(ValueError, match="write"):
        values.parse_hosts(written)


def test_names_of_header_fields_are_tokens() -> None:
    assert values.parse_field_names("X-Project, X_b") == ("X-Project", "X_b")
    with pytest.raises(ValueError, match="'X: y' is no name of a header field"):
        values.parse_field_names("X: y")


def test_extensions_are_written_in_many_ways() -> None:
    assert values.parse_extensions("MP3, .Wav") == values.parse_extensions(["mp3", ".wav"]) == (".mp3", ".wav")


def test_a_folder_becomes_absolute_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/somebody")
    assert values.parse_folder("uploads") == tmp_path / "uploads"
    assert values.parse_folder(Path("a/../b")) == tmp_path / "b"
    assert values.parse_folder("~/uploads") == Path("/home/somebody/uploads")


@pytest.mark.parametrize(
    ("parse", "written"), [(values.parse_folder, ""), (values.parse_folder, 3), (values.parse_list, 3)]
)
def test_values_of_other_kinds_are_refused(parse: Callable[[object], object], written: object) -> None:
    with pytest.raises(ValueError, match="write"):
        parse(written)
