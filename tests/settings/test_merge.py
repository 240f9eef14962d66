"""Settings that are read again, compared with those in force."""

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from nanonets_proxy.app.config import EnvironmentConfig, ServeConfig
from nanonets_proxy.app.reloading import FIXED, LIVE, PROGRAM_FIXED, PROGRAM_LIVE, with_fixed_parts
from nanonets_proxy.settings import LoadedSettings, Settings, SettingsError, load_settings
from nanonets_proxy.settings.configure import serve_config
from nanonets_proxy.settings.loaded import given_values
from nanonets_proxy.settings.merge import Merged, merge
from nanonets_proxy.settings.model.groups import NEEDS_RESTART, PROCESS_WIDE, TLS

OTHER_VALUES: dict[str, str | bool] = {
    "admin_allow_from": "10.0.0.0/8",
    "admin_listen": "localhost:1",
    "admin_quit": True,
    "admin_tokens": "prometheus sha256:" + 64 * "a",
    "allow_from": "10.0.0.0/8",
    "allow_uids": "7",
    "allowed_hosts": "proxy.example",
    "api_key_command": "pass show key",
    "api_key_command_variables": "PASS_*",
    "api_key_file": "/key",
    "aws_region": "eu-west-1",
    "aws_secret": "key",
    "aws_secret_field": "field",
    "auth": "bearer",
    "body_memory": "2MiB",
    "body_memory_total": "65MiB",
    "body_timeout": "31m",
    "ca_file": "/ca.pem",
    "caller_header": "X-Caller",
    "caller_token_header": "X-Token",
    "caller_tokens": "billing sha256:" + 64 * "a",
    "caller_tokens_file": "/tokens",
    "coalesce": "/api/v4/workflow_types",
    "connect_timeout": "11s",
    "coordination": "redis://redis.example",
    "coordination_account": "team",
    "coordination_required": True,
    "cost_header": "X-Pages",
    "daily_budget": "5000",
    "drain_delay": "1s",
    "drain_timeout": "26s",
    "egress_proxy": "http://proxy.example:3128",
    "first_byte_timeout": "331s",
    "head_timeout": "31s",
    "idle_timeout": "121s",
    "keep_alive": "3631s",
    "jobs": "/jobs",
    "jobs_keep": "2d",
    "jobs_total": "1GiB",
    "key_gap": "6s",
    "key_grace": "901s",
    "key_max_age": "91d",
    "key_probe": "/api/v4/workflow_types",
    "key_refresh": "61s",
    "key_timeout": "11s",
    "lane_weights": "unix:uid=1000=2",
    "ledger": "/ledger",
    "ledger_days": "401",
    "ledger_rows": "7",
    "limits": "account 60/minute",
    "listen": "localhost:2",
    "log_format": "json",
    "log_level": "debug",
    "log_successes": "0.5",
    "max_connections": "12001",
    "max_connections_per_peer": "1025",
    "max_jobs": "7",
    "max_wait": "301s",
    "max_waiting": "10001",
    "max_waiting_per_caller": "8001",
    "min_body_rate": "1025",
    "otlp_endpoint": "http://collector:4318",
    "otlp_share": "0.5",
    "otlp_metrics_endpoint": "http://collector:4318",
    "otlp_metrics_interval": "30s",
    "policy": "deny DELETE /**",
    "policy_dry_run": True,
    "pool_per_caller": True,
    "pool_size": "257",
    "preset": "docstrange",
    "quota_probe": "3601s",
    "read_only": True,
    "replay_limit": "257MiB",
    "retries": "3",
    "retry_backoff": "0.2",
    "retry_budget": "0.3",
    "revalidate": "/api/v4/workflow_types",
    "sandbox": True,
    "scopes": "* /api/v2/** -> v2",
    "server_timing": False,
    "spool_dir": "/spool",
    "spool_total": "5GiB",
    "state_file": "/state",
    "tls_cert": "/cert.pem",
    "tls_client_ca": "/callers.pem",
    "tls_key": "/key.pem",
    "trace_upstream": True,
    "upstream": "https://example.com",
    "upstream_keep_alive": "56s",
    "upstream_pins": "sha256//" + 43 * "A" + "=",
    "upstream_private": True,
    "vault_address": "https://vault.example",
    "vault_auth": "approle",
    "vault_auth_mount": "mount",
    "vault_ca_file": "/vault.pem",
    "vault_credential_file": "/credential",
    "vault_field": "field",
    "vault_mount": "kv",
    "vault_namespace": "team",
    "vault_path": "nanonets",
    "vault_role": "role",
    "via": "other",
    "webhook_secret_file": "/webhook",
    "webhook_url": "https://other.example.com/",
}
"""Another value than the default, for each setting."""

