"""Measures the lag of the event loop: how long after its time a timer runs.

Every request waits for at least this lag. A lag of more than a few milliseconds means that the CPU is too busy, or
that some work blocks the loop.
"""

import asyncio
from typing import Final

from prometheus_client import CollectorRegistry, Histogram

_INTERVAL_S: Final = 1.0
_BUCKETS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)


class EventLoopLag:
    """Measures from `start()` to `stop()`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._lag = Histogram(
            "nanonets_proxy_event_loop_lag_seconds",
            "How late a timer of the event loop runs, measured once a second.",
            buckets=_BUCKETS_S,
            registry=registry,
        )

    def start(self) -> None:
        due_s = self._loop.time() + _INTERVAL_S
        self._timer = self._loop.call_at(due_s, self._measure, due_s)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _measure(self, due_s: float) -> None:
        # uvloop counts time in milliseconds, so a timer may run a little early.
        self._lag.observe(max(0.0, self._loop.time() - due_s))
        self.start()
