"""The settings together with their sources."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Generic, TypeVar

from nanonets_proxy.keys.source import KEY_FILE_VARIABLE
from nanonets_proxy.settings.model.base import ProgramSettings
from nanonets_proxy.settings.model.groups import VALID_BY_TEXT
from nanonets_proxy.settings.sources import SourcedValue

if TYPE_CHECKING:  # the settings are valid or not before there is a configuration
    from nanonets_proxy.app.config import GivenValues

AnySettings = TypeVar("AnySettings", bound=ProgramSettings)


@dataclass(frozen=True, slots=True)
class LoadedSettings(Generic[AnySettings]):
    """Settings, and for each setting the name of its source, such as `flag --listen`."""

    settings: AnySettings
    sources: Mapping[str, str]
    environments: Mapping[str, "LoadedSettings[AnySettings]"] = field(default_factory=dict)
    """The named environments. If there are any, `settings` only has the settings of the whole process."""

    given: Mapping[str, SourcedValue] = field(default_factory=dict, repr=False)
    """The unparsed values of the settings that do not have their defaults."""

    def by_name(self) -> Mapping[str, "LoadedSettings[AnySettings]"]:
        """Returns the named environments, or the only environment under the empty name."""
        return self.environments or {"": self}

    def with_lines(self) -> "LoadedSettings[AnySettings]":
        """Returns the settings with the lines of a TOML file in the sources, for messages."""
        return replace(
            self,
            sources=_Places(self.sources, self.given),
            environments={name: own.with_lines() for name, own in self.environments.items()},
        )


@dataclass(frozen=True, slots=True)
class _Places(Mapping[str, str]):
    """The sources with the lines of a TOML file. Finds a line only on request, as that parses the file."""

    sources: Mapping[str, str]
    given: Mapping[str, SourcedValue]

    def __getitem__(self, name: str) -> str:
        return self.given[name].place() if name in self.given else self.sources[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.sources)

    def __len__(self) -> int:
        return len(self.sources)


def given_values(loaded: LoadedSettings[AnySettings]) -> "GivenValues":
    """Returns the unparsed values, from which `merge.py` makes the settings again."""
    return {
        name: {setting: (item.value, item.source) for setting, item in own.given.items()}
        for name, own in [("", loaded), *loaded.environments.items()]
    }


def are_valid_by_text(loaded: LoadedSettings[AnySettings]) -> bool:
    """Returns whether valid settings with the same texts are valid at any later time.

    The key file that `KEY_FILE_VARIABLE` names does not count, as `run` reads it each time.
    """
    names = {name for name, item in loaded.given.items() if item.source != f"environment {KEY_FILE_VARIABLE}"}
    return not loaded.environments and names <= VALID_BY_TEXT
