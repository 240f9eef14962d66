"""Alerts: each fault is logged once a minute, counted every time, and shown for ten minutes."""

from prometheus_client import CollectorRegistry

from nanonets_proxy.telemetry.alerts import Alerts
from support.log_capture import captured_log


def test_a_flood_of_one_fault_is_one_event_a_minute_with_their_number() -> None:
    now_s = [1000.0]
    registry = CollectorRegistry()
    with captured_log() as log:
        alerts = Alerts(registry, clock=lambda: now_s[0])
        for _ in range(1921):
            alerts.report("disk_filled", "make room", kind="disk", free_bytes=0)
            now_s[0] += 0.0625
        alerts.report("disk_filled", "make room", kind="quota")
        events = log.events("disk_filled")
    assert [(event["level"], event["times"]) for event in events] == [
        ("warning", 1),
        ("warning", 960),
        ("warning", 960),
        ("warning", 1),
    ]
    assert events[0]["advice"] == "make room"
    labels = {"event": "disk_filled", "kind": "disk"}
    assert registry.get_sample_value("nanonets_proxy_alerts_total", labels) == 1921


def test_an_alert_is_shown_for_ten_minutes_and_a_lasting_one_for_ever() -> None:
    now_s = [0.0]
    alerts = Alerts(CollectorRegistry(), clock=lambda: now_s[0])
    with captured_log():
        alerts.report("limit_lowered", "raise it", lasting=True, limit=5)
        now_s[0] = 10.0
        alerts.report("disk_filled", "make room")
    assert [entry["event"] for entry in alerts.to_json()] == ["disk_filled", "limit_lowered"]
    now_s[0] = 611.0
    assert alerts.to_json() == [
        {"event": "limit_lowered", "limit": 5, "times": 1, "advice": "raise it", "age_s": 611}
    ]


def test_a_lasting_fault_is_shown_until_its_end() -> None:
    now = 0.0
    alerts = Alerts(CollectorRegistry(), clock=lambda: now)
    alerts.report("ledger_stopped", "make room", lasting=True, kind="a")
    alerts.report("other", "wait")
    now = 7200.0
    assert [alert["event"] for alert in alerts.to_json()] == ["ledger_stopped"]
    alerts.end("ledger_stopped")
    assert alerts.to_json() == []
    alerts.report("ledger_stopped", "make room", lasting=True, kind="a")
    assert [alert["event"] for alert in alerts.to_json()] == ["ledger_stopped"]
