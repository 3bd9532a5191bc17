"""The log of a server: one line for each event on stderr, with the time in UTC."""

from __future__ import annotations

import asyncio
import logging
import time


def configure_logs(level: str) -> None:
    """Write what ``tusd_py`` logs from ``level`` (``debug``, ``info``, ...) on, and only the troubles of others."""
    formatter = logging.Formatter("%(asctime)s %(levelname)s %(message)s")
    formatter.converter = time.gmtime
    formatter.default_time_format = "%Y-%m-%dT%H:%M:%S"
    formatter.default_msec_format = "%s.%03dZ"
    handler = logging.StreamHandler()
    handler.setFormatter(formatter)
    handler.addFilter(_is_worth_a_line)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("tusd_py").setLevel(level.upper())


def _is_worth_a_line(record: logging.LogRecord) -> bool:
    """Tell whether ``record`` is more than the stack of a request that was cancelled because the server ends.

    uvicorn takes that for a crash of the application, and has said already how many requests it cancels.
    """
    return record.exc_info is None or not isinstance(record.exc_info[1], asyncio.CancelledError)
