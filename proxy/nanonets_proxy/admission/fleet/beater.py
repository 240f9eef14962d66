"""Calls a function again and again. It returns how long to wait before its next call."""

import asyncio
from collections.abc import Callable


class Beater:
    """Call `start`, then `stop`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, act: Callable[[], float]) -> None:
        self._loop = loop
        self._act = act
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Calls the function now."""
        wait_s = self._act()
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
