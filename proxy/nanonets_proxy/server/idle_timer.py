"""A timer that is restarted far more often than it ends."""

import asyncio
from collections.abc import Callable


class IdleTimer:
    """Calls `on_timeout` when `timeout_s` have passed since the last `restart`.

    A restart only notes the time: to move a timer of the event loop for each request would cost more.
    """

    __slots__ = ("_deadline_s", "_handle", "_loop", "_on_timeout", "_timeout_s")

    def __init__(self, loop: asyncio.AbstractEventLoop, timeout_s: float, on_timeout: Callable[[], None]) -> None:
        self._loop = loop
        self._timeout_s = timeout_s
        self._on_timeout = on_timeout
        self._deadline_s = 0.0
        self._handle: asyncio.TimerHandle | None = None

    def restart(self) -> None:
        self._deadline_s = self._loop.time() + self._timeout_s
        if self._handle is None:
            self._handle = self._loop.call_at(self._deadline_s, self._check)

    def stop(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _check(self) -> None:
        self._handle = None
        if self._loop.time() >= self._deadline_s:
            self._on_timeout()
        else:
            self._handle = self._loop.call_at(self._deadline_s, self._check)
