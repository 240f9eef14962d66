"""The gate's shell: one future per waiting ticket, and one timer. It carries out the gate's verdicts.

A ticket that need not wait is admitted without a future (`try_admit`). A cancelled task calls `leave`, which
withdraws its ticket, or hands its permit back if the grant came first. If a future is already cancelled when its
ticket is granted, the permit is handed back at once.
"""

import asyncio
import math
from collections.abc import Callable

from nanonets_proxy.admission.handed_over_gate import HandedOverGate
from nanonets_proxy.core.ratelimit.gate import Gate
from nanonets_proxy.core.ratelimit.gate_policy import GatePolicy
from nanonets_proxy.core.ratelimit.hints.rate_limit_fields import Advice
from nanonets_proxy.core.ratelimit.news import News
from nanonets_proxy.core.ratelimit.tickets import Expiry, Outcome, Reason, Ticket, TicketState
from nanonets_proxy.errors import LargerThanLimit, ProxyError, RateLimited, ShuttingDown

_THROTTLED = Outcome.THROTTLED
_STOOD_STILL_S, _READ_S = 0.02, 0.005
"""If a timer is so late, the process stood still. Then a 429 may be here, unread, to a request whose acceptance
timeout is over. So the timer waits for a moment, once."""
_MIN_SLEEP_S = 1.0  # two clocks that are read in turn may differ by less
_ADMITTED = TicketState.ADMITTED  # in Python 3.11 each access to a member through its enum costs a call

_MESSAGES = {
    Reason.QUEUE_FULL: "Too many requests are waiting for the upstream's rate limit.",
    Reason.LANE_FULL: "Too many requests of this caller are waiting for the upstream's rate limit.",
    Reason.CANNOT_BE_IN_TIME: "The upstream's rate limit does not allow this request before its deadline.",
    Reason.DEADLINE_PASSED: "Timed out waiting for the upstream's rate limit.",
    Reason.REFUSED_ALONE: "The upstream refuses this request with 429 while it accepts others.",
    Reason.QUOTA_USED_UP: "The upstream's quota is used up for longer than a request may wait.",
}


