"""Settings from a file and from a folder of secrets, and what ``tusd-py config`` says of them."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tusd_py.cli import main
from tusd_py.settings import InvalidSettings, Settings, describe_settings


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for setting in describe_settings():
        monkeypatch.delenv(setting.variable, raising=False)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "tusd-py.toml"
    path.write_text('max_file_size = "1GiB"\nport = 9000\nallowed_upload_extensions = ["mp3", ".wav"]\n')
    return path


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    folder = tmp_path / "secrets"
    folder.mkdir()
    (folder / "tusd_py_port").write_text("9001\n")
    (folder / "tusd_py_public_url").write_text("https://hidden.example\n")
    (folder / "somebody_elses").write_text("no business of ours")
    return folder


def config(*flags: str) -> Result:
    return CliRunner().invoke(main, ["config", *flags], prog_name="tusd-py")


def complaint(**knobs: object) -> str:
    with pytest.raises(InvalidSettings) as caught:
        Settings(**knobs)  # type: ignore[arg-type]  # wrong on purpose
    return str(caught.value)


def test_a_file_says_what_it_says(file: Path) -> None:
    settings = Settings(config=file)
    assert (settings.max_file_size, settings.port) == (1024**3, 9000)
    assert settings.allowed_upload_extensions == (".mp3", ".wav")


def test_the_file_can_be_named_by_a_variable(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUSD_PY_CONFIG", str(file))
    assert Settings().port == 9000


def test_the_weightier_source_counts(file: Path, secrets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings(config=file, secrets_dir=secrets).port == 9001
    monkeypatch.setenv("TUSD_PY_PORT", "9002")
    assert Settings(config=file, secrets_dir=secrets).port == 9002
    assert Settings(config=file, secrets_dir=secrets, port=9003).port == 9003


def test_config_tells_values_and_where_they_come_from(
    file: Path, secrets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUSD_PY_SNIFF", "off")
    monkeypatch.setenv("TUSD_PY_SECRETS_DIR", str(secrets))
    lines = config("--config", str(file), "--workers", "2").output.splitlines()
    assert [line.split(" ")[0] for line in lines if not line.startswith("#")] == [
        setting.name
        for setting in describe_settings()
        if setting.name not in ("port", "public_url", "config", "secrets_dir")
    ]
    assert f"max_file_size = 1073741824  # the file {file}" in lines
    assert f"# port is secret  # the folder {secrets}" in lines
    assert 'sniff = "off"  # TUSD_PY_SNIFF' in lines
    assert "workers = 2  # --workers" in lines
    assert 'fsync = "completion"  # default' in lines


def test_config_hides_what_is_secret(secrets: Path) -> None:
    output = config("--secrets-dir", str(secrets)).output
    assert "hidden.example" not in output
    assert "9001" not in output


def test_what_config_prints_is_a_file_that_means_the_same(tmp_path: Path, file: Path) -> None:
    printed = tmp_path / "printed.toml"
    flags = ("--unix-sock-mode", "600", "--health-path", "none", "--cors-allow-origins", "https://a.example")
    printed.write_text(config("--config", str(file), *flags).output)
    known = tomllib.loads(printed.read_text())
    assert known["unix_sock_mode"] == "600"
    again = Settings(config=printed)
    told = Settings(config=file, unix_sock_mode="600", health_path="none", cors_allow_origins="https://a.example")
    assert again.model_copy(update={"config": file}) == told


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("prot = 1\n", "prot in the file {file}: there is no such setting"),
        ("[server]\nport = 1\n", "server in the file {file}: there is no such setting"),
        ("port = 'http'\n", "port in the file {file}: must be a whole number, not 'http'"),
        ("port = \n", "config: {file} is no TOML: "),
        ("max_file_size = 1979-05-27\n", "max_file_size in the file {file}: datetime.date(1979, 5, 27) is no size"),
    ],
)
def test_a_bad_file_is_told_in_a_sentence(file: Path, text: str, sentence: str) -> None:
    file.write_text(text)
    told = complaint(config=file)
    assert told.startswith(sentence.format(file=file))
    assert "\n" not in told


def test_a_file_that_is_not_there_is_not_an_empty_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert complaint(config=tmp_path / "typo").endswith("typo cannot be read: No such file or directory")
    monkeypatch.setenv("TUSD_PY_CONFIG", str(tmp_path))
    assert complaint() == f"TUSD_PY_CONFIG: {tmp_path} cannot be read: Is a directory"
    assert complaint(config=3).startswith("config: 3 is no path")


def test_bytes_that_are_no_text_are_told_in_a_sentence(file: Path, secrets: Path) -> None:
    file.write_bytes(b"\xff\xfe")
    assert "is no TOML" in complaint(config=file)
    (secrets / "tusd_py_host").write_bytes(b"\xff")
    assert "holds a file that is no setting" in complaint(secrets_dir=secrets)


def test_a_folder_of_secrets_that_is_not_there_is_told(tmp_path: Path) -> None:
    assert complaint(secrets_dir=tmp_path / "typo").endswith("typo cannot be read: No such file or directory")


def test_a_bad_secret_is_not_told(secrets: Path) -> None:
    (secrets / "tusd_py_port").write_text("hunter2")
    assert complaint(secrets_dir=secrets) == f"port in the folder {secrets}: its value cannot be used"


def test_a_source_is_named_only_where_it_is_looked_for(file: Path) -> None:
    """A file cannot send us to another one."""
    file.write_text('secrets_dir = "/no/such/folder"\n')
    assert complaint(config=file) == f"config: {file} sets secrets_dir, which only a flag or a variable can"


def test_the_command_line_says_it_in_its_words(tmp_path: Path) -> None:
    result = config("--config", os.fspath(tmp_path / "typo"))
    assert result.exit_code == 2
    assert "--config: " in result.stderr
