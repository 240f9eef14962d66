"""What a reload of the settings can change, and its result.

The settings reader (`process/settings_reader.py`) compares the settings with those in force. A setting that needs a
restart keeps its value, so a configuration that a reload applies has the old values of all FIXED fields.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any, Final, TypeAlias

from nanonets_proxy.app.config import EnvironmentConfig, ServeConfig

FIXED: Final = frozenset(
    {"name", "listen", "fleet", "state_file", "upstream_name", "auth", "key_source_config", "traces", "jobs"}
)
"""The fields of an EnvironmentConfig that only a restart changes. So are the origin in `dial`, whether a sandbox
replaces the upstream, and whether `tls` is None."""

LIVE: Final = frozenset(
    {
        *("tls", "guard", "authorizer", "permissive_settings"),
        *("max_connections", "max_connections_per_peer", "keep_alive_s", "head_timeout_s", "environments"),
        *("handler", "gate", "scopes", "bodies", "retries"),
        *("dial", "upstream_keep_alive_s", "pool_per_caller", "first_byte_timeout_s"),
        *("keyring", "key_max_age_s", "key_probe"),
    }
)
"""The fields that `Environment.prepare_change` applies."""

PROGRAM_FIXED: Final = frozenset(
    {
        "sandbox",
        "admin_listen",
        "admin_quit",
        "ledger",
        "otlp_metrics",
        "webhook",
        "secret_variables",
        "secret_flags",
    }
)
"""The fields of a ServeConfig that only a restart changes."""

PROGRAM_LIVE: Final = frozenset(
    {
        "environments",
        "admin_guard",
        "admin_tokens",
        "drain_delay_s",
        "drain_timeout_s",
        "log_format",
        "log_level",
        "given",
    }
)
"""The fields of a ServeConfig that `Program` applies."""


def with_fixed_parts(new: EnvironmentConfig, running: EnvironmentConfig) -> EnvironmentConfig:
    """Returns `new` with all that only a restart can change as it is in `running`."""
    if running.has_sandbox:
        new = new.with_sandbox(running.dial.origin)
    return replace(
        new,
        **{name: getattr(running, name) for name in FIXED},
        tls=new.tls if new.tls is not None and running.tls is not None else running.tls,
        dial=replace(new.dial, origin=running.dial.origin),
        handler=replace(new.handler, tls=running.handler.tls),
    )


@dataclass(frozen=True, slots=True)
class ChangedSetting:
    """A setting whose value differs. Secrets in the values are masked."""

    name: str
    """Such as `max_wait`, or `environments.staging.max_wait`."""
    old: Any
    new: Any


@dataclass(frozen=True, slots=True)
class NewSettings:
    """The settings that a reload has read, compared with those in force."""

    config: ServeConfig
    """Has the old value of each setting that needs a restart."""
    applied: tuple[ChangedSetting, ...]
    needs_restart: tuple[ChangedSetting, ...]


class SettingsUnusable(Exception):
    """The settings cannot be used. The message has one sentence for each fault, and shows no secret."""


ReadSettings: TypeAlias = Callable[[ServeConfig], Awaitable[NewSettings]]
"""Reads the settings again, and compares them with the configuration in force. Raises SettingsUnusable."""
