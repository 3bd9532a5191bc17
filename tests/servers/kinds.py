"""Every server that the app runs under, each as a process of its own, and what may be asked of which."""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
from _pytest.mark import ParameterSet

import tusd_py
from tests.live import Answer, Server
from tests.server_process import PATIENCE, ServerProcess, surroundings, wait_until
from tests.servers.wires import APPEND, TUS, Http1, Http2, Request, Wire

FOR_ALL = {"TUSD_PY_ALLOWED_UPLOAD_EXTENSIONS": "*", "TUSD_PY_SNIFF": "off"}

# Seconds that other servers give running requests at their end.
GRACE = 1


@dataclass(frozen=True)
class Kind:
    """A server and how it is reached; ``program`` is ours, or the name of another one."""

    name: str
    program: Literal["tusd-py", "uvicorn", "hypercorn", "granian"] = "tusd-py"
    loop: Literal["uvloop", "asyncio"] = "uvloop"
    is_encrypted: bool = False
    is_unix: bool = False
    flags: tuple[str, ...] = ()

    @property
    def is_ours(self) -> bool:
        """Whether our own protocol speaks: all that arrived before a cut is kept, and a stop is answered."""
        return self.program == "tusd-py"

    @property
    def is_http_1(self) -> bool:
        """Whether requests of a connection stand in a row, and may wait for 100."""
        return self.program != "hypercorn"

    @property
    def passes_on_at_once(self) -> bool:
        """Whether what arrived is the app's as soon as the event loop has turned; granian reads in other threads."""
        return self.program != "granian"


OURS = (
    Kind("uvloop"),
    Kind("asyncio", loop="asyncio"),
    Kind("uvloop-tls", is_encrypted=True),
    Kind("asyncio-tls", loop="asyncio", is_encrypted=True),
    Kind("unix", is_unix=True),
)
OTHERS = (
    Kind("uvicorn-httptools", "uvicorn", flags=("--http", "httptools")),
    Kind("uvicorn-h11", "uvicorn", loop="asyncio", flags=("--http", "h11")),
    Kind("hypercorn-http2", "hypercorn", loop="asyncio", is_encrypted=True),
    Kind("granian", "granian"),
)
EVERY = OURS + OTHERS


def each(kinds: Iterable[Kind]) -> list[ParameterSet]:
    """Return ``kinds`` as parameters of tests. Those of one kind share a server, so one process runs them all."""
    return [pytest.param(kind, id=kind.name, marks=pytest.mark.xdist_group(f"server {kind.name}")) for kind in kinds]


# For tests of what our own protocol promises, and no other server does.
OURS_ALONE = pytest.mark.parametrize("kind", each(OURS), indirect=True)


@dataclass(frozen=True)
class Certificate:
    """A certificate with its chain, its key, and what trusts it."""

    chain: Path
    key: Path
    trust: ssl.SSLContext


@dataclass
class Running:
    """A server that runs."""

    kind: Kind
    uploads: Path
    server: Server
    pid: int
    stop: Stop = field(repr=False)

    def connect(self) -> Wire:
        """Open a connection in the words of the server."""
        return self.over(self.server.open())

    def over(self, opened: socket.socket) -> Wire:
        """Speak over a connection that is open."""
        return Http1(opened) if self.kind.is_http_1 else Http2(opened)

    def ask(self, method: str, path: str, fields: Mapping[str, str] = TUS, body: bytes = b"") -> Answer:
        """Send one request over a connection of its own."""
        with self.connect() as wire:
            return wire.ask(method, path, fields, body)

    def create(self, length: int | None, **fields: str) -> str:
        """Create an upload of ``length`` bytes, ``None`` for one that is told later, and return its path."""
        told = {"Upload-Defer-Length": "1"} if length is None else {"Upload-Length": str(length)}
        answer = self.ask("POST", "/files/", {**TUS, **told, **fields})
        assert answer.status == 201, answer
        return path_of(answer)

    def append(self, path: str, offset: int, body: bytes, **fields: str) -> Answer:
        """Send one whole append."""
        return self.ask("PATCH", path, {**APPEND, "Upload-Offset": str(offset), **fields}, body)

    def offset(self, path: str) -> int:
        """Return the offset that HEAD tells."""
        answer = self.ask("HEAD", path)
        assert answer.status == 200, answer
        return int(answer.fields["upload-offset"])

    def content(self, path: str) -> bytes:
        """Return what a download gives."""
        answer = self.ask("GET", path, {})
        assert answer.status == 200, answer
        return answer.body

    def begin(self, wire: Wire, path: str, offset: int, size: int | None, **fields: str) -> Request:
        """Begin an append, and return once the server has taken it up and waits for its body.

        HTTP/2 does not say when that is; there it is begun, and whoever has to know looks at what is stored.
        """
        told = {**APPEND, "Upload-Offset": str(offset), **fields}
        if not self.kind.is_http_1:
            return wire.begin("PATCH", path, told, size=size)
        request = wire.begin("PATCH", path, {**told, "Expect": "100-continue"}, size=size)
        assert request.first_status() == 100
        return request

    def stored(self, path: str) -> int:
        """Return how many bytes of an unfinished upload are in the folder."""
        try:
            return (self.uploads / "partial" / f"{path.rpartition('/')[2]}.part").stat().st_size
        except FileNotFoundError:
            return 0

    def resume(self, path: str, content: bytes) -> int:
        """Bring the rest of ``content`` as clients do, and return the offset that the first HEAD told."""
        first = offset = self.offset(path)
        for _ in range(20):
            answer = self.append(path, offset, content[offset:])
            if answer.status == 204:
                return first
            # What was cut may only now be stored: the client is told, and asks again.
            assert answer.status in (409, 423), answer
            offset = self.offset(path)
        raise AssertionError(f"the upload cannot be resumed: {answer}")


