"""A secret that is given in place of another value is shown by no error, and by no list of settings."""

import os
from pathlib import Path
from typing import Any

import pytest

from nanonets_proxy.app.exporters import WebhookUnusable, make_webhook
from nanonets_proxy.core.keys.api_key import KeyUnusable
from nanonets_proxy.core.keys.key_mistakes import without_keys
from nanonets_proxy.core.net.webhook_url import parse_webhook_url
from nanonets_proxy.keys.command import CommandKey
from nanonets_proxy.keys.vault import VaultKey
from nanonets_proxy.keys.vault_policy import VaultAuth, VaultPolicy
from nanonets_proxy.settings import SettingsError, load_settings
from nanonets_proxy.settings.reference import effective_toml
from nanonets_proxy.settings.validation import verify_files
from nanonets_proxy.telemetry.webhook.policy import WebhookPolicy

SECRETS = [
    "0f3a9c52-7be1-11ef-a1c3-0242ac120002",
    "sk-0123456789abcdef0123",
    "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD/2F",
]
PATHS = ["api_key_file", "caller_tokens_file", "tls_key", "vault_credential_file", "webhook_secret_file"]


def _load(toml: Path, text: str = "", environ: dict[str, str] | None = None, **flags: str) -> Any:
    toml.write_text(text)
    return load_settings(flags, environ or {}, default_config=toml, dirs=[])


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    return tmp_path / "nanonets-proxy.toml"


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("text", ["[{}]", "{} = 1", "[environments.eu]\n{} = 1"])
def test_a_name_that_may_be_a_secret_is_not_shown(toml: Path, text: str, secret: str) -> None:
    with pytest.raises(SettingsError, match=rf"\(not shown\).* \({toml}") as caught:
        _load(toml, text.format(f"'{secret}'"))
    assert secret not in f"{caught.value} {caught.value.problems}"


def test_the_name_of_an_environment_that_may_be_a_secret_is_not_shown(toml: Path) -> None:
    with pytest.raises(SettingsError, match=r"^\(not shown\): is not a valid name for an environment"):
        _load(toml, f"[environments.{SECRETS[0]}]")


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("name", ["upstream_pins", "max_wait", "listen", "allow_from", "upstream", "policy"])
def test_a_value_that_may_be_a_secret_is_not_shown(toml: Path, name: str, secret: str) -> None:
    with pytest.raises(SettingsError, match=f"^{name}: ") as caught:
        _load(toml, **{name: secret})
    assert secret not in str(caught.value)


def test_the_key_of_the_environment_is_not_shown_whatever_it_looks_like(toml: Path) -> None:
    with pytest.raises(SettingsError, match=r"^upstream_pins: '\(not shown\)' is not a pin") as caught:
        _load(
            toml, environ={"NANONETS_API_KEY": "no-usual-key", "VAULT_TOKEN": "pin"}, upstream_pins="no-usual-key"
        )
    assert "no-usual-key" not in str(caught.value)


@pytest.mark.parametrize("name", ["webhook_secret_file", "caller_tokens_file", "tls_key"])
@pytest.mark.parametrize("secret", SECRETS)
def test_a_secret_in_place_of_the_path_of_its_file_is_not_shown(toml: Path, name: str, secret: str) -> None:
    others = {"tls_key": {"tls_cert": "/c"}, "webhook_secret_file": {"webhook_url": "http://127.0.0.1/"}}
    with pytest.raises(SettingsError, match=f"{name}: .*not shown.* (does not exist|cannot be read)") as caught:
        verify_files(_load(toml, **{name: secret}, **others.get(name, {})))
    assert secret not in str(caught.value)


@pytest.mark.parametrize("secret", SECRETS)
def test_vault_and_webhook_do_not_show_a_secret_in_place_of_the_path_of_its_file(secret: str) -> None:
    policy = VaultPolicy(
        address="http://127.0.0.1:1", mount="m", path="p", secret_field="f", auth=VaultAuth.TOKEN, auth_mount="",
        role="", credential_file=Path(secret), token=None, namespace="", ca_file=None, refresh_s=1.0, timeout_s=1.0,
    )  # fmt: skip
    with pytest.raises(KeyUnusable, match=r"\(not shown\)") as unusable:
        VaultKey(policy)._credential()
    webhook = WebhookPolicy(parse_webhook_url("http://127.0.0.1/"), Path(secret))
    environments: Any = [type("Environment", (), {"alerts": None})]
    registry: Any = None
    with pytest.raises(WebhookUnusable, match=r"\(not shown\)") as caught:
        make_webhook(webhook, environments, registry, bytes)
    assert secret not in f"{unusable.value} {caught.value}"


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("name", PATHS)
def test_the_settings_in_effect_do_not_show_it(toml: Path, name: str, secret: str) -> None:
    others = {
        "tls_key": {"tls_cert": "/c"},
        "webhook_secret_file": {"webhook_url": "http://127.0.0.1/"},
        "vault_credential_file": {"vault_path": "p", "vault_address": "https://v"},
    }
    shown = effective_toml(_load(toml, **{name: secret}, **others.get(name, {})))
    assert secret not in shown
    assert f'{name} = "(not shown)"' in shown


def test_the_path_of_a_file_that_exists_is_shown(toml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(toml.parent)
    Path(SECRETS[0]).touch()
    assert os.path.lexists(SECRETS[0])
    assert f'api_key_file = "{SECRETS[0]}"' in effective_toml(_load(toml, api_key_file=SECRETS[0]))


@pytest.mark.parametrize("secret", SECRETS[:2])
def test_a_key_in_place_of_the_command_is_not_shown(secret: str) -> None:
    with pytest.raises(KeyUnusable, match=r"; the value of api_key_command may be the key itself$") as caught:
        CommandKey((secret,), 1.0, 1.0).read()
    assert secret not in str(caught.value)
    assert CommandKey(("/opt/print-the-key-2026-11-30",), 1.0, 1.0).name == "command:print-the-key-2026-11-30"


@pytest.mark.parametrize(
    "sentence",
    [
        "NANONETS_PROXY_MAX_CONNECTIONS_2: unknown setting (environment); did you mean NANONETS_PROXY_LISTEN?",
        "environments.eu1.max_connections_per_peer: must be at least 1 (/etc/settings-of-2026-11-30/p.toml:3)",
        "environments.production-eu-central-1.max_wait: must be 0 (p.toml:3, environments.production-eu-central-1)",
        "caller_tokens: invoice-worker-prod-01 and invoice-worker-prod-02 have the same token (p.toml:3)",
        "tls_cert: certificate-of-2026-11-30 does not exist; listen: ip-10-0-0-12-of-the-first-rack",
        "listen: 'ip-10-0-0-12.eu-central-1.compute.internal:8080' is no address (settings-of-2026-11-30.toml:3)",
        "upstream: https://ip-10-0-0-12-of-the-first-rack/ has a path; write https://app.nanonets.com",
    ],
)
def test_other_words_of_an_error_stay(sentence: str) -> None:
    assert without_keys(sentence) == sentence
