"""Looks every two seconds whether the log can be written, because a log that cannot be written does not say so."""

import asyncio
from typing import Final

from prometheus_client import CollectorRegistry, Counter

from nanonets_proxy.telemetry.alerts import Alerts
from nanonets_proxy.telemetry.writer import LineWriter

_LOOK_EACH_S: Final = 2.0
_TOO_SLOW: Final = "its reader is too slow"
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
        self._dropped = Counter(
            "nanonets_proxy_log_lines_dropped",
            "Lines of the log that were not written, because standard output takes them too slowly or not at all.",
            registry=registry,
        )

    def start(self) -> None:
        self._look()
        self._timer = self._loop.call_later(_LOOK_EACH_S, self.start)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        fault, dropped = self._writer.fault(), self._writer.dropped
        if self._had_fault and fault is None:
            self._alerts.end("log_not_written")
        if fault is not None or dropped > self._counted:
            self._alerts.report(
                "log_not_written",
                _ADVICE,
                lasting=fault is not None,
                reason=f"standard output: {fault or _TOO_SLOW}",
                dropped=dropped,
            )
        self._dropped.inc(dropped - self._counted)
        self._counted, self._had_fault = dropped, fault is not None
