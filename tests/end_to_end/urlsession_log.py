"""The log of one upload as URLSession makes it (interop version 6), from a raw socket: what docs/draft.md shows.

    python -m tests.end_to_end.urlsession_log

starts a server and prints it. It is what went over the wire, line by line; of bodies it tells the size. Ids, dates,
ports and times left, which are others each time, are written as those of the page, and nothing else is changed.
"""

from __future__ import annotations

import re
import socket
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from tests.end_to_end.uploads import KIB, make_recording, wait_for_data
from tests.server_process import ServerProcess

SIZE = 300 * KIB
# As far as the first request comes.
CUT = 200 * KIB

_ALWAYS_OTHERS = (
    (re.compile(r"127\.0\.0\.1:\d+"), "127.0.0.1:8080"),
    (re.compile(r"(?<=/files/)[^\s/]+"), "b3e5c0f1a2d44c6e9f7081a2b3c4d5e6"),
    (re.compile(r"(?<=^< date: ).+$", re.IGNORECASE | re.MULTILINE), "Sat, 28 Nov 2026 12:00:00 GMT"),
    (re.compile(r"(?<=^< x-request-id: ).+$", re.IGNORECASE | re.MULTILINE), "652a9c2ee2d19aa0"),
    # Seconds that are left; some go by meanwhile.
    (re.compile(r"(?<=expires=)\d+"), "600"),
)


def normalized(log: str) -> str:
    """Return ``log`` with the same ids, dates, ports and times left each time."""
    for pattern, stand_in in _ALWAYS_OTHERS:
        log = pattern.sub(stand_in, log)
    return log


class _Connection:
    """A connection whose traffic is written down: ``>`` what is sent, ``<`` what comes, ``*`` what happens."""

    def __init__(self, server: ServerProcess, log: list[str]) -> None:
        self._host = f"127.0.0.1:{server.port}"
        self._socket = socket.create_connection(("127.0.0.1", server.port), timeout=20)
        self._read = b""
        self._log = log
        log.append("* a new connection")

    def close(self) -> None:
        self._socket.close()
        self._log.append("* the phone closes the connection")

    def begin(self, method: str, path: str, fields: Mapping[str, str]) -> None:
        named = {"Host": self._host, "Accept": "*/*", "Upload-Draft-Interop-Version": "6", **fields}
        head = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in named.items()), ""]
        self._log.extend(f"> {line}".rstrip() for line in head)
        self._socket.sendall("".join(f"{line}\r\n" for line in head).encode())

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)
        self._log.append(f"> ({len(data)} bytes)")

    def listen(self) -> Mapping[str, str]:
        """Read one response, interim or final, without content, and return its fields by lower-case names.

        What is told of the offset on the way is left out: it comes only where this takes seconds.
        """
        while b"\r\n\r\n" not in self._read:
            data = self._socket.recv(65536)
            assert data, "the server closed the connection"
            self._read += data
        head, _, self._read = self._read.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        if " 104 " in lines[0] and "upload-offset" in fields:
            return self.listen()
        self._log.extend(f"< {line}".rstrip() for line in (*lines, ""))
        assert fields.get("content-length", "0") == "0", "nothing reads a body here"
        return fields


def play(server: ServerProcess, upload_dir: Path, recording: Path) -> tuple[str, str]:
    """Upload ``recording``, cut once on the way, and return the log of it and the URL."""
    content = recording.read_bytes()
    log: list[str] = []

    phone = _Connection(server, log)
    whole = {"Upload-Complete": "?1", "Content-Type": "audio/wav", "Content-Length": str(len(content))}
    phone.begin("POST", "/files/", whole)
    url = phone.listen()["location"]
    phone.send(content[:CUT])
    # Else it might be one that is lost on the way, and the offset below would be another each time.
    wait_for_data(upload_dir, url, CUT)
    phone.close()

    path = "/files/" + url.rpartition("/")[2]
    phone = _Connection(server, log)
    phone.begin("HEAD", path, {})
    offset = int(phone.listen()["upload-offset"])
    rest = {
        "Upload-Complete": "?1",
        "Upload-Offset": str(offset),
        "Content-Type": "application/partial-upload",
        "Content-Length": str(len(content) - offset),
    }
    phone.begin("PATCH", path, rest)
    phone.send(content[offset:])
    phone.listen()
    phone.close()
    return "\n".join(log) + "\n", url


def main() -> None:
    """Print the log of an upload to a server of its own."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        recording = make_recording(folder / "noise.wav", SIZE)
        with ServerProcess(folder / "uploads") as server:
            log, _ = play(server, folder / "uploads", recording)
    sys.stdout.write(normalized(log))


if __name__ == "__main__":
    main()
