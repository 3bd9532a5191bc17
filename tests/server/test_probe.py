"""``tusd-py healthcheck`` asks real servers of every kind."""

from __future__ import annotations

import contextlib
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from tests.server_process import PATIENCE, ServerProcess, program, surroundings


def ask(*flags: str, **variables: str) -> tuple[int, str]:
    """Return the exit code of the command and what it said."""
    done = subprocess.run(
        program("healthcheck", "--patience", "10", *flags),
        capture_output=True,
        text=True,
        env=surroundings(variables),
        timeout=PATIENCE,
    )
    return done.returncode, done.stdout + done.stderr


def pem(folder: Path) -> list[str]:
    """Return the flags for a certificate of somebody else's name."""
    path = folder / "both.pem"
    trustme.CA().issue_cert("media.example").private_key_and_cert_chain_pem.write_to_path(str(path))
    return ["--tls-certificate", str(path), "--tls-key", str(path)]


@pytest.mark.parametrize(
    "flags",
    [
        [],
        ["--host", "0.0.0.0"],
        ["--host", "::1"],
        ["--host", "::"],
        ["--health-path", "/alive"],
        ["--health-path", "none"],
        ["--health-path", "none", "--base-path", "/up/", "--public-url", "https://media.example"],
        ["--health-path", "none", "--allowed-hosts", "media.example"],
        ["--root-path", "/media"],
        ["--workers", "2"],
    ],
    ids=" ".join,
)
def test_a_server_that_is_alive_is_healthy(tmp_path: Path, flags: list[str]) -> None:
    with ServerProcess(tmp_path / "uploads", *flags) as server:
        assert ask("--port", str(server.port), *flags) == (0, "")


def test_a_server_that_is_gone_is_not(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "uploads") as server:
        variables = {"TUSD_PY_PORT": str(server.port)}
        assert ask(**variables)[0] == 0
    code, said = ask(**variables)
    assert code == 1
    assert said.startswith(f"Error: the server at 127.0.0.1, port {server.port} does not answer: ")


def test_tls_is_spoken_where_the_settings_say_so(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "uploads", *(flags := pem(tmp_path))) as server:
        assert ask("--port", str(server.port), *flags) == (0, "")
        assert ask("--port", str(server.port))[0] == 1


@pytest.mark.parametrize("is_secure", [False, True])
def test_a_unix_socket_is_asked_where_the_settings_name_one(tmp_path: Path, is_secure: bool) -> None:
    flags = ["--unix-sock", str(tmp_path / "tusd.sock"), *(pem(tmp_path) if is_secure else [])]
    with ServerProcess(tmp_path / "uploads", *flags):
        assert ask(*flags) == (0, "")
    assert ask(*flags)[0] == 1


def test_settings_come_from_a_file_too(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "uploads", "--health-path", "/alive") as server:
        file = tmp_path / "tusd.toml"
        file.write_text(f'port = {server.port}\nhealth_path = "/alive"\n')
        assert ask(TUSD_PY_CONFIG=str(file)) == (0, "")
        code, said = ask("--port", str(server.port))
        assert (code, said.strip().rpartition(" ")[2]) == (1, "404")


@contextlib.contextmanager
def mute() -> Iterator[int]:
    """Something that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def test_a_server_that_does_not_answer_in_time_is_not_healthy() -> None:
    with mute() as port:
        code, said = ask("--port", str(port), "--patience", "0.2")
    assert code == 1
    assert "timed out" in said


@pytest.mark.parametrize("flags", [["--port", "0"], ["--fd", "3"], ["--port", "http"], ["--config", "/nowhere.toml"]])
def test_settings_that_do_not_say_where_to_ask_are_a_failure_and_no_traceback(flags: list[str]) -> None:
    code, said = ask(*flags)
    assert code == 1
    assert said.startswith("Error: ")
    assert "Traceback" not in said
