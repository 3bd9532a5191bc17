"""Bodies that end because something else does, under every server: patience, the disk, the server itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.server_process import wait_until
from tests.servers.kinds import Certificate, Kind, Running, running
from tests.servers.test_cuts import FRAMINGS, stall
from tests.servers.test_uploads import noise
from tests.worlds.test_disks import fill

IDLE = {"TUSD_PY_BODY_IDLE_TIMEOUT_SECONDS": "0.3"}


def test_a_silent_body_is_ended_and_what_it_brought_is_kept(
    kind: Kind, tmp_path: Path, certificate: Certificate
) -> None:
    content = noise(300_000)
    with running(kind, tmp_path, certificate, IDLE) as server:
        for size in (len(content), None):
            path = server.create(len(content))
            with server.connect() as silent:
                request = server.begin(silent, path, 0, size).send(content[:100_000])
                try:
                    answer = request.answer()
                except ConnectionError:
                    # A server that can do so just closes, as the protocol asks; others have to say something.
                    assert server.kind.is_ours
                else:
                    assert (answer.status, answer.fields["upload-offset"]) == (409, "100000")
            assert server.resume(path, content) == 100_000
            assert server.content(path) == content


@FRAMINGS
def test_a_full_disk_is_told_and_the_upload_goes_on_once_there_is_room(
    server: Running, disk: Path, is_chunked: bool
) -> None:
    if not disk.is_mount():
        pytest.skip("only root may mount the disk that this test fills")
    content = noise(2_000_000)
    path = server.create(len(content))
    assert server.append(path, 0, content[:1000]).status == 204
    fill(disk)
    try:
        with server.connect() as wire:
            size = None if is_chunked else len(content) - 1000
            answer = server.begin(wire, path, 1000, size).send(content[1000:]).answer()
        assert answer.status == 507
        assert "retry-after" in answer.fields
        assert 1000 <= server.offset(path) < len(content)
    finally:
        (disk / "ballast").unlink()
    server.resume(path, content)
    assert server.content(path) == content
    assert server.ask("DELETE", path).status == 204


def test_a_server_that_is_stopped_keeps_what_arrived(kind: Kind, tmp_path: Path, certificate: Certificate) -> None:
    """Ours says so to the clients, at once. Others wait a while for them, and then end without a good word."""
    content = noise(300_000)
    with running(kind, tmp_path, certificate) as server, server.connect() as one, server.connect() as another:
        begun = []
        for wire, size in ((one, len(content)), (another, None)):
            path = server.create(len(content))
            begun.append((path, stall(server, wire, path, 0, content[:100_000], size)))
        if not kind.is_ours:
            wait_until(lambda: all(server.stored(path) for path, _ in begun))
        server.stop()
        for _, request in begun:
            try:
                answer = request.answer()
            except ConnectionError:
                assert not kind.is_ours
                continue
            assert answer.status >= 500
            if kind.is_ours:
                assert (answer.status, answer.fields["upload-offset"]) == (503, "100000")
                assert "retry-after" in answer.fields
        one.close()
        another.close()
        if kind.is_ours:
            assert server.stop.wait() == 0
        else:
            server.stop.kill()
    for path, _ in begun:
        kept = (tmp_path / "partial" / f"{path.rpartition('/')[2]}.part").read_bytes()
        assert content.startswith(kept)
        assert len(kept) == 100_000 if kind.is_ours else 0 < len(kept) <= 100_000
