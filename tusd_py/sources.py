"""Where settings come from beside keywords: the environment, a folder of secret files, a TOML file.

In this order of weight. The first two are read for the settings there are; what a TOML file holds beyond them is
refused like a keyword that is none.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SecretsSettingsSource,
    SettingsError,
    TomlConfigSettingsSource,
)

from tusd_py import values

PREFIX = "TUSD_PY_"

# The settings that name sources. They are looked for in keywords and in the environment alone.
FILE, FOLDER = "config", "secrets_dir"


class UnusableSource(ValueError):
    """A source cannot be read; ``setting`` is the one that names it."""

    def __init__(self, setting: str, sentence: str) -> None:
        self.setting = setting
        super().__init__(sentence)


@dataclass(frozen=True, slots=True)
class Source:
    """Where a value came from, in words that follow "from", and how a setting is written there."""

    words: str
    is_variable: bool = False
    is_secret: bool = False

    def name_of(self, setting: str) -> str:
        """Return what ``setting`` is called there."""
        if self.is_variable:
            return variable_of(setting)
        return f"{setting} in {self.words}"


@dataclass(frozen=True, slots=True)
class Read:
    """A source of pydantic's, and what we say of it."""

    source: Source
    reader: PydanticBaseSettingsSource


def variable_of(name: str) -> str:
    """Return the environment variable of the setting ``name``."""
    return PREFIX + name.upper()


def sources_of(settings: type[BaseSettings], keywords: Mapping[str, object]) -> list[Read]:
    """Return the sources beside ``keywords``, the weightiest first.

    Raises:
        UnusableSource: one that is named is not there, or cannot be read.
    """
    environment = EnvSettingsSource(settings)
    variables = environment()
    found = [Read(Source("the environment", is_variable=True), environment)]
    folder = _path(FOLDER, keywords, variables)
    if folder is not None:
        found.append(Read(Source(f"the folder {folder}", is_secret=True), _secrets(settings, folder)))
    file = _path(FILE, keywords, variables)
    if file is not None:
        found.append(Read(Source(f"the file {file}"), _toml(settings, file)))
    return found


def _path(setting: str, keywords: Mapping[str, object], variables: Mapping[str, Any]) -> Path | None:
    value = keywords[setting] if setting in keywords else variables.get(setting)
    try:
        return values.parse_path(value)
    except ValueError as error:
        raise UnusableSource(setting, str(error)) from None


def _secrets(settings: type[BaseSettings], folder: Path) -> SecretsSettingsSource:
    source = SecretsSettingsSource(settings, folder, env_ignore_empty=True)
    try:
        # Looked at before pydantic does, which only warns of a folder that is missing.
        os.listdir(folder)
        source()
    except OSError as error:
        raise UnusableSource(FOLDER, f"{folder} cannot be read: {os.strerror(error.errno or 0)}") from None
    except (SettingsError, UnicodeDecodeError) as error:
        raise UnusableSource(FOLDER, f"{folder} holds a file that is no setting: {error}") from None
    return source


def _toml(settings: type[BaseSettings], file: Path) -> TomlConfigSettingsSource:
    try:
        # Opened before pydantic does, which takes a file that is missing for an empty one.
        with file.open("rb"):
            source = TomlConfigSettingsSource(settings, file)
    except OSError as error:
        raise UnusableSource(FILE, f"{file} cannot be read: {os.strerror(error.errno or 0)}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UnusableSource(FILE, f"{file} is no TOML: {error}") from None
    for setting in (FILE, FOLDER):
        if setting in source():
            raise UnusableSource(FILE, f"{file} sets {setting}, which only a flag or a variable can")
    return source
