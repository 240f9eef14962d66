"""The presets: the defaults of settings for another upstream than the Nanonets API."""

from collections.abc import Mapping
from typing import Any, Final

PRESETS: Final[Mapping[str, Mapping[str, Any]]] = {
    "docstrange": {
        "upstream": "https://extraction-api.nanonets.com",
        "auth": "bearer",
        # Its quota is for the day. Results of earlier documents must stay available once it is used up.
        "scopes": [
            "POST /extract -> extract",
            "POST /api/v1/extract/** -> extract",
            "POST /api/v1/classify/** -> extract",
        ],
        "coalesce": ["/api/v1/extract/results/{record}"],
        "key_probe": "/api/v1/extract/results",
    },
}
"""By name: the settings that a preset gives another default."""


_SOURCE: Final = "preset "


def source_of(preset: object) -> str:
    """Returns the name of a preset as the source of a setting."""
    return f"{_SOURCE}{preset}"


def is_default(source: str) -> bool:
    """Returns whether a setting with this source was not given, so that the preset alone decides on its value."""
    return source == "default" or source.startswith(_SOURCE)


def preset_defaults(preset: object) -> Mapping[str, Any]:
    """Returns the defaults of a preset. An unknown name has none: the setting itself reports it."""
    return PRESETS.get(preset.strip(), {}) if isinstance(preset, str) else {}
