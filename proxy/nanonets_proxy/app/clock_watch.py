"""Looks every two seconds whether the machine's clock has jumped, or the machine has slept.

Waits and limits use another clock. But the log, the usage ledger and `daily_budget` follow this one, so an operator
must learn why they begin another hour or day.
"""

import asyncio
import time
from typing import Final, NamedTuple

from nanonets_proxy.admission.sleep_clock import slept_s
from nanonets_proxy.core.status.state import duration
from nanonets_proxy.core.usage.rollups import DAY_S, HOUR_S
from nanonets_proxy.telemetry.alerts import Alerts

_LOOK_EACH_S: Final = 2.0
# More than a busy machine needs between two clocks, and than an NTP client corrects at once in normal operation.
_JUMP_S: Final = 10.0


class Clocks(NamedTuple):
    """One reading of the clocks."""

    wall_s: float
    monotonic_s: float
    """Without the machine's sleep."""
    slept_s: float

    @classmethod
    def read(cls) -> "Clocks":
        return cls(time.time(), time.monotonic(), slept_s())


class ClockWatch:
    """Call `start`, then `stop`."""

    def __init__(self, alerts: Alerts) -> None:
        self._alerts = alerts
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._known: Clocks | None = None

    def start(self) -> None:
        self.look(Clocks.read())
        self._timer = self._loop.call_later(_LOOK_EACH_S, self.start)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def look(self, now: Clocks) -> None:
        """Reports a jump or a sleep since the last look."""
        known, self._known = self._known, now
        if known is None:
            return
        slept_s = now.slept_s - known.slept_s
        expected_s = known.wall_s + now.monotonic_s - known.monotonic_s + slept_s
        jump_s = now.wall_s - expected_s
        is_jump = abs(jump_s) >= _JUMP_S
        if not is_jump and slept_s < _JUMP_S:
            return
        was, to = _instant(expected_s), _instant(now.wall_s)
        sentence = f"The machine slept for {duration(slept_s)}, until {to}." if slept_s >= _JUMP_S else ""
        kind = "sleep"
        if is_jump:
            kind = "forwards" if jump_s > 0 else "backwards"
            jump = f"The clock jumped {kind} by {duration(abs(jump_s))}, from {was} to {to}."
            sentence = f"{sentence} {jump}".strip()
        self._alerts.report(
            "clock_jumped",
            _meaning(known.wall_s, now.wall_s, is_jump=is_jump),
            kind=kind,  # so the log has a jump back soon after a jump, too
            sentence=sentence,
            before=_instant(known.wall_s),
            now=to,
            jump_s=round(jump_s, 1),
            slept_s=round(slept_s, 1),
        )


def _meaning(before_s: float, now_s: float, *, is_jump: bool) -> str:
    """Returns what a jump from one instant to another means for the ledger and the budgets."""
    if before_s // HOUR_S == now_s // HOUR_S:
        meaning = "the usage ledger and daily_budget continue in the same hour and day"
    elif before_s // DAY_S == now_s // DAY_S:
        meaning = (
            f"the usage ledger continues in the hour {_text(now_s, '%H:00')} UTC, and daily_budget in the same day"
        )
    else:
        day = _text(now_s, "%Y-%m-%d")
        meaning = (
            f"the usage ledger and daily_budget continue in the day {day} (UTC), and add to its earlier counts"
        )
    return f"{meaning}; if the clock is wrong now, set it" if is_jump else meaning


def _instant(wall_s: float) -> str:
    return _text(wall_s, "%Y-%m-%dT%H:%M:%SZ")


def _text(wall_s: float, form: str) -> str:
    return time.strftime(form, time.gmtime(wall_s))
