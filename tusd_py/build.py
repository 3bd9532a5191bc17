"""From settings to objects: the only file that knows every backend."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Unpack
from urllib.parse import urlsplit

from tusd_py.expiration import Sweeper
from tusd_py.intake import SlabPool
from tusd_py.lifecycle import Lifecycle, Surroundings
from tusd_py.locks.base import Locks
from tusd_py.locks.file import FileLocks
from tusd_py.locks.memory import MemoryLocks
from tusd_py.media import MediaRules
from tusd_py.protocol.dialects import Dialects
from tusd_py.protocol.digests import algorithms
from tusd_py.protocol.rules import Limits
from tusd_py.protocol.tus import Tus
from tusd_py.settings import Knobs, Settings
from tusd_py.storage.base import Store
from tusd_py.storage.disk import DiskStore
from tusd_py.web.app import Application, Cors
from tusd_py.web.form import FormRules
from tusd_py.web.forwarding import Proxies


@dataclass(frozen=True, slots=True)
class Parts:
    """What everything is made of. Nothing is touched before ``store`` and ``locks`` are opened or used."""

    store: Store
    locks: Locks
    lifecycle: Lifecycle
    sweeper: Sweeper
    dialects: Dialects


class TusApp(Application):
    """The upload server as an ASGI app, to be served alone or mounted.

        app = TusApp(upload_dir="uploads", allowed_upload_extensions="*")

    What no keyword says comes from the environment, then from the defaults; see ``Settings``. Instead of keywords a
    ``Settings`` may be given. Another ``store`` may be given too; unless it is on the disk, its ``locks`` are those of
    one process where none are given.

    Raises:
        InvalidSettings: with one sentence for each value that cannot be used.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        /,
        *,
        store: Store | None = None,
        locks: Locks | None = None,
        **knobs: Unpack[Knobs],
    ) -> None:
        if settings is not None and knobs:
            raise TypeError("give either Settings or keywords to TusApp, not both")
        settings = settings or Settings(**knobs)
        parts = assemble(settings, store=store, locks=locks)
        super().__init__(
            lifecycle=parts.lifecycle,
            sweeper=parts.sweeper,
            store=parts.store,
            locks=parts.locks,
            dialects=parts.dialects,
            base_path=settings.base_path,
            public_url=settings.public_url,
            downloads=not settings.disable_download,
            relative_location=settings.relative_location,
            proxies=Proxies(settings.trusted_proxies),
            hosts=_hosts(settings),
            cors=_cors(settings),
            form=_form(settings),
            health_path=settings.health_path,
            ready_path=settings.ready_path,
            send_timeout=settings.send_timeout_seconds,
        )


def assemble(settings: Settings, *, store: Store | None = None, locks: Locks | None = None) -> Parts:
    """Return what ``settings`` describe, around ``store`` and ``locks`` where they are given."""
    store = store or DiskStore(settings.upload_dir, fsync=settings.fsync, space_reserve=settings.space_reserve)
    locks = locks or _locks_for(store, timeout=settings.lock_timeout_seconds)
    known = algorithms()
    limits = Limits(
        max_size=settings.max_file_size,
        partial_expiry=_timedelta(settings.partial_upload_expiry_seconds),
        min_size=settings.min_file_size,
        max_append_size=settings.max_append_size,
        min_append_size=settings.min_append_size,
        partial_lifetime=_timedelta(settings.partial_upload_lifetime_seconds),
    )
    surroundings = Surroundings(
        limits=limits,
        media=MediaRules.of(settings.allowed_upload_extensions, settings.sniff),
        algorithms=known,
        pool=SlabPool(settings.buffer_memory, settings.chunk_size),
        body_idle_timeout=settings.body_idle_timeout_seconds,
        min_body_rate=settings.min_body_rate,
        remove_partials=settings.remove_partials_after_use,
    )
    lifecycle = Lifecycle(store, locks, surroundings)
    sweeper = Sweeper(
        store,
        locks,
        lifecycle,
        limits,
        interval=settings.sweep_interval_seconds,
        completed_expiry=_timedelta(settings.completed_upload_expiry_seconds),
    )
    tus = Tus(limits, tuple(known), concatenation=not settings.disable_concatenation)
    dialects = Dialects(
        tus,
        limits,
        trailing=Tus(limits, tuple(known), concatenation=not settings.disable_concatenation, trailers=True),
        put=settings.create_with_put,
        without_version=settings.draft_without_version,
    )
    return Parts(store, locks, lifecycle, sweeper, dialects)


def _locks_for(store: Store, *, timeout: float) -> Locks:
    """Return locks that hold wherever ``store`` can be reached from."""
    if not isinstance(store, DiskStore):
        return MemoryLocks(timeout=timeout)
    return FileLocks(
        data_path=store.data_path,
        folder=store.folder / ".workers",
        leader_path=store.folder / "partial",
        timeout=timeout,
    )


def _hosts(settings: Settings) -> tuple[str, ...]:
    """Return the names of the hosts that are answered for, none for all: what is public is always among them."""
    if not settings.allowed_hosts or settings.public_url is None:
        return settings.allowed_hosts
    name = urlsplit(settings.public_url).hostname or ""
    return (*settings.allowed_hosts, f"[{name}]" if ":" in name else name)


def _cors(settings: Settings) -> Cors | None:
    if not settings.cors_allow_origins:
        return None
    return Cors(
        origins=settings.cors_allow_origins,
        credentials=settings.cors_allow_credentials,
        allow_headers=settings.cors_allow_headers,
        expose_headers=settings.cors_expose_headers,
        max_age=int(settings.cors_max_age_seconds),
    )


def _form(settings: Settings) -> FormRules | None:
    if settings.form_path is None:
        return None
    public = urlsplit(settings.public_url or "")
    return FormRules(
        path=settings.form_path,
        origins=(*settings.cors_allow_origins, f"{public.scheme}://{public.netloc}".lower()),
        max_files=settings.form_max_files,
        max_size=settings.max_file_size,
        patience=settings.body_idle_timeout_seconds,
    )


def _timedelta(seconds: float | None) -> timedelta | None:
    return None if seconds is None else timedelta(seconds=seconds)
