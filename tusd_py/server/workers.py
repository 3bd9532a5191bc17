"""Several processes that serve one socket: the parent keeps their number, each of them is a whole server.

A worker is a fresh interpreter that runs a command of the caller's, which has to call ``work``. Two pipes tie it to
the parent. Through stdin comes its order, one line that the caller understands, and later a word: ``stop``, or ``now``
for not waiting any longer. The end of stdin means ``stop`` as well, so that no worker outlives a parent that was
killed. Through stdout the worker says ``ready``, once.

Signals to a worker itself, however many, mean ``stop``: service managers send them to every process of a group.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import FrameType

from tusd_py.server.listener import CannotServe
from tusd_py.server.run import STORING, Plan, Server, run
from tusd_py.web.app import Application

logger = logging.getLogger("tusd_py")

STDIN, STDOUT = 0, 1

# Seconds before another start, after a worker that ended before it was ready.
PAUSE = 1.0

# Seconds after which a worker that should have ended is killed. A request that hangs in a system call can do that.
KILL_AFTER = STORING + 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Crew:
    """The workers that are wanted: ``count`` processes.

    Each runs ``command`` with the descriptor of the socket as one argument more, and reads an order (one line without
    its end). ``order`` gives it, anew for each restart, and raises ``CannotServe`` where none can be given.
    ``shutdown_timeout`` is how many seconds their requests have at the end. ``restarts`` says that SIGHUP means a
    restart; otherwise it is the end.
    """

    count: int
    command: Sequence[str]
    order: Callable[[], str]
    shutdown_timeout: float
    restarts: bool = True


async def supervise(crew: Crew, listener: socket.socket, announce: Callable[[], None]) -> None:
    """Keep a crew serving on ``listener`` until a signal ends it.

    Calls ``announce`` when all of them are ready. SIGHUP puts a fresh crew in the place of the old one, which goes only
    once the new one is ready; that is announced as well.

    Raises:
        CannotServe: one of the first workers did not start.
    """
    await _Supervisor(crew, listener).run(announce)


class _Supervisor:
    """The crew that serves, the one before it while it ends, and what signals do to them."""

    def __init__(self, crew: Crew, listener: socket.socket) -> None:
        self._crew = crew
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        self._hung_up = asyncio.Event()
        self._generations: set[_Generation] = set()

    async def run(self, announce: Callable[[], None]) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._loop.add_signal_handler(number, self._on_signal)
        self._loop.add_signal_handler(signal.SIGHUP, self._hung_up.set if self._crew.restarts else self._on_signal)
        try:
            current = self._generation(self._crew.order())
            has_failed = not await current.start() and not self._stopping.is_set()
            if has_failed:
                self._stop()
            elif not self._stopping.is_set():
                announce()
            while await self._is_hung_up():
                current = await self._replaced(current, announce)
        finally:
            await asyncio.gather(*(generation.ended() for generation in self._generations))
        if has_failed:
            raise CannotServe("a worker process could not be started; the log above says why")

    async def _is_hung_up(self) -> bool:
        """Wait for the next restart; ``False`` when the end comes instead."""
        waiting = {asyncio.create_task(event.wait()) for event in (self._hung_up, self._stopping)}
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in waiting:
            task.cancel()
        self._hung_up.clear()
        return not self._stopping.is_set()

    async def _replaced(self, old: _Generation, announce: Callable[[], None]) -> _Generation:
        """Return the workers that serve after a restart: new ones, or ``old`` where those do not start."""
        self._generations = {generation for generation in self._generations if not generation.is_over}
        try:
            new = self._generation(self._crew.order())
        except CannotServe as error:
            logger.error("no restart, everything stays as it is: %s", error)
            return old
        logger.info("restarting")
        if await new.start():
            old.stop()
            announce()
            return new
        if not self._stopping.is_set():
            logger.error("no restart, everything stays as it is: the new worker processes do not start")
            new.stop()
        return old

    def _generation(self, order: str) -> _Generation:
        generation = _Generation(self._crew, order, self._listener)
        self._generations.add(generation)
        return generation

    def _on_signal(self) -> None:
        if self._stopping.is_set():
            for generation in self._generations:
                generation.stop_now()
        else:
            self._stop()

    def _stop(self) -> None:
        self._stopping.set()
        # As long as we have it too, clients could still connect, and nobody would answer.
        self._listener.close()
        for generation in self._generations:
            generation.stop()


class _Generation:
    """Workers with the same order, which end together."""

    def __init__(self, crew: Crew, order: str, listener: socket.socket) -> None:
        self._crew = crew
        self._order = order
        # While it is there: the number of a socket that is closed may be that of anything.
        self._descriptor = listener.fileno()
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        self._workers: set[Process] = set()
        self._keepers: list[asyncio.Task[None]] = []

    @property
    def is_over(self) -> bool:
        return self._stopping.is_set() and all(keeper.done() for keeper in self._keepers)

    async def start(self) -> bool:
        """Start the workers, and return whether all of them are ready for clients."""
        starts = [self._loop.create_future() for _ in range(self._crew.count)]
        self._keepers = [asyncio.create_task(self._keep(start)) for start in starts]
        return all(await asyncio.gather(*starts))

    async def ended(self) -> None:
        """Wait until no worker is left."""
        await asyncio.gather(*self._keepers)

    def stop(self) -> None:
        """Let the workers end when their requests have."""
        if not self._stopping.is_set():
            self._stopping.set()
            self._end("stop", self._crew.shutdown_timeout + KILL_AFTER)

    def stop_now(self) -> None:
        """Let the workers end without waiting for requests."""
        self._stopping.set()
        self._end("now", KILL_AFTER)

    async def _keep(self, start: asyncio.Future[bool]) -> None:
        """Have one worker, and another one whenever it ends; ``start`` is told whether the first one started."""
        while not self._stopping.is_set():
            is_ready = await self._run_worker(start)
            if self._stopping.is_set():
                return
            if not is_ready:
                await self._pause()
        _tell(start, False)

    async def _run_worker(self, start: asyncio.Future[bool]) -> bool:
        """Run one worker until it ends, and return whether it was ready for clients."""
        is_ready = False
        try:
            process = await self._start_worker()
            assert process.stdout is not None
            is_ready = bool(await process.stdout.readline())
            _tell(start, is_ready)
            code = await process.wait()
            self._workers.discard(process)
            if not self._stopping.is_set():
                # A negative code is the number of a signal.
                logger.error("worker process %d ended with code %d, another one takes its place", process.pid, code)
        except OSError as error:
            logger.error("no worker process can be started: %s", error)
        finally:
            _tell(start, is_ready)
        return is_ready

    async def _start_worker(self) -> Process:
        process = await asyncio.create_subprocess_exec(
            *self._crew.command,
            str(self._descriptor),
            stdin=PIPE,
            stdout=PIPE,
            pass_fds=[self._descriptor],
            # Ctrl+C goes to every process of the terminal's group; it is for the parent alone.
            start_new_session=True,
        )
        self._workers.add(process)
        _say(process, self._order)
        if self._stopping.is_set():
            _say(process, "stop")
        return process

    async def _pause(self) -> None:
        try:
            await asyncio.wait_for(self._stopping.wait(), PAUSE)
        except TimeoutError:
            return

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

    def _await_hangups(self) -> None:
        # Those are for the parent.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def _hear(self) -> None:
        words = os.read(STDIN, 64)
        self.should_exit = True
        self.force_exit = self.force_exit or b"now" in words
        if not words:
            asyncio.get_running_loop().remove_reader(STDIN)


def _say_ready() -> None:
    os.write(STDOUT, b"ready\n")


def read_order() -> str:
    """Return what the parent wants of this worker. Called once, before ``work``."""
    # Byte by byte: what follows the first line is for the event loop.
    with open(STDIN, "rb", buffering=0, closefd=False) as stdin:
        return stdin.readline().decode()


def work(app: Application, plan: Plan, descriptor: int) -> None:
    """Be a worker: serve ``app`` on the parent's socket until the parent ends it.

    Raises:
        CannotServe: it did not start.
    """
    with socket.socket(fileno=descriptor) as listener:
        run(_Worker(app, plan, _say_ready), listener)
