"""The log of a server on stderr: one line for each event, with the time in UTC, as text or as JSON.

A line cannot be forged. Whatever is no printable character is escaped, also in the words of exceptions, whose lines
are indented so that none of them looks like the beginning of another event.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from datetime import UTC, datetime

from tusd_py.web.request_log import PLAIN, current_request

# What uvicorn says of an answer that its application leaves.
UNENDED = "ASGI callable returned without completing response."

# Characters of one message. Longer ones are cut; none of ours is.
LONGEST_MESSAGE = 8192


def configure_logs(level: str, format: str) -> None:
    """Write what ``tusd_py`` logs from ``level`` (``debug``, ``info``, ...) on, and only the troubles of others."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if format == "json" else TextFormatter())
    handler.addFilter(_is_worth_a_line)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("tusd_py").setLevel(level.upper())


class TextFormatter(logging.Formatter):
    """Lines for people: time, level, message, and which request of whom it was."""

    converter = staticmethod(time.gmtime)
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"

    def format(self, record: logging.LogRecord) -> str:
        line = f"{self.formatTime(record)} {record.levelname} {escaped(record.getMessage())}"
        request = current_request.get()
        if request is not None:
            client = request.client if PLAIN.fullmatch(request.client) else json.dumps(request.client)
            line += f" request={request.id} client={client}"
        if record.exc_info:
            trace = self.formatException(record.exc_info).split("\n")
            line += "".join(f"\n    {escaped(part)}" for part in trace)
        return line


class JsonFormatter(logging.Formatter):
    """Lines for programs: an object each, whose members are those of the text and the facts of the event."""

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        facts: dict[str, object] = dict(getattr(record, "facts", {}))
        facts.update(
            time=moment.replace("+00:00", "Z"),
            level=record.levelname.lower(),
            message=getattr(record, "event", None) or record.getMessage()[:LONGEST_MESSAGE],
        )
        request = current_request.get()
        if request is not None:
            facts.update(request=request.id, client=request.client)
        if record.exc_info:
            facts["exception"] = self.formatException(record.exc_info)
        first = ("time", "level", "message")
        ordered = {**{name: facts[name] for name in first}, **facts}
        # What is not ASCII is escaped, line ends of all kinds with it.
        return json.dumps(ordered, default=str)


def escaped(text: str) -> str:
    """Return ``text`` on one line: what is not printable as Python would write it, the end cut if it is too long."""
    cut = text[:LONGEST_MESSAGE]
    if cut.isprintable():
        return cut
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in cut)


def _is_worth_a_line(record: logging.LogRecord) -> bool:
    """Tell whether ``record`` is more than uvicorn's word on an answer that has no end, where all is known.

    A request that is cancelled because the server ends is to it a crash of the application, with a stack; it has said
    already how many it cancels. A client that is left because it takes nothing has a line of ours.
    """
    if record.msg == UNENDED:
        return False
    return record.exc_info is None or not isinstance(record.exc_info[1], asyncio.CancelledError)
