"""What people write into settings, and what it means: sizes, durations, lists, paths, URLs.

Each function takes whatever came (a keyword may hold anything) and raises ``ValueError`` with one sentence that says
what to write instead.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import timedelta
from decimal import Decimal
from ipaddress import ip_network
from pathlib import Path
from urllib.parse import urlsplit

from tusd_py.errors import BadRequest
from tusd_py.media import MediaRules
from tusd_py.protocol.forwarded import parse_host

# How a limit is switched off.
NO_LIMIT = frozenset({"0", "none", "off"})

NUMBER = r"[0-9]{1,18}(?:\.[0-9]{1,9})?"

# size = number [ unit ]                                  ; without a unit: bytes
# number = 1*18DIGIT [ "." 1*9DIGIT ]
# unit = "B" / ( "K" / "M" / "G" / "T" ) [ "i" ] "B"      ; in any case; KB is 1000 bytes, KiB is 1024
# A bare G is refused: half of all programs take it for 1000³, half for 1024³.
SIZE = re.compile(rf"({NUMBER})\s*(?:b|([kmgt])(i?)b)?", re.IGNORECASE)
POWERS = {"k": 1, "m": 2, "g": 3, "t": 4}

# duration = number / 1*( number unit )                   ; without a unit: seconds
# unit = "w" / "d" / "h" / "m" / "s" / "ms"               ; each at most once, in this order
DURATION_UNITS = {
    "w": Decimal(7 * 24 * 3600),
    "d": Decimal(24 * 3600),
    "h": Decimal(3600),
    "m": Decimal(60),
    "s": Decimal(1),
    "ms": Decimal("0.001"),
}
DURATION = re.compile(r"\s*".join(rf"(?:({NUMBER})\s*{unit})?" for unit in DURATION_UNITS), re.IGNORECASE)
SECONDS = re.compile(NUMBER)

# Beyond this, moments in the future have years that no date can write.
LONGEST_DURATION = 1000 * 365 * 24 * 3600.0

# Names between slashes, without anything that has to be escaped in a URL.
PATH = re.compile(r"(?:/[A-Za-z0-9._~-]+)*")

# What a Unix socket may have at most (108 bytes with the end, unix(7)).
LONGEST_SOCKET_PATH = 107

# Rights of owner, group and others, in octal digits as chmod takes them.
MODE = re.compile(r"0?[0-7]{3}")

DESCRIPTOR = re.compile(r"(?:fd://)?([0-9]{1,5})", re.IGNORECASE)

# field-name = token (RFC 9110, 5.1 and 5.6.2)
FIELD_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")

# Parts of a URL that an origin or a public URL does not have, and characters that none may have.
NOT_IN_URLS = frozenset(' "<>\\^`{|}?#@*')


def parse_size(value: object) -> int:
    """Return the bytes that ``value`` means: a whole number, or text such as ``5GiB``, ``1.5 MB`` or ``1048576``."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    match = SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f"{value!r} is no size; write bytes or a number with its unit, such as 5GiB, 100MB or 1048576")
    number, prefix, binary = match.groups()
    base = 1024 if binary else 1000
    return int(Decimal(number) * base ** POWERS.get((prefix or "").lower(), 0))


