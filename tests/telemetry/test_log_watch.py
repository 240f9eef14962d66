"""A log that cannot be written is an alert, which its own line in the log would not be."""

import io

import structlog
from prometheus_client import CollectorRegistry

from nanonets_proxy.telemetry.alerts import Alerts
from nanonets_proxy.telemetry.log_watch import LogWatch
from nanonets_proxy.telemetry.writer import LineWriter


class _Writer(LineWriter):
    """A writer whose faults the test sets."""

    dropped = 0  # in place of a property
    now: str | None = None

    def __init__(self) -> None:
        super().__init__(io.BytesIO(), bytes)

    def fault(self) -> str | None:
        return self.now


def _watch() -> tuple[_Writer, LogWatch, Alerts, list[float]]:
    now_s = [0.0]
    writer, alerts = _Writer(), Alerts(CollectorRegistry(), clock=lambda: now_s[0])
    return writer, LogWatch(writer, CollectorRegistry(), alerts), alerts, now_s


async def test_a_fault_of_the_log_is_shown_until_it_works_again_and_a_slow_reader_for_ten_minutes() -> None:
    writer, registry, now_s = _Writer(), CollectorRegistry(), [0.0]
    alerts = Alerts(CollectorRegistry(), clock=lambda: now_s[0])
    watch = LogWatch(writer, registry, alerts)
    with structlog.testing.capture_logs():
        watch.look(now_s[0])
        assert alerts.to_json() == []
        writer.now, writer.dropped = "no space left on device", 7
        for now_s[0] in (2.0, 4.0, 2000.0):
            watch.look(now_s[0])
            (alert,) = alerts.to_json()
            assert (alert["event"], alert["dropped"]) == ("log_not_written", 7)
            assert alert["reason"] == "standard output: no space left on device"
        assert registry.get_sample_value("nanonets_proxy_log_lines_dropped_total") == 7
        writer.now = None
        watch.look(now_s[0])
        assert alerts.to_json() == []
        writer.dropped = 9
        watch.look(now_s[0])
        now_s[0] = 2599.0
        watch.look(now_s[0])
        (alert,) = alerts.to_json()
        assert alert["reason"] == "standard output: its reader is too slow, or its disk was full for a moment"
        now_s[0] = 2600.0
        assert alerts.to_json() == []
    assert registry.get_sample_value("nanonets_proxy_log_lines_dropped_total") == 9


async def test_lines_that_a_full_disk_lost_before_its_end_are_no_further_alert() -> None:
    writer, watch, alerts, now_s = _watch()
    with structlog.testing.capture_logs() as events:
        writer.now, writer.dropped = "no space left on device", 7
        watch.look(0.0)
        now_s[0], writer.now, writer.dropped = 2.0, None, 9
        watch.look(2.0)
        watch.look(4.0)
    assert alerts.to_json() == []
    assert [event["reason"] for event in events] == ["standard output: no space left on device"]


async def test_a_lasting_fault_counts_once_a_minute() -> None:
    writer, watch, alerts, now_s = _watch()
    with structlog.testing.capture_logs() as events:
        writer.now = "no space left on device"
        for now_s[0] in map(float, range(0, 3600, 2)):
            writer.dropped += 1
            watch.look(now_s[0])
        (alert,) = alerts.to_json()
        assert alert["times"] == len(events) == 60
        assert alert["dropped"] > 1700
        writer.now = None
        watch.look(3600.0)
        writer.now = "broken pipe"
        watch.look(3602.0)  # a new fault is shown at once
        (alert,) = alerts.to_json()
        assert alert["reason"] == "standard output: broken pipe"
