"""Alarms from a real ledger, in the alerts of the environment."""

import threading
import time
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from nanonets_proxy.app import usage_alarms
from nanonets_proxy.app.usage_alarms import UsageAlarms, Watched
from nanonets_proxy.core.access.budget_rule import BudgetRule
from nanonets_proxy.core.access.daily_budget import DailyBudget
from nanonets_proxy.core.usage.rollups import Series
from nanonets_proxy.telemetry.alerts import Alerts
from nanonets_proxy.telemetry.ledger.batch import Batch
from nanonets_proxy.telemetry.ledger.database import LedgerDatabase
from support.eventually import until

NOW_H = 498_000 + 12  # noon (UTC)
NOW_S = NOW_H * 3600 + 1800.0
LIST = "/api/v4/workflows"


class Scene:
    """A ledger of five weeks in which `billing` lists workflows: 200 an hour by day, and 2 by night."""

    def __init__(self, path: Path, days: int = 35) -> None:
        self.path = path
        self.database = LedgerDatabase(path, 10_000, 10_000_000)
        self.alerts = Alerts(CollectorRegistry())
        budget = DailyBudget([BudgetRule.parse("billing: 1500")])
        self.alarms = UsageAlarms(path, {"": Watched(self.alerts, budget.limit_of)})
        hours = {hour: 200 if 7 <= hour % 24 < 19 else 2 for hour in range(NOW_H - days * 24, NOW_H - NOW_H % 24)}
        self.write({(("", "billing", "GET", LIST, "2xx"), hour): count for hour, count in hours.items()})

    def add(
        self,
        hour: int,
        count: int,
        caller: str = "billing",
        method: str = "GET",
        route: str = LIST,
        status: str = "2xx",
    ) -> None:
        self.write({(("", caller, method, route, status), hour): count})

    def write(self, counts: dict[tuple[Series, int], int]) -> None:
        corrections = {key: [count, count, 0, 0, 0] for key, count in counts.items()}
        self.database.write(Batch(corrections=corrections))

    async def judge(self, now_s: float = NOW_S) -> dict[str, str]:
        """Returns the sentences of the alarms so far, by kind."""
        await self.alarms.judge(now_s)
        return {alert["alarm"]: alert["sentence"] for alert in self.alerts.to_json()}


@pytest.fixture
def scene(tmp_path: Path):
    made = Scene(tmp_path / "usage.db")
    yield made
    made.database.close()


async def test_an_ordinary_hour_raises_no_alarm(scene: Scene) -> None:
    scene.add(NOW_H, 190)
    assert await scene.judge() == {}


async def test_each_alarm_of_a_kind_is_shown_and_the_latest_ones_if_there_are_many(scene: Scene) -> None:
    callers = [f"new-{number}" for number in range(7)]
    for caller in callers[:2]:
        scene.add(NOW_H, 1, caller)
    await scene.judge()
    assert {alert["subject"] for alert in scene.alerts.to_json()} == set(callers[:2])
    for caller in callers[2:]:
        scene.add(NOW_H, 1, caller)
    await scene.judge()
    assert len(scene.alerts.to_json()) == 5
    assert len(scene.alarms._reported) == 7
    await scene.judge(NOW_S + 3600)
    assert scene.alarms._reported == {}, "names of earlier hours take no memory"


async def test_the_first_training_is_an_alarm_also_after_a_first_delete_in_the_same_hour(scene: Scene) -> None:
    scene.add(NOW_H, 1, method="DELETE", route="/api/v4/workflows/{workflow}")
    await scene.judge()
    scene.add(NOW_H, 1, method="POST", route="/api/v2/OCR/Model/{model}/Train")
    await scene.judge(NOW_S + 300)
    assert {alert["sentence"] for alert in scene.alerts.to_json()} == {
        "The caller billing has sent its first DELETE to /api/v4/workflows/{workflow}.",
        "The caller billing has sent its first POST to /api/v2/OCR/Model/{model}/Train.",
    }


