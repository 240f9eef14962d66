"""Which settings need another one. Without it they would be silently off, so that is an error."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from nanonets_proxy.keys.vault_policy import VaultAuth
from nanonets_proxy.settings.loaded import LoadedSettings
from nanonets_proxy.settings.model.proxy import Settings
from nanonets_proxy.settings.sources import ENVIRONMENTS

_Named = tuple[str, LoadedSettings[Settings]]

_REQUIRED: Final = {
    "vault_path": "vault_address",
    "tls_cert": "tls_key",
    "tls_key": "tls_cert",
    "tls_client_ca": "tls_cert",
}
"""Each environment that has the setting requires the other one."""

_WITHOUT_EFFECT: Final[Mapping[tuple[str, ...], Sequence[str]]] = {
    ("api_key_command",): ("api_key_command_variables",),
    ("aws_secret",): ("aws_secret_field", "aws_region"),
    ("caller_tokens", "caller_tokens_file"): ("caller_token_header",),
    ("coordination",): ("coordination_account", "coordination_required"),
    ("jobs",): ("jobs_keep", "max_jobs", "jobs_total"),
    ("policy", "read_only", "daily_budget"): ("policy_dry_run",),
    ("vault_path",): (
        *("vault_address", "vault_mount", "vault_field", "vault_auth", "vault_auth_mount", "vault_role"),
        *("vault_credential_file", "vault_namespace", "vault_ca_file"),
    ),
}
"""The settings that have no effect without another one, or without one of several.

A default of all environments may be of use to one.
"""

_WITHOUT_EFFECT_ON_PROCESS: Final[Mapping[tuple[str, ...], Sequence[str]]] = {
    ("ledger",): ("ledger_days", "ledger_rows"),
    ("otlp_endpoint",): ("otlp_share",),
    ("otlp_metrics_endpoint",): ("otlp_metrics_interval",),
    ("webhook_url",): ("webhook_secret_file",),
}


def find_missing(process: LoadedSettings[Settings], environments: Sequence[_Named]) -> Iterator[str]:
    """Yields a sentence for each setting that lacks the one that it needs. The arguments are as in `validation`."""
    for name, loaded in environments:
        yield from _missing(loaded, f"{ENVIRONMENTS}.{name}." if name else "")
    for needed, settings in _WITHOUT_EFFECT.items():
        for setting in settings:
            yield from _without_effect(environments, needed, setting)
    for needed, settings in _WITHOUT_EFFECT_ON_PROCESS.items():
        for setting in settings:
            yield from _without_effect([("", process)], needed, setting)


def _missing(loaded: LoadedSettings[Settings], prefix: str) -> Iterator[str]:
    settings, sources = loaded.settings, loaded.sources
    for setting, required in _REQUIRED.items():
        if _is_given(settings, setting) and not _is_given(settings, required):
            yield f"{prefix}{setting}: needs {prefix}{required} ({sources[setting]})"
    if settings.vault_path and settings.vault_auth != VaultAuth.TOKEN and not settings.vault_role:
        yield f"{prefix}vault_auth: {settings.vault_auth} needs {prefix}vault_role ({sources['vault_auth']})"


def _without_effect(environments: Sequence[_Named], needed: Sequence[str], setting: str) -> Iterator[str]:
    """Yields a sentence for each source of the setting, if no environment with that source has a needed one."""
    by_source: dict[str, list[_Named]] = {}
    for name, loaded in environments:
        if _is_given(loaded.settings, setting):
            by_source.setdefault(loaded.sources[setting], []).append((name, loaded))
    for source, users in by_source.items():
        if not any(_is_given(loaded.settings, name) for _, loaded in users for name in needed):
            own = users[0][0]
            prefix = f"{ENVIRONMENTS}.{own}." if own and source.endswith(f"{ENVIRONMENTS}.{own}") else ""
            *others, last = (f"{prefix}{name}" for name in needed)
            one = f"{', '.join(others)} or {last}" if others else last
            yield f"{prefix}{setting}: needs {one} ({source})"


def _is_given(settings: Settings, name: str) -> bool:
    return bool(getattr(settings, name) != Settings.model_fields[name].default)
