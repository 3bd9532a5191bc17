"""What downloads are compared with: Starlette's FileResponse under uvicorn. ``benchmarks.downloads`` starts it."""

from __future__ import annotations

import socket
import sys

import uvicorn
from starlette.responses import FileResponse
from starlette.types import Receive, Scope, Send


def serve(path: str, descriptor: int) -> None:
    """Answer every request on the listening socket ``descriptor`` with the file at ``path``."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await FileResponse(path)(scope, receive, send)

    config = uvicorn.Config(app, lifespan="off", log_config=None, access_log=False, server_header=False)
    with socket.socket(fileno=descriptor) as listener:
        uvicorn.Server(config).run([listener])


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]))
