"""Secrets on the command line, which all users of a machine can read."""

from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from nanonets_proxy.app.environment.faults import report_secret_flags
from nanonets_proxy.cli.check import check_environments
from nanonets_proxy.settings import load_settings
from nanonets_proxy.settings.key_source import secret_flags
from nanonets_proxy.settings.sources import flag_name
from nanonets_proxy.telemetry.alerts import Alerts

HOOK = "https://hooks.example.com/services/0123456789abcdef"
VALUES = [
    ("webhook_url", HOOK, True),
    ("webhook_url", "http://127.0.0.1:9/", False),
    ("egress_proxy", "http://user:s3cret-pass@proxy.example.com:3128", True),
    ("egress_proxy", "http://proxy.example.com:3128", False),
    ("coordination", "redis://:s3cret-pass@redis.example.com:6379/0", True),
    ("coordination", "redis://redis.example.com:6379/0", False),
]


@pytest.mark.parametrize(("name", "value", "is_secret"), VALUES)
def test_a_flag_with_a_secret_is_an_alert_at_start(name: str, value: str, is_secret: bool) -> None:
    loaded = load_settings({name: value}, {}, dirs=[], default_config=Path("/none"))
    alerts = Alerts(CollectorRegistry())
    report_secret_flags(alerts, secret_flags(loaded))
    found = [(alert["event"], alert["setting"]) for alert in alerts.to_json()]
    assert found == ([("secret_on_command_line", name)] if is_secret else [])
    assert f"NANONETS_PROXY_{name.upper()}" in str(alerts.to_json()) or not is_secret


@pytest.mark.parametrize(("name", "value", "is_secret"), VALUES[:4])
def test_check_warns_of_it(name: str, value: str, is_secret: bool) -> None:
    flags = {name: value, "sandbox": True}
    loaded = load_settings(flags, {}, dirs=[], default_config=Path("/none"))
    warned = [result.detail for result in check_environments(loaded, {}) if result.name == "command line"]
    begins = [detail.partition(":")[0] for detail in warned]
    assert begins == ([f"the flag {flag_name(name)} holds a secret"] if is_secret else [])
    assert value not in str(warned)


def test_a_variable_or_a_secret_file_is_no_alert(tmp_path: Path) -> None:
    (tmp_path / "nanonets_proxy_egress_proxy").write_text("http://user:s3cret-pass@proxy.example.com:3128")
    environ = {"NANONETS_PROXY_WEBHOOK_URL": HOOK}
    assert secret_flags(load_settings({}, environ, dirs=[tmp_path], default_config=Path("/none"))) == ()
