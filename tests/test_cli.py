"""The command line, as people see it. What serving does is proved in ``server/test_run.py``."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.live import Server
from tests.server_process import PATIENCE, ServerProcess, program, surroundings
from tusd_py import __version__
from tusd_py.cli import main
from tusd_py.folder_commands import SWEEP_SETTINGS
from tusd_py.settings import Setting, describe_settings

LONG_AGO = 1_000_000_000


def run(*arguments: str, **variables: str) -> Result:
    """Run the command line in this process: for what ends before anything is served or swept."""
    unset = {setting.variable: None for setting in describe_settings()}
    return CliRunner().invoke(main, arguments, env={**unset, **variables}, prog_name="tusd-py")


def sweep(folder: Path, *flags: str) -> tuple[int, list[str]]:
    """Sweep in a process of its own; return exit code and the lines on stdout."""
    done = subprocess.run(
        program("sweep", "--upload-dir", str(folder), *flags),
        capture_output=True,
        text=True,
        env=surroundings(),
        timeout=PATIENCE,
    )
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout.splitlines()


def words(text: str) -> str:
    """Return ``text`` without the line breaks and blanks of a help page."""
    return "".join(text.split())


@pytest.fixture
def abandoned(tmp_path: Path) -> tuple[Path, str]:
    """A folder with an upload that nobody has touched for years, and its id."""
    folder = tmp_path / "uploads"
    with ServerProcess(folder) as server:
        id = Server(server.port).create(length=5).removeprefix("/files/")
    for path in folder.glob("partial/*"):
        os.utime(path, (LONG_AGO, LONG_AGO))
    return folder, id


def test_the_version_is_told() -> None:
    assert run("--version").output == f"tusd-py {__version__}\n"


def test_help_names_the_commands() -> None:
    output = " ".join(run("--help").output.split())
    assert "serve Accept uploads until told to stop." in output
    assert "sweep Remove expired uploads" in output
    assert "config Print the settings in force" in output


@pytest.mark.parametrize("argument", ["--help", "--version"])
def test_help_imports_nothing_slow(argument: str) -> None:
    script = (
        f"import atexit, sys; sys.argv = ['tusd-py', {argument!r}]\n"
        "slow = {'pydantic', 'uvicorn', 'starlette'}\n"
        "atexit.register(lambda: print(slow & set(sys.modules), file=sys.stderr))\n"
        "from tusd_py.cli import main\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=surroundings())
    assert (done.returncode, done.stderr) == (0, "set()\n")


@pytest.mark.parametrize("setting", describe_settings(), ids=lambda setting: setting.name)
def test_help_tells_flag_default_unit_and_variable_of_every_setting(setting: Setting) -> None:
    output = words(run("serve", "--help").output)
    unit = f";unit:{setting.unit}" if setting.unit else ""
    assert setting.flag in output
    assert words(f"{setting.help}[default:{setting.default}{unit};env:{setting.variable}]") in output


def test_sweep_has_the_flags_that_it_depends_on() -> None:
    output = run("sweep", "--help").output
    told = {setting.name for setting in describe_settings() if f"{setting.flag} " in output}
    assert told == set(SWEEP_SETTINGS)


@pytest.mark.parametrize(
    ("arguments", "sentences"),
    [
        (["--port", "http"], ["--port: must be a whole number, not 'http'"]),
        (["--max-file-size", "5G"], ["--max-file-size: '5G' is no size; write bytes or a number with its unit"]),
        (["--sniff", "no", "--workers", "0"], ["--sniff: must be", "--workers: must be greater than"]),
        (["--cors-allow-credentials"], ["--cors-allow-credentials: credentials are never allowed to all origins"]),
        (["--speed", "9"], ["--speed"]),
    ],
)
def test_a_bad_flag_is_told_in_a_sentence(arguments: Iterable[str], sentences: Iterable[str]) -> None:
    result = run("serve", *arguments)
    assert result.exit_code == 2
    assert all(sentence in result.stderr for sentence in sentences)


def test_a_bad_variable_is_named_as_such() -> None:
    result = run("serve", TUSD_PY_PORT="http")
    assert result.exit_code == 2
    assert "TUSD_PY_PORT: must be a whole number, not 'http'" in result.stderr


def test_a_flag_counts_more_than_a_variable() -> None:
    """Also a bad one than a good one."""
    result = run("serve", "--port", "http", TUSD_PY_PORT="80")
    assert "--port: must be a whole number" in result.stderr


def test_sweep_removes_what_is_expired(abandoned: tuple[Path, str]) -> None:
    folder, id = abandoned
    assert sweep(folder) == (0, [f"expired {id}", "1 expired, 0 finished, 0 leftover: removed"])
    assert not list(folder.glob("partial/*"))
    assert sweep(folder) == (0, ["0 expired, 0 finished, 0 leftover: removed"])


def test_sweep_only_tells_in_a_dry_run(abandoned: tuple[Path, str]) -> None:
    folder, id = abandoned
    before = sorted(folder.glob("partial/*"))
    code, lines = sweep(folder, "--dry-run")
    assert (code, lines[0]) == (0, f"expired {id}")
    assert "nothing was removed" in lines[-1]
    assert sorted(folder.glob("partial/*")) == before


def test_sweep_keeps_what_is_not_expired_by_its_settings(abandoned: tuple[Path, str]) -> None:
    folder, _ = abandoned
    assert sweep(folder, "--partial-upload-expiry-seconds", "none") == (
        0,
        ["0 expired, 0 finished, 0 leftover: removed"],
    )


@pytest.fixture
def waiting(tmp_path: Path) -> tuple[Path, str, list[str]]:
    """A folder with a final of 6 bytes whose last partial got its last byte in a crash; the ids of all of them."""
    folder, partial = tmp_path / "uploads", "Upload-Concat: partial\r\n"
    with ServerProcess(folder, "--allowed-upload-extensions", "*", "--sniff", "off") as process:
        server = Server(process.port)
        members = [server.create(partial, length=3), server.create(partial, length=3)]
        assert server.append(members[0], 0, b"abc").status == 204
        final = server.create(f"Upload-Concat: final;{' '.join(members)}\r\n", length=None)
        assert server.append(members[1], 0, b"de").status == 204
    ids = [member.removeprefix("/files/") for member in members]
    with (folder / f"partial/{ids[1]}.part").open("ab") as data:
        data.write(b"f")
    return folder, final.removeprefix("/files/"), ids


ANYTHING = ("--allowed-upload-extensions", "*", "--sniff", "off")


def test_sweep_completes_what_a_crash_left_and_leaves_its_parts_to_their_time(
    waiting: tuple[Path, str, list[str]],
) -> None:
    folder, final, members = waiting
    for _ in range(2):  # the partial first, then what waits for it
        assert sweep(folder, *ANYTHING)[0] == 0
    assert (folder / f"{final}.bin").read_bytes() == b"abcdef"
    assert all((folder / f"partial/{member}.part").exists() for member in members)


def test_sweep_removes_parts_after_use_where_the_server_does(waiting: tuple[Path, str, list[str]]) -> None:
    folder, final, _ = waiting
    for _ in range(2):
        assert sweep(folder, *ANYTHING, "--remove-partials-after-use")[0] == 0
    assert (folder / f"{final}.bin").read_bytes() == b"abcdef"
    assert not list((folder / "partial").iterdir())


def test_sweep_judges_by_the_maximum_of_the_server(waiting: tuple[Path, str, list[str]]) -> None:
    folder, final, members = waiting
    swept = [sweep(folder, *ANYTHING, "--max-file-size", "5") for _ in range(2)]
    assert f"expired {final}" in [line for _, lines in swept for line in lines]
    assert not list(folder.rglob(f"{final}*"))
    assert all((folder / f"partial/{member}.part").exists() for member in members)


def test_sweep_makes_no_folder(tmp_path: Path) -> None:
    result = run("sweep", "--upload-dir", str(tmp_path / "typo"))
    assert result.exit_code == 1
    assert "there is no folder" in result.stderr
    assert not (tmp_path / "typo").exists()


def test_sweep_tells_trouble_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "partial").touch()
    done = subprocess.run(
        program("sweep", "--upload-dir", str(tmp_path)), capture_output=True, text=True, env=surroundings()
    )
    assert done.returncode == 1
    assert "cannot be swept" in done.stderr
    assert done.stderr.count("\n") == 1