_TLS: dict[str, str | bool] = {"tls_cert": "/c.pem", "tls_key": "/k.pem"}
ALSO: dict[str, dict[str, str | bool]] = {
    "vault_path": {"vault_path": "other", "vault_address": "https://vault.example"},
    "vault_auth": {"vault_path": "nanonets", "vault_address": "https://vault.example", "vault_role": "role"},
    "vault_auth_mount": {"vault_path": "nanonets", "vault_address": "https://vault.example"},
    **{
        f"vault_{name}": {"vault_path": "nanonets", "vault_address": "https://vault.example"}
        for name in ("mount", "field", "role", "credential_file", "namespace", "ca_file")
    },
    "vault_address": {"vault_path": "nanonets", "vault_address": "https://old.example"},
    "aws_secret_field": {"aws_secret": "key"},
    "aws_region": {"aws_secret": "key"},
    "api_key_command_variables": {"api_key_command": "pass show key"},
    "key_refresh": {"aws_secret": "key"},
    "key_timeout": {"aws_secret": "key"},
    "caller_token_header": {"caller_tokens": OTHER_VALUES["caller_tokens"]},
    "tls_cert": _TLS,
    "tls_key": _TLS,
    "tls_client_ca": _TLS,
    "policy_dry_run": {"read_only": True},
    "coordination_account": {"coordination": "redis://redis.example"},
    "coordination_required": {"coordination": "redis://redis.example"},
    "jobs_keep": {"jobs": "/jobs"},
    "jobs_total": {"jobs": "/jobs"},
    "max_jobs": {"jobs": "/jobs"},
    "ledger_days": {"ledger": "/ledger"},
    "ledger_rows": {"ledger": "/ledger"},
    "otlp_share": {"otlp_endpoint": "http://collector:4318"},
    "otlp_metrics_interval": {"otlp_metrics_endpoint": "http://collector:4318"},
    "webhook_secret_file": {"webhook_url": "https://alerts.example.com/"},
    "auth": {"upstream": "https://extraction.example.com"},
    "cost_header": {"limits": "account 20 pages/minute"},
}
"""The settings that a setting has no effect without."""


def load(**flags: str | bool) -> LoadedSettings[Settings]:
    return load_settings(flags, {"PASS_STORE": "a"}, dirs=[], default_config=Path("/none"))


def config(loaded: LoadedSettings[Settings]) -> ServeConfig:
    return serve_config(loaded, None, {"PASS_STORE": "a"})


def comparable(own: EnvironmentConfig) -> Any:
    """Returns the configuration, with the policies of the key's stores in place of the stores."""
    sources = own.key_source_config
    stores = tuple(getattr(store, "_policy", store) for store in sources.stores)
    return replace(own, key_source_config=replace(sources, stores=stores))


def merged(old: dict[str, Any], new: dict[str, Any]) -> Merged:
    return merge(given_values(load(**old)), load(**new))


def test_each_field_of_a_configuration_is_either_applied_by_a_reload_or_needs_a_restart() -> None:
    assert sorted([*FIXED, *LIVE]) == sorted(field.name for field in fields(EnvironmentConfig))
    assert sorted([*PROGRAM_FIXED, *PROGRAM_LIVE]) == sorted(field.name for field in fields(ServeConfig))


def test_the_examples_have_another_value_for_each_setting() -> None:
    assert sorted(OTHER_VALUES) == sorted(Settings.model_fields), "give each setting another value in OTHER_VALUES"
    assert Settings.model_fields.keys() >= NEEDS_RESTART | TLS | PROCESS_WIDE


@pytest.mark.parametrize("name", OTHER_VALUES)
def test_a_changed_setting_changes_a_part_that_a_reload_applies_or_keeps_its_value(name: str) -> None:
    old = {other: value for other, value in ALSO.get(name, {}).items() if name not in TLS or other != name}
    if name in ("tls_cert", "tls_key"):
        old = dict(_TLS)
    new = old | {name: OTHER_VALUES[name]}
    before, after = config(load(**old)), config(load(**new))
    own_before, own_after = comparable(before.environments[0]), comparable(after.environments[0])
    if name not in PROCESS_WIDE and name != "api_key_command_variables":
        assert own_before != own_after, "the setting has an effect"
    result = merged(old, new)
    shown = [change.name for change in (*result.applied, *result.needs_restart)]
    assert shown == [name]
    applied = config(result.loaded)
    own_applied = comparable(applied.environments[0])
    if name in NEEDS_RESTART:
        assert [change.name for change in result.needs_restart] == [name]
        assert (own_applied, applied.admin_listen, applied.admin_quit) == (
            own_before,
            before.admin_listen,
            before.admin_quit,
        )
    else:
        assert own_applied == own_after
        assert with_fixed_parts(own_applied, own_before) == own_applied, "only parts that a reload applies differ"
        for field in PROGRAM_FIXED:
            assert getattr(applied, field) == getattr(before, field)