def path_of(answer: Answer) -> str:
    """Return the path of the upload that ``answer`` tells the location of."""
    return "/" + answer.fields["location"].split("/", 3)[3]


class Stop:
    """Ends a server as service managers do."""

    def __init__(self, process: subprocess.Popen[bytes] | ServerProcess) -> None:
        self._process = process

    def __call__(self) -> None:
        """Tell it to end, and do not wait."""
        self._process.terminate()

    def wait(self) -> int:
        """Wait for its end and return the exit code."""
        return self._process.wait(PATIENCE)

    def kill(self) -> None:
        """End it whatever it waits for. (hypercorn does for ever, behind a request of HTTP/2 that it has cancelled.)"""
        self._process.kill()


@contextmanager
def running(
    kind: Kind, folder: Path, certificate: Certificate, settings: Mapping[str, str] | None = None
) -> Iterator[Running]:
    """Run a server of this kind, which keeps uploads in ``folder``, with ``settings`` as environment variables."""
    variables = {**FOR_ALL, **(settings or {})}
    serve = _ours if kind.is_ours else _another
    with serve(kind, folder, certificate, variables) as found:
        yield found


@contextmanager
def _ours(kind: Kind, folder: Path, certificate: Certificate, variables: Mapping[str, str]) -> Iterator[Running]:
    with ExitStack() as stack:
        # The path of a socket has to be short, whatever pytest calls the folders of tests.
        place = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        flags: tuple[str, ...] = ()
        if kind.is_encrypted:
            flags += ("--tls-certificate", str(certificate.chain), "--tls-key", str(certificate.key))
        if kind.is_unix:
            flags += ("--unix-sock", str(place / "socket"))
        if kind.loop == "asyncio":
            variables = {**variables, "PYTHONPATH": _without_uvloop(place)}
        process = stack.enter_context(ServerProcess(folder, *flags, variables=variables))
        server = Server(
            process.port,
            certificate.trust if kind.is_encrypted else None,
            place / "socket" if kind.is_unix else None,
        )
        yield Running(kind, folder, server, process.pid, Stop(process))


def _without_uvloop(place: Path) -> str:
    """Return a search path on which uvloop is not to be found, so that the server takes the loop of asyncio."""
    (place / "uvloop.py").write_text("raise ImportError('this server is to run without it')\n")
    paths = (str(place), str(Path(tusd_py.__file__).parents[1]), os.environ.get("PYTHONPATH"))
    return os.pathsep.join(filter(None, paths))


@contextmanager
def _another(kind: Kind, folder: Path, certificate: Certificate, variables: Mapping[str, str]) -> Iterator[Running]:
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listener:
        port = listener.getsockname()[1]
        descriptor = listener.fileno()
        if kind.program == "granian":
            listener.close()
        command = _command(kind, port, descriptor, certificate)
        # What other programs are warned of is not ours to judge.
        environment = surroundings({**variables, "TUSD_PY_UPLOAD_DIR": str(folder), "PYTHONWARNINGS": "default"})
        with tempfile.TemporaryFile() as log:
            process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=() if kind.program == "granian" else (descriptor,),
            )
            found = Running(
                kind, folder, Server(port, certificate.trust if kind.is_encrypted else None), process.pid, Stop(process)
            )
            try:
                wait_until(lambda: process.poll() is not None or _answers(found))
                assert process.poll() is None, os.pread(log.fileno(), 100_000, 0).decode()
                yield found
            finally:
                _end(process)


def _command(kind: Kind, port: int, descriptor: int, certificate: Certificate) -> list[str]:
    if kind.program == "uvicorn":
        return [
            *(sys.executable, "-m", "uvicorn", "--factory", "tusd_py:TusApp", "--fd", str(descriptor)),
            *("--log-level", "warning", "--loop", kind.loop, "--timeout-graceful-shutdown", str(GRACE), *kind.flags),
        ]
    if kind.program == "hypercorn":
        return [
            *(sys.executable, "-m", "hypercorn", "tusd_py.build:TusApp()", "--bind", f"fd://{descriptor}"),
            *("--workers", "0", "--graceful-timeout", str(GRACE)),
            *("--certfile", str(certificate.chain), "--keyfile", str(certificate.key)),
        ]
    program = shutil.which("granian", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    assert program is not None, "granian is missing; install it with: pip install granian"
    return [
        *(program, "--interface", "asgi", "--factory", "--host", "127.0.0.1", "--port", str(port)),
        *("--no-access-log", "--log-level", "warning", "--workers-kill-timeout", str(GRACE), "tusd_py:TusApp"),
    ]


def _answers(found: Running) -> bool:
    try:
        return found.ask("OPTIONS", "/files/").status == 204
    except (ConnectionError, TimeoutError):
        return False


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise
