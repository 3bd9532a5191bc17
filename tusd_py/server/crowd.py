"""How many connections there are, and who is asked to leave when there are too many.

A connection costs memory and a descriptor also while nothing happens on it. So there is a bound for all of them, and
one for those of a single client; proxies that are believed speak for many clients and are not counted as one. Where the
bound is reached, the connection that has been idle for the longest makes room: its client opens another one when it
needs one. Where none is idle, the newcomer is told so, and where too many of those wait to be told, it is cut.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

# Newcomers that may wait, beyond the bound, to be told that there are too many.
MOST_REFUSED = 64


class Crowd:
    """The connections of one process. ``None`` bounds nothing."""

    def __init__(
        self,
        *,
        most: int | None = None,
        most_of_client: int | None = None,
        is_proxy: Callable[[str | None], bool] = lambda address: address is None,
    ) -> None:
        """Bound all connections by ``most`` and those of one address by ``most_of_client``.

        ``is_proxy`` tells whether an address (``None``: a Unix socket) speaks for many clients.
        """
        self._most = most
        self._most_of_client = most_of_client
        self._is_proxy = is_proxy
        self._addresses: dict[asyncio.Transport, str | None] = {}
        self._of_client: Counter[str] = Counter()
        self._idle: dict[asyncio.Transport, None] = {}
        self._refused: set[asyncio.Transport] = set()

    def __len__(self) -> int:
        """How many connections there are."""
        return len(self._addresses)

    def enter(self, transport: asyncio.Transport) -> bool:
        """Count a new connection in, and tell whether it may stay; one that is past all telling is cut."""
        address = self._counted_address(transport)
        self._addresses[transport] = address
        if address is not None:
            self._of_client[address] += 1
            if self._most_of_client is not None and self._of_client[address] > self._most_of_client:
                return self._refuse(transport, self._of_client[address] - self._most_of_client)
        if self._most is None or len(self) <= self._most or self._make_room():
            return True
        return self._refuse(transport, len(self) - self._most)

    def leave(self, transport: asyncio.Transport) -> None:
        """Count a connection out."""
        self._idle.pop(transport, None)
        self._refused.discard(transport)
        address = self._addresses.pop(transport, None)
        if address is not None:
            self._of_client[address] -= 1
            if not self._of_client[address]:
                del self._of_client[address]

    def rest(self, transport: asyncio.Transport) -> None:
        """Note that nothing happens on a connection from now on; one that is still to be refused makes no room."""
        if transport in self._addresses and transport not in self._refused:
            self._idle[transport] = None

    def wake(self, transport: asyncio.Transport) -> None:
        """Note that something happens on it again."""
        self._idle.pop(transport, None)

    def _counted_address(self, transport: asyncio.Transport) -> str | None:
        if self._most_of_client is None:
            return None
        peer = transport.get_extra_info("peername")
        address = str(peer[0]) if isinstance(peer, tuple) else None
        return None if self._is_proxy(address) else address

    def _make_room(self) -> bool:
        longest = next(iter(self._idle), None)
        if longest is None:
            return False
        self.leave(longest)
        if longest.get_write_buffer_size():
            # Closed, it would stay, uncounted, for as long as its client does not take its answer.
            longest.abort()
        else:
            longest.close()
        return True

    def _refuse(self, transport: asyncio.Transport, beyond: int) -> bool:
        self._refused.add(transport)
        if beyond > MOST_REFUSED:
            transport.abort()
        return False
