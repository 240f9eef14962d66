"""Adds the settings as flags to a command's parser, with pydantic-settings' own command line source."""

from argparse import SUPPRESS, ArgumentParser, Namespace
from collections.abc import Mapping
from typing import Any, Final

from pydantic_settings import CliSettingsSource

from nanonets_proxy.settings.model.base import ProgramSettings
from nanonets_proxy.settings.model.groups import GROUPS
from nanonets_proxy.settings.model.proxy import Settings
from nanonets_proxy.settings.model.quantities import Metavar

# The library reads this text as None. No flag can hold a null byte, so no value is mistaken for it.
_NONE_TEXT: Final = "\0"
_MAX_DEFAULT_CHARS: Final = 60


class SettingsFlags:
    """Adds a flag to `parser` for each setting of `kind`, and returns the flags' values after parsing."""

    def __init__(self, kind: type[ProgramSettings], parser: ArgumentParser, *, in_help: bool = True) -> None:
        """`in_help`: the parser's help lists the flags."""
        self._kind = kind
        self._in_help = in_help
        self._defaults: dict[str, Any] = kind().model_dump(mode="json")
        self._group: Any = parser.add_argument_group("Settings")
        self._source: CliSettingsSource[Any] = CliSettingsSource(
            kind,
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
        if self._kind is Settings and dest in GROUPS:
            self._group = parser.add_argument_group(GROUPS[dest])
        field = self._kind.model_fields[dest]
        if "metavar" in options:
            metavars = [item.name for item in field.metadata if isinstance(item, Metavar)]
            options["metavar"] = metavars[0] if metavars else "NAME"
        shown = f"{field.description}{self._default(dest)}".replace("%", "%%")
        options["help"] = shown if self._in_help else SUPPRESS
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
