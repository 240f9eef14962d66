"""A time limit that is set far more often than it passes.

A timer for each exchange, cancelled at its end, would cost more than the rest of the waiting. Here one timer runs
until the first of the times that were set; then it goes on to the last one, or tells that this has passed.
"""

import asyncio
from collections.abc import Callable
from typing import Final

# uvloop's clock and timers count whole milliseconds, so a timer may be early by a part of one.
_RESOLUTION_S: Final = 0.001


class TimeLimit:
    """`on_passed` is called when the time set last has come, a millisecond early at most. Whether anybody still
    waits is for it to see: nobody says here that a wait is over."""

    __slots__ = ("_at_s", "_due_s", "_loop", "_on_passed", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop, on_passed: Callable[[], None]) -> None:
        self._loop = loop
        self._on_passed = on_passed
        self._timer: asyncio.TimerHandle | None = None
        self._at_s = 0.0
        self._due_s = 0.0

    def set(self, due_s: float) -> None:
        """By the loop's clock; replaces the time set before."""
        self._due_s = due_s
        if self._timer is None or due_s < self._at_s:
            self.cancel()
            self._at_s = due_s
            self._timer = self._loop.call_at(due_s, self._look)

    def cancel(self) -> None:
        """Nothing is called any more, until `set`."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        if self._due_s > self._loop.time() + _RESOLUTION_S:
            self.set(self._due_s)
        else:
            self._on_passed()
