"""A resumable upload server: tus 1.0 on local disk, as a server or inside a Starlette or FastAPI app.

from tusd_py import TusApp
app = TusApp(upload_dir="uploads")
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tusd_py.build import TusApp as TusApp

__version__ = "0.1.0"
__all__ = ["TusApp", "__version__"]


def __getattr__(name: str) -> Any:
    # Settings cost half a second to import; `tusd-py --help` must not pay for them.
    if name == "TusApp":
        from tusd_py.build import TusApp

        return TusApp
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
