"""Tries to take the lease, one attempt at a time, at random moments so that replicas do not all try together."""

import asyncio
from collections.abc import Callable
from typing import Final

from nanonets_proxy.admission.fleet.bus.port import Bus, BusError, EpochVoid, Won
from nanonets_proxy.admission.fleet.state import SILENT_TICKS
from nanonets_proxy.admission.fleet.timers import Silence

_PAUSE_S: Final = (0.03, 0.12)
_STOP_S: Final = 0.25  # a Redis that takes longer counts as silent


class Campaign:
    """Calls `on_won` with the won lease, and the instant at which it was asked for.

    `on_won` returns whether this replica uses the lease. If it does not, nobody could lead until the lease expires,
    so the campaign gives it back. It also gives back the lease of a slow Redis: a leader there would soon end, and
    meanwhile the others would join it and leave it again and again. Then it calls `on_late` instead of
    `on_won`, for what the last leader kept.
    """

    def __init__(
        self,
        bus: Bus,
        loop: asyncio.AbstractEventLoop,
        jitter: Callable[[], float],
        on_won: Callable[[Won, float], bool],
        on_late: Callable[[Won], None],
        on_void: Callable[[str], None],
    ) -> None:
        """`on_void` gets the reason why Redis takes the largest known epoch for impossible."""
        self._bus = bus
        self._loop = loop
        self._jitter = jitter
        self._on_won = on_won
        self._on_late = on_late
        self._on_void = on_void
        self._attempt: asyncio.Task[None] | None = None
        self._is_slow = False
        self._silence = Silence(loop, lambda: None if self._attempt is None else SILENT_TICKS, self._on_silence)
        self.fault = ""
        """Why the latest attempt failed; empty if another replica has the lease."""

    def pause_s(self) -> float:
        """Returns how long to wait before the next attempt."""
        least_s, most_s = _PAUSE_S
        return least_s + (most_s - least_s) * self._jitter()

    def run(self, epoch: int) -> None:
        """Begins an attempt, unless one is on its way. `epoch` is the largest known one."""
        if self._attempt is None and self._bus.connected:
            self._is_slow = False
            self._attempt = self._loop.create_task(self._try(epoch))
            self._silence.heard()
            self._silence.watch()

    def give_back(self, epoch: int, on_done: Callable[[], None]) -> None:
        """Gives a lease back before the next attempt, so that another replica can take it. Then calls `on_done`."""
        if self._attempt is None:
            self._attempt = self._loop.create_task(self._give_back(epoch, on_done))

    async def _give_back(self, epoch: int, on_done: Callable[[], None]) -> None:
        try:
            await self._bus.resign(epoch)
        finally:
            self._attempt = None
        on_done()

    def _on_silence(self, reason: str) -> None:
        self._is_slow, self.fault = True, reason

    async def stop(self) -> None:
        """Waits for the attempt that is on its way, for at most `_STOP_S`: Redis may give it the lease."""
        self._silence.stop()
        if self._attempt is not None:
            await asyncio.wait((self._attempt,), timeout=_STOP_S)
        if self._attempt is not None:
            self._attempt.cancel()

    async def _try(self, epoch: int) -> None:
        asked_at_s = self._loop.time()
        try:
            won = await self._bus.campaign(epoch)
            if not self._is_slow:
                self.fault = ""
            if won is None:
                return
            if self._is_slow:
                self._on_late(won)
            elif self._on_won(won, asked_at_s):
                return
            await self._bus.resign(won.epoch)
        except EpochVoid as error:
            self._on_void(str(error))
        except BusError as error:  # the next attempt may find Redis well
            self.fault = str(error)
        finally:
            self._attempt = None
