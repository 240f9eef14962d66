"""Compares settings that were read again with those in force, for a reload.

A setting that needs a restart keeps its value. The others, together with the kept ones, must be valid like any
settings, so that no combination is served that would be an error at start.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace

from nanonets_proxy.app.config import GivenValues
from nanonets_proxy.app.reloading import ChangedSetting
from nanonets_proxy.settings.errors import SettingsError
from nanonets_proxy.settings.loaded import LoadedSettings
from nanonets_proxy.settings.loader import combined
from nanonets_proxy.settings.model.groups import NEEDS_RESTART, PROCESS_WIDE, TLS
from nanonets_proxy.settings.model.proxy import Settings
from nanonets_proxy.settings.presets import is_default
from nanonets_proxy.settings.reference import json_values
from nanonets_proxy.settings.sources import ENVIRONMENTS, SourcedValue
from nanonets_proxy.settings.validation import find_contradictions

_Loaded = LoadedSettings[Settings]
_Pair = tuple[str, _Loaded, _Loaded, Collection[str]]
"""Settings to compare: a prefix of their names, the old ones, the new ones, and which of them."""


@dataclass(frozen=True, slots=True)
class Merged:
    """The settings that a reload puts in force."""

    loaded: _Loaded
    applied: tuple[ChangedSetting, ...]
    needs_restart: tuple[ChangedSetting, ...]


def merge(running: GivenValues, new: _Loaded) -> Merged:
    """Returns the new settings, but with the running value of each setting that needs a restart.

    Raises:
        SettingsError: the kept values contradict the new ones.
    """
    old = _restored(running)
    same_names = list(old.by_name()) == list(new.by_name())
    whole = set(Settings.model_fields) if same_names else PROCESS_WIDE
    process = _with_kept(old, new, whole - _needing_restart(old, new))
    environments = {
        name: _with_kept(own, new.environments[name], Settings.model_fields.keys() - _needing_restart(own, new_own))
        if (new_own := new.environments.get(name)) is not None
        else own
        for name, own in old.environments.items()
    }
    applied: list[ChangedSetting] = []
    needs_restart: list[ChangedSetting] = []
    if not same_names:
        needs_restart.append(ChangedSetting(ENVIRONMENTS, list(old.environments), list(new.environments)))
    for prefix, own, new_own, names in _pairs(old, new, same_names=same_names):
        for change in _changes(prefix, own, new_own, names):
            is_kept = change.name.removeprefix(prefix) in _needing_restart(own, new_own)
            (needs_restart if is_kept else applied).append(change)
    merged = replace(process, environments=environments)
    if problems := list(find_contradictions(merged, list(merged.by_name().items()))):
        if needs_restart:
            kept = ", ".join(change.name for change in needs_restart)
            problems.append(f"only a restart changes {kept}")
        raise SettingsError(*problems)
    return Merged(merged, tuple(applied), tuple(needs_restart))


def _restored(given: GivenValues) -> _Loaded:
    loaded = {
        name: combined(Settings, {setting: SourcedValue(*item) for setting, item in own.items()})
        for name, own in given.items()
    }
    return replace(loaded.pop(""), environments=loaded)


def _needing_restart(old: _Loaded, new: _Loaded) -> frozenset[str]:
    """Returns the settings that need a restart if they differ."""
    turns_tls = (old.settings.listener_tls() is None) != (new.settings.listener_tls() is None)
    return NEEDS_RESTART | TLS if turns_tls else NEEDS_RESTART


def _with_kept(old: _Loaded, new: _Loaded, live: Collection[str]) -> _Loaded:
    """Returns `new` for the settings in `live`, and `old` for all others. Raises SettingsError."""
    values = {name: item for name, item in new.given.items() if name in live}
    return combined(Settings, values | {name: item for name, item in old.given.items() if name not in live})


def _pairs(old: _Loaded, new: _Loaded, *, same_names: bool) -> Iterator[_Pair]:
    if same_names and not old.environments:
        yield "", old, new, list(Settings.model_fields)
        return
    yield "", old, new, PROCESS_WIDE
    for name, own in old.environments.items():
        if (new_own := new.environments.get(name)) is not None:
            yield f"{ENVIRONMENTS}.{name}.", own, new_own, Settings.model_fields.keys() - PROCESS_WIDE


def _changes(prefix: str, old: _Loaded, new: _Loaded, names: Collection[str]) -> Iterator[ChangedSetting]:
    shown_old, shown_new = json_values(old.settings), json_values(new.settings)
    for name in Settings.model_fields:
        by_preset = is_default(old.sources[name]) and is_default(new.sources[name])
        if name in names and not by_preset and getattr(old.settings, name) != getattr(new.settings, name):
            values = [shown_old[name], shown_new[name]]
            if name == "api_key_command":
                values = [_program(command) for command in values]
            yield ChangedSetting(f"{prefix}{name}", *values)


def _program(command: str) -> str:
    """Returns a command line without its arguments, which may hold secrets."""
    from nanonets_proxy.keys.command import shown_program  # imported here: few programs use a command

    program, _, arguments = command.partition(" ")
    return f"{shown_program(program)} ***" if arguments else shown_program(program)
