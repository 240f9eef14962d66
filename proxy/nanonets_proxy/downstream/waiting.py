"""The gate's shell: one future a waiting ticket, one timer, and nothing decided here.

A ticket that need not wait is admitted without a future (`admit_at_once`). A task that is cancelled withdraws
its ticket; if the grant was faster, it hands the permit back. A grant for a future that is already
cancelled is handed back at once.
"""

import asyncio
import math
from collections.abc import Callable

from nanonets_proxy.core.gate import Gate, Outcome
from nanonets_proxy.core.tickets import Expiry, Permit, Reason, Ticket
from nanonets_proxy.errors import RateLimited, ShuttingDown

_MESSAGES = {
    Reason.QUEUE_FULL: "Too many requests are waiting for the upstream's rate limit.",
    Reason.LANE_FULL: "Too many requests of this caller are waiting for the upstream's rate limit.",
    Reason.CANNOT_BE_IN_TIME: "The upstream's rate limit opens later than this request may wait.",
    Reason.DEADLINE_PASSED: "The request waited as long as it may for the upstream's rate limit.",
}


class WaitingRoom:
    """Callers wait here for their permits."""

    def __init__(self, gate: Gate, loop: asyncio.AbstractEventLoop) -> None:
        self._gate = gate
        self._loop = loop
        self._futures: dict[Ticket, asyncio.Future[Permit]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at_s = math.inf
        self._closed = False

    def admit_at_once(self, ticket: Ticket, now_s: float) -> Permit | None:
        """The permit of one that need not wait; None: `admit` has to be awaited. `now_s` as there."""
        return None if self._closed else self._gate.admit(ticket, now_s)

    async def admit(self, ticket: Ticket, now_s: float, on_wait: Callable[[], None] | None = None) -> Permit:
        """The permit, as soon as the gate grants it; `on_wait` is called if that is not at once.

        `now_s` is the loop's time, read in this very turn: a ticket that may not wait at all still is in time.
        Raises RateLimited or ShuttingDown.
        """
        if self._closed:
            raise _shutting_down()
        refusal = self._gate.enqueue(ticket, now_s)
        if refusal is not None:
            raise RateLimited(
                _MESSAGES[refusal.reason],
                retry_after_s=refusal.retry_after_s,
                reason=refusal.reason.value,
                position=refusal.position,
            )
        verdict = self._poll(now_s, newcomer=ticket) if self._gate.wants_poll else None
        if isinstance(verdict, Permit):
            return verdict
        if verdict is not None:
            raise verdict
        if on_wait is not None:
            on_wait()
        future: asyncio.Future[Permit] = self._loop.create_future()
        self._futures[ticket] = future
        try:
            return await future
        except asyncio.CancelledError:
            self._leave(ticket, future)
            raise
        finally:
            self._futures.pop(ticket, None)

    def settle(self, permit: Permit, outcome: Outcome, retry_after_s: float | None = None) -> None:
        """Ends a permit; whoever can go because of that, goes."""
        now_s = self._loop.time()
        self._gate.settle(permit, outcome, now_s, retry_after_s)
        if self._gate.waiting:
            self._poll(now_s)

    def close(self) -> None:
        """Sends all who wait away, and whoever comes from now on. Permits that are out stay good."""
        self._closed = True
        now_s = self._loop.time()
        for ticket, future in self._futures.items():
            self._gate.withdraw(ticket, now_s)
            if not future.done():
                future.set_exception(_shutting_down())
        self._poll(now_s)

    def _leave(self, ticket: Ticket, future: "asyncio.Future[Permit]") -> None:
        """The waiting task was cancelled: before its grant, or between the grant and its turn to run."""
        now_s = self._loop.time()
        if future.done() and not future.cancelled() and future.exception() is None:
            self._gate.settle(future.result(), Outcome.UNUSED, now_s)
        else:
            self._gate.withdraw(ticket, now_s)
        self._poll(now_s)

    def _poll(self, now_s: float, newcomer: Ticket | None = None) -> Permit | RateLimited | None:
        """Carries out the gate's verdicts; returns the newcomer's, who has no future yet."""
        own: Permit | RateLimited | None = None
        again = True
        while again:
            again = False
            verdicts = self._gate.poll(now_s)
            for permit in verdicts.granted:
                if permit.ticket is newcomer:
                    own = permit
                    continue
                future = self._futures.get(permit.ticket)
                if future is None or future.done():
                    self._gate.settle(permit, Outcome.UNUSED, now_s)
                    again = True
                else:
                    future.set_result(permit)
            for expiry in verdicts.expired:
                if expiry.ticket is newcomer:
                    own = _expired(expiry)
                    continue
                future = self._futures.get(expiry.ticket)
                if future is not None and not future.done():
                    future.set_exception(_expired(expiry))
        self._set_timer(verdicts.wake_at_s)
        return own

    def _set_timer(self, wake_at_s: float | None) -> None:
        """One that is set may ring too early. That costs a poll; setting it anew at each poll would cost more."""
        if wake_at_s is None or wake_at_s >= self._timer_at_s:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at_s = wake_at_s
        self._timer = self._loop.call_at(wake_at_s, self._on_timer)

    def _on_timer(self) -> None:
        self._timer, self._timer_at_s = None, math.inf
        self._poll(self._loop.time())


def _expired(expiry: Expiry) -> RateLimited:
    message = _MESSAGES[expiry.reason]
    return RateLimited(message, retry_after_s=expiry.retry_after_s, reason=expiry.reason.value)


def _shutting_down() -> ShuttingDown:
    return ShuttingDown("The proxy is shutting down.", retry_after_s=1.0)
