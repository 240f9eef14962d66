"""Reads the settings from flags, environment and files, and converts them to the frozen configuration."""

from nanonets_proxy.settings.errors import SettingsError
from nanonets_proxy.settings.loaded import LoadedSettings
from nanonets_proxy.settings.loader import load_alone, load_sandbox_settings, load_settings
from nanonets_proxy.settings.model.proxy import Settings
from nanonets_proxy.settings.model.sandbox import SandboxSettings
from nanonets_proxy.settings.validation import verify_files

__all__ = [
    "LoadedSettings",
    "SandboxSettings",
    "Settings",
    "SettingsError",
    "load_alone",
    "load_sandbox_settings",
    "load_settings",
    "verify_files",
]