async def test_an_hour_far_above_the_past_is_an_alarm_once(scene: Scene) -> None:
    scene.add(NOW_H, 650)
    past = "; the highest hour of the last 35 days had 200."
    expected = {
        "volume_caller": f"650 requests in this hour of the caller billing{past}",
        "volume_route": f"650 requests in this hour of the route {LIST}{past}",
        "volume_hour": f"650 requests in this hour of all callers together{past}",
    }
    assert await scene.judge() == expected
    assert await scene.judge() == expected
    assert {alert["times"] for alert in scene.alerts.to_json()} == {1}


async def test_hours_before_the_clock_is_set_do_not_end_the_first_week(tmp_path: Path) -> None:
    """A machine without a clock of its own starts in 1970."""
    scene = Scene(tmp_path / "young.db", days=0)
    for hour in (10, NOW_H - 24):
        scene.add(hour, 2)
    scene.add(NOW_H, 650)
    scene.add(NOW_H, 1, caller="10.0.0.9")
    assert await scene.judge() == {}
    scene.database.close()


@pytest.mark.parametrize("at_once", [False, True])
async def test_a_caller_whose_first_request_came_before_the_clock_was_set_is_new_when_it_is_set(
    scene: Scene, at_once: bool
) -> None:
    hours = [(("", "10.0.0.9", "DELETE", LIST, "2xx"), hour) for hour in (10, NOW_H)]
    if at_once:
        scene.write({hours[0]: 1, hours[1]: 150})
    else:
        scene.write({hours[0]: 1})
        scene.write({hours[1]: 150})
    assert sorted(await scene.judge()) == ["first_call", "new_caller"], "no volume_caller in its first week"


async def test_a_first_deletion_before_the_clock_was_set_hides_no_later_one(scene: Scene) -> None:
    scene.add(10, 1, method="DELETE", route=LIST + "/{workflow}")
    scene.add(NOW_H, 1, method="DELETE")
    assert sorted(await scene.judge()) == ["first_call"]


async def test_a_known_caller_is_not_new_after_a_start_in_1970(scene: Scene) -> None:
    scene.add(10, 1)
    scene.add(NOW_H, 190)
    assert await scene.judge() == {}


@pytest.mark.parametrize("ledger_days", [1, 5, 7, 400])
async def test_short_retention_does_not_begin_the_first_week_again(scene: Scene, ledger_days: int) -> None:
    scene.add(NOW_H, 650)
    scene.add(NOW_H, 1, caller="10.0.0.9")
    scene.database.delete_before(int(NOW_S) - ledger_days * 86_400, 10**6)
    assert sorted(await scene.judge()) == ["new_caller", "volume_caller", "volume_hour", "volume_route"]


async def test_a_stranger_after_five_quiet_weeks_is_an_alarm(scene: Scene) -> None:
    hour = NOW_H + 36 * 24
    scene.add(hour, 650, caller="10.0.0.9")
    scene.add(hour, 30, status="401")
    scene.add(hour, 5, method="DELETE")
    found = sorted(await scene.judge(hour * 3600 + 1800.0))
    assert found == ["first_call", "new_caller", "rejections", "volume_hour", "volume_route"]


async def test_a_busy_night_is_an_alarm(scene: Scene) -> None:
    night_h = NOW_H - NOW_H % 24 + 27
    scene.add(night_h, 150)
    found = await scene.judge(night_h * 3600.0)
    assert found["volume_caller"].endswith("; at this time of day, the highest of the last 35 days had 2.")


async def test_new_callers_first_deletions_and_trainings_are_alarms(scene: Scene) -> None:
    scene.add(NOW_H, 1, caller="10.0.0.9")
    assert await scene.judge() == {"new_caller": "The caller 10.0.0.9 has sent its first request."}
    scene.add(NOW_H, 1, method="DELETE", route=LIST + "/{workflow}")
    assert (await scene.judge())[
        "first_call"
    ] == "The caller billing has sent its first DELETE to " + LIST + "/{workflow}."
    scene.add(NOW_H + 1, 1, method="POST", route="/api/v2/OCR/Model/{model}/Train")
    scene.add(NOW_H + 1, 1, method="DELETE", route="/api/v2/OCR/Model/{model}")
    await scene.judge(NOW_S + 3600)
    newest = next(alert for alert in scene.alerts.to_json() if alert["alarm"] == "first_call")
    assert newest["sentence"] == "The caller billing has sent its first POST to /api/v2/OCR/Model/{model}/Train."


