"""The command line: ``tusd-py serve``, its ``config``, what looks after an upload folder, and ``tusd-py doctor``.

What takes time to import is imported when a command needs it, so that ``tusd-py --help`` answers at once.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, TypeVar, cast

import click

from tusd_py import __version__

if TYPE_CHECKING:
    import socket

    from tusd_py.build import Parts
    from tusd_py.expiration import Swept
    from tusd_py.inspection import Row
    from tusd_py.protocol.rules import Limits
    from tusd_py.server.listener import Address, Listening
    from tusd_py.server.run import Plan
    from tusd_py.settings import Knobs, Problem, Setting, Settings
    from tusd_py.storage.disk import DiskStore
    from tusd_py.verification import Report

T = TypeVar("T")

# What a sweep depends on. An upload that a crash left whole is completed by it, so the rules for content belong here.
SWEEP_SETTINGS = (
    "upload_dir",
    "max_file_size",
    "remove_partials_after_use",
    "partial_upload_expiry_seconds",
    "completed_upload_expiry_seconds",
    "allowed_upload_extensions",
    "sniff",
    "fsync",
    "config",
    "secrets_dir",
)


# Half-finished uploads are completed by a repair, under the rules for content.
VERIFY_SETTINGS = ("upload_dir", "partial_upload_expiry_seconds", "allowed_upload_extensions", "sniff", "fsync")

LIST_SETTINGS = ("upload_dir", "partial_upload_expiry_seconds")

TERMINATE_SETTINGS = ("upload_dir", "fsync", "lock_timeout_seconds")


class SettingsCommand(click.Command):
    """A command with a flag for each setting in ``settings`` (all of them when that is empty).

    The flags are made when somebody looks at them, because that takes the half second that pydantic needs.
    """

    settings: tuple[str, ...] = ()

    @cached_property
    def _flags(self) -> list[click.Parameter]:
        from tusd_py.settings import describe_settings

        return [_flag(setting) for setting in describe_settings() if not self.settings or setting.name in self.settings]

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        return [*self._flags, *super().get_params(ctx)]


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


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="tusd-py", message="%(prog)s %(version)s")
def main() -> None:
    """A resumable upload server.

    Each command tells its flags with --help. Every flag of serve is also an environment variable.
    """


@main.command(cls=SettingsCommand)
def serve(**flags: object) -> None:
    """Accept uploads until told to stop.

    Sizes are written 5GiB, 100MB or 1048576, durations 90, 1.5s, 10m, 1h30m or 2d, lists with commas. A flag counts
    more than its environment variable.
    """
    settings = _settings(flags)
    from tusd_py.server.listener import CannotServe, listening
    from tusd_py.server.logs import configure_logs
    from tusd_py.server.run import check_tls, local_url, raise_descriptor_limit

    raise_descriptor_limit()
    configure_logs(settings.log_level, settings.log_format)
    try:
        plan = _plan(settings)
        if plan.tls is not None:
            check_tls(plan.tls)
        with listening(_address(settings)) as listener:
            settings = _guarded(settings, listener.socket)
            renew = partial(_renewed, flags, listener.socket)
            _check_folder(settings)
            url = local_url(replace(plan, host=listener.host(plan.host)), listener.socket)
            announce = partial(print, f"You can now upload files to: {url}", flush=True)
            _serve(settings, renew, listener, announce)
    except CannotServe as error:
        raise click.ClickException(str(error)) from None


@main.command(hidden=True)
@click.argument("descriptor", type=int)
def worker(descriptor: int) -> None:
    """Be one of several processes of serve, which alone knows how to start this."""
    from tusd_py.build import TusApp
    from tusd_py.server.listener import CannotServe
    from tusd_py.server.logs import configure_logs
    from tusd_py.server.workers import read_order, work
    from tusd_py.settings import Settings

    settings = Settings.model_validate_json(read_order())
    configure_logs(settings.log_level, settings.log_format)
    try:
        work(TusApp(settings), _plan(settings), descriptor)
    except CannotServe as error:
        raise click.ClickException(str(error)) from None


@main.command(cls=SweepCommand)
@click.option("--dry-run", is_flag=True, help="Only tell what would be removed.")
def sweep(*, dry_run: bool, **flags: object) -> None:
    """Remove expired uploads and what crashes left behind, once.

    Give it the settings of the server. A server that runs meanwhile is not disturbed, and sweeps by itself anyway.
    """
    settings = _settings(flags)
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


@main.command(cls=VerifyCommand)
@click.option("--repair", is_flag=True, help="Mend what can be mended; nothing that counts is lost.")
@click.option("--json", "as_json", is_flag=True, help="Tell everything as one JSON object.")
@click.pass_context
def verify(context: click.Context, /, *, repair: bool, as_json: bool, **flags: object) -> None:
    """Check every upload in the folder: its record against its data, and what else lies there.

    Give it the settings of the server, which may run meanwhile and is not disturbed. The exit code is 0 when everything
    is sound, 1 when there is trouble, 3 when there was and all of it is repaired, and 2 when nothing could be checked.
    """
    settings = _settings(flags)
    _check_is_upload_folder(settings)
    if repair:
        _check_is_owner(settings)
    report = _about_the_folder(settings, partial(_verify, repair=repair))
    click.echo(json.dumps(report.as_object()) if as_json else "\n".join(report.lines()))
    context.exit(report.exit_code)


@main.command("list", cls=ListCommand)
@click.option("--complete", is_flag=True, help="List finished uploads instead of unfinished ones.")
@click.option("--json", "as_json", is_flag=True, help="Tell each upload as a JSON object on a line of its own.")
def list_uploads(*, complete: bool, as_json: bool, **flags: object) -> None:
    """List the uploads in the folder, one a line: id, offset, length, name."""
    settings = _settings(flags)
    _check_is_upload_folder(settings)
    _about_the_folder(settings, partial(_list, complete=complete, as_json=as_json))


@main.command(cls=ListCommand)
@click.argument("id")
@click.option("--json", "as_json", is_flag=True, help="Tell it as a JSON object.")
def show(*, id: str, as_json: bool, **flags: object) -> None:
    """Tell everything that is known about the upload ID."""
    settings = _settings(flags)
    _check_is_upload_folder(settings)
    from tusd_py.inspection import row_lines

    row = _about_the_folder(settings, partial(_row, id=id))
    click.echo(json.dumps(row) if as_json else "\n".join(row_lines(row)))


@main.command(cls=TerminateCommand)
@click.argument("id")
def terminate(*, id: str, **flags: object) -> None:
    """Remove the upload ID, finished or not.

    A request that is writing to it is ended first, also in a server that runs.
    """
    settings = _settings(flags)
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

    seconds = settings.partial_upload_expiry_seconds
    return Limits(max_size=None, partial_expiry=None if seconds is None else timedelta(seconds=seconds))


@main.command()
@click.argument("url")
@click.option("--header", "fields", metavar="'NAME: VALUE'", multiple=True, help="A field for every request.")
@click.option("--filename", default="doctor.mp3", show_default=True, help="The name of what is uploaded.")
@click.option("--insecure", is_flag=True, help="Take any certificate.")
@click.option(
    "--patience",
    metavar="SECONDS",
    default=1.0,
    type=click.FloatRange(0.1, 60),
    show_default=True,
    help="How long bytes may take.",
)
def doctor(url: str, fields: tuple[str, ...], *, filename: str, insecure: bool, patience: float) -> None:
    """Tell what between here and the tus server at URL gets in the way of uploads.

    URL is the endpoint as clients have it. Works with any tus 1.0 server; what it creates there it removes again. Ends
    with 0 where all is well, with 1 where there are troubles.
    """
    from tusd_py.doctor.examine import examine

    sent = _parse_fields(fields)
    _check_url(url)
    has_trouble = False
    for finding in examine(url, sent, filename=filename, verify=not insecure, patience=patience):
        has_trouble = has_trouble or finding.is_trouble
        click.echo(f"{'TROUBLE' if finding.is_trouble else 'ok'}: {finding.sentence}")
        for line in finding.advice:
            click.echo(f"    {line}")
    click.echo("There is trouble." if has_trouble else "All is well.")
    sys.exit(has_trouble)


def _parse_fields(lines: Iterable[str]) -> dict[str, str]:
    fields = {}
    for line in lines:
        name, _, value = line.partition(":")
        if not (name.strip() and value.strip() and line.isascii() and line.isprintable()):
            raise click.UsageError("--header: write a name, a colon and a value, such as 'Authorization: Bearer x'")
        fields[name.strip()] = value.strip()
    return fields


def _check_url(url: str) -> None:
    from urllib.parse import urlsplit

    try:
        split = urlsplit(url)
        is_good = split.scheme in ("http", "https") and bool(split.hostname) and split.port != 0
    except ValueError:
        is_good = False
    if not (is_good and url.isascii() and url.isprintable() and " " not in url):
        raise click.UsageError(f"{url} is no URL; write one such as https://uploads.example.org/files/")


@main.command(cls=SettingsCommand)
def config(**flags: object) -> None:
    """Print the settings in force, and where each comes from.

    Give it the flags and variables of serve. What it prints can be kept as a file for --config.
    """
    settings = _settings(flags)
    from tusd_py.settings import explain

    for line in explain(settings, _given(flags)):
        click.echo(line)


def _serve(
    settings: Settings, renew: Callable[[], Settings], listener: Listening, announce: Callable[[], None]
) -> None:
    """Serve in this process, or in as many as the settings say. ``renew`` gives the settings for a restart."""
    # Who closes the terminal in which it runs wants it to end.
    restarts = not os.isatty(0)
    if settings.workers == 1:
        from tusd_py.build import TusApp
        from tusd_py.server.listener import restart
        from tusd_py.server.run import Server, run

        server = Server(TusApp(settings), _plan(settings), announce, renew if restarts else None)
        run(server, listener.socket)
        if server.is_restarting:
            restart([sys.executable, *sys.orig_argv[1:]], listener)
        return
    from tusd_py.server.workers import Crew, supervise

    crew = Crew(
        count=settings.workers,
        # -P: a module that lies in the current folder is not to be run in the place of one of ours.
        command=(sys.executable, "-P", "-m", "tusd_py", "worker"),
        order=lambda: renew().model_dump_json(),
        shutdown_timeout=settings.shutdown_timeout_seconds,
        restarts=restarts,
    )
    asyncio.run(supervise(crew, listener.socket, announce))


def _renewed(flags: Mapping[str, object], listener: socket.socket) -> Settings:
    """Return the settings as they are by now, and make sure that a server can start with them."""
    from tusd_py.server.listener import CannotServe
    from tusd_py.server.run import check_tls

    try:
        settings = _settings(flags)
    except click.UsageError as error:
        raise CannotServe(error.message) from None
    tls = _plan(settings).tls
    if tls is not None:
        check_tls(tls)
    return _guarded(settings, listener)


def _address(settings: Settings) -> Address:
    from tusd_py.server.listener import Address

    return Address(
        host=settings.host,
        port=settings.port,
        path=settings.unix_sock,
        mode=settings.unix_sock_mode,
        descriptor=settings.fd,
    )


def _guarded(settings: Settings, listener: socket.socket) -> Settings:
    """Return ``settings`` with a list of hosts where any page in a browser of this machine could reach ``listener``.

    A page can bend its own name to a loopback address (DNS rebinding) and is of the same origin then, as far as the
    browser can tell. Elsewhere clients reach us under names that only the operator knows.
    """
    from tusd_py.server.run import is_on_loopback

    if settings.allowed_hosts or not is_on_loopback(listener):
        return settings
    return settings.model_copy(update={"allowed_hosts": ("localhost",)})


def _plan(settings: Settings) -> Plan:
    from tusd_py.server.run import Plan, Tls

    certificate, key = settings.tls_certificate, settings.tls_key
    return Plan(
        host=settings.host,
        port=settings.port,
        base_path=settings.base_path,
        root_path=settings.root_path,
        shutdown_timeout=settings.shutdown_timeout_seconds,
        head_timeout=settings.head_timeout_seconds,
        max_connections=settings.max_connections,
        max_connections_per_client=settings.max_connections_per_client,
        trusted_proxies=settings.trusted_proxies,
        tls=Tls(certificate, key) if certificate and key else None,
    )


def _check_folder(settings: Settings) -> None:
    """Make the upload folder, and refuse one that cannot be written."""
    from tusd_py.errors import UploadError

    try:
        asyncio.run(_open_once(settings))
    except UploadError as error:
        cause = error.__cause__
        reason = (cause.strerror if isinstance(cause, OSError) else None) or str(error)
    else:
        if os.access(settings.upload_dir, os.W_OK | os.X_OK):
            return
        reason = "it cannot be written"
    raise click.ClickException(
        f"cannot keep uploads in {settings.upload_dir}: {reason}; choose another folder with --upload-dir"
    )


async def _open_once(settings: Settings) -> None:
    from tusd_py.build import assemble

    store = assemble(settings).store
    await store.open()
    await store.close()


def _settings(flags: Mapping[str, object]) -> Settings:
    """Return the settings that the flags, where they were given, and the other sources make."""
    from tusd_py.settings import InvalidSettings, Settings

    try:
        return Settings(**_given(flags))
    except InvalidSettings as error:
        raise click.UsageError("\n".join(map(_complaint, error.problems))) from None


def _given(flags: Mapping[str, object]) -> Knobs:
    # The settings judge what was typed.
    return cast("Knobs", {name: value for name, value in flags.items() if value is not None})


def _complaint(problem: Problem) -> str:
    from tusd_py.settings import flag_of

    return str(problem) if problem.source else f"{flag_of(problem.setting)}: {problem.sentence}"


def _flag(setting: Setting) -> click.Option:
    unit = f"; unit: {setting.unit}" if setting.unit else ""
    help = f"{setting.help} [default: {setting.default}{unit}; env: {setting.variable}]"
    if setting.is_switch:
        return click.Option([f"{setting.flag}/--no-{setting.flag.removeprefix('--')}"], default=None, help=help)
    return click.Option([setting.flag], metavar=setting.metavar, help=help)


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
