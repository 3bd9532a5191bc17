"""nginx, Caddy and HAProxy as real processes on loopback, with the configurations that ``docs/proxies.md`` prints.

Only what a machine decides is replaced in them: ports, and where the certificate is.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.live import Connection
from tests.server_process import PATIENCE, ServerProcess, wait_until

PAGE = Path(__file__).parents[2] / "docs" / "proxies.md"

NAME = "uploads.example.org"
PROXIES = ("nginx", "caddy", "haproxy")

# What nginx makes folders for at its start, whether it uses them or not.
TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


def printed(language: str) -> str:
    """Return the only code block of the page in ``language``."""
    [block] = re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return str(block)


def replaced(text: str, changes: Mapping[str, str]) -> str:
    """Return ``text`` with every key of ``changes``, which has to be there, replaced by its value, all at once."""
    for old in changes:
        assert old in text, old
    # One after the other, the port 443 would also be found in an upstream's port of 44327.
    return re.sub("|".join(map(re.escape, changes)), lambda match: changes[match[0]], text)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def make_certificate(folder: Path) -> Path:
    """Write a certificate with its key into one file."""
    key, certificate, both = folder / "key.pem", folder / "certificate.pem", folder / "both.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-subj", f"/CN={NAME}", "-addext", f"subjectAltName=DNS:{NAME}", "-days", "2"),
            *("-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    both.write_bytes(certificate.read_bytes() + key.read_bytes())
    return both


def nginx(folder: Path, sites: str) -> list[str]:
    """Write a configuration around ``sites`` and return the command that runs it in the foreground, alone."""
    (folder / "nginx.conf").write_text(
        f"daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/proxy.log;\n"
        "events { worker_connections 128; }\n"
        "http {\n"
        "access_log off;\n" + "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in TEMPORARY) + f"{sites}}}\n"
    )
    return ["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", str(folder / "proxy.log")]


def caddy(folder: Path, sites: str) -> list[str]:
    """Write a configuration around ``sites`` and return the command that runs it in the foreground."""
    (folder / "Caddyfile").write_text("{\nadmin off\nauto_https disable_redirects\nskip_install_trust\n}\n" + sites)
    return ["caddy", "run", "--adapter", "caddyfile", "--config", str(folder / "Caddyfile")]


def haproxy(folder: Path, sites: str) -> list[str]:
    """Write a configuration and return the command that runs it in the foreground."""
    (folder / "haproxy.cfg").write_text(sites)
    return ["haproxy", "-db", "-f", str(folder / "haproxy.cfg")]


def printed_command(proxy: str, folder: Path, port: int, upstream: int, host: str) -> list[str]:
    """Write what the page prints for ``proxy`` and return the command that runs it."""
    server = {"127.0.0.1:8080": f"127.0.0.1:{upstream}"}
    if proxy == "caddy":
        site = {f"{NAME} {{": f"{host}:{port} {{\nbind 127.0.0.1\ntls internal"}
        return caddy(folder, replaced(printed("caddyfile"), server | site))
    pem = str(make_certificate(folder))
    if proxy == "nginx":
        machine = {NAME: host, "443": f"127.0.0.1:{port}", "/etc/ssl/uploads.pem": pem, "/etc/ssl/uploads.key": pem}
        return nginx(folder, replaced(printed("nginx"), server | machine))
    machine = {":443": f"127.0.0.1:{port}", "/etc/haproxy/uploads.pem": pem}
    return haproxy(folder, replaced(printed("haproxy"), server | machine))


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _encrypts(port: int, host: str) -> bool:
    """Tell whether it has its certificate too, which Caddy makes when it already listens."""
    try:
        TlsConnection(port, host).close()
    except OSError:
        return False
    return True


@contextmanager
def running(command: list[str], folder: Path, port: int, is_ready: Callable[[int], bool] = _listens) -> Iterator[None]:
    """Run a proxy while the context lasts. It ``is_ready`` on ``port`` when the context begins."""
    program = shutil.which(command[0], path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin")
    if program is None:
        pytest.skip(f"{command[0]} is missing; install it with: apt-get install {command[0]}")
    homes = {"HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    with (folder / "output.log").open("wb") as output:
        process = subprocess.Popen(
            [program, *command[1:]], stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=os.environ | homes
        )
        try:
            wait_until(lambda: process.poll() is not None or is_ready(port))
            assert process.poll() is None, (folder / "output.log").read_text()
            yield
        finally:
            process.terminate()
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


class TlsConnection(Connection):
    """A connection to a proxy that sends exactly the bytes it is given, encrypted."""

    def __init__(self, port: int, host: str) -> None:
        super().__init__(port)
        # The certificates are made for this run; who signed them is not what is tested.
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        self._socket = context.wrap_socket(self._socket, server_hostname=host)


@dataclass(frozen=True)
class Site:
    """A proxy in front of a server."""

    proxy: str
    port: int
    upload_dir: Path
    host: str

    @property
    def authority(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def endpoint(self) -> str:
        return f"https://{self.authority}/media/files/"

    def path_of(self, url: str) -> str:
        """Return the path of an upload's URL, which has to be one of this site."""
        assert url.startswith(self.endpoint), url
        return url.removeprefix(f"https://{self.authority}")

    def connect(self) -> Connection:
        return TlsConnection(self.port, self.host)


@contextmanager
def site(proxy: str, folder: Path, host: str = NAME, command: str = "") -> Iterator[Site]:
    """Serve uploads behind ``proxy`` as the page says, except for the name of the ``host``.

    ``command`` starts the server, that of the page where none is given.
    """
    port = free_port()
    uploads = folder / "uploads"
    words = shlex.split(command or printed("sh"))
    assert words[:2] == ["tusd-py", "serve"]
    with ServerProcess(uploads, *words[2:], "--max-file-size", "100MiB") as server:
        proxying = printed_command(proxy, folder, port, server.port, host)
        with running(proxying, folder, port, lambda port: _encrypts(port, host)):
            yield Site(proxy, port, uploads, host)
