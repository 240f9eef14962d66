"""The settings together with their sources."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from nanonets_proxy.app.settings_file import SettingsFile
from nanonets_proxy.settings.model.base import ProgramSettings

AnySettings = TypeVar("AnySettings", bound=ProgramSettings)


@dataclass(frozen=True, slots=True)
class LoadedSettings(Generic[AnySettings]):
    """Settings, and for each setting the name of its source, such as `flag --listen`."""

    settings: AnySettings
    sources: Mapping[str, str]
    environments: Mapping[str, "LoadedSettings[AnySettings]"] = field(default_factory=dict)
    """The named environments. If there are any, `settings` only has the settings of the whole process."""

    file: SettingsFile | None = None
    """The settings file, or the default one if that is missing."""

    def by_name(self) -> Mapping[str, "LoadedSettings[AnySettings]"]:
        """Returns the named environments, or the only environment under the empty name."""
        return self.environments or {"": self}
