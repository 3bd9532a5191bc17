"""What a client is told while its body still comes, where its dialect and the server have words for that."""

from __future__ import annotations

import asyncio

from tusd_py.protocol.messages import Dialect
from tusd_py.web.wire import Exchange

# Seconds between two answers on the way. The draft asks for no more than that they be few.
INTERVAL = 1.0


class Progress:
    """Tells of one upload how far it is, at most once in ``INTERVAL`` seconds, the first time after so many."""

    def __init__(self, exchange: Exchange, dialect: Dialect) -> None:
        self._exchange = exchange
        self._dialect = dialect
        self._loop = asyncio.get_running_loop()
        self._next = self._loop.time() + INTERVAL

    def follow(self, offset: int) -> None:
        """Tell that the upload has all bytes before ``offset``, if it is time for that."""
        if self._loop.time() < self._next:
            return
        reply = self._dialect.progressed(offset)
        if reply is not None:
            self._next = self._loop.time() + INTERVAL
            self._exchange.send_interim_soon(reply)