class WaitingRoom:
    """Lets requests wait for their permits."""

    def __init__(
        self,
        gate: Gate,
        loop: asyncio.AbstractEventLoop,
        on_news: Callable[[News], None] = lambda _: None,
        slept_s: Callable[[], float] = lambda: 0.0,
    ) -> None:
        """Calls `on_news` with each item of news. `slept_s` returns how long the machine has slept in all."""
        self._on_news = on_news
        self._slept_s = slept_s
        self._known_sleep_s = slept_s()
        self._sleep_checked_at_s = -math.inf
        self._gate: Gate | HandedOverGate = gate
        self._loop = loop
        self._futures: dict[Ticket, asyncio.Future[None]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at_s = math.inf
        self._reads_first = False  # whether the timer has been late, and waits until what has arrived is read
        self._closed = False
        self._give_up: dict[Ticket, Callable[[], None]] = {}  # of paused tickets, in the order of their pauses
        self._resuming: dict[Ticket, asyncio.Future[None]] = {}

    def hand_over(self, gate: HandedOverGate) -> None:
        """Waits for the verdicts of a successor's gate from now on, also for the tickets that wait already."""
        now_s = self._loop.time()
        waiting = sorted(self._futures, key=lambda ticket: ticket.arrival)
        for ticket in waiting:
            self._gate.withdraw(ticket, now_s)
        self._poll(now_s)  # paused tickets get their places
        self._gate = gate
        for ticket in waiting:
            gate.enqueue(ticket, now_s)

    def use(self, gate: Gate) -> None:
        """Returns to the gate of before `hand_over`, which must have all tickets."""
        self._gate = gate
        self.poll()

    def adopt(self, ticket: Ticket, granted_at_s: float) -> None:
        """Takes over a request that a predecessor has in flight. It settles like any other ticket."""
        now_s = self._loop.time()
        self._gate.adopt(ticket, granted_at_s, now_s)
        self._poll(now_s)

    def poll(self) -> None:
        """Carries out the verdicts of a gate that has changed, or that other processes have a part in."""
        self._poll(self._loop.time())

    def change_policy(self, policy: GatePolicy) -> None:
        """Applies another policy, and grants what it allows now. Waiting tickets keep their place."""
        self._gate.change_policy(policy)
        self._poll(self._loop.time())

    def try_admit(self, ticket: Ticket, now_s: float) -> bool:
        """Admits a ticket that need not wait. Returns False if the ticket must `enter`. `now_s`: see `enter`."""
        return self._gate.try_admit(ticket, now_s)

    def enter(
        self, ticket: Ticket, now_s: float, on_wait: Callable[[], None] | None = None
    ) -> "asyncio.Future[None] | None":
        """Returns a future to await until the gate admits the ticket; None if the ticket is admitted already.

        If the `await` is cancelled, call `leave`. `on_wait` is called before a wait. `now_s` is the loop's time as
        read once in this turn of the loop, also for the deadline. With a later reading, a ticket that may not wait
        would be too late. This method and the future raise RateLimited, LargerThanLimit or ShuttingDown.
        """
        if self._closed:
            raise shutting_down()
        gate = self._gate
        if now_s > self._sleep_checked_at_s + _MIN_SLEEP_S:
            self._note_sleep(now_s)
        rejection = gate.enqueue(ticket, now_s)
        if rejection is not None:
            raise rejection_error(rejection.reason, rejection.retry_after_s, ticket.cost, rejection.position)
        if gate.needs_poll:
            expired = self._poll(now_s, newcomer=ticket)
            if expired is not None:
                raise expired
            if ticket.state is _ADMITTED:
                return None
        if on_wait is not None:
            on_wait()
        future = self._futures[ticket] = self._loop.create_future()
        return future

    def leave(self, ticket: Ticket) -> None:
        """Ends the ticket of a cancelled task, whether the ticket still waits or has just been granted."""
        self._futures.pop(ticket, None)
        now_s = self._loop.time()
        if ticket.state is _ADMITTED:
            self._gate.settle(ticket, Outcome.UNUSED, now_s)
        else:
            self._gate.withdraw(ticket, now_s)
        self._poll(now_s)

    def settle(
        self,
        ticket: Ticket,
        outcome: Outcome,
        retry_after_s: float | None = None,
        quota_used_up: bool = False,
        ended_at_s: float = math.inf,
    ) -> None:
        """Ends a ticket's permit, and grants the permits that are possible now.

        `ended_at_s`: when the response came, if that was a while ago.
        """
        now_s = self._loop.time()
        if self._give_up or self._resuming:
            self._give_up.pop(ticket, None)
            self._resuming.pop(ticket, None)
        gate = self._gate
        needs_poll = gate.settle(ticket, outcome, min(now_s, ended_at_s), retry_after_s, quota_used_up)
        if needs_poll or gate.waiting or self._resuming:
            self._poll(now_s)

    def correct_cost(self, ticket: Ticket, cost: float) -> None:
        """Corrects the cost of a ticket that was granted with an estimate of it, before it enters again."""
        self._gate.correct_cost(ticket, cost)
        if self._gate.waiting:
            self._poll(self._loop.time())

    def note_advice(self, ticket: Ticket, advice: Advice) -> None:
        """Applies what the response to a ticket announced about the limit of its scope."""
        self._gate.note_advice(ticket, advice, self._loop.time())

    def pause(self, ticket: Ticket, give_up: Callable[[], None]) -> None:
        """Gives the place of an admitted ticket to others, until `resume`.

        A paused request keeps its connection to the upstream. So at most `max_in_flight` requests are paused or
        wait to resume. Beyond that, `give_up` is called for the request that was paused first.
        """
        if ticket.state is not _ADMITTED:
            return
        if len(self._give_up) + len(self._resuming) >= self._gate.policy.max_in_flight:
            if not self._give_up:
                give_up()
                return
            self._give_up.pop(next(iter(self._give_up)))()
        self._give_up[ticket] = give_up
        self._gate.pause(ticket)
        if self._gate.needs_poll:
            self._poll(self._loop.time())

    async def resume(self, ticket: Ticket) -> None:
        """Waits until a paused ticket has a place again."""
        self._give_up.pop(ticket, None)
        if not self._gate.resume(ticket):
            future = self._resuming[ticket] = self._loop.create_future()
            await future
            del self._resuming[ticket]

    def close(self) -> None:
        """Rejects all waiting tickets, and future ones that must wait. Permits in use stay valid."""
        self._closed = True
        now_s = self._loop.time()
        futures, self._futures = self._futures, {}
        for ticket, future in futures.items():
            self._gate.withdraw(ticket, now_s)
            if not future.done():
                future.set_exception(shutting_down())
        self._poll(now_s)

    def retire(self) -> None:
        """Closes for good, since another gate has all tickets now. This gate decides and reports nothing more.

        Nobody awaits the futures any more. To end tens of thousands of tickets would take most of a second.
        """
        self._closed = True
        self._futures.clear()
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at_s = -math.inf  # no timer is earlier

    def _poll(self, now_s: float, newcomer: Ticket | None = None) -> ProxyError | None:
        """Carries out the gate's verdicts. Returns the expiry of `newcomer`, which has no future yet."""
        newcomer_expired: ProxyError | None = None
        again = True
        while again:
            verdicts = self._gate.poll(now_s)
            for ticket in verdicts.granted:
                if ticket is newcomer:
                    continue
                if (resuming := self._resuming.get(ticket)) is not None:
                    if not resuming.done():  # otherwise its task is ending, and settles the permit
                        resuming.set_result(None)
                    continue
                future = self._futures.pop(ticket, None)
                if future is None or future.done():  # its task is being cancelled
                    self._gate.settle(ticket, Outcome.UNUSED, now_s)
                else:
                    future.set_result(None)
            for expiry in verdicts.expired:
                if expiry.ticket is newcomer:
                    newcomer_expired = _expired(expiry)
                    continue
                future = self._futures.pop(expiry.ticket, None)
                if future is not None and not future.done():
                    future.set_exception(_expired(expiry))
            again = self._gate.needs_poll
        if not self._gate.news.is_empty:
            for news in self._gate.news.take():
                self._on_news(news)
        self._set_timer(verdicts.wake_at_s)
        return newcomer_expired

    def _set_timer(self, wake_at_s: float | None) -> None:
        """Moves the timer to an earlier instant only: one early poll costs less than a new timer per poll."""
        if wake_at_s is None or wake_at_s >= self._timer_at_s:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at_s = wake_at_s
        self._timer = self._loop.call_at(wake_at_s, self._on_timer)

    def _note_sleep(self, now_s: float) -> None:
        """Tells the gate how long the machine slept since the last call: the loop's clock stood still meanwhile."""
        self._sleep_checked_at_s = now_s
        slept_s = self._slept_s() - self._known_sleep_s
        if slept_s > _MIN_SLEEP_S:
            self._known_sleep_s += slept_s
            self._gate.note_sleep(slept_s)

    def _on_timer(self) -> None:
        now_s = self._loop.time()
        if now_s > self._timer_at_s + _STOOD_STILL_S and not self._reads_first:
            self._reads_first, self._timer_at_s = True, now_s + _READ_S
            self._timer = self._loop.call_at(self._timer_at_s, self._on_timer)
            return
        self._timer, self._timer_at_s, self._reads_first = None, math.inf, False
        self._note_sleep(self._loop.time())
        self._poll(self._loop.time())


def rejection_error(reason: Reason, retry_after_s: float, cost: float, position: int | None = None) -> ProxyError:
    """Returns the error for a request that gets no permit; `position` is its place in the queue, if it had one."""
    if reason is Reason.LARGER_THAN_LIMIT:
        message = (
            "The request has more pages than the upstream's whole rate limit allows: send fewer pages at once."
        )
        return LargerThanLimit(message, cost=cost)
    details = {} if position is None else {"position": position}
    return RateLimited(_MESSAGES[reason], retry_after_s=retry_after_s, reason=reason.value, **details)


def _expired(expiry: Expiry) -> ProxyError:
    return rejection_error(expiry.reason, expiry.retry_after_s, expiry.ticket.cost)


def shutting_down() -> ShuttingDown:
    """Returns the error for a request that waits, or comes, while the proxy shuts down."""
    return ShuttingDown("The proxy is shutting down.", retry_after_s=1.0)
