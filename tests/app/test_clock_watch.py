"""A jump of the clock, and a sleep of the machine, are one event that says what follows for the counts."""

from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from nanonets_proxy.app import clock_watch
from nanonets_proxy.app.clock_watch import Clocks, ClockWatch
from nanonets_proxy.telemetry.alerts import Alerts
from support.eventually import until
from support.log_capture import captured_log
from support.proxy_harness import running_proxy
from support.scripted_upstream import ScriptedUpstream

_NOON_S = 1_790_078_400.0  # 2026-09-22T12:00:00Z


def _jumped(*readings: Clocks) -> list[dict[str, Any]]:
    """Returns the alerts after looks at these readings."""
    alerts = Alerts(CollectorRegistry())
    watch = ClockWatch(alerts)
    for reading in readings:
        watch.look(reading)
    return alerts.to_json()


@pytest.mark.parametrize(
    ("wall_s", "sentence", "meaning"),
    [
        (
            _NOON_S + 602,
            "The clock jumped forwards by 10 min, from 2026-09-22T12:00:02Z to 2026-09-22T12:10:02Z.",
            "the usage ledger and daily_budget continue in the same hour and day",
        ),
        (
            _NOON_S + 2 - 3600,
            "The clock jumped backwards by 1 h, from 2026-09-22T12:00:02Z to 2026-09-22T11:00:02Z.",
            "the usage ledger continues in the hour 11:00 UTC, and daily_budget in the same day",
        ),
        (
            2.0,
            "The clock jumped backwards by 20718 d 12 h, from 2026-09-22T12:00:02Z to 1970-01-01T00:00:02Z.",
            "the usage ledger and daily_budget continue in the day 1970-01-01 (UTC), and add to its earlier counts",
        ),
    ],
)
async def test_a_jump_is_an_alert_with_both_instants_and_what_it_means(
    wall_s: float, sentence: str, meaning: str
) -> None:
    (alert,) = _jumped(Clocks(_NOON_S, 100.0, 5.0), Clocks(wall_s, 102.0, 5.0))
    assert alert["event"] == "clock_jumped"
    assert alert["sentence"] == sentence
    assert alert["advice"] == f"{meaning}; if the clock is wrong now, set it"
    assert (alert["before"], alert["slept_s"]) == ("2026-09-22T12:00:00Z", 0.0)
    assert alert["jump_s"] == wall_s - _NOON_S - 2


async def test_a_sleep_of_the_machine_is_told_apart_from_a_jump() -> None:
    (alert,) = _jumped(Clocks(_NOON_S, 100.0, 5.0), Clocks(_NOON_S + 8 * 3600 + 2, 102.0, 5.0 + 8 * 3600))
    assert alert["sentence"] == "The machine slept for 8 h, until 2026-09-22T20:00:02Z."
    assert (alert["jump_s"], alert["slept_s"]) == (0.0, 28_800.0)
    assert alert["advice"] == "the usage ledger continues in the hour 20:00 UTC, and daily_budget in the same day"


async def test_a_jump_after_a_sleep_is_in_the_same_event() -> None:
    (alert,) = _jumped(Clocks(_NOON_S, 100.0, 0.0), Clocks(_NOON_S + 1, 102.0, 60.0))
    assert alert["sentence"] == (
        "The machine slept for 1 min, until 2026-09-22T12:00:01Z. "
        "The clock jumped backwards by 1 min 1 s, from 2026-09-22T12:01:02Z to 2026-09-22T12:00:01Z."
    )
    assert alert["times"] == 1


async def test_a_clock_that_jumps_to_and_fro_is_logged_as_often_as_any_fault() -> None:
    """Such as in a virtual machine whose host and whose NTP client disagree."""
    with captured_log() as log:
        readings = [Clocks(_NOON_S + 2 * n + (n % 2) * 3600, 2.0 * n, 0.0) for n in range(20)]
        found = _jumped(*readings)
        assert [event["sentence"].split()[3] for event in log.events("clock_jumped")] == ["forwards", "backwards"]
    assert sorted(alert["times"] for alert in found) == [9, 10]


async def test_a_slow_look_and_a_corrected_clock_are_no_jump() -> None:
    readings = [Clocks(_NOON_S, 0.0, 0.0), Clocks(_NOON_S + 500, 500.0, 0.0), Clocks(_NOON_S + 510, 502.0, 0.0)]
    assert _jumped(*readings, *(Clocks(_NOON_S + 510 + 2.1 * n, 502 + 2.0 * n, 0.0) for n in range(1000))) == []


async def test_the_running_proxy_looks_and_its_status_shows_the_jump(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock_watch, "_LOOK_EACH_S", 0.01)
    async with ScriptedUpstream() as upstream, running_proxy(upstream.origin) as proxy:
        ahead = Clocks.read()._replace(wall_s=_NOON_S)
        monkeypatch.setattr(clock_watch.Clocks, "read", lambda: ahead)
        environment = proxy.program.environments[0]
        await until(lambda: any(problem.kind == "clock_jumped" for problem in environment.status(20).problems))
        (problem,) = environment.status(20).problems
        assert "to 2026-09-22T12:00:00Z." in problem.sentence
