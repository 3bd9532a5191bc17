"""Who is compared: how each server is started, and how those that a registry has come onto this machine."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import tusd_py

PROGRAMS = Path(__file__).parent / "peer_programs"

# Seconds that an installation may take.
INSTALLING = 600


@dataclass(frozen=True)
class Contender:
    """A server and the words that start it; in each ``{port}``, ``{folder}`` and ``{workers}`` are replaced.

    It serves /files/ on 127.0.0.1 and keeps uploads below the folder, ``keeps`` says whether it keeps them at all.
    ``version`` is what people know it by, empty where nobody told us. Where it ``is_ours``, ``is_like_for_like`` says
    whether it does no more than peers do.
    """

    name: str
    command: tuple[str, ...]
    workers: int = 1
    variables: Mapping[str, str] = field(default_factory=dict)
    version: str = ""
    keeps: bool = True
    is_ours: bool = False
    is_like_for_like: bool = True

    def words(self, port: int, folder: Path) -> list[str]:
        """Return the command line for one start."""
        values = {"{port}": str(port), "{folder}": str(folder), "{workers}": str(self.workers)}
        return [_replaced(word, values) for word in self.command]

    def environment(self, folder: Path) -> dict[str, str]:
        """Return the variables for one start: ours without what is meant for Python or tusd_py, and its own."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "TUSD_PY_"))}
        return {
            **inherited,
            **{name: _replaced(value, {"{folder}": str(folder)}) for name, value in self.variables.items()},
        }


class NotInstalled(Exception):
    """A peer cannot be had on this machine; the message says why."""


def ours() -> list[Contender]:
    """Return tusd_py like for like (peers check no content and sync nothing), with two workers, and as installed."""
    like_for_like = ("--fsync", "never", "--allowed-upload-extensions", "*", "--sniff", "off")
    return [
        _tusd_py("tusd_py", *like_for_like),
        _tusd_py("tusd_py, 2 workers", *like_for_like, workers=2),
        replace(_tusd_py("tusd_py, as installed"), is_like_for_like=False),
    ]


def sink() -> Contender:
    """Return what takes every byte and keeps none: nobody can be measured to be faster."""
    command = (sys.executable, "-m", "benchmarks.sink", "{port}")
    return Contender("sink (nothing stored)", command, variables=_own_tree(), keeps=False)


def parse_peer(text: str) -> Contender:
    """Read ``NAME=COMMAND``.

    Raises:
        ValueError: it is written otherwise, or tells no port.
    """
    name, equals, command = text.partition("=")
    if not (name.strip() and equals and "{port}" in command):
        raise ValueError(f"{text!r} is no peer; write NAME=COMMAND, with {{port}} and {{folder}} in the command")
    return Contender(name.strip(), tuple(shlex.split(command)))


def install_peers(cache: Path, left_out: Callable[[str, str], None]) -> list[Contender]:
    """Install the peers that a registry has into ``cache``, where they are not there yet, and return them.

    One that cannot be installed is told to ``left_out`` with the reason.
    """
    found: list[Contender] = []
    for name, install in (("@tus/server", _install_tus_server), ("tuspyserver", _install_tuspyserver)):
        try:
            found += install(cache)
        except NotInstalled as error:
            left_out(name, str(error))
    return found


def _tusd_py(name: str, *flags: str, workers: int = 1) -> Contender:
    serve = (sys.executable, "-m", "tusd_py", "serve", "--port", "{port}", "--upload-dir", "{folder}")
    quietly = ("--log-level", "error", "--workers", "{workers}")
    return Contender(name, (*serve, *quietly, *flags), workers, _own_tree(), tusd_py.__version__, is_ours=True)


def _own_tree() -> dict[str, str]:
    return {"PYTHONPATH": str(Path(tusd_py.__file__).parents[1])}


def _install_tus_server(cache: Path) -> Iterable[Contender]:
    folder = cache / "tus_server"
    modules = folder / "node_modules" / "@tus"
    node = _program("node")
    if not (modules / "server").exists():
        folder.mkdir(parents=True, exist_ok=True)
        options = ("--no-audit", "--no-fund", "--no-package-lock", "--loglevel=error")
        _run(_program("npm"), "install", "--prefix", str(folder), *options, "@tus/server", "@tus/file-store")
    # Beside its modules, or Node does not find them.
    program = shutil.copy(PROGRAMS / "tus_server.mjs", folder)
    script = (
        f"console.log(require({str(modules / 'server' / 'package.json')!r}).version + ' on Node ' + process.version)"
    )
    version = _run(node, "-e", script)
    yield Contender("@tus/server", (node, str(program), "{port}", "{folder}"), version=version)


def _install_tuspyserver(cache: Path) -> Iterable[Contender]:
    folder = cache / "tuspyserver"
    python = str(folder / "bin" / "python")
    if not (folder / "installed").exists():
        _run(sys.executable, "-m", "venv", str(folder))
        # The loop and the parser that our own server has.
        _run(python, "-m", "pip", "install", "--quiet", "tuspyserver", "uvicorn", "uvloop", "httptools")
        (folder / "installed").touch()
    version = _run(python, "-c", "from importlib.metadata import version as of; print(of('tuspyserver'))")
    serve = (python, "-m", "uvicorn", "tuspyserver_app:app", "--app-dir", str(PROGRAMS), "--port", "{port}")
    quietly = ("--log-level", "error", "--no-access-log", "--loop", "uvloop", "--http", "httptools")
    for workers in (1, 2):
        name = "tuspyserver" if workers == 1 else f"tuspyserver, {workers} workers"
        command = (*serve, *quietly, "--workers", "{workers}")
        yield Contender(name, command, workers, {"FOLDER": "{folder}"}, version=version)


def _program(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise NotInstalled(f"{name} is not installed")
    return path


def _run(*command: str) -> str:
    """Run a command and return what it printed."""
    try:
        ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=INSTALLING)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotInstalled(str(error)) from None
    if ended.returncode != 0:
        said = (ended.stderr or ended.stdout).strip().splitlines()
        raise NotInstalled(said[-1] if said else f"{command[0]} ended with {ended.returncode}")
    return ended.stdout.strip()


def _replaced(word: str, values: Mapping[str, str]) -> str:
    for name, value in values.items():
        word = word.replace(name, value)
    return word
