"""What a proxy tells of the request that it got: ``Forwarded`` of RFC 7239, and the older ``X-Forwarded-*`` fields.

Nothing here knows who may be believed. Each parser reads what stands in a field; which peers are proxies, and which
hosts this server answers for, is decided where the connection is known.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address

from tusd_py.errors import BadRequest
from tusd_py.protocol.fields import Fields

# Host = uri-host [ ":" port ] (RFC 9110, 7.2), of which we take names, IPv4 and bracketed IPv6 addresses.
_HOST = re.compile(r"([A-Za-z0-9._~-]+|\[[0-9A-Fa-f:.]+\])(?::([0-9]{1,5}))?")

# RFC 7239, 4:  forwarded-pair = token "=" value          ; value = token / quoted-string
# The list has elements with commas between them, an element has pairs with semicolons between them.
_PAIR = re.compile(r"""([!#$%&'*+\-.^_`|~0-9A-Za-z]+)=(?:([!#$%&'*+\-.^_`|~0-9A-Za-z]+)|"((?:[^"\\]|\\.)*)")""")
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_ESCAPED = re.compile(r"\\(.)")

# What we take for a path in a URL: nothing that would have to be escaped, and nothing that turns it.
_PREFIX = re.compile(r"(?:/[A-Za-z0-9._~-]+)*/?")

SCHEMES = ("http", "https")


@dataclass(frozen=True, slots=True)
class Host:
    """A host as a URL names it: in lower case, an IPv6 address in brackets. ``port`` is ``None`` for the usual one."""

    name: str
    port: int | None = None


@dataclass(frozen=True, slots=True)
class Forwarded:
    """What the client meant, as far as the proxies told it. ``None``: they did not.

    ``hops`` are the clients that each proxy in turn has seen, from the farthest to the nearest. The other values are
    the first of their lists, those of the proxy that the client itself reached.
    """

    scheme: str | None = None
    host: Host | None = None
    prefix: str | None = None
    hops: tuple[str, ...] = ()


@lru_cache(128)  # a server has a few names, and each request says one of them, more than once
def parse_host(text: str) -> Host:
    """Return the host that ``Host`` or ``X-Forwarded-Host`` names. Source: RFC 9110, 7.2.

    Raises:
        BadRequest: it is no name, IPv4 address or bracketed IPv6 address with or without a port.
    """
    found = _HOST.fullmatch(text) if len(text) <= 255 else None
    if found is None or (found[2] is not None and not 0 < int(found[2]) <= 65535):
        raise BadRequest("ERR_INVALID_HOST", "the host of the request is malformed; send a name and maybe a port")
    return Host(found[1].lower(), int(found[2]) if found[2] is not None else None)


def build_host(host: Host) -> str:
    """Write a host as it stands in ``Host`` and in URLs."""
    return host.name if host.port is None else f"{host.name}:{host.port}"


def parse_scheme(text: str) -> str:
    """Return the scheme that ``X-Forwarded-Proto`` names, one of ``SCHEMES``."""
    if text.lower() not in SCHEMES:
        raise BadRequest("ERR_INVALID_FORWARDED", "the scheme that a proxy tells is unknown; it is http or https")
    return text.lower()


def build_scheme(scheme: str) -> str:
    """Write a scheme."""
    return scheme


def parse_prefix(text: str) -> str:
    """Return the path that ``X-Forwarded-Prefix`` says was cut off: empty, or begins with a slash and ends without."""
    if _PREFIX.fullmatch(text) is None or {".", ".."} & set(text.split("/")):
        raise BadRequest("ERR_INVALID_FORWARDED", "the prefix that a proxy tells is no path; it is one such as /media")
    return text.removesuffix("/")


def build_prefix(prefix: str) -> str:
    """Write a prefix; the root is a slash."""
    return prefix or "/"


def parse_elements(text: str) -> tuple[dict[str, str], ...]:
    """Return the elements of a ``Forwarded`` field, each as its parameters by lower-case name. Source: RFC 7239, 4.

    Raises:
        BadRequest: it does not obey the grammar, or an element has a parameter twice.
    """
    elements: list[dict[str, str]] = [{}]
    position = 0
    # Invariant: text[:position] is read, and what follows is white space, a separator or a pair.
    while position < len(text):
        if text[position] in " \t;,":
            if text[position] == "," and elements[-1]:
                elements.append({})
            position += 1
            continue
        pair = _PAIR.match(text, position)
        if pair is None or pair[1].lower() in elements[-1] or text[pair.end() : pair.end() + 1] not in ("", *" \t;,"):
            raise BadRequest("ERR_INVALID_FORWARDED", "Forwarded is malformed; send pairs as in RFC 7239")
        elements[-1][pair[1].lower()] = pair[2] if pair[2] is not None else _ESCAPED.sub(r"\1", pair[3])
        position = pair.end()
    return tuple(element for element in elements if element)


def build_elements(elements: Iterable[dict[str, str]]) -> str:
    """Write a ``Forwarded`` field; what is no token is quoted."""
    return ", ".join(";".join(f"{name}={_quoted(value)}" for name, value in element.items()) for element in elements)


def _quoted(value: str) -> str:
    if _TOKEN.fullmatch(value):
        return value
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def parse_node(text: str) -> str | None:
    """Return the address in a node name, without port and brackets; ``None`` for one that hides itself.

    Source: RFC 7239, 6. ``X-Forwarded-For`` has the same, and bare IPv6 addresses.
    """
    name = text
    if text.startswith("["):
        name = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        name = text.partition(":")[0]
    try:
        return str(ip_address(name))
    except ValueError:
        return None


def build_node(address: str) -> str:
    """Write an address as a node name."""
    return f"[{address}]" if ":" in address else address


def parse_forwarded(fields: Fields) -> Forwarded:
    """Return what all these fields say together.

    Where both kinds are there, ``X-Forwarded-*`` counts: it is what most proxies set, and those that do let a
    ``Forwarded`` pass that their client has made up.

    Raises:
        BadRequest: one of them is malformed.
    """
    elements = parse_elements(fields.combined("forwarded") or "")
    first = elements[0] if elements else {}
    scheme = _first(fields, "x-forwarded-proto") or first.get("proto")
    host = _first(fields, "x-forwarded-host") or first.get("host")
    prefix = _first(fields, "x-forwarded-prefix")
    hops: Sequence[str] = [hop.strip(" \t") for hop in (fields.combined("x-forwarded-for") or "").split(",")]
    return Forwarded(
        scheme=parse_scheme(scheme) if scheme else None,
        host=parse_host(host) if host else None,
        prefix=parse_prefix(prefix) if prefix else None,
        hops=tuple(hop for hop in hops if hop) or tuple(element["for"] for element in elements if "for" in element),
    )


def _first(fields: Fields, name: str) -> str:
    return (fields.combined(name) or "").partition(",")[0].strip(" \t")
