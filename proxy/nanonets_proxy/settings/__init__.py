"""The settings: one definition behind flags, environment, files, `--help`, the reference and the schema."""

from nanonets_proxy.settings.errors import SettingsError
from nanonets_proxy.settings.loaded import Loaded
from nanonets_proxy.settings.loader import load_sandbox_settings, load_settings, verify_files
from nanonets_proxy.settings.model.proxy import SandboxSettings, Settings

__all__ = [
    "Loaded",
    "SandboxSettings",
    "Settings",
    "SettingsError",
    "load_sandbox_settings",
    "load_settings",
    "verify_files",
]
