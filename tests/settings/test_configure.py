"""The configuration that settings produce, and its way from one process to another."""

import pickle
import pickletools
from pathlib import Path
from typing import Any

import pytest

from nanonets_proxy.app.config import ServeConfig
from nanonets_proxy.app.reloading import with_fixed_parts
from nanonets_proxy.core.access.caller_tokens import CallerToken
from nanonets_proxy.core.net.addresses import Origin
from nanonets_proxy.settings import LoadedSettings, SandboxSettings, Settings
from nanonets_proxy.settings.configure import sandbox_config, serve_config

SANDBOX = Origin("http", "127.0.0.1", 1)
TOKEN = str(CallerToken.of("billing", "token"))
STORES: list[dict[str, Any]] = [
    {"api_key_file": "/run/key"},
    {"api_key_command": "print-key 'of mine'"},
    {"vault_path": "nanonets", "vault_address": "https://vault.example"},
    {"aws_secret": "nanonets"},
]
ALL: dict[str, Any] = {
    "listen": "127.0.0.1:8080,unix:/run/proxy.sock?mode=0600",
    "allow_from": "10.0.0.0/8,fd00::/8",
    "admin_tokens": TOKEN,
    "allowed_hosts": "*.example.com",
    "allow_uids": "1000",
    "caller_tokens": TOKEN,
    "policy": "allow GET /api/v4/**,billing: deny * /api/v4/secret/*",
    "daily_budget": "1000,billing: 20",
    "tls_cert": "/cert.pem",
    "tls_key": "/key.pem",
    "tls_client_ca": "/ca.pem",
    "limits": "account 60/minute",
    "lane_weights": "billing=4",
    "state_file": "/var/lib/limits",
    "coordination": "rediss://user:password@redis.example:6380/1",
    "egress_proxy": "http://user:password@proxy.example:3128",
    "upstream_pins": "sha256//47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=",
    "key_probe": "/api/v4/workflow_types",
}


def _config(**values: Any) -> ServeConfig:
    return serve_config(LoadedSettings(Settings(**values), {}), None, {"VAULT_TOKEN": "s3cret"})


def _modules(pickled: bytes) -> set[str]:
    """Returns the modules that a pickle imports."""
    texts = [str(argument) for _, argument, _ in pickletools.genops(pickled) if isinstance(argument, str)]
    return {text for text in texts if text.startswith(("nanonets_proxy", "pydantic", "aiohttp"))}


@pytest.mark.parametrize("values", [{}, ALL, *STORES])
def test_a_configuration_survives_pickling(values: dict[str, Any]) -> None:
    config = _config(**values)
    sent = pickle.dumps(config)
    (proxy,), (original,) = pickle.loads(sent).environments, config.environments
    # A key source has no equality by value.
    assert [store.name for store in proxy.key_source_config.stores] == [
        s.name for s in original.key_source_config.stores
    ]
    for name in (field for field in original.__slots__ if field != "key_source_config"):
        assert getattr(proxy, name) == getattr(original, name), name


def test_a_pickled_configuration_needs_neither_pydantic_nor_settings() -> None:
    modules = _modules(pickle.dumps(_config(**ALL)))
    assert {"nanonets_proxy.app.config", "nanonets_proxy.core.net.addresses"} <= modules
    assert not {module for module in modules if module.startswith(("pydantic", "nanonets_proxy.settings"))}


def test_a_sandbox_configuration_survives_pickling() -> None:
    config = sandbox_config(SandboxSettings(api_keys="a,b", limit="20/60s", limit_kind="sliding"))
    assert pickle.loads(pickle.dumps(config)) == config


def test_authenticated_callers_may_connect_from_anywhere_except_to_the_admin_listener() -> None:
    config = _config(caller_tokens=TOKEN)
    assert config.environments[0].guard.any_peer
    assert not config.admin_guard.any_peer
    assert not _config().environments[0].guard.any_peer


