"""The settings as flags of the command line: the same for every command that has them.

What takes time to import is imported when a command needs it, so that ``tusd-py --help`` answers at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, cast

import click

if TYPE_CHECKING:
    from tusd_py.settings import Knobs, Problem, Setting, Settings


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


def settings_of(flags: Mapping[str, object]) -> Settings:
    """Return the settings that the flags, where they were given, and the other sources make."""
    from tusd_py.settings import InvalidSettings, Settings

    try:
        return Settings(**given(flags))
    except InvalidSettings as error:
        raise click.UsageError("\n".join(map(_complaint, error.problems))) from None


def given(flags: Mapping[str, object]) -> Knobs:
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
