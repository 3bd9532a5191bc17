"""What a server that knows us says about a request besides ASGI, which has no word for one that cannot be read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from starlette.types import Scope

from tusd_py.errors import UploadError

# Where it lies among the extensions of a scope.
RECEPTION = "tusd_py.reception"


@dataclass(slots=True)
class Reception:
    """How receiving a request goes; ``error`` is what is wrong with its head or, as soon as that shows, its body.

    Nothing of a request with an error counts, and its body never ends.

    ``at_hand`` gives the body if it has arrived whole and nothing of it was received yet, else ``None``.
    """

    error: UploadError | None = None
    at_hand: Callable[[], bytes | None] = lambda: None

    def check(self) -> None:
        """Raise what is wrong."""
        if self.error is not None:
            raise self.error


def reception_of(scope: Scope) -> Reception:
    """Return what the server said with ``scope``; one that says nothing finds nothing wrong."""
    reception = (scope.get("extensions") or {}).get(RECEPTION)
    return reception if isinstance(reception, Reception) else Reception()
