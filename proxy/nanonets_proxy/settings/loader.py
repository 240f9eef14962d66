"""Combines the sources of settings into one frozen `Settings`, or reports every fault in one sentence each."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import reduce
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from nanonets_proxy.keys.source import KEY_FILE_VARIABLE, is_of_key_source, secret_dirs
from nanonets_proxy.settings.errors import SettingsError
from nanonets_proxy.settings.loaded import AnySettings, LoadedSettings
from nanonets_proxy.settings.model.groups import PROCESS_WIDE
from nanonets_proxy.settings.model.proxy import Settings
from nanonets_proxy.settings.model.sandbox import SandboxSettings
from nanonets_proxy.settings.presets import preset_defaults, source_of
from nanonets_proxy.settings.sources import (
    DEFAULT_CONFIG,
    ENVIRONMENTS,
    SourcedValue,
    SourceValues,
    read_environment_tables,
    read_flags,
    read_secret_files,
    read_toml,
    read_variables,
)
from nanonets_proxy.settings.validation import find_contradictions

CONFIG_VARIABLE = "NANONETS_PROXY_CONFIG"


def load_settings(
    flags: Mapping[str, Any],
    environ: Mapping[str, str],
    *,
    config: str | None = None,
    config_from: str = "flag --config",
    dirs: Sequence[Path] | None = None,
    default_config: Path = DEFAULT_CONFIG,
) -> LoadedSettings[Settings]:
    """Returns the proxy's settings.

    Flags win over environment variables, then secret files, then the TOML file, then the defaults.

    `flags` maps names of settings to strings or booleans. `config` is the path of the TOML file, which
    `config_from` gave. `dirs` are the directories of secret files, by default those that `environ` names.

    Raises:
        SettingsError: a source has an unknown name or an invalid value, or two values contradict each other.
    """
    try:
        return _load(_read_sources(flags, environ, config, config_from, dirs, default_config))
    except SettingsError as error:
        secrets = [value for name, value in environ.items() if is_of_key_source(name)]
        raise error.without(secrets) from None


def _load(read: tuple[Sequence[SourceValues], Mapping[str, SourceValues]]) -> LoadedSettings[Settings]:
    sources, tables = read
    process = _combine(Settings, *sources)
    if not tables:
        if problems := find_contradictions(process, [("", process)]):
            raise SettingsError(*problems)
        return process
    environments = _combine_environments(tables, sources)
    if problems := find_contradictions(process, list(environments.items())):
        raise SettingsError(*problems)
    return replace(process, environments=environments)


def load_alone(
    names: Collection[str], flags: Mapping[str, Any], environ: Mapping[str, str], *, config: str | None = None
) -> Settings:
    """Returns settings of which only `names` are read; all others have their defaults, whatever faults they have.

    Raises:
        SettingsError: one of these settings has an invalid value, or is perhaps in a source that has a fault.
    """
    sources, _ = _read_sources(flags, environ, config, "flag --config", None, DEFAULT_CONFIG)
    values: dict[str, SourcedValue] = {}
    for name in names:
        for source in reversed(sources):
            if name in source.values:
                values[name] = source.values[name]
                break
            if source.problems:  # a file that cannot be read or a misspelt name may hide the setting
                raise SettingsError(*source.problems)
    return combined(Settings, values).settings


def _read_sources(
    flags: Mapping[str, Any],
    environ: Mapping[str, str],
    config: str | None,
    config_from: str,
    dirs: Sequence[Path] | None,
    default_config: Path,
) -> tuple[Sequence[SourceValues], Mapping[str, SourceValues]]:
    """Returns the sources, the weakest first, and the tables of the named environments."""
    names = Settings.model_fields
    path, requested_by = default_config, None
    if config is not None:
        path, requested_by = Path(config), config_from
    elif CONFIG_VARIABLE in environ:
        path, requested_by = Path(environ[CONFIG_VARIABLE]), f"environment {CONFIG_VARIABLE}"
    toml = read_toml(names, path, requested_by)
    prefix = Settings.model_config["env_prefix"]
    aliases = {KEY_FILE_VARIABLE: "api_key_file"}
    tables = read_environment_tables(names.keys() - PROCESS_WIDE, PROCESS_WIDE, toml)
    sources = (
        toml,
        read_secret_files(names, prefix, secret_dirs(environ) if dirs is None else dirs),
        read_variables(names, prefix, environ, aliases=aliases, others=(CONFIG_VARIABLE,)),
        read_flags(flags),
    )
    return sources, tables


def _combine_environments(
    tables: Mapping[str, SourceValues], weakest_first: Sequence[SourceValues]
) -> dict[str, LoadedSettings[Settings]]:
    """Returns the named environments. An environment's own table wins over every source of the whole process."""
    loaded, problems = {}, []
    for name, table in tables.items():
        try:
            loaded[name] = _combine(Settings, *weakest_first, table)
        except SettingsError as error:
            problems += [f"{ENVIRONMENTS}.{name}.{problem}" for problem in error.problems]
    if problems:
        raise SettingsError(*problems)
    return loaded


def load_sandbox_settings(
    flags: Mapping[str, Any], environ: Mapping[str, str], *, dirs: Sequence[Path] | None = None
) -> LoadedSettings[SandboxSettings]:
    """Returns the sandbox's settings, from flags, environment and secret files.

    Raises:
        SettingsError: as `load_settings`.
    """
    names, prefix = SandboxSettings.model_fields, SandboxSettings.model_config["env_prefix"]
    return _combine(
        SandboxSettings,
        read_secret_files(names, prefix, secret_dirs(environ) if dirs is None else dirs),
        read_variables(names, prefix, environ, aliases={}),
        read_flags(flags),
    )


def _combine(kind: type[AnySettings], *weakest_first: SourceValues) -> LoadedSettings[AnySettings]:
    """Returns the validated settings. Raises SettingsError with the problems of all sources."""
    no_values: dict[str, SourcedValue] = {}
    values = reduce(lambda merged, source: merged | source.values, weakest_first, no_values)
    return combined(kind, values, [problem for source in weakest_first for problem in source.problems])


def combined(
    kind: type[AnySettings], values: Mapping[str, SourcedValue], problems: Sequence[str] = ()
) -> LoadedSettings[AnySettings]:
    """Returns the validated settings. Raises SettingsError with `problems` and those of the values."""
    problems, given = list(problems), values
    if (preset := values.get("preset")) is not None:
        source, defaults = source_of(preset.value), preset_defaults(preset.value)
        values = {name: SourcedValue(value, source) for name, value in defaults.items()} | dict(values)
    try:
        settings = kind(**{name: item.value for name, item in values.items()})
    except ValidationError as error:
        for fault in error.errors(include_url=False, include_input=False):
            name = str(fault["loc"][0])
            sentence = str(fault.get("ctx", {}).get("error", fault["msg"]))
            problems.append(f"{name}: {sentence} ({values[name].place()})")
        raise SettingsError(*problems) from None
    if problems:
        raise SettingsError(*problems)
    sources = {name: values[name].source if name in values else "default" for name in kind.model_fields}
    return LoadedSettings(settings, sources, given=given)
