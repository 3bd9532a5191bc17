"""``python -m tusd_py`` is ``tusd-py``, and both begin here.

A signal may come while everything else is still being imported. It would kill us as if we had crashed, and as the first
process of a container we would not even hear it: the kernel keeps signals from that one that it has no handler for. So
this comes before anything that takes time.
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

SERVERS = frozenset({"serve", "worker"})


def start() -> None:
    """Run the command line."""
    _open_standard_streams()
    if SERVERS & set(sys.argv[1:2]):
        _await_signals(is_worker=sys.argv[1] == "worker")
    from tusd_py.cli import main

    main(prog_name="tusd-py")


def _open_standard_streams() -> None:
    """Put nothing in the place of what we were started without: sockets and files would get those numbers."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free


def _await_signals(*, is_worker: bool) -> None:
    # A worker is told by its parent, through its stdin.
    handler = signal.SIG_IGN if is_worker else _end
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, handler)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    # A server that restarts holds them back for the moment in which nobody would hear them.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM, signal.SIGINT, signal.SIGHUP))


def _end(number: int, frame: FrameType | None) -> None:
    # Nothing was begun that has to be ended.
    os._exit(0)


if __name__ == "__main__":
    start()
