"""docker-compose.yml: what it grants the containers, and its nginx for real in front of our server."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
import yaml

from tests.live import APPEND, TUS, Answer, Connection, Server
from tests.server_process import ServerProcess, wait_until
from tusd_py.settings import Settings, describe_settings

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]


def trust() -> dict[str, str]:
    """Return the variables that are fixed: they make the server believe nginx.

    Ours listens on a loopback address, where it would answer for this machine alone.
    """
    fixed = {name: value for name, value in SERVICES["server"]["environment"].items() if "$" not in value}
    return {**fixed, "TUSD_PY_ALLOWED_HOSTS": "*"}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@contextlib.contextmanager
def nginx(folder: Path, *, upstream: int, port: int, tls: str = "") -> Iterator[Server]:
    """Run nginx with the configuration of docker-compose.yml, on other ports and with its files in ``folder``."""
    program = shutil.which("nginx") or "/usr/sbin/nginx"
    if not Path(program).exists():
        pytest.skip("nginx is not installed")
    (folder / "tls").mkdir(parents=True)
    (folder / "tls" / "on.conf").write_text(tls)
    text = COMPOSE["configs"]["nginx"]["content"].replace("$$", "$")
    for written, meant in {
        "/tmp/": f"{folder}/",
        "/etc/nginx/tls/": f"{folder}/tls/",
        "/dev/stdout": f"{folder}/access.log",
        "listen 8080": f"listen 127.0.0.1:{port}",
        "http://server:8080": f"http://127.0.0.1:{upstream}",
    }.items():
        assert written in text
        text = text.replace(written, meant)
    (folder / "nginx.conf").write_text(text)
    command = [program, "-e", "stderr", "-p", str(folder), "-c", str(folder / "nginx.conf"), "-g"]
    check = subprocess.run([*command, "daemon off;", "-t"], capture_output=True, text=True)
    assert check.returncode == 0, check.stderr
    with (folder / "errors").open("wb") as errors:
        process = subprocess.Popen([*command, "daemon off;"], stderr=errors)
    try:
        wait_until(lambda: is_listening(port))
        yield Server(port)
    finally:
        process.terminate()
        process.wait(20)


def is_listening(port: int) -> bool:
    with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
        return True
    return False


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_a_container_may_do_nothing_but_its_work(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["tmpfs"] == ["/tmp"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not {"privileged", "cap_add", "devices", "pid", "network_mode"} & set(service)


def test_only_nginx_can_be_reached_from_outside() -> None:
    assert "ports" not in SERVICES["server"]
    assert SERVICES["server"]["networks"] == ["inside"]
    assert COMPOSE["networks"]["inside"] == {"internal": True}


def test_the_server_ends_by_itself_before_it_is_killed() -> None:
    from tusd_py.server.run import STORING

    assert (
        int(SERVICES["server"]["stop_grace_period"].removesuffix("s")) > Settings().shutdown_timeout_seconds + STORING
    )


def test_the_variables_of_the_server_are_settings_that_may_be_left_empty() -> None:
    known = {setting.variable for setting in describe_settings()}
    given = SERVICES["server"]["environment"]
    assert {name for name in given if name.startswith("TUSD_PY_")} <= known
    assert {name: value for name, value in given.items() if "$" in value} == {
        name: f"${{{name}:-}}" for name in given if name not in trust()
    }


def test_an_upload_goes_through_nginx_as_it_comes(tmp_path: Path) -> None:
    with (
        ServerProcess(tmp_path / "uploads", "--allowed-upload-extensions", "*", variables=trust()) as process,
        nginx(tmp_path / "nginx", upstream=process.port, port=free_port()) as server,
    ):
        path = server.create(length=3_000_000)
        assert server.append(path, 0, b"x" * 2_000_000).status == 204
        for framing, body in (
            ("Content-Length: 1000000", b"y" * 9),
            ("Transfer-Encoding: chunked", b"9\r\nzzzzzzzzz\r\n"),
        ):
            offset = server.offset(path)
            with server.connect() as connection:
                connection.send(head("PATCH", path, f"{APPEND}Upload-Offset: {offset}\r\n{framing}\r\n")).send(body)
                # What nginx held back would not be here while the client still sends.
                wait_until(lambda before=offset: server.offset(path) == before + 9)  # type: ignore[misc]


def test_locations_are_those_that_the_client_can_reach(tmp_path: Path) -> None:
    with (
        ServerProcess(tmp_path / "uploads", variables=trust()) as process,
        nginx(tmp_path / "nginx", upstream=process.port, port=free_port()) as server,
    ):
        answer = ask(server, "POST", "/files/", f"{TUS}Upload-Length: 1\r\nX-Forwarded-Proto: gopher\r\n")
        assert answer.fields["location"].startswith("http://media.example:8000/files/")


FORGED = (
    "X-Forwarded-Prefix: /evil",
    "X-Forwarded-Host: evil.example",
    "X-Forwarded-Proto: evil",
    "X-Forwarded-For: 192.0.2.66",
    "Forwarded: for=192.0.2.66;host=evil.example;proto=https",
)


@pytest.mark.parametrize("forged", FORGED)
def test_what_clients_say_of_other_proxies_is_not_passed_on(tmp_path: Path, forged: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as upstream:
        upstream.settimeout(20)
        with (
            nginx(tmp_path / "nginx", upstream=upstream.getsockname()[1], port=free_port()) as server,
            server.connect() as client,
        ):
            client.send(head("GET", "/files/", f"{forged}\r\n"))
            connection, _ = upstream.accept()
            with connection:
                seen = connection.recv(65536)
    assert b"X-Forwarded-Host: media.example:8000\r\n" in seen
    assert b"evil" not in seen
    assert b"192.0.2.66" not in seen


def test_certificates_in_the_folder_switch_tls_on(tmp_path: Path) -> None:
    both = tmp_path / "both.pem"
    trustme.CA().issue_cert("media.example").private_key_and_cert_chain_pem.write_to_path(str(both))
    port = free_port()
    tls = f"listen 127.0.0.1:{port} ssl;\nssl_certificate {both};\nssl_certificate_key {both};\n"
    curl = ["curl", "-sk", "-i", "-X", "POST", f"https://127.0.0.1:{port}/files/", "-H", "Host: media.example"]
    with (
        ServerProcess(tmp_path / "uploads", variables=trust()) as process,
        nginx(tmp_path / "nginx", upstream=process.port, port=free_port(), tls=tls),
    ):
        answer = subprocess.run([*curl, "-H", TUS.strip(), "-H", "Upload-Length: 1"], capture_output=True, text=True)
    assert "ocation: https://media.example/files/" in answer.stdout


def head(method: str, path: str, fields: str) -> str:
    return f"{method} {path} HTTP/1.1\r\nHost: media.example:8000\r\n{fields}\r\n"


def ask(server: Server, method: str, path: str, fields: str) -> Answer:
    with Connection(server.port) as connection:
        return connection.send(head(method, path, fields)).answer(method)