def parse_count(value: object) -> int:
    """Return a whole number from 0 on, which may be written as text."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    text = value.strip() if isinstance(value, str) else ""
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"{value!r} is no number; write a whole one such as 1000")
    return int(text)


def parse_duration(value: object) -> float:
    """Return the seconds that ``value`` means: a number, a ``timedelta``, or text such as ``1.5s`` or ``1h30m``."""
    seconds = _seconds(value)
    if seconds is None or not 0 <= seconds <= LONGEST_DURATION:
        raise ValueError(
            f"{value!r} is no duration; write seconds or numbers with their units, such as 90, 1.5s, 10m, 1h30m or 2d"
        )
    return seconds


def _seconds(value: object) -> float | None:
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    text = value.strip() if isinstance(value, str) else ""
    if SECONDS.fullmatch(text):
        return float(text)
    match = DURATION.fullmatch(text)
    if match is None or not text:
        return None
    numbers = zip(match.groups(), DURATION_UNITS.values(), strict=True)
    return float(sum(Decimal(number) * unit for number, unit in numbers if number))


def or_none(parse: Callable[[object], float]) -> Callable[[object], float | None]:
    """Return ``parse`` for a limit that can be switched off: with ``None``, ``0``, ``none`` or ``off``."""

    def parse_limit(value: object) -> float | None:
        if value is None or (isinstance(value, str) and value.strip().lower() in NO_LIMIT):
            return None
        return parse(value) or None

    return parse_limit


def parse_list(value: object) -> tuple[str, ...]:
    """Return the entries of a text with commas, or of a sequence of texts; blanks around them and empty ones go."""
    entries: Iterable[object] = ()
    if isinstance(value, str):
        entries = value.split(",")
    elif isinstance(value, Iterable):
        entries = value
    else:
        raise ValueError(f"{value!r} is no list; write its entries with commas between them")
    return tuple(entry for entry in (str(entry).strip() for entry in entries) if entry)


def parse_extensions(value: object) -> tuple[str, ...]:
    """Return the extensions of a list, in lower case with their dots, or ``("*",)`` for all."""
    return MediaRules.of(value if isinstance(value, str) else parse_list(value)).allowed


def parse_origins(value: object) -> tuple[str, ...]:
    """Return the origins of a list as browsers write them; nothing for ``none`` and ``off``."""
    entries = parse_list(value)
    if len(entries) == 1 and entries[0].lower() in NO_LIMIT:
        return ()
    return tuple(map(_parse_origin, entries))


def _parse_origin(text: str) -> str:
    origin = text.lower().removesuffix("/")
    if origin in ("*", "null"):
        return origin
    if not _is_url(origin) or urlsplit(origin).path:
        raise ValueError(f"{text!r} is no origin; write a scheme and a host, such as https://app.example.org, or *")
    return origin


def parse_field_names(value: object) -> tuple[str, ...]:
    """Return the names of header fields in a list."""
    names = parse_list(value)
    for name in names:
        if not FIELD_NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no name of a header field; write names such as X-Project-Id")
    return names


def parse_public_url(value: object) -> str | None:
    """Return a URL that a path can follow: without a slash at its end; ``None`` for none."""
    if value is None or value == "" or value in NO_LIMIT:
        return None
    if not isinstance(value, str) or not _is_url(value):
        raise ValueError(f"{value!r} is no URL that a path can follow; write one such as https://uploads.example.org")
    return value.rstrip("/")


def parse_proxies(value: object) -> tuple[str, ...]:
    """Return addresses and networks in their shortest form, ``unix`` and ``*`` as they are; nothing for ``none``."""
    entries = parse_list(value)
    if len(entries) == 1 and entries[0].lower() in NO_LIMIT:
        return ()
    return tuple(map(_parse_proxy, entries))


def _parse_proxy(text: str) -> str:
    word = text.lower()
    if word in ("*", "unix"):
        return word
    try:
        network = ip_network(word.strip("[]"))
    except ValueError:
        raise ValueError(
            f"{text!r} is no address or network; write one such as 10.0.0.7 or 10.0.0.0/8, or unix, or *"
        ) from None
    return str(network.network_address if network.num_addresses == 1 else network)


def parse_hosts(value: object) -> tuple[str, ...]:
    """Return the names of hosts in lower case, IPv6 addresses in brackets, ``*`` as it is; nothing for ``none``."""
    entries = parse_list(value)
    if len(entries) == 1 and entries[0].lower() in NO_LIMIT:
        return ()
    return tuple(map(_parse_host_name, entries))


def _parse_host_name(text: str) -> str:
    if text == "*":
        return text
    host = None
    with suppress(BadRequest):
        host = parse_host(text)
    if host is None or host.port is not None:
        raise ValueError(f"{text!r} is no host; write a name without a port, such as uploads.example.org, or *")
    return host.name


def parse_base_path(value: object) -> str:
    """Return a path that begins and ends with a slash."""
    return parse_root_path(value) + "/"


def parse_root_path(value: object) -> str:
    """Return a path that begins with a slash and ends with a name; ``""`` for the root."""
    names = value.strip().split("/") if isinstance(value, str) else [" "]
    path = "".join(f"/{name}" for name in names if name)
    if not PATH.fullmatch(path) or {".", ".."} & set(names):
        raise ValueError(f"{value!r} is no path; write names of letters and digits between slashes, such as /files/")
    return path


def parse_folder(value: object) -> Path:
    """Return an absolute path, once and for all: the program around us may change its working directory."""
    if not isinstance(value, str | os.PathLike) or not (folder := os.fsdecode(value)):
        raise ValueError(f"{value!r} is no folder; write a path")
    return Path(os.path.abspath(os.path.expanduser(folder)))


def parse_path(value: object) -> Path | None:
    """Return an absolute path as ``parse_folder`` does; ``None`` for none."""
    if value is None or (isinstance(value, str) and value.strip().lower() in ("", "none")):
        return None
    if not isinstance(value, str | os.PathLike):
        raise ValueError(f"{value!r} is no path; write one such as /etc/tusd-py.toml")
    return parse_folder(value)


def parse_socket_path(value: object) -> Path | None:
    """Return an absolute path that a Unix socket can have; ``None`` for none."""
    path = parse_path(value)
    if path is not None and len(os.fsencode(path)) > LONGEST_SOCKET_PATH:
        raise ValueError(f"{str(path)!r} is too long for a socket; write a path of at most {LONGEST_SOCKET_PATH} bytes")
    return path


def parse_mode(value: object) -> int:
    """Return the rights of a file that octal digits mean, such as ``660``; a number is those rights already."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 0o777:
        return value
    if not isinstance(value, str) or not MODE.fullmatch(value.strip()):
        raise ValueError(f"{value!r} are no rights of a file; write three octal digits, such as 660")
    return int(value, 8)


def parse_descriptor(value: object) -> int | None:
    """Return the number of a descriptor, which may be written ``3`` or ``fd://3``; ``None`` for none."""
    if value is None or (isinstance(value, str) and value.strip().lower() in ("", "none")):
        return None
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    match = DESCRIPTOR.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f"{value!r} is no descriptor; write a number such as 3, or fd://3")
    return int(match[1])


def parse_probe_path(value: object) -> str | None:
    """Return a path that begins with a slash and does not end with one; ``None`` for none."""
    if value is None or (isinstance(value, str) and value.strip().lower() in NO_LIMIT):
        return None
    path = parse_root_path(value)
    if not path:
        raise ValueError(f"{value!r} is no path of its own; write one such as /healthz, or none")
    return path


def lower(value: object) -> object:
    """Return a word in lower case, anything else as it is."""
    return value.strip().lower() if isinstance(value, str) else value


def _is_url(text: str) -> bool:
    try:
        url = urlsplit(text)
        has_host = bool(url.hostname) and url.port != 0
    except ValueError:
        return False
    is_plain = text.isascii() and text.isprintable() and NOT_IN_URLS.isdisjoint(text)
    return has_host and is_plain and url.scheme in ("http", "https")
