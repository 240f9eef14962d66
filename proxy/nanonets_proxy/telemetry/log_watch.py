"""Looks every two seconds whether the log can be written, because a log that cannot be written does not say so."""

import asyncio
from typing import Final

from prometheus_client import CollectorRegistry, Counter

from nanonets_proxy.telemetry.alerts import Alerts
from nanonets_proxy.telemetry.writer import LineWriter

_LOOK_EACH_S: Final = 2.0
_REPORT_EACH_S: Final = 60.0
_LOST: Final = "its reader is too slow, or its disk was full for a moment"
_ADVICE: Final = (
    "make room on the disk of standard output, or restart its reader; requests are served as before, but not logged"
)


class LogWatch:
    """Call `start`, then `stop`."""

    def __init__(self, writer: LineWriter, registry: CollectorRegistry, alerts: Alerts) -> None:
        self._writer, self._alerts = writer, alerts
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._counted = 0
        self._had_fault = False
        self._report_at_s = 0.0
        self._dropped = Counter(
            "nanonets_proxy_log_lines_dropped",
            "Lines of the log that were not written, because standard output takes them too slowly or not at all.",
            registry=registry,
        )

    def start(self) -> None:
        self.look(self._loop.time())
        self._timer = self._loop.call_later(_LOOK_EACH_S, self.start)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def look(self, now: float) -> None:
        """Reports a fault when it begins and once a minute, and its end."""
        fault, dropped = self._writer.fault(), self._writer.dropped
        if fault is None:
            if self._had_fault:  # which has also lost the lines since the last look
                self._alerts.end("log_not_written")
            elif dropped > self._counted:
                self._report(_LOST, dropped, lasting=False)
        elif not self._had_fault or now >= self._report_at_s:
            self._report_at_s = now + _REPORT_EACH_S
            self._report(fault, dropped, lasting=True)
        self._dropped.inc(dropped - self._counted)
        self._counted, self._had_fault = dropped, fault is not None

    def _report(self, reason: str, dropped: int, *, lasting: bool) -> None:
        reason = f"standard output: {reason}"
        self._alerts.report("log_not_written", _ADVICE, lasting=lasting, reason=reason, dropped=dropped)
