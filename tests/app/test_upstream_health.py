"""A silent or slow upstream is an alert when it begins, and once a minute; its end is an event."""

from typing import Any

import structlog
from prometheus_client import CollectorRegistry

from nanonets_proxy.app.environment.upstream_health import UpstreamHealth
from nanonets_proxy.core.status.upstream_watch import Finding
from nanonets_proxy.telemetry.alerts import Alerts

_SILENT = Finding("silent", "Nanonets is silent.")
_SLOW = Finding("slow", "Nanonets is slow.")
_UNREACHABLE = Finding("unreachable", "Nanonets cannot be reached.")


async def _events(findings: dict[float, Finding | None]) -> list[tuple[str, Any]]:
    """Returns the events of looks at these instants, with their sentence or duration."""
    now = 0.0
    with structlog.testing.capture_logs() as events:
        alerts = Alerts(CollectorRegistry(), clock=lambda: now)
        health = UpstreamHealth(lambda at_s: findings[at_s], alerts, structlog.get_logger())
        for now in findings:
            health.look(now)
            assert health.finding == findings[now]
    return [(event["event"], event.get("sentence", event.get("lasted_s"))) for event in events]


async def test_an_alert_comes_at_the_beginning_and_once_a_minute_and_an_event_at_the_end() -> None:
    looks: dict[float, Finding | None] = {float(at_s): _SILENT for at_s in range(10, 100, 2)}
    assert await _events({0.0: None} | looks | {100.0: None, 102.0: None}) == [
        ("upstream_silent", "Nanonets is silent."),
        ("upstream_silent", "Nanonets is silent."),
        ("upstream_recovered", 90.0),
    ]


async def test_another_finding_is_another_alert() -> None:
    assert await _events({0.0: _SILENT, 30.0: _SLOW, 40.0: None}) == [
        ("upstream_silent", "Nanonets is silent."),
        ("upstream_recovered", 30.0),
        ("upstream_slow", "Nanonets is slow."),
        ("upstream_recovered", 10.0),
    ]


async def test_a_quiet_upstream_is_a_fact_for_the_status_and_no_alert() -> None:
    quiet = Finding("quiet", "Nanonets has sent nothing for 9 s")
    assert await _events({0.0: quiet, 2.0: _SLOW, 4.0: quiet, 6.0: None}) == [
        ("upstream_slow", "Nanonets is slow."),
        ("upstream_recovered", 2.0),
    ]


async def test_a_silence_is_not_over_while_nothing_comes() -> None:
    quiet = Finding("quiet", "Nanonets has sent nothing for 9 s")
    looks = {2.0: _SILENT, 4.0: quiet, 6.0: _SILENT, 8.0: _UNREACHABLE, 10.0: quiet, 12.0: None}
    assert await _events(looks) == [("upstream_silent", "Nanonets is silent."), ("upstream_recovered", 10.0)]


async def test_a_connection_that_cannot_be_made_is_an_alert_of_its_own() -> None:
    assert await _events({0.0: _UNREACHABLE, 2.0: None}) == []


async def test_a_look_that_comes_late_blames_the_proxy_and_not_the_upstream() -> None:
    health = UpstreamHealth(lambda _: _SILENT, Alerts(CollectorRegistry()), structlog.get_logger())
    health._look_at(health._loop.time() - 3)
    assert health.finding is None
    assert 3 <= health.lag_s < 60
    health._look_at(health._loop.time())
    assert health.finding == _SILENT
    health.stop()