async def test_the_last_minutes_of_an_hour_are_judged_after_it(scene: Scene) -> None:
    assert await scene.judge() == {}
    scene.add(NOW_H, 1, caller="10.0.0.9")
    scene.add(NOW_H, 30, status="401")
    assert sorted(await scene.judge(NOW_S + 3600)) == ["new_caller", "rejections"]
    await scene.judge(NOW_S + 3900)
    assert {alert["times"] for alert in scene.alerts.to_json()} == {1}


async def test_an_alarm_of_two_hours_is_reported_once_in_each_however_often_they_are_judged(scene: Scene) -> None:
    scene.add(NOW_H, 30, status="401")
    scene.add(NOW_H + 1, 300, status="401")
    for after_s in (0, 3600, 3660, 3720):
        assert "rejections" in await scene.judge(NOW_S + after_s)
    assert [alert["times"] for alert in scene.alerts.to_json()] == [2]


async def test_many_401_are_an_alarm(scene: Scene) -> None:
    scene.add(NOW_H, 15, status="401")
    scene.add(NOW_H, 15, status="403")
    assert (await scene.judge())["rejections"].startswith("30 responses with 401 or 403 in this hour; ")


async def test_a_budget_that_will_not_last_is_an_alarm_once_a_day(scene: Scene) -> None:
    for hour in range(NOW_H - 5, NOW_H):
        scene.add(hour, 150)
    scene.add(NOW_H, 80)
    found = await scene.judge()
    assert found["budget"] == (
        "The caller billing has used 830 of 1,500 requests of today; at 155 an hour, its budget ends in 4.3 h, and "
        "the day (UTC) in 11.5 h."
    )
    scene.add(NOW_H + 1, 80)
    await scene.judge(NOW_S + 3600)
    assert [alert["times"] for alert in scene.alerts.to_json()] == [1]


async def test_a_budget_that_suffices_for_the_usual_day_is_no_alarm(scene: Scene) -> None:
    late_h = NOW_H - NOW_H % 24 + 18
    scene.add(late_h - 1, 700)
    scene.add(late_h, 200)
    assert "budget" not in await scene.judge(late_h * 3600 + 3000.0), "only 10 minutes of work are left"
    scene.add(late_h + 1, 200)
    scene.add(late_h + 2, 100)
    assert "budget" in await scene.judge(late_h * 3600 + 2 * 3600 + 1800.0), "this caller does not stop"


async def test_without_a_ledger_or_attempts_there_is_no_alarm(tmp_path: Path) -> None:
    alerts = Alerts(CollectorRegistry())
    alarms = UsageAlarms(tmp_path / "usage.db", {"": Watched(alerts, lambda _: None)})
    await alarms.judge(NOW_S)
    LedgerDatabase(tmp_path / "usage.db", 400, 1).close()
    await alarms.judge(NOW_S)
    assert alerts.to_json() == []


async def test_alarms_outlast_a_time_without_threads_that_begins_with_an_hour(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as at the limit of the container's processes, `pids.max`. No minute of the ended hour is lost."""
    assert await scene.judge() == {}
    scene.add(NOW_H, 1, caller="10.0.0.9")
    refused: list[threading.Thread] = []

    def refuse(thread: threading.Thread) -> None:
        refused.append(thread)
        if len(refused) == 3:
            monkeypatch.setattr(threading.Thread, "start", start)
        raise RuntimeError("can't start new thread")

    start = threading.Thread.start
    monkeypatch.setattr(threading.Thread, "start", refuse)
    monkeypatch.setattr(usage_alarms, "_INTERVAL_S", 0.001)
    monkeypatch.setattr(time, "time", lambda: NOW_S + 3600)
    scene.alarms.start()
    await until(lambda: scene.alerts.to_json() != [])
    scene.alarms.stop()
    assert [alert["alarm"] for alert in scene.alerts.to_json()] == ["new_caller"]
    assert len(refused) == 3
