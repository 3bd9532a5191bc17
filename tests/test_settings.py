"""Where settings come from, what they are by default, and what is said of bad ones."""

from __future__ import annotations

import json
import tempfile
from datetime import timedelta
from pathlib import Path

import pytest

from tusd_py.settings import InvalidSettings, Knobs, Setting, Settings, default_folder, describe_settings

PAGE = Path(__file__).parents[1] / "docs" / "settings.md"


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for setting in describe_settings():
        monkeypatch.delenv(setting.variable, raising=False)


def complaint(**knobs: object) -> str:
    """Return what is said of settings that are wrong."""
    with pytest.raises(InvalidSettings) as caught:
        Settings(**knobs)  # type: ignore[arg-type]  # wrong on purpose
    return str(caught.value)


def row(setting: Setting) -> str:
    """Return the line that tells of ``setting`` in the table of the documentation."""
    default = f"`{setting.default}`"
    return (
        f"| `{setting.name}` | `{setting.variable}` | `{setting.flag}` | {default} | {setting.unit} | {setting.help} |"
    )


def test_the_defaults_are_those_that_matter() -> None:
    settings = Settings()
    assert settings.upload_dir == Path(tempfile.gettempdir(), "tusd_py_uploads")
    assert settings.max_file_size == 5 * 1024**3
    assert settings.chunk_size == 1024**2
    assert settings.buffer_memory == 64 * 1024**2
    assert settings.partial_upload_expiry_seconds == 600
    assert settings.completed_upload_expiry_seconds is None
    assert settings.sweep_interval_seconds == 60
    assert " ".join(settings.allowed_upload_extensions) == (
        ".mp3 .wav .awb .aac .ogg .oga .m4a .wma .amr .mp4 .mov .avi .wmv .mkv .flac .webm"
    )
    assert (settings.sniff, settings.fsync, settings.base_path) == ("lenient", "completion", "/files/")
    assert (settings.host, settings.port, settings.workers) == ("127.0.0.1", 8080, 1)


def test_there_is_a_default_folder_also_where_nothing_can_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: ["/proc/no/such/folder"])
    monkeypatch.setenv("TMPDIR", "/somewhere")
    assert default_folder() == Path("/somewhere/tusd_py_uploads")


def test_a_keyword_counts_more_than_a_variable_and_a_variable_more_than_the_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TUSD_PY_MAX_FILE_SIZE", "1GiB")
    monkeypatch.setenv("TUSD_PY_PORT", "9000")
    settings = Settings(max_file_size="2GiB")
    assert (settings.max_file_size, settings.port, settings.workers) == (2 * 1024**3, 9000, 1)


