"""What a server that knows us says about a request besides ASGI, which has no word for one that cannot be read."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.types import Scope

from tusd_py.errors import UploadError

# Where it lies among the extensions of a scope.
RECEPTION = "tusd_py.reception"

# Among the extensions of a scope where the server sends interim responses, and the type of the message for one, which
# has ``status`` and ``headers`` as ``http.response.start`` has them.
INTERIM = "tusd_py.interim"


@dataclass(slots=True)
class Reception:
    """How receiving a request goes; ``error`` is what is wrong with its head or, as soon as that shows, its body.

    Nothing of a request with an error counts, and its body never ends.
    """

    error: UploadError | None = None

    def check(self) -> None:
        """Raise what is wrong."""
        if self.error is not None:
            raise self.error


def reception_of(scope: Scope) -> Reception:
    """Return what the server said with ``scope``; one that says nothing finds nothing wrong."""
    reception = (scope.get("extensions") or {}).get(RECEPTION)
    return reception if isinstance(reception, Reception) else Reception()
