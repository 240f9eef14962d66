"""A time limit that is set far more often than it expires.

A timer for each exchange, cancelled at its end, would be expensive. Instead, one timer runs until the first limit.
When it fires, the latest limit has expired, or the timer is set again for the latest limit.
"""

import asyncio
from collections.abc import Callable
from typing import Final

# uvloop counts whole milliseconds, so a timer may fire up to a millisecond early.
_RESOLUTION_S: Final = 0.001


class TimeLimit:
    """Calls `on_expired` when the latest limit expires, at most a millisecond early.

    The end of a wait does not remove the limit: `on_expired` must check whether a task still waits.
    """

    __slots__ = ("_due_s", "_loop", "_on_expired", "_timer", "_timer_at_s")

    def __init__(self, loop: asyncio.AbstractEventLoop, on_expired: Callable[[], None]) -> None:
        self._loop = loop
        self._on_expired = on_expired
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at_s = 0.0
        self._due_s = 0.0

    def set(self, due_s: float) -> None:
        """Replaces the limit by `due_s`, a time of the loop's clock."""
        self._due_s = due_s
        if self._timer is None or due_s < self._timer_at_s:
            self.cancel()
            self._timer_at_s = due_s
            self._timer = self._loop.call_at(due_s, self._on_timer)

    def cancel(self) -> None:
        """Removes the limit until the next `set()`."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _on_timer(self) -> None:
        self._timer = None
        if self._due_s > self._loop.time() + _RESOLUTION_S:
            self.set(self._due_s)
        else:
            self._on_expired()