def test_the_values_of_a_change_are_those_of_the_settings_and_secrets_are_masked() -> None:
    result = merged(
        {"max_wait": "7s", "egress_proxy": "http://u:old-secret@h:1"},
        {"max_wait": "2m", "egress_proxy": "http://u:new-secret@h:1"},
    )
    assert {change.name: (change.old, change.new) for change in result.applied}["max_wait"] == ("7s", "2m")
    assert [change.name for change in result.applied] == ["egress_proxy", "max_wait"]
    assert "secret" not in repr(result.applied)


def test_the_arguments_of_the_keys_command_are_not_shown() -> None:
    result = merged({"api_key_command": "pass"}, {"api_key_command": "curl -H token:secret"})
    (change,) = result.needs_restart
    assert (change.old, change.new) == ("pass", "curl ***")


def test_a_command_that_moves_to_another_folder_is_shown_with_its_folders() -> None:
    result = merged({"api_key_command": "/opt/old/print-key"}, {"api_key_command": "/opt/new/print-key --eu"})
    (change,) = result.needs_restart
    assert (change.old, change.new) == ("/opt/old/print-key", "/opt/new/print-key ***")


@pytest.mark.parametrize(("old", "new"), [({}, _TLS), (_TLS, {})])
def test_tls_is_turned_on_and_off_by_a_restart_only(old: dict[str, Any], new: dict[str, Any]) -> None:
    result = merged(old, new | {"max_wait": "1s"})
    assert [change.name for change in result.needs_restart] == ["tls_cert", "tls_key"]
    assert [change.name for change in result.applied] == ["max_wait"]
    assert result.loaded.settings.listener_tls() == load(**old).settings.listener_tls()


def test_a_kept_value_that_contradicts_a_new_one_is_an_error_that_names_both() -> None:
    open_ = {"listen": "0.0.0.0:1", "allow_from": "10.0.0.0/8"}
    with pytest.raises(SettingsError) as caught:
        merged(open_, {"listen": "localhost:1"})
    assert caught.value.problems[0].startswith("listen: other machines can reach 0.0.0.0:1 (flag --listen)")
    assert caught.value.problems[1] == "only a restart changes listen"


def test_nothing_changed_is_no_change() -> None:
    result = merged({"max_wait": "60"}, {"max_wait": "1m"})
    assert (result.applied, result.needs_restart) == ((), ())


# --- several environments -------------------------------------------------------------------------

EU = '[environments.eu]\nlisten = "localhost:1"\n'
US = '[environments.us]\nlisten = "localhost:2"\n'


def from_files(tmp_path: Path, old: str, new: str) -> Merged:
    loaded = []
    for text in (old, new):
        path = tmp_path / "settings.toml"
        path.write_text(text)
        loaded.append(load_settings({}, {}, dirs=[], config=str(path)))
    return merge(given_values(loaded[0]), loaded[1])


def test_changes_are_named_by_environment_and_shared_ones_once(tmp_path: Path) -> None:
    result = from_files(
        tmp_path,
        f"{EU}{US}",
        f'log_level = "debug"\n{EU}max_wait = 7\n{US.replace("2", "3")}',
    )
    assert [change.name for change in result.applied] == ["log_level", "environments.eu.max_wait"]
    assert [change.name for change in result.needs_restart] == ["environments.us.listen"]
    assert [own.settings.max_wait for own in result.loaded.environments.values()] == [7, 300]


@pytest.mark.parametrize(
    ("old", "new", "names"),
    [(EU, EU + US, ["eu"]), (EU + US, EU, ["eu", "us"]), ("", EU, [""]), (EU, "", ["eu"])],
)
def test_environments_come_and_go_by_a_restart_only(tmp_path: Path, old: str, new: str, names: list[str]) -> None:
    result = from_files(tmp_path, f'log_level = "error"\n{old}', f'log_level = "debug"\nmax_wait = 7\n{new}')
    assert [change.name for change in result.needs_restart] == ["environments"]
    assert list(result.loaded.by_name()) == names
    assert result.loaded.settings.log_level == "debug"
    kept = [own.settings.max_wait for name, own in result.loaded.by_name().items() if name not in new or not name]
    assert set(kept) <= {300}
