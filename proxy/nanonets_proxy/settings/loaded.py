"""Settings that were read, with what is known of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from nanonets_proxy.settings.model.base import ProgramSettings

AnySettings = TypeVar("AnySettings", bound=ProgramSettings)


@dataclass(frozen=True, slots=True)
class Loaded(Generic[AnySettings]):
    """Settings, and for each the words for where its value came from."""

    settings: AnySettings
    sources: Mapping[str, str]
    environments: Mapping[str, "Loaded[AnySettings]"] = field(default_factory=dict)
    """The named environments, if there are any: then `settings` counts for what is the process's alone."""

    def by_name(self) -> Mapping[str, "Loaded[AnySettings]"]:
        """The named environments; without any, the only one, whose name is empty."""
        return self.environments or {"": self}
