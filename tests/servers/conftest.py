from __future__ import annotations

import os
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from tests.servers.kinds import EVERY, Certificate, Kind, Running, each, running
from tests.worlds.conftest import run


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """A certificate for this machine."""
    folder = tmp_path_factory.mktemp("certificate")
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1", "localhost")
    for blob in issued.cert_chain_pems:
        blob.write_to_path(str(folder / "chain.pem"), append=True)
    issued.private_key_pem.write_to_path(str(folder / "key.pem"))
    trust = ssl.create_default_context()
    authority.configure_trust(trust)
    trust.set_alpn_protocols(["h2", "http/1.1"])
    return Certificate(folder / "chain.pem", folder / "key.pem", trust)


@pytest.fixture(scope="session", params=each(EVERY))
def kind(request: pytest.FixtureRequest) -> Kind:
    """Every kind of server, or those that a module of tests names: ``OURS_ALONE``."""
    found: Kind = request.param
    return found


@pytest.fixture(scope="session")
def disk(kind: Kind, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A small disk for the server, or a plain folder where none can be mounted."""
    folder = tmp_path_factory.mktemp("disk")
    if os.geteuid() == 0:
        run("mount", "-t", "tmpfs", "-o", "size=128m", "tmpfs", str(folder))
    yield folder
    if folder.is_mount():
        run("umount", "-l", str(folder))


@pytest.fixture(scope="session")
def server(kind: Kind, disk: Path, certificate: Certificate) -> Iterator[Running]:
    """A server of each kind that takes anything; tests share it, and leave it as it is."""
    with running(kind, disk / "uploads", certificate) as found:
        yield found
