"""Every knob, once: its name, its default, its unit and what it does.

A value comes from the first of these that has it: a keyword (``Settings(max_file_size="1GiB")``; flags of the command
line are keywords), the environment (``TUSD_PY_MAX_FILE_SIZE=1GiB``), the folder of secret files, the TOML file
(``sources.py`` knows those), the default. All are written alike, and ``values.py`` says how. Variables with our prefix
that name no setting are left alone: Kubernetes makes some for a service that is called tusd-py.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict, Unpack, get_args

from pydantic import BeforeValidator, Field, ValidationError, ValidationInfo, field_validator
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from tusd_py import values
from tusd_py.intake import SMALLEST_SLAB
from tusd_py.media import Sniff
from tusd_py.sources import FILE, FOLDER, PREFIX, Source, UnusableSource, sources_of, variable_of
from tusd_py.storage.disk import Fsync

LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["text", "json"]


@dataclass(frozen=True, slots=True)
class Kind:
    """How people write the values of a type.

    ``metavar`` stands for one in the help; ``unit`` is that of a bare number; ``default`` says what the default itself
    would not.
    """

    metavar: str
    unit: str = ""
    default: str = ""


SIZE = Kind("SIZE", "bytes")
DURATION = Kind("DURATION", "seconds")
LIST = Kind("LIST")
PATH = Kind("PATH")

Size = Annotated[int, BeforeValidator(values.parse_size), SIZE]
SizeLimit = Annotated[int | None, BeforeValidator(values.or_none(values.parse_size)), SIZE]
SlabSize = Annotated[Size, Field(ge=SMALLEST_SLAB)]
Duration = Annotated[float, BeforeValidator(values.parse_duration), DURATION]
DurationLimit = Annotated[float | None, BeforeValidator(values.or_none(values.parse_duration)), DURATION]
Interval = Annotated[Duration, Field(gt=0)]
Folder = Annotated[Path, BeforeValidator(values.parse_folder), Kind("FOLDER", default="<system temp>/tusd_py_uploads")]
Extensions = Annotated[tuple[str, ...], BeforeValidator(values.parse_extensions), LIST]
Origins = Annotated[tuple[str, ...], BeforeValidator(values.parse_origins), LIST]
FieldNames = Annotated[tuple[str, ...], BeforeValidator(values.parse_field_names), LIST]
PublicUrl = Annotated[str | None, BeforeValidator(values.parse_public_url), Kind("URL")]
BasePath = Annotated[str, BeforeValidator(values.parse_base_path), PATH]
RootPath = Annotated[str, BeforeValidator(values.parse_root_path), PATH]
ProxyList = Annotated[tuple[str, ...], BeforeValidator(values.parse_proxies), LIST]
HostList = Annotated[tuple[str, ...], BeforeValidator(values.parse_hosts), LIST]
PathBeside = Annotated[str | None, BeforeValidator(values.parse_probe_path), PATH]
File = Annotated[Path | None, BeforeValidator(values.parse_path), Kind("FILE")]
OptionalFolder = Annotated[Path | None, BeforeValidator(values.parse_path), Kind("FOLDER")]
SocketPath = Annotated[Path | None, BeforeValidator(values.parse_socket_path), PATH]
Mode = Annotated[int, BeforeValidator(values.parse_mode), Kind("MODE")]
Descriptor = Annotated[int | None, BeforeValidator(values.parse_descriptor), Kind("NUMBER")]
Host = Annotated[str, Field(min_length=1), Kind("ADDRESS")]
Port = Annotated[int, Field(ge=0, le=65535), Kind("NUMBER")]
Count = Annotated[int, Field(ge=1), Kind("NUMBER")]
CountLimit = Annotated[int | None, BeforeValidator(values.or_none(values.parse_count)), Kind("NUMBER")]

# What is answered beside the uploads, each at a path of its own.
PATHS_BESIDE = ("form_path", "health_path", "ready_path")

# What keywords may hold for them.
SizeWords = int | str
DurationWords = float | str | timedelta
ListWords = str | Iterable[str]


class Knobs(TypedDict, total=False):
    """The settings as keywords, with everything that is understood for each."""

    upload_dir: str | os.PathLike[str]
    max_file_size: SizeWords | None
    min_file_size: SizeWords
    max_append_size: SizeWords | None
    min_append_size: SizeWords
    chunk_size: SizeWords
    buffer_memory: SizeWords
    partial_upload_expiry_seconds: DurationWords | None
    partial_upload_lifetime_seconds: DurationWords | None
    completed_upload_expiry_seconds: DurationWords | None
    sweep_interval_seconds: DurationWords
    allowed_upload_extensions: ListWords
    sniff: Sniff
    fsync: Fsync
    space_reserve: SizeWords
    disable_concatenation: bool
    remove_partials_after_use: bool
    create_with_put: bool
    draft_without_version: bool
    base_path: str
    form_path: str | None
    form_max_files: int
    public_url: str | None
    root_path: str
    disable_download: bool
    relative_location: bool
    trusted_proxies: ListWords
    allowed_hosts: ListWords
    host: str
    port: int
    unix_sock: str | os.PathLike[str] | None
    unix_sock_mode: int | str
    fd: int | str | None
    tls_certificate: str | os.PathLike[str] | None
    tls_key: str | os.PathLike[str] | None
    workers: int
    lock_timeout_seconds: DurationWords
    max_connections: int | str | None
    max_connections_per_client: int | str | None
    head_timeout_seconds: DurationWords | None
    body_idle_timeout_seconds: DurationWords | None
    min_body_rate: SizeWords
    send_timeout_seconds: DurationWords | None
    shutdown_timeout_seconds: DurationWords
    cors_allow_origins: ListWords
    cors_allow_credentials: bool
    cors_allow_headers: ListWords
    cors_expose_headers: ListWords
    cors_max_age_seconds: DurationWords
    health_path: str | None
    ready_path: str | None
    log_level: LogLevel
    log_format: LogFormat
    config: str | os.PathLike[str] | None
    secrets_dir: str | os.PathLike[str] | None


def default_folder() -> Path:
    """Return where uploads are kept when nobody says so: a folder below the temporary one of the system."""
    try:
        parent = tempfile.gettempdir()
    except FileNotFoundError:
        # It tries to write, and finds no place on a disk that is full or read-only. Another folder may be set.
        parent = os.environ.get("TMPDIR") or "/tmp"  # noqa: S108 (only a name here; the store makes its folder 0700)
    return Path(parent, "tusd_py_uploads")


def _knob(default: object, help: str) -> Any:
    # A default is written as people write values and read like them, so that the help can show it as it stands.
    return Field(default, description=help, validate_default=True)


class Settings(BaseSettings):
    """All settings, valid. ``None`` means no limit. Sizes are in bytes, durations in seconds.

    Raises:
        InvalidSettings: with one sentence for each value that cannot be used.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_ignore_empty=True,
        enable_decoding=False,
        extra="forbid",
        frozen=True,
    )

    upload_dir: Folder = _knob(default_folder(), "Where uploads are kept; made if it is missing.")
    max_file_size: SizeLimit = _knob("5GiB", "The largest upload that is accepted; 0: no limit.")
    min_file_size: Size = _knob("0", "The smallest upload that is accepted.")
    max_append_size: SizeLimit = _knob(
        None, "The most that one request of the IETF draft may hold; 0: no limit but that of the upload."
    )
    min_append_size: Size = _knob(
        "0", "The least that one request of the IETF draft may hold, unless it is the last one of its upload."
    )
    chunk_size: SlabSize = _knob("1MiB", "The largest buffer of one upload between network and storage.")
    buffer_memory: SlabSize = _knob("64MiB", "What the buffers of all uploads in one process hold together.")
    partial_upload_expiry_seconds: DurationLimit = _knob(
        "600", "How long an unfinished upload is kept after its last byte; 0: for ever."
    )
    partial_upload_lifetime_seconds: DurationLimit = _knob(
        None, "How long an upload may stay unfinished after its creation, however busy it is; 0: for ever."
    )
    completed_upload_expiry_seconds: DurationLimit = _knob(None, "How long a finished upload is kept; 0: for ever.")
    sweep_interval_seconds: Interval = _knob("60", "The time between two looks for what has expired.")
    allowed_upload_extensions: Extensions = _knob(
        ".mp3, .wav, .awb, .aac, .ogg, .oga, .m4a, .wma, .amr, .mp4, .mov, .avi, .wmv, .mkv, .flac, .webm",
        "What the names of uploads may end with; * allows all.",
    )
    sniff: Annotated[Sniff, BeforeValidator(values.lower)] = _knob(
        "lenient",
        "How the first bytes are judged. lenient: refuse what is positively something else than the name says; "
        "strict: demand that it is recognised; off: do not look.",
    )
    fsync: Annotated[Fsync, BeforeValidator(values.lower)] = _knob(
        "completion",
        "What survives a loss of power. completion: finished uploads; request: everything that was acknowledged; "
        "never: what the system has written by itself.",
    )
    space_reserve: Size = _knob("0", "What new uploads leave free on the disk.")
    disable_concatenation: bool = _knob(False, "Take no uploads in several parts that are joined at the end.")
    remove_partials_after_use: bool = _knob(
        False,
        "Remove the parts as soon as an upload was made of them, instead of letting them expire. Those that "
        "another upload waits for stay until that one is made too.",
    )
    create_with_put: bool = _knob(False, "Let clients of the IETF draft create uploads with PUT as well as with POST.")
    draft_without_version: bool = _knob(
        False,
        "Take requests with Upload-Complete and without an interop version for the newest one of the IETF draft, as "
        "the coming RFC will have them.",
    )
    base_path: BasePath = _knob("/files/", "The path of the endpoint.")
    form_path: PathBeside = _knob(
        "/upload/stream", "Where plain forms are taken, from clients that know no tus; none: nowhere."
    )
    form_max_files: Count = _knob(
        1, "How many files one form may have; above 1, a form is answered with a list of what became of them."
    )
    public_url: PublicUrl = _knob(
        None,
        "What stands before the base path in the URLs that clients are given, for proxies that hide scheme, host or "
        "path from us; none: each request tells.",
    )
    root_path: RootPath = _knob("", "The path that a proxy strips before it passes requests on.")
    disable_download: bool = _knob(False, "Serve no downloads: GET is answered 405.")
    relative_location: bool = _knob(
        False, "Give clients URLs without scheme and host, for proxies that change both and tell neither."
    )
    trusted_proxies: ProxyList = _knob(
        "127.0.0.1, ::1, unix",
        "The peers whose X-Forwarded-Proto, -Host, -Prefix, -For and Forwarded are believed: addresses, networks, unix "
        "for all on a Unix socket, * for all.",
    )
    allowed_hosts: HostList = _knob(
        "none",
        "The hosts that requests may be for, without ports, * for all; localhost and that of the public URL always "
        "are. none: all, but only those two where serve listens on a loopback address.",
    )
    host: Host = _knob("127.0.0.1", "The address to listen on; 0.0.0.0 or :: for all.")
    port: Port = _knob(8080, "The port to listen on; 0: any free one.")
    unix_sock: SocketPath = _knob(
        None, "The path of a Unix socket to listen on instead; none: listen on host and port."
    )
    unix_sock_mode: Mode = _knob("660", "The rights of the Unix socket: who can connect.")
    fd: Descriptor = _knob(
        None, "A descriptor, or fd:// and its number, of a socket that listens already, instead of host and port."
    )
    tls_certificate: File = _knob(None, "The certificate with its chain, in PEM, for HTTPS; none: serve plain HTTP.")
    tls_key: File = _knob(None, "The key of the certificate, in PEM, without a password.")
    workers: Count = _knob(1, "How many processes serve.")
    lock_timeout_seconds: Duration = _knob(
        "20", "How long a request waits for another one that holds its upload, before it is answered 423."
    )
    max_connections: CountLimit = _knob(
        "10000", "How many connections one process has at once; idle ones make room for new ones. 0: any number."
    )
    max_connections_per_client: CountLimit = _knob(
        None, "How many of them one address may have, unless it is a trusted proxy; 0: any number."
    )
    head_timeout_seconds: DurationLimit = _knob(
        "20", "How long a client may take to send the head of a request; 0: for ever."
    )
    body_idle_timeout_seconds: DurationLimit = _knob(
        "60", "How long a client may fall silent in the middle of a body; 0: for ever."
    )
    min_body_rate: Size = _knob(
        "0", "How many bytes a second a body brings at least, seen over ten seconds; one that is slower is ended."
    )
    send_timeout_seconds: DurationLimit = _knob(
        "60", "How long a client may take nothing of an answer, of a download for example; 0: for ever."
    )
    shutdown_timeout_seconds: Duration = _knob(
        "10", "How long running requests may take to end once the server is told to stop."
    )
    cors_allow_origins: Origins = _knob(
        "*", "The origins of pages that may upload; * allows all, none switches CORS off."
    )
    cors_allow_credentials: bool = _knob(False, "Let pages send cookies; not together with the origin *.")
    cors_allow_headers: FieldNames = _knob("", "Header fields that pages may send beyond those of tus.")
    cors_expose_headers: FieldNames = _knob("", "Header fields that pages may read beyond those of tus.")
    cors_max_age_seconds: Duration = _knob("86400", "How long browsers may remember what is allowed.")
    health_path: PathBeside = _knob("/healthz", "Where the server says that it is alive; none: nowhere.")
    ready_path: PathBeside = _knob("/readyz", "Where the server says whether it can take uploads; none: nowhere.")
    log_level: Annotated[LogLevel, BeforeValidator(values.lower)] = _knob("info", "What is logged at least.")
    log_format: Annotated[LogFormat, BeforeValidator(values.lower)] = _knob(
        "text", "How a line of the log is written. text: for people; json: one object, for programs."
    )
    config: File = _knob(None, "A TOML file with settings by their names; it counts less than flags and variables.")
    secrets_dir: OptionalFolder = _knob(
        None, "A folder with a file for each setting, named as its variable; it counts more than the TOML file."
    )

    def __init__(self, **knobs: Unpack[Knobs]) -> None:
        try:
            super().__init__(**knobs)
        except UnusableSource as error:
            source = None if error.setting in knobs else ENVIRONMENT
            raise InvalidSettings([Problem(error.setting, source, str(error))]) from None
        except ValidationError as error:
            told = origins(knobs)
            raise InvalidSettings(_problem(details, told) for details in error.errors()) from None

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return all sources, the weightiest first."""
        assert isinstance(init_settings, InitSettingsSource)
        return (init_settings, *(read.reader for read in sources_of(settings_cls, init_settings.init_kwargs)))

    @field_validator("min_append_size", "min_file_size")
    @classmethod
    def _check_least(cls, least: int, info: ValidationInfo) -> int:
        setting = f"max_{str(info.field_name).removeprefix('min_')}"
        most = info.data.get(setting)
        if most is not None and least > most:
            raise ValueError(f"{least} bytes are more than {setting} ({most}) allows; choose a smaller size")
        return least

    @field_validator("tls_key")
    @classmethod
    def _check_tls(cls, key: Path | None, info: ValidationInfo) -> Path | None:
        if (key is None) != (info.data.get("tls_certificate") is None):
            raise ValueError("tls_certificate and tls_key belong together; give both or none")
        return key

    @field_validator(*PATHS_BESIDE)
    @classmethod
    def _check_beside(cls, path: str | None, info: ValidationInfo) -> str | None:
        base_path = info.data.get("base_path", "/files/")
        if path is not None and base_path != "/" and f"{path}/".startswith(base_path):
            raise ValueError(f"{path} lies where uploads are ({base_path}); choose a path beside it")
        for other in PATHS_BESIDE:
            if path is not None and path == info.data.get(other):
                raise ValueError(f"{path} is {other} already; choose another one")
        return path

    @field_validator("cors_allow_credentials")
    @classmethod
    def _check_credentials(cls, allowed: bool, info: ValidationInfo) -> bool:
        # Any page on the net could act in the name of its visitors (Fetch, "CORS protocol and credentials").
        if allowed and "*" in info.data.get("cors_allow_origins", ()):
            raise ValueError(
                "credentials are never allowed to all origins; name some in cors_allow_origins instead of *"
            )
        return allowed


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting as people meet it.

    ``default`` is written as they would write it, ``metavar`` says what kind of value is expected, ``unit`` is that of
    a bare number (``""`` where there is none), and ``is_switch`` tells that its flag takes no value.
    """

    name: str
    help: str
    default: str
    metavar: str
    unit: str
    is_switch: bool

    @property
    def variable(self) -> str:
        """The environment variable."""
        return variable_of(self.name)

    @property
    def flag(self) -> str:
        """The flag of the command line."""
        return flag_of(self.name)


