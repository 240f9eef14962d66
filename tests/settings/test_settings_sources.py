"""The sources of settings: precedence, source names, and misspelt names."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from nanonets_proxy.settings import LoadedSettings, Settings, SettingsError, load_sandbox_settings, load_settings

NO_CONFIG = Path("/nonexistent/nanonets-proxy.toml")


def load(
    flags: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
    *,
    secrets: Path | None = None,
    toml: Path | None = None,
    config: str | None = None,
) -> LoadedSettings[Settings]:
    return load_settings(
        flags or {},
        environ or {},
        config=config,
        dirs=[] if secrets is None else [secrets],
        default_config=toml or NO_CONFIG,
    )


def problems(**sources: Any) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as caught:
        load(**sources)
    return caught.value.problems


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    path = tmp_path / "nanonets-proxy.toml"
    path.write_text("max_waiting = 1\n")
    return path


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    path = tmp_path / "secrets"
    path.mkdir()
    (path / "nanonets_proxy_max_waiting").write_text("2\n")
    return path


def test_without_any_source_every_setting_is_its_default() -> None:
    loaded = load()
    assert loaded.settings == Settings()
    assert set(loaded.sources) == set(Settings.model_fields)
    assert set(loaded.sources.values()) == {"default"}


def test_flags_win_over_the_environment_then_secret_files_then_toml(toml: Path, secrets: Path) -> None:
    environ = {"NANONETS_PROXY_MAX_WAITING": "3"}
    flags = {"max_waiting": "4"}

    def outcome(loaded: LoadedSettings[Settings]) -> tuple[int, str]:
        return loaded.settings.max_waiting, loaded.sources["max_waiting"]

    assert outcome(load(flags, environ, secrets=secrets, toml=toml)) == (4, "flag --max-waiting")
    assert outcome(load(None, environ, secrets=secrets, toml=toml)) == (
        3,
        "environment NANONETS_PROXY_MAX_WAITING",
    )
    assert outcome(load(secrets=secrets, toml=toml)) == (2, f"file {secrets}/nanonets_proxy_max_waiting")
    assert outcome(load(toml=toml)) == (1, str(toml))
    assert outcome(load()) == (10_000, "default")


def test_sources_are_merged_setting_by_setting(toml: Path) -> None:
    loaded = load({"pool_size": "7"}, {"NANONETS_PROXY_VIA": "edge"}, toml=toml)
    assert (loaded.settings.pool_size, loaded.settings.via, loaded.settings.max_waiting) == (7, "edge", 1)


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_can_come_from_flag_environment_secret_file_and_toml(name: str, tmp_path: Path) -> None:
    text = {
        "listen": "127.0.0.1:1",
        "admin_listen": "off",
        "admin_quit": "true",
        "admin_allow_from": "10.0.0.0/8,fd00::/8",
        "admin_tokens": f"prometheus sha256:{'0' * 64}",
        "allow_from": "10.0.0.0/8,fd00::/8",
        "allowed_hosts": "proxy.example.com",
        "upstream": "https://localhost:1",
        "coordination": "redis://redis.example.com:6379/0",
        "coordination_required": "true",
        "egress_proxy": "http://proxy.example.com:3128",
        "coalesce": "/api/v4/workflow_types,/files/**",
        "revalidate": "/api/v4/workflow_types",
        "scopes": "GET /a -> a,GET /b -> b",
        "server_timing": "false",
        "otlp_endpoint": "https://collector.example:4318",
        "otlp_share": "0.5",
        "otlp_metrics_endpoint": "https://collector.example:4318",
        "otlp_metrics_interval": "30s",
        "webhook_url": "https://alerts.example.com/hook",
        "webhook_secret_file": "/webhook",
        "trace_upstream": "true",
        "sandbox": "true",
        "retries": "9",
        "retry_budget": "0.5",
        "pool_size": "9",
        "max_waiting": "9",
        "limits": "account 60/60s",
        "lane_weights": "10.0.0.7=4,10.0.0.8=2",
        "max_waiting_per_caller": "8",
        "log_format": "json",
        "log_level": "error",
        "log_successes": "0.1",
        "ca_file": "/ca.pem",
        "spool_dir": "/spool",
        "vault_address": "https://vault.example:8200",
        "vault_auth": "approle",
        "key_probe": "/api/v4/workflow_types",
        "api_key_file": "/key",
        "api_key_command_variables": "VAULT_TOKEN,AWS_*",
        "via": "edge",
        "caller_header": "X-Team",
        "body_memory": "1KiB",
        "min_body_rate": "2KiB",
        "caller_tokens": f"billing sha256:{'0' * 64}",
        "caller_token_header": "X-Token",
        "allow_uids": "1000,1001",
        "policy": "allow GET /a,deny * /b/**",
        "read_only": "true",
        "pool_per_caller": "true",
        "daily_budget": "5000,10.0.0.7: 10",
        "policy_dry_run": "true",
        "max_jobs": "30",
        "jobs_total": "1MiB",
        "ledger_days": "30",
        "ledger_rows": "0",
        "max_connections": "99",
        "max_connections_per_peer": "99",
        "upstream_private": "true",
        "auth": "bearer",
        "preset": "docstrange",
        "upstream_pins": f"sha256//{'A' * 43}=",
    }.get(name, "65MiB" if name in ("body_memory_total", "replay_limit", "spool_total") else "7s")
    (tmp_path / f"nanonets_proxy_{name}").write_text(f"{text}\n")
    toml = tmp_path / "settings.toml"
    toml.write_text(f'{name} = "{text}"\n')
    vault = {"vault_path": "nanonets", "vault_address": "https://vault.example", "vault_role": "role"}
    required = {
        **{vault_setting: vault for vault_setting in Settings.model_fields if vault_setting.startswith("vault_")},
        "api_key_command_variables": {"api_key_command": "pass show key"},
        "aws_region": {"aws_secret": "key"},
        "aws_secret_field": {"aws_secret": "key"},
        "otlp_share": {"otlp_endpoint": "http://localhost:4318"},
        "otlp_metrics_interval": {"otlp_metrics_endpoint": "http://localhost:4318"},
        "auth": {"upstream": "https://extraction.example.com"},
        "caller_token_header": {"caller_tokens_file": "/callers"},
        "cost_header": {"limits": "account 60 pages/minute"},
        "policy_dry_run": {"read_only": "true"},
        "coordination_account": {"coordination": "redis://redis.example"},
        "coordination_required": {"coordination": "redis://redis.example"},
        "jobs_keep": {"jobs": "/jobs"},
        "max_jobs": {"jobs": "/jobs"},
        "jobs_total": {"jobs": "/jobs"},
        "ledger_days": {"ledger": "/ledger"},
        "ledger_rows": {"ledger": "/ledger"},
        "webhook_secret_file": {"webhook_url": "https://alerts.example.com/"},
        "tls_cert": {"tls_key": "/key.pem"},
        "tls_key": {"tls_cert": "/cert.pem"},
        "tls_client_ca": {"tls_cert": "/cert.pem", "tls_key": "/key.pem"},
    }.get(name, {})
    others = {other: value for other, value in required.items() if other != name}
    values = [
        getattr(load(**{"environ": {}, **source, "flags": others | source.get("flags", {})}).settings, name)
        for source in (
            {"flags": {name: text}},
            {"environ": {f"NANONETS_PROXY_{name.upper()}": text}},
            {"secrets": tmp_path},
            {"toml": toml},
        )
    ]
    assert values == [values[0]] * 4
    assert values[0] != getattr(Settings(), name)


def test_a_toml_file_may_hold_arrays_numbers_and_booleans(tmp_path: Path) -> None:
    toml = tmp_path / "settings.toml"
    toml.write_text(
        'listen = ["127.0.0.1:1", "[::1]:2"]\nmax_wait = 1.5\nbody_memory = 1024\nserver_timing = false\n'
    )
    settings = load(toml=toml).settings
    assert [str(address) for address in settings.listen] == ["127.0.0.1:1", "[::1]:2"]
    assert (settings.max_wait, settings.body_memory, settings.server_timing) == (1.5, 1024, False)


# --- the settings file -------------------------------------------------------------------------


def test_the_config_flag_wins_over_its_variable_and_the_working_directory(toml: Path, tmp_path: Path) -> None:
    for name, value in (("flag", 11), ("variable", 12)):
        (tmp_path / f"{name}.toml").write_text(f"max_waiting = {value}\n")
    environ = {"NANONETS_PROXY_CONFIG": str(tmp_path / "variable.toml")}
    flag = str(tmp_path / "flag.toml")
    assert load(environ=environ, config=flag, toml=toml).settings.max_waiting == 11
    assert load(environ=environ, toml=toml).settings.max_waiting == 12
    assert load(toml=toml).settings.max_waiting == 1


def test_a_missing_config_file_is_an_error_with_the_source_of_its_name() -> None:
    assert problems(config="/no/such.toml") == ("/no/such.toml: does not exist (flag --config)",)
    assert problems(environ={"NANONETS_PROXY_CONFIG": "/no/such.toml"}) == (
        "/no/such.toml: does not exist (environment NANONETS_PROXY_CONFIG)",
    )


@pytest.mark.parametrize(
    ("content", "line", "fault"),
    [
        (b"max_wait = 3\nmax_waiting 5\n", 2, "Expected '=' after a key in a key/value pair"),
        (b"max_wait = 3\nmax_wait = 4\n", 2, "Cannot overwrite a value; its name is set twice"),
        (b"scopes = []\nscopes = [\n]\n", 3, "Cannot overwrite a value; its name is set twice"),
        (b"\n\nlisten = oops\n", 3, 'Invalid value; text needs quotes, as in max_wait = "30s"'),
        (
            b"max_wait = 5m\n",
            1,
            'Expected newline or end of document after a statement; text needs quotes, as in max_wait = "30s"',
        ),
        (b'listen = ["127.0.0.1:1"\n', 2, "Unclosed array"),
    ],
)
def test_a_toml_error_names_file_and_line(content: bytes, line: int, fault: str, toml: Path) -> None:
    toml.write_bytes(content)
    assert problems(toml=toml) == (f"{toml}:{line}: {fault}",)


def test_a_config_file_that_is_not_utf_8_or_a_directory_is_one_sentence(toml: Path, tmp_path: Path) -> None:
    toml.write_bytes(b'via = "caf\xe9"\n')
    assert problems(toml=toml) == (f"{toml}: is not UTF-8, as TOML must be",)
    assert problems(config=str(tmp_path)) == (f"{tmp_path}: is a directory (flag --config)",)
    assert problems(config="a\0b") == ("--config: is not a file name: it contains a null byte",)


# --- misspelt names ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variable", "hint"),
    [
        ("NANONETS_PROXY_LISTN", "did you mean NANONETS_PROXY_LISTEN?"),
        ("NANONETS_PROXY_MAXWAIT", "did you mean NANONETS_PROXY_MAX_WAIT?"),
        ("NANONETS_PROXY_CONFIG_FILE", "did you mean NANONETS_PROXY_CONFIG?"),
        ("nanonets_proxy_listen", "did you mean NANONETS_PROXY_LISTEN?"),
        ("NANONETS_PROXY_API_KEY", "did you mean NANONETS_API_KEY?"),
        ("NANONETS_PROXY_KEY", "did you mean NANONETS_API_KEY?"),
        ("NANONETS_PROXY_ZZZ", "`nanonets-proxy config --reference` lists all settings"),
    ],
)
def test_a_misspelt_variable_is_an_error_with_the_nearest_name(variable: str, hint: str) -> None:
    (problem,) = problems(environ={variable: "s3cret"})
    assert problem == f"{variable}: unknown setting (environment); {hint}"


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("listn", "did you mean listen?"),
        ("admin-listen", "did you mean admin_listen?"),
        ("zzz", "`nanonets-proxy config --reference` lists all settings"),
    ],
)
def test_a_misspelt_toml_key_is_an_error_with_the_nearest_name(key: str, hint: str, toml: Path) -> None:
    toml.write_text(f'{key} = "s3cret"\n')
    assert problems(toml=toml) == (f"{key}: unknown setting ({toml}:1); {hint}",)


def test_an_api_key_in_the_settings_file_is_an_error_with_a_hint(toml: Path) -> None:
    toml.write_text('api_key = "s3cret"\n')
    assert problems(toml=toml) == (
        f"api_key: a settings file cannot hold the key ({toml}:1); set NANONETS_API_KEY or NANONETS_API_KEY_FILE",
    )


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("nanonets_proxy_listn", "did you mean nanonets_proxy_listen?"),
        ("NANONETS_PROXY_LISTEN", "did you mean nanonets_proxy_listen?"),
        ("nanonets_proxy_api_key", "did you mean nanonets_api_key?"),
    ],
)
def test_a_misspelt_secret_file_is_an_error_with_the_nearest_name(name: str, hint: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("s3cret")
    assert problems(secrets=tmp_path) == (f"{name}: unknown setting (file {tmp_path / name}); {hint}",)


def test_other_programs_variables_and_files_are_ignored(tmp_path: Path) -> None:
    (tmp_path / "database_password").write_text("x")
    (tmp_path / "nanonets_api_key").write_text("x")
    environ = {"NANONETS_API_KEY": "x", "NANONETS_MODEL": "x", "PATH": "x"}
    assert load(environ=environ, secrets=tmp_path).settings == Settings()


def test_variables_of_a_kubernetes_service_named_nanonets_proxy_are_ignored() -> None:
    environ = {
        "NANONETS_PROXY_SERVICE_HOST": "10.0.0.1",
        "NANONETS_PROXY_SERVICE_PORT": "8080",
        "NANONETS_PROXY_SERVICE_PORT_HTTP": "8080",
        "NANONETS_PROXY_PORT": "tcp://10.0.0.1:8080",
        "NANONETS_PROXY_PORT_8080_TCP": "tcp://10.0.0.1:8080",
        "NANONETS_PROXY_PORT_8080_TCP_PROTO": "tcp",
        "NANONETS_PROXY_PORT_8080_TCP_PORT": "8080",
        "NANONETS_PROXY_PORT_8080_TCP_ADDR": "10.0.0.1",
    }
    assert load(environ=environ).settings == Settings()


def test_a_plain_port_number_is_not_a_kubernetes_variable() -> None:
    (problem,) = problems(environ={"NANONETS_PROXY_PORT": "9000"})
    assert problem.startswith("NANONETS_PROXY_PORT: unknown setting (environment); ")


# --- secret files ------------------------------------------------------------------------------


def test_the_first_directory_of_secret_files_wins(tmp_path: Path) -> None:
    for directory, value in (("one", "1"), ("two", "2")):
        (tmp_path / directory).mkdir()
        (tmp_path / directory / "nanonets_proxy_max_waiting").write_text(value)
    dirs = [tmp_path / "missing", tmp_path / "one", tmp_path / "two"]
    assert load_settings({}, {}, dirs=dirs, default_config=NO_CONFIG).settings.max_waiting == 1


def test_an_unreadable_secret_file_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "nanonets_proxy_listen").mkdir()
    (tmp_path / "nanonets_proxy_via").write_bytes(b"\xff")
    assert problems(secrets=tmp_path) == (
        f"listen: the file {tmp_path}/nanonets_proxy_listen is a directory",
        f"via: the file {tmp_path}/nanonets_proxy_via is not UTF-8",
    )


def test_an_unreadable_secret_directory_is_one_sentence(tmp_path: Path) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    assert problems(secrets=loop) == (
        f"secret files: the directory {loop} cannot be read: too many levels of symbolic links",
    )


def test_secret_files_may_be_systemd_credentials(tmp_path: Path) -> None:
    (tmp_path / "nanonets_proxy_via").write_text("edge")
    environ = os.environ | {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    assert load_settings({}, environ, default_config=NO_CONFIG).settings.via == "edge"


# --- the key's file ----------------------------------------------------------------------------


def test_the_variable_of_the_key_file_sets_api_key_file() -> None:
    loaded = load(environ={"NANONETS_API_KEY_FILE": "/k"})
    assert loaded.settings.api_key_file == Path("/k")
    assert loaded.sources["api_key_file"] == "environment NANONETS_API_KEY_FILE"


def test_two_variables_for_the_key_file_are_an_error() -> None:
    (problem,) = problems(environ={"NANONETS_API_KEY_FILE": "/k", "NANONETS_PROXY_API_KEY_FILE": "/k"})
    assert problem == (
        "api_key_file: NANONETS_API_KEY_FILE and NANONETS_PROXY_API_KEY_FILE are both set; keep one of them"
    )


def test_the_faults_of_all_sources_are_reported_together(toml: Path) -> None:
    toml.write_text("listn = 1\nmax_wait = 0\n")
    assert problems(environ={"NANONETS_PROXY_VIAA": "x", "NANONETS_PROXY_POOL_SIZE": "0"}, toml=toml) == (
        f"listn: unknown setting ({toml}:1); did you mean listen?",
        "NANONETS_PROXY_VIAA: unknown setting (environment); did you mean NANONETS_PROXY_VIA?",
        "pool_size: must be between 1 and 16384, not 0 (environment NANONETS_PROXY_POOL_SIZE)",
        f"max_wait: must be at least 1ms, not 0 ({toml}:2)",
    )


# --- the sandbox's settings --------------------------------------------------------------------


def test_the_sandbox_reads_its_own_settings_by_the_same_rules(tmp_path: Path) -> None:
    (tmp_path / "nanonets_sandbox_api_keys").write_text("one,two")
    environ = {
        "NANONETS_SANDBOX_LIMIT": "20/60s",
        "NANONETS_SANDBOX_LATENCY": "20ms",
        "NANONETS_SANDBOX_FAILURE_RATE": "0.5",
    }
    loaded = load_sandbox_settings({"hint": "both"}, environ, dirs=[tmp_path])
    policy = loaded.settings.policy(loaded.settings.api_keys)
    assert policy.api_keys == ("one", "two")
    assert (str(policy.limit), policy.latency_s, policy.hint) == ("20/60s", 0.02, "both")
    assert policy.failure_rate == 0.5


@pytest.mark.parametrize(
    ("environ", "sentence"),
    [
        (
            {"NANONETS_SANDBOX_LIMITS": "1/s"},
            "NANONETS_SANDBOX_LIMITS: unknown setting (environment); did you mean",
        ),
        ({"NANONETS_SANDBOX_LIMIT_KIND": "gcra"}, "limit_kind: must be fixed, sliding, bucket or concurrency, not"),
        ({"NANONETS_SANDBOX_LIMIT": "many"}, "limit: 'many' is not COUNT/WINDOW"),
        ({"NANONETS_SANDBOX_FAILURE_RATE": "2"}, "failure_rate: must be a number from 0 to 1, not '2'"),
        ({"NANONETS_SANDBOX_FAILURE_RATE": "x"}, "failure_rate: must be a number from 0 to 1, not 'x'"),
        ({"NANONETS_SANDBOX_API_KEYS": "a:b"}, "api_keys: holds a key that has a colon in it"),
    ],
)
def test_an_invalid_setting_of_the_sandbox_is_one_sentence(environ: dict[str, str], sentence: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load_sandbox_settings({}, environ, dirs=[])
    assert caught.value.problems[0].startswith(sentence)


def test_the_sandboxs_limit_can_be_off() -> None:
    settings = load_sandbox_settings({"limit": "none"}, {}, dirs=[]).settings
    assert settings.policy(("k",)).limit is None


def test_a_cost_header_without_a_limit_in_pages_is_an_error_at_start() -> None:
    with pytest.raises(SettingsError, match="cost_header: no rule of scopes and no limit of limits is in pages"):
        load({"cost_header": "X-Pages"}, {})


def test_the_ledger_and_the_state_file_are_two_files() -> None:
    assert problems(flags={"ledger": "/same", "state_file": "/same"}) == (
        "ledger: /same is already used by state_file (flag --state-file)",
    )
