"""The alert about a key that is too old."""

from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from nanonets_proxy.core.keys.api_key import ApiKey
from nanonets_proxy.keys.key_age import KeyAgeAlarm
from nanonets_proxy.telemetry.alerts import Alert, Alerts

DAY_S = 86400.0
OLD = ApiKey(b"5f1e2d3c-aaaa-bbbb-cccc-0123456789ab", "file:/run/key")
OTHER = ApiKey(b"6f1e2d3c-aaaa-bbbb-cccc-0123456789ab", "file:/run/key")


@pytest.fixture
def reported() -> tuple[Any, list[Alert]]:
    alerts, logged = Alerts(CollectorRegistry()), []
    alerts.subscribe(logged.append)
    alarm = KeyAgeAlarm(alerts)

    def report(key: ApiKey, now_s: float) -> int:
        alarm.report(key, 91.23 * DAY_S + now_s, 90 * DAY_S, now_s)
        return len(logged)

    return report, logged


def test_an_old_key_is_reported_once_a_day(reported: tuple[Any, list[Alert]]) -> None:
    report, _ = reported
    assert [report(OLD, hour * 3600.0) for hour in range(50)] == [1] * 24 + [2] * 24 + [3] * 2


def test_another_old_key_is_reported_at_once(reported: tuple[Any, list[Alert]]) -> None:
    report, _ = reported
    assert [report(OLD, 0.0), report(OTHER, 1.0), report(OTHER, 2.0)] == [1, 2, 2]


def test_the_sentence_has_both_ages(reported: tuple[Any, list[Alert]]) -> None:
    report, logged = reported
    report(OLD, 0.0)
    assert logged[0].event == "key_old"
    assert logged[0].fields == {
        "key": "file:/run/key",
        "age_days": 91.2,
        "sentence": "The API key of file:/run/key is 91.2 days old; key_max_age is 90 days.",
    }
