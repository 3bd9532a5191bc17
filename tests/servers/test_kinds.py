"""Each server is what its name says, so that none of them is tested twice and another one never."""

from __future__ import annotations

import ssl

import psutil

from tests.servers.kinds import Running


def test_each_server_runs_on_its_loop_and_speaks_its_version(server: Running) -> None:
    mapped = {mapping.path for mapping in psutil.Process(server.pid).memory_maps()}
    if server.kind.program != "granian":  # whose workers are processes of their own
        assert any("uvloop" in path for path in mapped) == (server.kind.loop == "uvloop")
    with server.server.open() as opened:
        assert isinstance(opened, ssl.SSLSocket) == server.kind.is_encrypted
        if isinstance(opened, ssl.SSLSocket):
            assert opened.selected_alpn_protocol() == (None if server.kind.is_http_1 else "h2")