def test_variables_are_written_like_keywords(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUSD_PY_ALLOWED_UPLOAD_EXTENSIONS", "MP3, wav")
    monkeypatch.setenv("TUSD_PY_PARTIAL_UPLOAD_EXPIRY_SECONDS", "1h30m")
    monkeypatch.setenv("TUSD_PY_CORS_ALLOW_ORIGINS", "https://a.example,https://b.example")
    monkeypatch.setenv("TUSD_PY_CORS_ALLOW_CREDENTIALS", "yes")
    monkeypatch.setenv("TUSD_PY_LOG_LEVEL", "DEBUG")
    monkeypatch.setenv("TUSD_PY_MAX_FILE_SIZE", "off")
    settings = Settings()
    assert settings.allowed_upload_extensions == (".mp3", ".wav")
    assert settings.partial_upload_expiry_seconds == 5400
    assert settings.cors_allow_origins == ("https://a.example", "https://b.example")
    assert settings.cors_allow_credentials
    assert settings.log_level == "debug"
    assert settings.max_file_size is None


def test_an_empty_variable_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compose files hand on variables that nobody has set as empty ones."""
    monkeypatch.setenv("TUSD_PY_PORT", "")
    assert Settings().port == 8080


def test_a_variable_of_somebody_else_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kubernetes makes it for a service of our name."""
    monkeypatch.setenv("TUSD_PY_SERVICE_HOST", "10.0.0.1")
    assert Settings() == Settings()


def test_python_values_are_understood_too() -> None:
    settings = Settings(
        upload_dir=Path("/srv/uploads"),
        partial_upload_expiry_seconds=timedelta(hours=1),
        allowed_upload_extensions=["mp3"],
        max_file_size=None,
    )
    assert settings.upload_dir == Path("/srv/uploads")
    assert settings.partial_upload_expiry_seconds == 3600
    assert settings.allowed_upload_extensions == (".mp3",)
    assert settings.max_file_size is None


def test_settings_survive_a_way_through_json() -> None:
    """Worker processes get them so."""
    settings = Settings(
        max_file_size="none", cors_allow_origins="off", base_path="/", public_url="https://example.org/"
    )
    assert Settings(**json.loads(settings.model_dump_json())) == settings


@pytest.mark.parametrize(
    ("knobs", "sentence"),
    [
        ({"max_file_size": "5G"}, "max_file_size: '5G' is no size; write bytes or a number with its unit"),
        ({"chunk_size": "1KiB"}, "chunk_size: must be greater than or equal to 65536"),
        ({"sweep_interval_seconds": 0}, "sweep_interval_seconds: must be greater than 0"),
        ({"port": "http"}, "port: must be a whole number, not 'http'"),
        ({"port": 65536}, "port: must be less than or equal to 65535, not 65536"),
        ({"workers": 0}, "workers: must be greater than or equal to 1, not 0"),
        ({"workers": 1.5}, "workers: must be a whole number, not 1.5"),
        ({"host": ""}, "host: must not be empty"),
        ({"sniff": "maybe"}, "sniff: must be 'lenient', 'strict' or 'off', not 'maybe'"),
        ({"fsync": 3}, "fsync: must be 'never', 'completion' or 'request', not 3"),
        ({"cors_allow_credentials": "perhaps"}, "cors_allow_credentials: must be true or false, not 'perhaps'"),
        ({"allowed_upload_extensions": ""}, "allowed_upload_extensions: no extension is allowed; name at least one"),
        ({"allowed_upload_extensions": "a/b"}, "allowed_upload_extensions: 'a/b' is no extension; write a dot"),
        (
            {"form_path": "/files/form"},
            "form_path: /files/form lies where uploads are (/files/); choose a path beside it",
        ),
        ({"base_path": "/upload/"}, "form_path: /upload/stream lies where uploads are (/upload/); choose a path"),
        ({"health_path": "/upload/stream"}, "health_path: /upload/stream is form_path already; choose another one"),
        ({"form_max_files": 0}, "form_max_files: must be greater than or equal to 1, not 0"),
        ({"max_size": "1GiB"}, "max_size: there is no such setting"),
    ],
)
def test_a_bad_value_is_told_in_one_sentence(knobs: dict[str, object], sentence: str) -> None:
    told = complaint(**knobs)
    assert told.startswith(sentence)
    assert "\n" not in told


def test_each_bad_value_has_its_sentence() -> None:
    assert len(complaint(port="a", workers="b", sniff="c").splitlines()) == 3


def test_a_bad_variable_is_named_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUSD_PY_PORT", "tcp://10.0.0.1:80")
    assert complaint() == "TUSD_PY_PORT: must be a whole number, not 'tcp://10.0.0.1:80'"


def test_credentials_are_never_allowed_to_every_origin() -> None:
    assert "name some in cors_allow_origins" in complaint(cors_allow_credentials=True)
    assert "name some in" in complaint(cors_allow_credentials=True, cors_allow_origins="*, https://a.example")
    assert Settings(cors_allow_credentials=True, cors_allow_origins="https://a.example").cors_allow_credentials


def test_the_keywords_are_the_settings() -> None:
    assert list(Knobs.__annotations__) == list(Settings.model_fields)


def test_a_default_that_is_told_is_the_default() -> None:
    told = {setting.name: setting.default for setting in describe_settings() if not setting.default.startswith("<")}
    told = {name: "" if value == "empty" else value for name, value in told.items()}
    assert Settings(**told) == Settings()  # type: ignore[arg-type]  # as people write them


def test_the_documentation_tells_every_setting_as_it_is() -> None:
    rows = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    assert rows == [row(setting) for setting in describe_settings()]
