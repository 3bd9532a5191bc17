"""The command line: ``tusd-py serve``, what goes with it, and what looks after an upload folder.

What takes time to import is imported when a command needs it, so that ``tusd-py --help`` answers at once.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import click

from tusd_py import __version__
from tusd_py.flags import SettingsCommand, given, settings_of
from tusd_py.folder_commands import list_uploads, show, sweep, terminate, verify

if TYPE_CHECKING:
    import socket

    from tusd_py.server.listener import Address, Listening
    from tusd_py.server.run import Plan
    from tusd_py.settings import Settings

T = TypeVar("T")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="tusd-py", message="%(prog)s %(version)s")
def main() -> None:
    """A resumable upload server.

    Each command tells its flags with --help. Every flag of serve is also an environment variable.
    """


for command in (sweep, verify, list_uploads, show, terminate):
    main.add_command(command)


@main.command(cls=SettingsCommand)
def serve(**flags: object) -> None:
    """Accept uploads until told to stop.

    Sizes are written 5GiB, 100MB or 1048576, durations 90, 1.5s, 10m, 1h30m or 2d, lists with commas. A flag counts
    more than its environment variable.
    """
    settings = settings_of(flags)
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

    settings = Settings.model_validate(json.loads(read_order()))
    configure_logs(settings.log_level, settings.log_format)
    try:
        work(TusApp(settings), _plan(settings), descriptor)
    except CannotServe as error:
        raise click.ClickException(str(error)) from None


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
    settings = settings_of(flags)
    from tusd_py.settings import explain

    for line in explain(settings, given(flags)):
        click.echo(line)


@main.command(cls=SettingsCommand)
@click.option(
    "--patience",
    metavar="SECONDS",
    default=4.0,
    type=click.FloatRange(0.1, 60),
    show_default=True,
    help="How long each step may take.",
)
def healthcheck(*, patience: float, **flags: object) -> None:
    """Ask the server that the settings describe whether it is alive, for containers.

    Give it the flags and variables of serve. Ends with 0 when the server answers as it should, else with 1 and one
    sentence.
    """
    from tusd_py.server.probe import NotHealthy, Probe

    try:
        settings = settings_of(flags)
    except click.UsageError as error:
        raise click.ClickException(error.message) from None
    if settings.fd is not None or (settings.port == 0 and settings.unix_sock is None):
        raise click.ClickException("nobody can tell where the server listens; give --host and --port, or --unix-sock")
    probe = Probe(
        host=settings.host,
        port=settings.port,
        path=settings.unix_sock,
        is_secure=settings.tls_certificate is not None,
        health_path=settings.health_path,
        base_path=settings.base_path,
        timeout=patience,
    )
    try:
        probe.check()
    except NotHealthy as error:
        raise click.ClickException(str(error)) from None


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
        # In ASCII: the name of a folder is bytes, which need not be those of any text.
        order=lambda: json.dumps(renew().model_dump(), default=str),
        shutdown_timeout=settings.shutdown_timeout_seconds,
        restarts=restarts,
    )
    asyncio.run(supervise(crew, listener.socket, announce))


def _renewed(flags: Mapping[str, object], listener: socket.socket) -> Settings:
    """Return the settings as they are by now, and make sure that a server can start with them."""
    from tusd_py.server.listener import CannotServe
    from tusd_py.server.run import check_tls

    try:
        settings = settings_of(flags)
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
        send_timeout=settings.send_timeout_seconds,
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
