"""In front of everything else: believes proxies that are trusted, and refuses hosts that are not ours.

What a trusted proxy tells is put where ASGI has it (scheme, client, root_path and the Host field), so that nothing
behind this knows of proxies. uvicorn can do the same for scheme and client alone; it replaces the peer by the client,
so that nobody could tell any more whether the host was told by a proxy, and is switched off where we serve ourselves.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from starlette.types import ASGIApp, Receive, Scope, Send

from tusd_py.errors import MisdirectedRequest, UploadError
from tusd_py.protocol.dialects import Dialects
from tusd_py.protocol.fields import Fields
from tusd_py.protocol.forwarded import Forwarded, build_host, parse_forwarded, parse_host, parse_node
from tusd_py.web.request_log import client_of, current_request
from tusd_py.web.wire import Exchange

# Peers without an address, on a Unix socket: whoever may open it.
UNIX = "unix"

EVERYONE = "*"


class Proxies:
    """The peers that are believed: addresses, networks, ``unix`` for all on a Unix socket, ``*`` for all."""

    def __init__(self, trusted: Iterable[str]) -> None:
        words = frozenset(trusted)
        self._has_everyone = EVERYONE in words
        self._has_unix = self._has_everyone or UNIX in words
        self._networks: Sequence[IPv4Network | IPv6Network] = [ip_network(word) for word in words - {UNIX, EVERYONE}]

    def trust(self, address: str | None) -> bool:
        """Tell whether the peer with this address is a proxy; ``None`` is one on a Unix socket."""
        if address is None:
            return self._has_unix
        if self._has_everyone:
            return True
        try:
            known = ip_address(address)
        except ValueError:
            return False
        if isinstance(known, IPv6Address) and known.ipv4_mapped is not None:
            known = known.ipv4_mapped
        return any(known in network for network in self._networks)

    def farthest(self, hops: Sequence[str]) -> str | None:
        """Return the client in ``hops``: the nearest that is no proxy, because what it says itself is not believed."""
        found = None
        for hop in reversed(hops):
            address = parse_node(hop)
            if address is None:
                return found
            found = address
            if not self.trust(address):
                return found
        return found


class Forwarding:
    """ASGI around ``app``. With ``hosts``, requests for others are refused with 421; without, all are answered."""

    def __init__(self, app: ASGIApp, dialects: Dialects, *, proxies: Proxies, hosts: Iterable[str] = ()) -> None:
        self._app = app
        self._dialects = dialects
        self._proxies = proxies
        self._hosts = frozenset(hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            scope = self._seen_by_client(scope)
        except UploadError as error:
            exchange = Exchange(scope, receive, send)
            await exchange.answer(self._dialects.of(exchange.fields, exchange.method).refused(error, exchange.method))
            return
        request = current_request.get()
        if request is not None:
            # What is logged of the request from here on is about its client, and not about the proxy.
            current_request.set(replace(request, client=client_of(scope)))
        await self._app(scope, receive, send)

    def _seen_by_client(self, scope: Scope) -> Scope:
        # The Host that reached us is judged even where a proxy tells another one: a page that DNS rebinding has made
        # same-origin may set every field but this one (reliability: DNS rebinding).
        self._check_host(_host_of(scope["headers"]))
        client = scope.get("client")
        if not self._proxies.trust(client[0] if client else None):
            return scope
        forwarded = parse_forwarded(Fields(scope["headers"]))
        if forwarded == Forwarded():
            return scope
        if forwarded.host is not None:
            self._check_host(build_host(forwarded.host))
        return {**scope, **self._changes(scope, forwarded)}

    def _changes(self, scope: Mapping[str, object], forwarded: Forwarded) -> dict[str, object]:
        changes: dict[str, object] = {}
        if forwarded.scheme is not None:
            changes["scheme"] = forwarded.scheme
        if forwarded.host is not None:
            lines = scope["headers"]
            assert isinstance(lines, Iterable)
            others = [line for line in lines if line[0] != b"host"]
            changes["headers"] = [(b"host", build_host(forwarded.host).encode("ascii")), *others]
        if forwarded.prefix:
            # ASGI: what the path begins with, and is not for us to answer.
            changes["root_path"] = f"{forwarded.prefix}{scope.get('root_path', '')}"
            changes["path"] = f"{forwarded.prefix}{scope['path']}"
        client = self._proxies.farthest(forwarded.hops)
        if client is not None:
            changes["client"] = (client, 0)
        return changes

    def _check_host(self, host: str) -> None:
        """Refuse a host that is not ours. No browser leaves it out, so nobody is fooled by a request without it."""
        if not self._hosts or EVERYONE in self._hosts or not host:
            return
        name = parse_host(host).name
        if name not in self._hosts and not _is_loopback(name):
            raise MisdirectedRequest


def _host_of(lines: Iterable[tuple[bytes, bytes]]) -> str:
    return Fields(lines).single("host") or ""


def _is_loopback(name: str) -> bool:
    """Tell whether this machine itself is meant, whatever some DNS says."""
    if name == "localhost":
        return True
    try:
        return ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False