def flag_of(name: str) -> str:
    """Return the flag of the setting ``name``."""
    return "--" + name.replace("_", "-")


def describe_settings() -> tuple[Setting, ...]:
    """Return all settings, in the order in which they are told."""
    return tuple(_describe(name, field) for name, field in Settings.model_fields.items())


def _describe(name: str, field: FieldInfo) -> Setting:
    is_switch = field.annotation is bool
    written = Kind("true|false") if is_switch else Kind("|".join(map(str, get_args(field.annotation))))
    kind = next((entry for entry in field.metadata if isinstance(entry, Kind)), written)
    return Setting(
        name=name,
        help=field.description or "",
        default=kind.default or _written(field.default),
        metavar=kind.metavar,
        unit=kind.unit,
        is_switch=is_switch,
    )


def _written(default: object) -> str:
    if default is None or isinstance(default, bool):
        return str(default).lower()
    return str(default) or "empty"


ENVIRONMENT = Source("the environment", is_variable=True)


def origins(knobs: Knobs) -> Mapping[str, Source]:
    """Return where each setting that ``knobs`` do not give, and that has not its default, comes from.

    Raises:
        InvalidSettings: a source cannot be read.
    """
    found: dict[str, Source] = {}
    try:
        reads = sources_of(Settings, knobs)
    except UnusableSource as error:
        source = None if error.setting in knobs else ENVIRONMENT
        raise InvalidSettings([Problem(error.setting, source, str(error))]) from None
    for read in reads:
        for name in read.reader():
            if name not in knobs:
                found.setdefault(name, read.source)
    return found


