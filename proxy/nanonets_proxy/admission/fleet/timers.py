"""A replica's timers: the time of its next beat, and silence while an answer is due.

Silence is counted in ticks of this process's own event loop, not by the clock: if the loop itself stood still, the
answer may be here already, unread. A late tick counts once.
"""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from nanonets_proxy.admission.fleet.state import BEAT_S, JOIN_TICKS, LEAD_TICKS, SILENT_TICKS, SLOW_TICKS

if TYPE_CHECKING:
    from nanonets_proxy.admission.fleet.homes.remote_home import RemoteHome
    from nanonets_proxy.admission.fleet.lead import Lead

TICK_S: Final = 0.01


def most_ticks(lead: "Lead | None", remote: "RemoteHome | None", *, is_sending: bool) -> int | None:
    """Returns how many ticks of silence are too many now; None: no answer is due. A replica alone has neither.

    `is_sending`: Redis has not confirmed the latest message. If it has, only the leader is slow.
    """
    if lead is not None:
        if not lead.awaits_answer:
            return None
        return SILENT_TICKS if lead.host is None else LEAD_TICKS
    if remote is None:
        return None
    if not remote.joined:
        return JOIN_TICKS
    if not remote.asked:
        return None
    return SILENT_TICKS if is_sending else SLOW_TICKS


class Silence:
    """Calls `on_silence` with a reason after more than `most_due()` ticks without `heard`. None: none is due."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, most_due: Callable[[], int | None], on_silence: Callable[[str], None]
    ) -> None:
        self._loop = loop
        self._most_due = most_due
        self._on_silence = on_silence
        self._ticks = 0
        self._timer: asyncio.TimerHandle | None = None

    def watch(self) -> None:
        """Begins to count, if it does not count already."""
        if self._timer is None:
            self._ticks = 0
            self._timer = self._loop.call_later(TICK_S, self._tick)

    def restart(self) -> None:
        """Begins to count anew, in another state: its patience is its own."""
        self.heard()
        self.watch()

    def heard(self) -> None:
        """Begins to count anew."""
        self._ticks = 0

    def stop(self) -> None:
        """Counts no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _tick(self) -> None:
        self._timer = None
        most = self._most_due()
        if most is None:
            return
        self._ticks += 1
        if self._ticks > most:
            self._on_silence("no answer from Redis or from the leader")
        else:
            self._timer = self._loop.call_later(TICK_S, self._tick)


class Beater:
    """Calls a function again and again, which returns how long to wait. Call `start`, then `stop`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, act: Callable[[], float]) -> None:
        self._loop = loop
        self._act = act
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Calls the function now."""
        wait_s = BEAT_S  # also after an error, which must not end the calls
        try:
            wait_s = self._act()
        finally:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_later(wait_s, self.start)

    def rush(self, wait_s: float) -> None:
        """Lets the next call come after `wait_s`, if calls have begun."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = self._loop.call_later(wait_s, self.start)

    def stop(self) -> None:
        """Ends the calls."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
