"""The log of a replica that loses and finds its fleet: the cause at once, and no flood."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from nanonets_proxy.app.environment.fleet_reports import FleetReports
from nanonets_proxy.telemetry.alerts import Alerts
from support.gate.fleet_scene import FleetScene
from support.gate.virtual_loop import run_virtually


def logged(act: Callable[[FleetScene, Alerts], Awaitable[None]]) -> list[Any]:
    """Runs a fleet of one replica. Returns its events `fleet_alone` and `fleet_joined`."""

    async def main() -> None:
        scene = FleetScene(1, None)
        alerts = Alerts(CollectorRegistry(), clock=asyncio.get_running_loop().time)
        reports = FleetReports(scene.replicas[0], "redis://there", alerts, {"environment": "eu"})
        scene.replicas[0].position.on_change = reports.note
        await scene.start()
        await act(scene, alerts)
        reports.stop()
        await scene.stop()

    with capture_logs() as events:
        run_virtually(main())
    return [event for event in events if event["event"] in ("fleet_alone", "fleet_joined")]


async def outage(scene: FleetScene, lasts_s: float) -> None:
    scene.redis.stop()
    await asyncio.sleep(lasts_s)
    scene.redis.come_back()


def test_a_second_outage_in_the_same_minute_is_logged_at_once() -> None:
    async def act(scene: FleetScene, alerts: Alerts) -> None:
        for _ in range(2):
            await outage(scene, 0.9)
            await asyncio.sleep(5.0)
            assert alerts.to_json() == []

    events = logged(act)
    assert [event["event"] for event in events] == ["fleet_joined", *("fleet_alone", "fleet_joined") * 2]
    assert {event["reason"] for event in events if event["event"] == "fleet_alone"} == {"connection lost"}
    assert {event["environment"] for event in events if event["event"] == "fleet_joined"} == {"eu"}


def test_an_outage_is_logged_once_a_minute_while_it_lasts() -> None:
    async def act(scene: FleetScene, alerts: Alerts) -> None:
        await outage(scene, 305.0)
        (alert,) = alerts.to_json()
        assert alert["reason"] == "connection lost"

    assert [event["event"] for event in logged(act)] == ["fleet_joined", *["fleet_alone"] * 6]


def test_a_new_reason_is_logged_within_a_second() -> None:
    """Redis comes back with another password."""

    async def act(scene: FleetScene, alerts: Alerts) -> None:
        scene.redis.stop()
        await asyncio.sleep(0.3)
        scene.buses[0].fault = "AuthenticationError: wrong password"
        await asyncio.sleep(1.0)
        assert alerts.to_json()[0]["reason"] == "AuthenticationError: wrong password"
        await asyncio.sleep(30.0)

    reasons = [event.get("reason") for event in logged(act)]
    assert reasons == [None, "connection lost", "AuthenticationError: wrong password"]


def test_the_reason_of_the_start_is_not_repeated_in_other_words() -> None:
    async def act(scene: FleetScene, _: Alerts) -> None:
        scene.redis.stop()
        scene.replicas[0].position.on_change("redis://there cannot be reached: Error 111")
        scene.buses[0].fault = "ConnectionError: Error 111"
        await asyncio.sleep(30.0)

    assert len(logged(act)) == 3


def test_a_replica_that_leads_in_vain_again_and_again_logs_that_once_a_minute() -> None:
    """It wins the lease, and may not publish its beat."""

    async def act(scene: FleetScene, alerts: Alerts) -> None:
        scene.redis.stop()
        await asyncio.sleep(0.5)
        for _ in range(100):
            scene.replicas[0].position.on_change("no right to publish")
            await asyncio.sleep(0.08)
        await asyncio.sleep(56.0)
        assert len(alerts.to_json()) == 1

    events = logged(act)
    assert [(event.get("reason"), event.get("times")) for event in events] == [
        (None, None),
        ("connection lost", 1),
        ("no right to publish", 1),
        ("no right to publish", 100),
    ]


def test_a_replica_that_flaps_does_not_fill_the_log_and_the_last_event_is_true() -> None:
    for ends_alone in (False, True):

        async def act(scene: FleetScene, alerts: Alerts, *, ends_alone: bool = ends_alone) -> None:
            for _ in range(100):
                await outage(scene, 0.2)
                await asyncio.sleep(2.0)
            if ends_alone:
                scene.redis.stop()
            await asyncio.sleep(32.0)
            assert (alerts.to_json() != []) is ends_alone

        events = logged(act)
        assert 20 < len(events) <= 20 + 3 * 5, "252 s"
        assert events[-1]["event"] == ("fleet_alone" if ends_alone else "fleet_joined")
