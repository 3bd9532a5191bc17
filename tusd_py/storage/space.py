"""Whether one more upload fits on the disk beside those that are still to be written."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

from tusd_py.errors import StorageFull

FRESH_SECONDS = 5.0  # for how long the claims that were added up may answer for those on the disk
REFUSING_SECONDS = 1.0  # for how long they may be the reason for a no: many hopeless creations cost one look a second


class Space:
    """Free space less what unfinished uploads may still claim. Blocking, and safe to use from several threads.

    The claims are added up once in a while, not at each creation; what is created meanwhile is added to them. So
    they are mostly too high, because bytes that arrive are counted twice. A yes may therefore come from the old sum,
    a no only from one that is new, or nearly so. Uploads that another process creates within those seconds are not
    seen, and neither is anything that is no upload: this spares clients a hopeless start, it does not promise them
    the room.
    """

    def __init__(self, folder: str, *, reserve: int, add_up: Callable[[], int], monotonic: Callable[[], float]) -> None:
        """Watch the file system of ``folder``.

        Args:
            folder: where uploads are kept.
            reserve: bytes that are to stay free.
            add_up: gives the bytes that all unfinished uploads may still claim.
            monotonic: gives seconds that never go back.
        """
        self._folder = folder
        self._reserve = reserve
        self._add_up = add_up
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._claimed = 0
        self._added_up_at: float | None = None

    def claim(self, length: int | None) -> None:
        """Claim room for an upload of ``length`` bytes; one whose length is deferred claims none.

        Raises:
            StorageFull: it does not fit.
        """
        if not length:
            return
        with self._lock:
            self._renew_after(FRESH_SECONDS)
            if not self._fits(length):
                self._renew_after(REFUSING_SECONDS)
                if not self._fits(length):
                    raise StorageFull
            self._claimed += length

    def check_reserve(self) -> None:
        """Look whether what is to stay free is free.

        Raises:
            StorageFull: it is not.
        """
        if self._free() <= self._reserve:
            raise StorageFull

    def _renew_after(self, seconds: float) -> None:
        if self._added_up_at is None or self._monotonic() - self._added_up_at >= seconds:
            self._claimed = self._add_up()
            self._added_up_at = self._monotonic()

    def _fits(self, length: int) -> bool:
        return length <= self._free() - self._reserve - self._claimed

    def _free(self) -> int:
        status = os.statvfs(self._folder)
        return status.f_bavail * status.f_frsize
