"""Adds the settings as flags to a command's parser, with pydantic-settings' own command line source."""

from argparse import SUPPRESS, ArgumentParser, Namespace
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from pydantic import create_model
from pydantic_settings import CliSettingsSource

from nanonets_proxy.settings.model.base import ProgramSettings
from nanonets_proxy.settings.model.groups import GROUPS
from nanonets_proxy.settings.model.proxy import Settings
from nanonets_proxy.settings.model.quantities import Metavar
from nanonets_proxy.settings.sources import flag_name

# The library reads this text as None. No flag can hold a null byte, so no value is mistaken for it.
_NONE_TEXT: Final = "\0"
_MAX_DEFAULT_CHARS: Final = 60


def named_settings(kind: type[ProgramSettings], arguments: Sequence[str]) -> list[str]:
    """Returns the settings of `kind` whose flags may be among `arguments`. A flag's value may look like a flag."""
    words = {word.partition("=")[0] for word in arguments}
    return [name for name in kind.model_fields if not words.isdisjoint(_flags_of(name))]


def _flags_of(name: str) -> tuple[str, str]:
    flag = flag_name(name)
    return flag, f"--no-{flag.removeprefix('--')}"


class SettingsFlags:
    """Adds flags for settings of `kind` to `parser`, and returns the flags' values after parsing."""

    def __init__(
        self, kind: type[ProgramSettings], parser: ArgumentParser, names: Collection[str] | None = None
    ) -> None:
        """`names`: the only settings that get a flag, which the help does not list. None: all, with their help.

        Making all flags would take as long as reading all settings.
        """
        self._kind = kind if names is None else _narrowed(kind, names)
        self._in_help = names is None
        self._defaults: dict[str, Any] = kind().model_dump(mode="json") if names is None else {}
        self._group: Any = parser.add_argument_group("Settings")
        self._source: CliSettingsSource[Any] = CliSettingsSource(
            self._kind,
            root_parser=parser,
            cli_prog_name=parser.prog,
            cli_parse_none_str=_NONE_TEXT,
            cli_kebab_case=True,
            cli_implicit_flags=True,
            add_argument_method=self._add_flag,
        )

    def values(self, parsed: Namespace) -> Mapping[str, Any]:
        """Returns the settings that flags set, as strings and booleans. Repeated flags are joined by commas."""
        given = {name: value for name, value in vars(parsed).items() if name in self._kind.model_fields}
        values: dict[str, Any] = self._source(parsed_args=given)()
        return values

    def _add_flag(self, parser: ArgumentParser, *flags: str, dest: str, **options: Any) -> None:
        """Replaces the library's help text by the setting's description and default."""
        if self._in_help and self._kind is Settings and dest in GROUPS:
            self._group = parser.add_argument_group(GROUPS[dest])
        field = self._kind.model_fields[dest]
        if "metavar" in options:
            metavars = [item.name for item in field.metadata if isinstance(item, Metavar)]
            options["metavar"] = metavars[0] if metavars else "NAME"
        options["help"] = SUPPRESS
        if self._in_help:
            options["help"] = f"{field.description}{self._default(dest)}".replace("%", "%%")
        self._group.add_argument(*flags, dest=dest, **options)

    def _default(self, name: str) -> str:
        """Returns the default in brackets, or an empty string if the default is empty or long."""
        match self._defaults[name]:
            case "" | []:
                return ""
            case bool(value):
                shown = "on" if value else "off"
            case [*items]:
                shown = ", ".join(items)
            case value:
                shown = str(value)
        return f" [{shown}]" if len(shown) <= _MAX_DEFAULT_CHARS else ""


def _narrowed(kind: type[ProgramSettings], names: Collection[str]) -> type[ProgramSettings]:
    """Returns settings with the fields `names` of `kind` only."""
    fields: dict[str, Any] = {name: (kind.model_fields[name].annotation, kind.model_fields[name]) for name in names}
    return create_model(kind.__name__, __base__=ProgramSettings, **fields)