def explain(settings: Settings, knobs: Knobs) -> Iterator[str]:
    """Give ``settings``, made with ``knobs``, as lines of TOML, each with a comment on where the value comes from."""
    found = origins(knobs)
    for name in Settings.model_fields:
        source = found.get(name)
        value = getattr(settings, name)
        words = "default" if source is None else source.words
        if source is not None and source.is_variable:
            words = variable_of(name)
        if name in knobs:
            words = flag_of(name)
        if source is not None and source.is_secret and name not in knobs:
            # What was put into a file of its own is not for a terminal.
            yield f"# {name} is secret  # {words}"
        elif name in (FILE, FOLDER):
            yield f"# {name} = {_toml(name, value)}  # {words}"
        else:
            yield f"{name} = {_toml(name, value)}  # {words}"


def _toml(name: str, value: object) -> str:
    """Return ``value`` as TOML writes it, so that the setting ``name`` would be read as it is."""
    if name == "unix_sock_mode":
        return f'"{value:o}"'
    if isinstance(value, bool | int | float | tuple):
        # JSON writes those as TOML does.
        return json.dumps(value)
    return json.dumps("none" if value is None else str(value))


@dataclass(frozen=True, slots=True)
class Problem:
    """A value that cannot be used: of which setting, from where (``None``: a keyword), and what is wrong with it."""

    setting: str
    source: Source | None
    sentence: str

    def __str__(self) -> str:
        name = self.setting if self.source is None else self.source.name_of(self.setting)
        return f"{name}: {self.sentence}"


class InvalidSettings(ValueError):
    """Settings that nothing can be built from; ``problems`` has a sentence for each."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))


# What pydantic expects, where its own words are not for people.
EXPECTATIONS = {
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "int_from_float": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_type": "must be a whole number",
    "string_too_short": "must not be empty",
    "string_type": "must be text",
}


def _problem(details: ErrorDetails, told: Mapping[str, Source]) -> Problem:
    name = str(details["loc"][0])
    source = told.get(name)
    if source is not None and source.is_secret:
        return Problem(name, source, "its value cannot be used")
    return Problem(name, source, _sentence(details))


def _sentence(details: ErrorDetails) -> str:
    if details["type"] == "extra_forbidden":
        return "there is no such setting"
    if details["type"] == "value_error":
        return str(details["ctx"]["error"])
    expectation = EXPECTATIONS.get(details["type"]) or details["msg"].replace("Input should be", "must be")
    return f"{expectation}, not {details['input']!r}"
