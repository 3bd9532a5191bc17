"""Several processes that serve one socket: the parent keeps their number, each of them is a whole server.

A worker is a fresh interpreter that runs this module. Two pipes tie it to the parent. Through stdin come its settings,
one line of JSON, and later a word: ``stop``, or ``now`` for not waiting any longer. The end of stdin means ``stop`` as
well, so that no worker outlives a parent that was killed. Through stdout the worker says ``ready``, once.

Signals to a worker itself, however many, mean ``stop``: service managers send them to every process of a group.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable
from types import FrameType

from tusd_py.server.logs import configure_logs
from tusd_py.server.run import STORING, CannotServe, Server, run
from tusd_py.settings import Settings

logger = logging.getLogger("tusd_py")

STDIN, STDOUT = 0, 1

# Seconds before another start, after a worker that ended before it was ready.
PAUSE = 1.0

# Seconds after which a worker that should have ended is killed. A request that hangs in a system call can do that.
KILL_AFTER = STORING + 2.0


async def supervise(settings: Settings, listener: socket.socket, announce: Callable[[], None]) -> None:
    """Keep ``settings.workers`` workers serving on ``listener`` until a signal ends it.

    Calls ``announce`` when all of them are ready.

    Raises:
        CannotServe: one of the first workers did not start.
    """
    await _Supervisor(settings, listener).run(announce)


class _Supervisor:
    def __init__(self, settings: Settings, listener: socket.socket) -> None:
        self._settings = settings
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        self._workers: set[Process] = set()

    async def run(self, announce: Callable[[], None]) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._loop.add_signal_handler(number, self._on_signal)
        starts = [self._loop.create_future() for _ in range(self._settings.workers)]
        keepers = [asyncio.create_task(self._keep(start)) for start in starts]
        has_failed = not all(await asyncio.gather(*starts)) and not self._stopping.is_set()
        if has_failed:
            self._stop()
        elif not self._stopping.is_set():
            announce()
        await asyncio.gather(*keepers)
        if has_failed:
            raise CannotServe("a worker process could not be started; the log above says why")

    async def _keep(self, start: asyncio.Future[bool]) -> None:
        """Have one worker, and another one whenever it ends; ``start`` is told whether the first one started."""
        while not self._stopping.is_set():
            is_ready = await self._run_worker(start)
            if self._stopping.is_set():
                return
            logger.error("a worker process ended unexpectedly, another one takes its place")
            if not is_ready:
                await self._pause()

    async def _run_worker(self, start: asyncio.Future[bool]) -> bool:
        """Run one worker until it ends, and return whether it was ready for clients."""
        is_ready = False
        try:
            process = await self._start_worker()
            assert process.stdout is not None
            is_ready = bool(await process.stdout.readline())
            _tell(start, is_ready)
            await process.wait()
            self._workers.discard(process)
        except OSError as error:
            logger.error("no worker process can be started: %s", error)
        finally:
            _tell(start, is_ready)
        return is_ready

    async def _start_worker(self) -> Process:
        descriptor = self._listener.fileno()
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tusd_py.server.workers",
            str(descriptor),
            stdin=PIPE,
            stdout=PIPE,
            pass_fds=[descriptor],
            # Ctrl+C goes to every process of the terminal's group; it is for the parent alone.
            start_new_session=True,
        )
        self._workers.add(process)
        _say(process, self._settings.model_dump_json())
        if self._stopping.is_set():
            _say(process, "stop")
        return process

    async def _pause(self) -> None:
        try:
            await asyncio.wait_for(self._stopping.wait(), PAUSE)
        except TimeoutError:
            return

    def _on_signal(self) -> None:
        if self._stopping.is_set():
            self._end("now", KILL_AFTER)
        else:
            self._stop()

    def _stop(self) -> None:
        self._stopping.set()
        # As long as we have it too, clients could still connect, and nobody would answer.
        self._listener.close()
        self._end("stop", self._settings.shutdown_timeout_seconds + KILL_AFTER)

    def _end(self, word: str, kill_after: float) -> None:
        for process in self._workers:
            _say(process, word)
        self._loop.call_later(kill_after, self._kill)

    def _kill(self) -> None:
        for process in self._workers:
            logger.error("a worker process does not end and is killed")
            process.kill()


def _tell(start: asyncio.Future[bool], is_ready: bool) -> None:
    if not start.done():
        start.set_result(is_ready)


def _say(process: Process, word: str) -> None:
    assert process.stdin is not None
    process.stdin.write(f"{word}\n".encode())


class _Worker(Server):
    """The server of one worker process, which also listens to its parent."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        asyncio.get_running_loop().add_reader(STDIN, self._hear)
        await super().startup(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.should_exit = True

    def _hear(self) -> None:
        words = os.read(STDIN, 64)
        self.should_exit = True
        self.force_exit = self.force_exit or b"now" in words
        if not words:
            asyncio.get_running_loop().remove_reader(STDIN)


def _say_ready() -> None:
    os.write(STDOUT, b"ready\n")


def main() -> None:
    """Be a worker; the only argument is the descriptor of the socket."""
    # Byte by byte: what follows the first line is for the event loop.
    with open(STDIN, "rb", buffering=0, closefd=False) as stdin:
        settings = Settings(**json.loads(stdin.readline()))
    configure_logs(settings.log_level)
    with socket.socket(fileno=int(sys.argv[1])) as listener:
        try:
            run(_Worker(settings, _say_ready), listener)
        except CannotServe as error:
            sys.exit(str(error))


if __name__ == "__main__":
    main()
