"""The commands that look after an upload folder: sweep, verify, list, show and terminate.

What takes time to import is imported when a command needs it, so that ``tusd-py --help`` answers at once.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import click

from tusd_py.flags import SettingsCommand, settings_of

if TYPE_CHECKING:
    from tusd_py.build import Parts
    from tusd_py.expiration import Swept
    from tusd_py.findings import Report
    from tusd_py.inspection import Row
    from tusd_py.protocol.rules import Limits
    from tusd_py.settings import Settings
    from tusd_py.storage.disk import DiskStore

T = TypeVar("T")

# What a sweep depends on. An upload that a crash left whole is completed by it, so the rules for content belong here.
SWEEP_SETTINGS = (
    "upload_dir",
    "max_file_size",
    "remove_partials_after_use",
    "partial_upload_expiry_seconds",
    "partial_upload_lifetime_seconds",
    "completed_upload_expiry_seconds",
    "allowed_upload_extensions",
    "sniff",
    "fsync",
    "config",
    "secrets_dir",
)


# Half-finished uploads are completed by a repair, under the rules for content.
VERIFY_SETTINGS = tuple(name for name in SWEEP_SETTINGS if name != "completed_upload_expiry_seconds")

LIST_SETTINGS = (
    "upload_dir",
    "partial_upload_expiry_seconds",
    "partial_upload_lifetime_seconds",
    "config",
    "secrets_dir",
)

# Finals that wait for a partial are looked after at once, as a sweep would do it.
TERMINATE_SETTINGS = (*SWEEP_SETTINGS, "lock_timeout_seconds")


class SweepCommand(SettingsCommand):
    settings = SWEEP_SETTINGS


class VerifyCommand(SettingsCommand):
    settings = VERIFY_SETTINGS


class ListCommand(SettingsCommand):
    settings = LIST_SETTINGS


class TerminateCommand(SettingsCommand):
    settings = TERMINATE_SETTINGS


class CannotLook(click.ClickException):
    """The folder cannot be looked at; nothing is said about what is in it."""

    exit_code = 2


@click.command(cls=SweepCommand)
@click.option("--dry-run", is_flag=True, help="Only tell what would be removed.")
def sweep(*, dry_run: bool, **flags: object) -> None:
    """Remove expired uploads and what crashes left behind, once.

    Give it the settings of the server. A server that runs meanwhile is not disturbed, and sweeps by itself anyway.
    """
    settings = settings_of(flags)
    from tusd_py.errors import UploadError

    if not settings.upload_dir.is_dir():
        raise click.ClickException(f"there is no folder {settings.upload_dir}; name one with --upload-dir")
    try:
        swept = asyncio.run(_sweep(settings, dry_run=dry_run))
    except UploadError as error:
        raise click.ClickException(f"{settings.upload_dir} cannot be swept: {error.__cause__ or error}") from None
    for line in _report(swept, dry_run=dry_run):
        click.echo(line)
    if swept.failed:
        raise click.ClickException(f"{len(swept.failed)} uploads could not be removed; the log above says why")


@click.command(cls=VerifyCommand)
@click.option("--repair", is_flag=True, help="Mend what can be mended; nothing that counts is lost.")
@click.option("--json", "as_json", is_flag=True, help="Tell everything as one JSON object.")
@click.pass_context
def verify(context: click.Context, /, *, repair: bool, as_json: bool, **flags: object) -> None:
    """Check every upload in the folder: its record against its data, and what else lies there.

    Give it the settings of the server, which may run meanwhile and is not disturbed. The exit code is 0 when everything
    is sound, 1 when there is trouble, 3 when there was and all of it is repaired, and 2 when nothing could be checked.
    """
    settings = settings_of(flags)
    _check_is_upload_folder(settings)
    if repair:
        _check_is_owner(settings)
    report = _about_the_folder(settings, partial(_verify, repair=repair))
    click.echo(json.dumps(report.as_object()) if as_json else "\n".join(report.lines()))
    context.exit(report.exit_code)


@click.command("list", cls=ListCommand)
@click.option("--complete", is_flag=True, help="List finished uploads instead of unfinished ones.")
@click.option("--json", "as_json", is_flag=True, help="Tell each upload as a JSON object on a line of its own.")
def list_uploads(*, complete: bool, as_json: bool, **flags: object) -> None:
    """List the unfinished uploads in the folder, one a line: id, offset, length, name."""
    settings = settings_of(flags)
    _check_is_upload_folder(settings)
    _about_the_folder(settings, partial(_list, complete=complete, as_json=as_json))


@click.command(cls=ListCommand)
@click.argument("id")
@click.option("--json", "as_json", is_flag=True, help="Tell it as a JSON object.")
def show(*, id: str, as_json: bool, **flags: object) -> None:
    """Tell everything that is known about the upload ID."""
    settings = settings_of(flags)
    _check_is_upload_folder(settings)
    from tusd_py.inspection import row_lines

    row = _about_the_folder(settings, partial(_row, id=id))
    click.echo(json.dumps(row) if as_json else "\n".join(row_lines(row)))


@click.command(cls=TerminateCommand)
@click.argument("id")
def terminate(*, id: str, **flags: object) -> None:
    """Remove the upload ID, finished or not.

    A request that is writing to it is ended first, also in a server that runs. Uploads that wait for it as for one of
    their parts are removed too. Give it the settings of the server.
    """
    settings = settings_of(flags)
    _check_is_upload_folder(settings)
    _check_is_owner(settings)
    _about_the_folder(settings, partial(_terminate, id=id))
    click.echo(f"terminated {id}")


def _check_is_upload_folder(settings: Settings) -> None:
    folder = settings.upload_dir
    if not (folder / "partial").is_dir() or not (folder / "records").is_dir():
        raise CannotLook(f"there are no uploads in {folder}; name an upload folder with --upload-dir")


def _check_is_owner(settings: Settings) -> None:
    """Refuse to write what the server could not read."""
    owner = settings.upload_dir.stat().st_uid
    if os.geteuid() != owner:
        raise CannotLook(f"{settings.upload_dir} belongs to user number {owner}; run this as that user")


def _about_the_folder(settings: Settings, ask: Callable[[Parts, DiskStore, Settings], Awaitable[T]]) -> T:
    """Return what ``ask`` returns; trouble is told in a sentence."""
    from tusd_py.build import assemble
    from tusd_py.errors import UploadError, UploadLocked, UploadNotFound
    from tusd_py.server.logs import configure_logs
    from tusd_py.storage.disk import DiskStore

    configure_logs("warning", "text")
    parts = assemble(settings)
    assert isinstance(parts.store, DiskStore), "settings describe a store on the disk"

    async def asked(store: DiskStore) -> T:
        try:
            return await ask(parts, store, settings)
        finally:
            await store.close()

    try:
        return asyncio.run(asked(parts.store))
    except UploadNotFound:
        raise click.ClickException("there is no such upload") from None
    except UploadLocked:
        raise click.ClickException("a request is using this upload and does not let go; try again") from None
    except (UploadError, OSError) as error:
        raise CannotLook(f"{settings.upload_dir} cannot be read or written: {error.__cause__ or error}") from None


async def _verify(parts: Parts, store: DiskStore, settings: Settings, *, repair: bool) -> Report:
    from tusd_py.lifecycle import utc_now
    from tusd_py.verification import Verifier

    is_durable = settings.fsync != "never"
    verifier = Verifier(store, parts.lifecycle, _limits(settings), is_durable=is_durable, now=utc_now)
    return await verifier.verify(repair=repair)


async def _list(parts: Parts, store: DiskStore, settings: Settings, *, complete: bool, as_json: bool) -> None:
    from tusd_py.inspection import build_line, rows

    async for row in rows(store, _limits(settings), complete=complete):
        click.echo(json.dumps(row) if as_json else build_line(row))


async def _row(parts: Parts, store: DiskStore, settings: Settings, *, id: str) -> Row:
    from tusd_py.inspection import row

    return await row(store, _limits(settings), id)


async def _terminate(parts: Parts, store: DiskStore, settings: Settings, *, id: str) -> None:
    from tusd_py.inspection import terminate

    await terminate(parts, id)


def _limits(settings: Settings) -> Limits:
    from datetime import timedelta

    from tusd_py.protocol.rules import Limits

    expiry, lifetime = (
        None if seconds is None else timedelta(seconds=seconds)
        for seconds in (settings.partial_upload_expiry_seconds, settings.partial_upload_lifetime_seconds)
    )
    return Limits(max_size=None, partial_expiry=expiry, partial_lifetime=lifetime)


async def _sweep(settings: Settings, *, dry_run: bool) -> Swept:
    from tusd_py.build import assemble
    from tusd_py.server.logs import configure_logs

    configure_logs("warning", "text")
    parts = assemble(settings)
    await parts.store.open()
    try:
        return await parts.sweeper.sweep(dry_run=dry_run)
    finally:
        await parts.store.close()


def _report(swept: Swept, *, dry_run: bool) -> list[str]:
    removed = {"expired": swept.expired, "finished": swept.completed, "leftover": swept.leftovers}
    lines = [f"{kind} {name}" for kind, names in removed.items() for name in names]
    counts = ", ".join(f"{len(names)} {kind}" for kind, names in removed.items())
    return [*lines, f"{counts}: {'nothing was removed, this was a dry run' if dry_run else 'removed'}"]
