"""The command line: ``tusd-py serve`` and ``tusd-py sweep``.

What takes time to import is imported when a command needs it, so that ``tusd-py --help`` answers at once.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Mapping
from functools import cached_property, partial
from typing import TYPE_CHECKING

import click

from tusd_py import __version__

if TYPE_CHECKING:
    import socket

    from tusd_py.expiration import Swept
    from tusd_py.server.run import Plan
    from tusd_py.settings import Problem, Setting, Settings

# What a sweep depends on. An upload that a crash left whole is completed by it, so the rules for content belong here.
SWEEP_SETTINGS = (
    "upload_dir",
    "partial_upload_expiry_seconds",
    "completed_upload_expiry_seconds",
    "allowed_upload_extensions",
    "sniff",
    "fsync",
)


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
    from tusd_py.server.logs import configure_logs
    from tusd_py.server.run import CannotServe, listen, local_url

    configure_logs(settings.log_level)
    try:
        with listen(settings.host, settings.port) as listener:
            _check_folder(settings)
            url = local_url(_plan(settings), listener)
            announce = partial(print, f"You can now upload files to: {url}", flush=True)
            _serve(settings, listener, announce)
    except CannotServe as error:
        raise click.ClickException(str(error)) from None


@main.command(hidden=True)
@click.argument("descriptor", type=int)
def worker(descriptor: int) -> None:
    """Be one of several processes of serve, which alone knows how to start this."""
    from tusd_py.build import TusApp
    from tusd_py.server.logs import configure_logs
    from tusd_py.server.run import CannotServe
    from tusd_py.server.workers import read_order, work
    from tusd_py.settings import Settings

    settings = Settings.model_validate_json(read_order())
    configure_logs(settings.log_level)
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


def _serve(settings: Settings, listener: socket.socket, announce: Callable[[], None]) -> None:
    """Serve in this process, or in as many as the settings say."""
    if settings.workers == 1:
        from tusd_py.build import TusApp
        from tusd_py.server.run import Server, run

        run(Server(TusApp(settings), _plan(settings), announce), listener)
        return
    from tusd_py.server.workers import Crew, supervise

    crew = Crew(
        count=settings.workers,
        # -P: a module that lies in the current folder is not to be run in the place of one of ours.
        command=(sys.executable, "-P", "-m", "tusd_py", "worker"),
        order=settings.model_dump_json(),
        shutdown_timeout=settings.shutdown_timeout_seconds,
    )
    asyncio.run(supervise(crew, listener, announce))


def _plan(settings: Settings) -> Plan:
    from tusd_py.server.run import Plan

    return Plan(
        host=settings.host,
        port=settings.port,
        base_path=settings.base_path,
        root_path=settings.root_path,
        shutdown_timeout=settings.shutdown_timeout_seconds,
        head_timeout=settings.head_timeout_seconds,
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
    """Return the settings that the flags, where they were given, and the environment make."""
    from tusd_py.settings import InvalidSettings, Settings

    try:
        given = {name: value for name, value in flags.items() if value is not None}
        return Settings(**given)  # type: ignore[arg-type]  # the settings judge what was typed
    except InvalidSettings as error:
        raise click.UsageError("\n".join(map(_complaint, error.problems))) from None


def _complaint(problem: Problem) -> str:
    from tusd_py.settings import flag_of

    return str(problem) if problem.is_from_environment else f"{flag_of(problem.setting)}: {problem.sentence}"


def _flag(setting: Setting) -> click.Option:
    unit = f"; unit: {setting.unit}" if setting.unit else ""
    help = f"{setting.help} [default: {setting.default}{unit}; env: {setting.variable}]"
    if setting.is_switch:
        return click.Option([f"{setting.flag}/--no-{setting.flag.removeprefix('--')}"], default=None, help=help)
    return click.Option([setting.flag], metavar=setting.metavar, help=help)


async def _sweep(settings: Settings, *, dry_run: bool) -> Swept:
    from tusd_py.build import assemble
    from tusd_py.server.logs import configure_logs

    configure_logs("warning")
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
