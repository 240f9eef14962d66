"""A limit for the log: a defective replica, or a Redis that refuses each message, would fill it."""

import asyncio
import math
from typing import Final

_EACH_S: Final = 60.0


class OnceAMinute:
    """Counts the occurrences of an event between two lines of the log."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._count = 0
        self._due_at_s = -math.inf

    def count(self) -> int:
        """Counts one. Returns how many there were since the last line, if another line is due, and otherwise 0."""
        self._count += 1
        if (now_s := self._loop.time()) < self._due_at_s:
            return 0
        times, self._count, self._due_at_s = self._count, 0, now_s + _EACH_S
        return times
