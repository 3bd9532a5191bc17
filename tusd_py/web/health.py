"""Whether the server is alive, and whether it is ready for uploads: two paths beside those of uploads.

Whoever asks is a load balancer or a service manager, mostly without any rights. So the answer is a status and one
sentence, which holds no path, no name and no number. The operator finds the cause in the log.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping

from starlette.types import Receive, Scope, Send

from tusd_py.errors import StorageFull, StorageUnavailable, UploadError
from tusd_py.locks.base import Locks
from tusd_py.storage.base import Store

logger = logging.getLogger("tusd_py")

# Seconds for which one look answers everybody. Whoever asks may ask as often as he likes.
FRESH = 1.0

# Seconds that a look may take. A disk that hangs has no readiness to tell of, and no error either.
PATIENCE = 5.0

READY = "ready"

# What is said of trouble with the storage; the first that fits.
SENTENCES: Mapping[type[Exception], str] = {
    StorageFull: "the storage has no room beyond its reserve",
    StorageUnavailable: "the storage cannot be written at the moment",
    Exception: "the storage fails",
}

Endpoint = Callable[[], Awaitable[tuple[int, str]]]


class Health:
    """The ASGI app of both paths; ``None`` switches one of them off."""

    def __init__(self, store: Store, locks: Locks, *, health_path: str | None, ready_path: str | None) -> None:
        self._store = store
        self._locks = locks
        self._endpoints: Mapping[str, Endpoint] = {
            path: endpoint
            for path, endpoint in ((health_path, self._alive), (ready_path, self._ready))
            if path is not None
        }
        self._is_stopping = False
        self._looking: asyncio.Task[str] | None = None
        self._looked_at = 0.0
        self._last_trouble = ""

    def start(self) -> None:
        """Be ready again after ``stop``."""
        self._is_stopping = False

    def stop(self) -> None:
        """Be ready no more: the server ends."""
        self._is_stopping = True

    def is_asked(self, path: str) -> bool:
        """Tell whether ``path`` is one of ours."""
        return path in self._endpoints

    async def answer(self, path: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request for ``path``, which is one of ours."""
        fields = [
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"cache-control", b"no-store"),
            (b"x-content-type-options", b"nosniff"),
        ]
        if scope["method"] in ("GET", "HEAD"):
            status, sentence = await self._endpoints[path]()
        else:
            status, sentence = 405, "ask with GET"
            # A body may be under way, and is not read.
            fields += [(b"allow", b"GET, HEAD"), (b"connection", b"close")]
        if status == 503:
            fields.append((b"retry-after", b"1"))
        body = f"{sentence}\n".encode()
        fields.append((b"content-length", str(len(body)).encode()))
        await send({"type": "http.response.start", "status": status, "headers": fields})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    async def _alive(self) -> tuple[int, str]:
        return 200, "alive"

    async def _ready(self) -> tuple[int, str]:
        if self._is_stopping:
            return 503, "not ready: the server is about to end"
        sentence = await self._looked()
        return (200, sentence) if sentence == READY else (503, f"not ready: {sentence}")

    async def _looked(self) -> str:
        """Return what the last look said, or that of a new one, which all share who ask meanwhile."""
        loop = asyncio.get_running_loop()
        looking = self._looking
        # A loop that is gone has taken its tasks with it: an app may be served more than once.
        is_of_this_loop = looking is not None and looking.get_loop() is loop
        if looking is None or not is_of_this_loop or (looking.done() and loop.time() - self._looked_at > FRESH):
            looking = self._looking = loop.create_task(self._look())
        done, _ = await asyncio.wait([looking], timeout=PATIENCE)
        return looking.result() if done else "the storage does not answer"

    async def _look(self) -> str:
        sentence, error = await self._judged()
        # The cause once, not with every question.
        if sentence not in (READY, self._last_trouble):
            logger.error("not ready for uploads: %s", sentence, exc_info=error)
        elif sentence == READY and self._last_trouble:
            logger.info("ready for uploads again")
        self._last_trouble = "" if sentence == READY else sentence
        self._looked_at = asyncio.get_running_loop().time()
        return sentence

    async def _judged(self) -> tuple[str, Exception | None]:
        try:
            await self._store.check_ready()
        except Exception as error:
            return next(told for kind, told in SENTENCES.items() if isinstance(error, kind)), error
        try:
            # Who leads does not matter. Trying takes a lock of the same kind as those of uploads.
            async with self._locks.try_lead():
                return READY, None
        except UploadError as error:
            return "uploads cannot be locked", error
