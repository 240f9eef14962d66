"""A setting that needs another one is an error without it, so that nothing is silently off."""

from pathlib import Path

import pytest

from nanonets_proxy.settings import SettingsError, load_settings

VAULT = 'vault_path = "nanonets"\nvault_address = "https://vault.example"\n'


def problems(text: str, tmp_path: Path) -> tuple[str, ...]:
    path = tmp_path / "settings.toml"
    path.write_text(text)
    try:
        load_settings({}, {}, dirs=[], default_config=path)
    except SettingsError as error:
        return tuple(problem.replace(str(path), "FILE") for problem in error.problems)
    return ()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('vault_path = "nanonets"', "vault_path: needs vault_address (FILE:1)"),
        ('vault_address = "https://vault.example"', "vault_address: needs vault_path (FILE:1)"),
        ('vault_role = "nanonets-proxy"', "vault_role: needs vault_path (FILE:1)"),
        (VAULT + 'vault_auth = "approle"', "vault_auth: approle needs vault_role (FILE:3)"),
        ('aws_region = "eu-central-1"', "aws_region: needs aws_secret (FILE:1)"),
        (
            'api_key_command_variables = ["VAULT_TOKEN"]',
            "api_key_command_variables: needs api_key_command (FILE:1)",
        ),
        ("otlp_share = 0.5", "otlp_share: needs otlp_endpoint (FILE:1)"),
        ("otlp_metrics_interval = 5", "otlp_metrics_interval: needs otlp_metrics_endpoint (FILE:1)"),
        ("ledger_days = 30", "ledger_days: needs ledger (FILE:1)"),
        ("max_jobs = 7", "max_jobs: needs jobs (FILE:1)"),
        ('coordination_account = "a"', "coordination_account: needs coordination (FILE:1)"),
        ('webhook_secret_file = "/s"', "webhook_secret_file: needs webhook_url (FILE:1)"),
        ('tls_key = "/k"', "tls_key: needs tls_cert (FILE:1)"),
        ('caller_token_header = "X-A"', "caller_token_header: needs caller_tokens or caller_tokens_file (FILE:1)"),
        ("policy_dry_run = true", "policy_dry_run: needs policy, read_only or daily_budget (FILE:1)"),
    ],
)
def test_a_setting_without_the_one_that_it_needs_is_an_error(text: str, problem: str, tmp_path: Path) -> None:
    assert problems(text, tmp_path) == (problem,)


def test_a_default_of_all_environments_is_right_if_one_of_them_uses_it(tmp_path: Path) -> None:
    text = (
        'max_jobs = 7\nvault_address = "https://vault.example"\n[environments.a]\njobs = "/jobs"\n'
        'vault_path = "a"\nlisten = "localhost:1001"\n[environments.b]\nlisten = "localhost:1002"\n'
    )
    assert problems(text, tmp_path) == ()
    assert problems(text.replace('jobs = "/jobs"\n', ""), tmp_path) == ("max_jobs: needs jobs (FILE:1)",)


def test_one_of_several_needed_settings_in_one_environment_is_enough(tmp_path: Path) -> None:
    text = (
        'policy_dry_run = true\n[environments.a]\nread_only = true\nlisten = "localhost:1001"\n'
        '[environments.b]\nlisten = "localhost:1002"\n'
    )
    assert problems(text, tmp_path) == ()


def test_a_setting_of_one_environment_needs_the_other_one_there(tmp_path: Path) -> None:
    text = (
        '[environments.a]\njobs = "/jobs"\nlisten = "localhost:1001"\n'
        '[environments.b]\nmax_jobs = 7\nlisten = "localhost:1002"\n'
    )
    assert problems(text, tmp_path) == (
        "environments.b.max_jobs: needs environments.b.jobs (FILE:5, environments.b)",
    )


def test_each_environment_with_a_certificate_needs_its_key(tmp_path: Path) -> None:
    text = (
        'tls_cert = "/c"\n[environments.a]\ntls_key = "/k"\nlisten = "localhost:1001"\n'
        '[environments.b]\nlisten = "localhost:1002"\n'
    )
    assert problems(text, tmp_path) == ("environments.b.tls_cert: needs environments.b.tls_key (FILE:1)",)
