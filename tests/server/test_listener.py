"""Where a server can be reached: TLS, Unix sockets, sockets that somebody else opened."""

from __future__ import annotations

import os
import socket
import ssl
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
import trustme

from tests.live import Server
from tests.server_process import PATIENCE, ServerProcess, program, surroundings
from tusd_py.server.listener import Address, CannotServe, adopt, listen, listen_unix, listening

WORKERS = pytest.mark.parametrize("workers", ["1", "2"])
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


@pytest.fixture
def uploads(tmp_path: Path) -> Path:
    return tmp_path / "uploads"


@pytest.fixture
def socket_path() -> Iterator[Path]:
    """A path that is short enough for a socket, whatever pytest calls the folders of tests."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder, "tusd.sock")


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def tls(tmp_path: Path, authority: trustme.CA) -> tuple[str, str]:
    """The flags for a certificate that ``authority`` vouches for."""
    certificate = authority.issue_cert("127.0.0.1")
    with (tmp_path / "chain.pem").open("wb") as chain:
        for blob in certificate.cert_chain_pems:
            chain.write(blob.bytes())
    certificate.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    return f"--tls-certificate={tmp_path / 'chain.pem'}", f"--tls-key={tmp_path / 'key.pem'}"


def exchange(connection: socket.socket, request: bytes) -> bytes:
    """Send ``request`` and return everything that comes back."""
    with connection:
        connection.settimeout(PATIENCE)
        connection.sendall(request)
        answer = b""
        while data := connection.recv(65536):
            answer += data
        return answer


def connect_unix(path: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.connect(str(path))
    return connection


def trouble(*flags: str) -> str:
    """Return what a server says that does not start."""
    done = subprocess.run(
        program("serve", "--port", "0", *flags), capture_output=True, text=True, env=surroundings(), timeout=PATIENCE
    )
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    return done.stderr


@WORKERS
def test_uploads_go_over_https(uploads: Path, tls: tuple[str, str], authority: trustme.CA, workers: str) -> None:
    with ServerProcess(uploads, *tls, "--workers", workers) as server:
        assert server.url == f"https://127.0.0.1:{server.port}/files/"
        context = ssl.create_default_context()
        authority.configure_trust(context)
        plain = socket.create_connection(("127.0.0.1", server.port))
        body = os.urandom(3_000_000)
        answer = exchange(
            context.wrap_socket(plain, server_hostname="127.0.0.1"),
            b"POST /files/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nTus-Resumable: 1.0.0\r\n"
            b"Upload-Metadata: filename YS5tcDM=\r\nContent-Type: application/offset+octet-stream\r\n"
            b"Upload-Length: 3000000\r\nContent-Length: 3000000\r\n\r\n" + body,
        )
        assert answer.startswith(b"HTTP/1.1 201")
        assert b"location: https://localhost/files/" in answer
        assert server.stop() == 0
    assert [path.read_bytes() for path in uploads.glob("*.mp3")] == [body]


def test_plain_http_to_a_server_of_https_is_no_trouble(uploads: Path, tls: tuple[str, str]) -> None:
    with ServerProcess(uploads, *tls) as server:
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(HEALTH)
            connection.settimeout(PATIENCE)
            assert b"200" not in connection.recv(65536)
        assert server.stop() == 0
        assert "Traceback" not in server.log


def test_a_certificate_that_cannot_be_used_is_told_in_a_sentence(uploads: Path, tls: tuple[str, str]) -> None:
    certificate, key = tls
    where = f"--upload-dir={uploads}"
    Path(key.partition("=")[2]).write_text("no key")
    assert "they are no certificate and its key in PEM" in trouble(where, certificate, key)
    assert "No such file or directory; check --tls-certificate" in trouble(where, certificate, "--tls-key=/no/such")


@WORKERS
def test_a_unix_socket_is_served_and_removed_at_the_end(uploads: Path, socket_path: Path, workers: str) -> None:
    flags = ("--unix-sock", str(socket_path), "--unix-sock-mode", "600", "--workers", workers)
    with ServerProcess(uploads, *flags) as server:
        assert server.url == f"http+unix://{quote(str(socket_path), safe='')}/files/"
        assert stat.S_IMODE(socket_path.stat().st_mode) == 0o600
        assert exchange(connect_unix(socket_path), HEALTH).startswith(b"HTTP/1.1 200")
        answer = exchange(
            connect_unix(socket_path),
            b"POST /files/ HTTP/1.1\r\nHost: up.example\r\nConnection: close\r\nTus-Resumable: 1.0.0\r\n"
            b"Upload-Length: 5\r\n\r\n",
        )
        assert b"location: http://up.example/files/" in answer
        assert server.stop() == 0
    assert not socket_path.exists()


def test_a_socket_of_a_server_that_died_is_replaced(uploads: Path, socket_path: Path) -> None:
    with ServerProcess(uploads, "--unix-sock", str(socket_path)) as server:
        server.kill()
    assert socket_path.is_socket()
    with ServerProcess(uploads, "--unix-sock", str(socket_path)):
        assert exchange(connect_unix(socket_path), HEALTH).startswith(b"HTTP/1.1 200")


def test_a_socket_that_is_alive_is_left_alone(uploads: Path, socket_path: Path) -> None:
    with listen_unix(socket_path, 0o600):
        said = trouble(f"--upload-dir={uploads}", f"--unix-sock={socket_path}")
        assert "something else is listening there; choose another --unix-sock" in said
        connect_unix(socket_path).close()


def test_what_is_no_socket_is_left_alone(uploads: Path, socket_path: Path) -> None:
    socket_path.write_text("dear")
    assert "something else than a socket is there" in trouble(f"--upload-dir={uploads}", f"--unix-sock={socket_path}")
    assert socket_path.read_text() == "dear"


def test_a_socket_that_has_taken_the_place_of_ours_is_not_removed(socket_path: Path) -> None:
    address = Address(host="", port=0, path=socket_path)
    with listening(address):
        socket_path.unlink()
        other = listen_unix(socket_path, 0o600)
    assert socket_path.is_socket()
    other.close()


@WORKERS
def test_a_socket_that_a_service_manager_opened_is_served(uploads: Path, workers: str) -> None:
    """As systemd does: the socket is descriptor 3, and two variables say so, one of them the process."""
    with listen("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        flags = ("--workers", workers)
        with ServerProcess(uploads, *flags, handed=listener.fileno(), variables={"LISTEN_FDS": "1"}) as server:
            assert server.url == f"http://127.0.0.1:{port}/files/"
            assert Server(port).ask("OPTIONS", "/files/").status == 204
            # What we are told is not told to those that we start.
            for worker in server.workers:
                assert not {"LISTEN_FDS", "LISTEN_PID"} & worker.environ().keys()
            assert server.stop() == 0
        # It is the manager's, who keeps it for the next start.
        assert not socket_is_refused(port)


@pytest.mark.parametrize("written", ["{}", "fd://{}"])
@WORKERS
def test_a_socket_that_is_named_by_its_descriptor_is_served(uploads: Path, written: str, workers: str) -> None:
    with listen("127.0.0.1", 0) as listener:
        flags = ("--fd", written.format(3), "--workers", workers)
        with ServerProcess(uploads, *flags, handed=listener.fileno()) as server:
            assert server.port == listener.getsockname()[1]
            assert Server(server.port).ask("OPTIONS", "/files/").status == 204


def test_no_answer_waits_for_the_one_before_it_to_be_acknowledged() -> None:
    """Loops that do not see to it themselves leave connections as the listener has them."""
    with listen("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()):
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_variables_for_another_process_are_not_for_us(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LISTEN_FDS", "1")
    monkeypatch.setenv("LISTEN_PID", "1")
    with listening(Address(host="127.0.0.1", port=0)) as found:
        assert (found.is_ours, found.socket.fileno() != 3) == (True, True)


def test_more_than_one_socket_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LISTEN_FDS", "2")
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
    with pytest.raises(CannotServe, match="give one"), listening(Address(host="127.0.0.1", port=0)):
        pass


def test_a_descriptor_that_is_no_listening_socket_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as file, pytest.raises(CannotServe, match=f"descriptor {file.fileno()}"):
        adopt(file.fileno())
    with socket.socket() as idle, pytest.raises(CannotServe, match="no stream socket that listens"):
        adopt(idle.fileno())
    with pytest.raises(CannotServe, match="Bad file descriptor"):
        adopt(9999)


def socket_is_refused(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def test_a_client_of_tls_that_never_says_goodbye_keeps_nobody_from_ending(
    uploads: Path, tls: tuple[str, str], authority: trustme.CA
) -> None:
    trust = ssl.create_default_context()
    authority.configure_trust(trust)
    with ServerProcess(uploads, *tls, "--shutdown-timeout-seconds", "60") as server:
        plain = socket.create_connection(("127.0.0.1", server.port))
        with trust.wrap_socket(plain, server_hostname="127.0.0.1") as idle:
            idle.sendall(b"OPTIONS /files/ HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert idle.recv(65536).startswith(b"HTTP/1.1 204")
            server.terminate()
            # TLS itself would wait for 30 seconds, and the server for a minute.
            assert server.wait(20) == 0
