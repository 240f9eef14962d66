"""Tries to take the lease, one attempt at a time, at random moments so that replicas do not all try together."""

import asyncio
from collections.abc import Callable
from typing import Final

from nanonets_proxy.admission.fleet.bus.port import Bus, BusError, Won

_PAUSE_S: Final = (0.03, 0.12)


class Campaign:
    """Calls `on_won` with the won lease, and the instant at which it was asked for."""

    def __init__(
        self,
        bus: Bus,
        loop: asyncio.AbstractEventLoop,
        jitter: Callable[[], float],
        on_won: Callable[[Won, float], None],
    ) -> None:
        self._bus = bus
        self._loop = loop
        self._jitter = jitter
        self._on_won = on_won
        self._attempt: asyncio.Task[None] | None = None
        self.fault = ""
        """Why the latest attempt failed; empty if another replica has the lease."""

    def pause_s(self) -> float:
        """Returns how long to wait before the next attempt."""
        least_s, most_s = _PAUSE_S
        return least_s + (most_s - least_s) * self._jitter()

    def run(self, epoch: int) -> None:
        """Begins an attempt, unless one is on its way. `epoch` is the largest known one."""
        if self._attempt is None and self._bus.connected:
            self._attempt = self._loop.create_task(self._try(epoch))

    def stop(self) -> None:
        """Breaks off."""
        if self._attempt is not None:
            self._attempt.cancel()

    async def _try(self, epoch: int) -> None:
        asked_at_s = self._loop.time()
        try:
            won = await self._bus.campaign(epoch)
        except BusError as error:  # the next attempt may find Redis well
            self.fault = str(error)
            return
        finally:
            self._attempt = None
        self.fault = ""
        if won is not None:
            self._on_won(won, asked_at_s)
