"""What can be said of the image without an engine that builds it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.server_process import ServerProcess, surroundings
from tusd_py.settings import Settings, describe_settings

ROOT = Path(__file__).parents[2]


def instructions() -> list[tuple[str, str]]:
    """Return the instructions of the Dockerfile with their arguments, lines joined and comments dropped."""
    lines = [line for line in (ROOT / "Dockerfile").read_text().splitlines() if not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", "").splitlines()
    return [(name, rest.strip()) for name, _, rest in (line.partition(" ") for line in joined) if name]


def last(name: str) -> str:
    """Return the arguments of the last instruction ``name``: the one that counts in the final image."""
    return [arguments for instruction, arguments in instructions() if instruction == name][-1]


def variables() -> dict[str, str]:
    return dict(pair.split("=", 1) for pair in last("ENV").split())


def health_check() -> list[str]:
    options, _, command = last("HEALTHCHECK").partition(" CMD ")
    assert re.fullmatch(r"(--[a-z-]+=\w+ ?)+", options)
    program, *arguments = json.loads(command)
    assert [program, *arguments[:2]] == json.loads(last("ENTRYPOINT"))
    return [sys.executable, *arguments]


def test_everything_that_is_copied_from_the_project_is_there() -> None:
    sources = [
        source
        for name, arguments in instructions()
        if name == "COPY" and not arguments.startswith("--from")
        for source in arguments.split()[:-1]
    ]
    assert "tusd_py" in sources
    assert [source for source in sources if not (ROOT / source).exists()] == []


def test_the_server_is_nobody_special_and_keeps_uploads_in_its_own_volume() -> None:
    user = last("USER")
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)
    folder = variables()["TUSD_PY_UPLOAD_DIR"]
    assert json.loads(last("VOLUME")) == [folder]
    assert ("COPY", f"--from=build --chown={user} {folder} {folder}") in instructions()


def test_its_variables_are_settings() -> None:
    known = {setting.variable: setting.name for setting in describe_settings()}
    given = {known[name]: value for name, value in variables().items() if name.startswith("TUSD_PY_")}
    settings = Settings(**given)  # type: ignore[arg-type]  # written as in an environment
    assert (settings.host, str(settings.port)) == ("0.0.0.0", last("EXPOSE"))


def test_signals_reach_the_server_because_no_shell_stands_between() -> None:
    assert json.loads(last("ENTRYPOINT")) == ["/usr/bin/python3", "-m", "tusd_py"]
    assert json.loads(last("CMD")) == ["serve"]


def test_it_is_healthy_while_it_answers(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "uploads") as server:
        environment = surroundings({"TUSD_PY_PORT": str(server.port)})
        assert subprocess.run(health_check(), env=environment, timeout=30).returncode == 0
    assert subprocess.run(health_check(), env=environment, timeout=30, capture_output=True).returncode != 0


@pytest.mark.parametrize("name", ["apt-get install", "pip install"])
def test_nothing_is_installed_in_the_final_image(name: str) -> None:
    _, _, final = (ROOT / "Dockerfile").read_text().partition("FROM gcr.io")
    assert name not in final