def test_the_admin_listener_may_have_networks_of_its_own() -> None:
    shared, own = _config(allow_from="10.0.0.0/8"), _config(allow_from="10.0.0.0/8", admin_allow_from="fd00::/8")
    assert (shared.admin_guard.setting, own.admin_guard.setting) == ("allow_from", "admin_allow_from")
    assert list(map(str, shared.admin_guard.allow_from)) == ["10.0.0.0/8"]
    assert list(map(str, own.admin_guard.allow_from)) == ["fd00::/8"]
    assert list(map(str, own.environments[0].guard.allow_from)) == ["10.0.0.0/8"]


def test_an_authorizer_exists_only_if_a_setting_needs_it() -> None:
    assert _config().environments[0].authorizer is None
    assert _config(caller_header="X-Caller").environments[0].authorizer is None
    for setting in ({"policy": "deny * /x"}, {"read_only": True}, {"daily_budget": "1"}, {"caller_tokens": TOKEN}):
        assert _config(**setting).environments[0].authorizer is not None, setting
    file = _config(caller_tokens_file="/run/callers").environments[0].authorizer
    assert file is not None
    assert (file.tokens, file.tokens_file) == ((), Path("/run/callers"))


def test_the_sandbox_needs_no_key_and_makes_no_source_of_keys() -> None:
    loaded = LoadedSettings(Settings(sandbox=True, aws_secret="nanonets"), {})
    config = serve_config(loaded, SandboxSettings(api_keys="theirs"), {})
    assert config.environments[0].key_source_config.stores == ()
    assert config.sandbox is not None
    assert config.sandbox.policy.api_keys == (), "the process makes its own key"


def test_the_sandbox_is_reached_directly_and_stays_so_after_a_reload() -> None:
    pins = ALL["upstream_pins"]
    config = _config(egress_proxy="http://p.example:1", upstream_pins=pins).environments[0]
    served = config.with_sandbox(SANDBOX)
    assert (served.dial.origin, served.dial.egress_proxy, served.dial.pins) == (SANDBOX, None, ())
    assert "app.nanonets.com" in served.guard.allowed_hosts, "callers with a proxy variable send it as Host"
    changed = _config(egress_proxy="http://p.example:2", upstream_pins=pins, via="new").environments[0]
    assert with_fixed_parts(changed, served) == changed.with_sandbox(SANDBOX)


def test_the_sandbox_leaves_the_limits_of_the_upstream_in_the_state_file() -> None:
    config = _config(state_file="/var/lib/limits").environments[0]
    assert config.with_sandbox(SANDBOX).state_file is None


def test_the_sandbox_sends_no_traces() -> None:
    config = _config(otlp_endpoint="http://127.0.0.1:4318").environments[0]
    assert config.traces is not None
    assert config.with_sandbox(SANDBOX).traces is None


@pytest.mark.parametrize(
    ("environ", "given", "variable"),
    [
        ({"HTTPS_PROXY": "http://p"}, {}, "HTTPS_PROXY"),
        ({"all_proxy": "http://p", "NO_PROXY": "localhost, .example.com"}, {}, "all_proxy"),
        ({"HTTP_PROXY": "http://p", "HTTPS_PROXY": ""}, {}, ""),
        ({"https_proxy": "http://p", "no_proxy": "localhost,nanonets.com"}, {}, ""),
        ({"https_proxy": "http://p", "NO_PROXY": "*"}, {}, ""),
        ({"HTTPS_PROXY": "http://p"}, {"egress_proxy": "http://p"}, ""),
        ({"HTTPS_PROXY": "http://p"}, {"upstream": "http://127.0.0.1:1"}, ""),
        ({"HTTPS_PROXY": "http://p"}, {"upstream": "https://127.0.0.1:1"}, ""),
    ],
)
def test_a_proxy_variable_that_has_no_effect_is_found(
    environ: dict[str, str], given: dict[str, Any], variable: str
) -> None:
    config = serve_config(LoadedSettings(Settings(**given), {}), None, environ)
    assert config.environments[0].dial.ignored_variable == variable
