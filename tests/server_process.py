"""``tusd-py serve`` as a process of its own, for tests that care how it starts, ends and dies."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

import psutil

import tusd_py

ANNOUNCEMENT = "You can now upload files to: "

# Seconds. Far more than anything takes, for machines that are busy with other things.
PATIENCE = 30.0


def program(*arguments: str) -> list[str]:
    """Return the command line of ``tusd-py`` with ``arguments``."""
    return [sys.executable, "-m", "tusd_py", *arguments]


def surroundings(variables: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment for a process: ours without settings of ours, warnings as errors, and ``variables``."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("TUSD_PY_")}
    path = os.pathsep.join(filter(None, [str(Path(tusd_py.__file__).parents[1]), inherited.get("PYTHONPATH")]))
    return {**inherited, "PYTHONPATH": path, "PYTHONWARNINGS": "error", **(variables or {})}


def wait_until(is_so: Callable[[], bool]) -> None:
    """Wait for something that nothing tells us of, and fail when it never comes."""
    deadline = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.01)


class ServerProcess:
    """A server on a free port that keeps uploads in ``upload_dir``.

        with ServerProcess(tmp_path / "uploads", "--workers", "2") as server:
            ... server.url ...

    It listens when the constructor returns, and has ended with its workers when the context has.
    """

    def __init__(
        self,
        upload_dir: Path,
        *flags: str,
        variables: Mapping[str, str] | None = None,
        handed: int | None = None,
        limit: tuple[int, int] | None = None,
        has_stdin: bool = True,
    ) -> None:
        """Start it with more ``flags`` (a later one replaces ours) and environment ``variables``.

        The descriptor ``handed`` becomes its descriptor 3, as service managers hand over sockets. ``limit`` is how
        many descriptors it may have, soft and hard. Unless it ``has_stdin``, descriptor 0 is closed.
        """
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the process)
        command = program("serve", "--port", "0", "--upload-dir", str(upload_dir), *flags)
        if handed is not None:
            # The variable names the process, whose number nobody knows before it is there.
            command = ["bash", "-c", f'exec 3<&{handed}; LISTEN_PID=$$ exec "$@"', "bash", *command]
        if limit is not None:
            soft, hard = limit
            command = ["bash", "-c", f'ulimit -Hn {hard}; ulimit -Sn {soft}; exec "$@"', "bash", *command]
        if not has_stdin:
            command = ["bash", "-c", 'exec "$@" <&-', "bash", *command]
        self._process = subprocess.Popen(
            command,
            pass_fds=() if handed is None else (handed,),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            bufsize=0,
            stderr=self._log,
            env=surroundings(variables),
        )
        self.pid = self._process.pid
        self._final_log: str | None = None
        self.output = self._first_line()
        self.url = self.output.removeprefix(ANNOUNCEMENT).rstrip("\n")
        self.port = urlsplit(self.url).port or 0

    def _first_line(self) -> str:
        assert self._process.stdout is not None
        is_told = bool(select.select([self._process.stdout], [], [], PATIENCE)[0])
        line = self._process.stdout.readline().decode() if is_told else ""
        if line.startswith(ANNOUNCEMENT):
            return line
        self.kill()
        self._close()
        raise AssertionError(f"the server did not start; it said {line!r} and {self.log!r}")

    def __enter__(self) -> ServerProcess:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._process.poll() is None:
            try:
                self.stop()
            except subprocess.TimeoutExpired:
                self.kill()
                raise
        self._close()

    @property
    def log(self) -> str:
        """What was logged so far."""
        if self._final_log is not None:
            return self._final_log
        size = os.fstat(self._log.fileno()).st_size
        return os.pread(self._log.fileno(), size, 0).decode()

    @property
    def announcements(self) -> int:
        """How often it said so far that it is ready."""
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        while select.select([descriptor], [], [], 0)[0]:
            data = os.read(descriptor, 65536)
            if not data:
                break
            self.output += data.decode()
        return self.output.count(ANNOUNCEMENT)

    @property
    def workers(self) -> list[psutil.Process]:
        """The processes that serve for this one, none where it serves itself."""
        return psutil.Process(self.pid).children()

    def terminate(self) -> None:
        """Tell it to end, and do not wait."""
        self._process.send_signal(signal.SIGTERM)

    def wait(self, timeout: float = PATIENCE) -> int:
        """Wait at most ``timeout`` seconds for its end and return the exit code."""
        code = self._process.wait(timeout)
        assert self._process.stdout is not None
        if not self._process.stdout.closed:
            self.output += self._process.stdout.read().decode()
        return code

    def stop(self) -> int:
        """End it as service managers do, and return the exit code."""
        self.terminate()
        return self.wait()

    def kill(self) -> None:
        """End it and its workers as a loss of power would: between two instructions, with no chance to do anything."""
        if self._process.poll() is None:
            # Stopped first, so that it starts no new workers meanwhile.
            self._process.send_signal(signal.SIGSTOP)
            workers = self.workers
            for process in workers:
                process.kill()
            self._process.kill()
            psutil.wait_procs(workers, PATIENCE)
        self._process.wait(PATIENCE)

    def _close(self) -> None:
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._final_log = self.log
        self._log.close()
