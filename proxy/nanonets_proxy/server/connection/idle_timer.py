"""Timers of a connection: one for the time without a request, and one for a body that stalls."""

import asyncio
from collections.abc import Callable

from nanonets_proxy.aio.time_limit import TimeLimit
from nanonets_proxy.server.connection.body_stream import Body


class IdleTimer(TimeLimit):
    """Calls `on_timeout` when `timeout_s` have passed since the last `restart`."""

    __slots__ = ("_timeout_s", "since_s")

    def __init__(self, loop: asyncio.AbstractEventLoop, timeout_s: float, on_timeout: Callable[[], None]) -> None:
        super().__init__(loop, on_timeout)
        self._timeout_s = timeout_s
        self.since_s = 0.0
        """The instant of the last `restart`, by the loop's clock."""

    def restart(self) -> None:
        self.since_s = now_s = self._loop.time()
        self.set(now_s + self._timeout_s)

    def change_timeout(self, timeout_s: float) -> None:
        """Sets another time. A connection that is idle now has this time from now on."""
        if timeout_s != self._timeout_s:
            self._timeout_s = timeout_s
            if self._timer is not None:
                self.restart()


class StallTimer:
    """Calls `on_stall` when `stall_s` pass without a byte of `body`, and after `total_s` in any case."""

    __slots__ = ("_body", "_handle", "_loop", "_on_stall", "_received_bytes", "_stall_s", "_until_s")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        body: Body,
        stall_s: float,
        total_s: float,
        on_stall: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._body = body
        self._stall_s = stall_s
        self._until_s = loop.time() + total_s
        self._on_stall = on_stall
        self._wait()

    def cancel(self) -> None:
        self._handle.cancel()

    def shorten(self, stall_s: float) -> None:
        """Waits at most this time for a byte, from now on."""
        self.cancel()
        self._stall_s = stall_s
        self._wait()

    def _wait(self) -> None:
        self._received_bytes = self._body.received_bytes
        self._handle = self._loop.call_at(min(self._loop.time() + self._stall_s, self._until_s), self._check)

    def _check(self) -> None:
        if self._body.received_bytes > self._received_bytes and self._loop.time() < self._until_s:
            self._wait()
        else:
            self._on_stall()
