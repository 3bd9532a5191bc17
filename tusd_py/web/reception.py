"""What a server that knows us says and does for a request besides ASGI, which has no word for it.

A server of ours offers it among the extensions of a scope. Under any other server there is none, and everything works
by plain ASGI.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

from starlette.types import Scope

from tusd_py.errors import UploadError
from tusd_py.intake import Sink

# Where it lies among the extensions of a scope.
RECEPTION = "tusd_py.reception"

# The extension that an interim response can be sent before the answer, and the type of the message that sends one:
# ``status`` (1xx) and ``headers`` as in ``http.response.start``.
INTERIM = "tusd_py.interim"


class Arriving(ABC):
    """A body that comes without passing through ``receive``; ``received`` tells how many bytes of it did so far.

    Some of it may be read by ``receive`` all the same, before and behind what is fed: ``passed`` bytes so far.
    """

    received: int
    passed: int

    @property
    @abstractmethod
    def is_over(self) -> bool:
        """Whether nothing more of it will come."""

    @abstractmethod
    async def feed(self, sink: Sink) -> None:
        """Hand every byte to ``sink``; see ``Body.feed``. What had arrived when the client left is handed over too.

        Where the sink has ``Enough`` of it, this may be called again. Once it was called, ``receive`` gives only what
        is left when it ended early.
        """

    @abstractmethod
    def at_hand(self) -> bytes | None:
        """Return the whole body if it is there, ``None`` otherwise. It is taken then: ``receive`` gives none of it."""


@dataclass(slots=True)
class Reception:
    """How receiving a request goes.

    ``error`` is what is wrong with its head or, as soon as that shows, its body: nothing of a request with an error
    counts, and its body never ends. ``trailers`` are the fields behind a chunked body that has ended, names in lower
    case; they are no header fields (RFC 9112, 7.1.2), and ``has_trailers`` says whether any are told. ``arriving`` is
    the body, where there is one.
    """

    error: UploadError | None = None
    arriving: Arriving | None = None
    has_trailers: bool = False
    trailers: list[tuple[bytes, bytes]] = field(default_factory=list)

    def check(self) -> None:
        """Raise what is wrong."""
        if self.error is not None:
            raise self.error


def reception_of(scope: Scope) -> Reception:
    """Return what the server said with ``scope``; one that says nothing finds nothing wrong."""
    reception = (scope.get("extensions") or {}).get(RECEPTION)
    return reception if isinstance(reception, Reception) else Reception()
