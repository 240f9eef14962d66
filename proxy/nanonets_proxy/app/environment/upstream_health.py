"""Looks every two seconds whether the upstream is silent or slow, and reports it as an alert."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

import structlog

from nanonets_proxy.core.status.upstream_watch import Finding
from nanonets_proxy.telemetry.alerts import Alerts

_LOOK_EACH_S: Final = 2.0
_REPORT_EACH_S: Final = 60.0
_LATE_S: Final = 1.0
_LOOKS_OF_A_MINUTE: Final = 30
_SILENT: Final = (
    "look at Nanonets' status page and at the network to it; requests are sent all the same, and each one without "
    "a response ends with a 504 after first_byte_timeout"
)
_SLOW: Final = "look at Nanonets' status page; callers need time limits above these times"


class UpstreamHealth:
    """Call `start`, then `stop`. `judge` returns what is wrong with the upstream at an instant."""

    def __init__(
        self, judge: Callable[[float], Finding | None], alerts: Alerts, log: structlog.stdlib.BoundLogger
    ) -> None:
        self._judge, self._alerts, self._log = judge, alerts, log
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._lags_s: deque[float] = deque([0.0], maxlen=_LOOKS_OF_A_MINUTE)
        self._reported: str | None = None
        self._began_at_s = self._report_at_s = 0.0
        self.finding: Finding | None = None
        """What was wrong, or quiet, at the last look."""

    @property
    def lag_s(self) -> float:
        """How late the event loop was in the last minute, at most."""
        return max(self._lags_s)

    def start(self) -> None:
        due_s = self._loop.time() + _LOOK_EACH_S
        self._timer = self._loop.call_at(due_s, self._look_at, due_s)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _look_at(self, due_s: float) -> None:
        now = self._loop.time()
        self._lags_s.append(now - due_s)
        if now - due_s < _LATE_S:  # otherwise, responses may wait in the sockets until the loop reads them
            self.look(now)
        self.start()

    def look(self, now: float) -> None:
        """Judges the upstream, and reports a finding when it begins and once a minute."""
        self.finding = finding = self._judge(now)
        kind = None if finding is None or finding.kind == "quiet" else finding.kind
        if self._reported == "silent" and finding is not None and finding.kind in ("quiet", "unreachable"):
            return  # nothing has come yet
        if kind != self._reported:
            if self._reported is not None:
                self._log.info("upstream_recovered", was=self._reported, lasted_s=round(now - self._began_at_s, 1))
            self._reported = None
        # A connection that fails is an alert of its own.
        if finding is None or kind in (None, "unreachable") or (self._reported and now < self._report_at_s):
            return
        if self._reported is None:
            self._began_at_s = now
        self._reported, self._report_at_s = finding.kind, now + _REPORT_EACH_S
        if finding.kind == "silent":
            self._alerts.report("upstream_silent", _SILENT, sentence=finding.sentence)
        else:
            self._alerts.report("upstream_slow", _SLOW, sentence=finding.sentence)
