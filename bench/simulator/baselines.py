"""Other gates to compare with: one scope, first come first served."""

import heapq
import math

from nanonets_proxy.core.ratelimit.tickets import Outcome, Rejection, Ticket, TicketState, Verdicts
from simulator.limiters import Limiter

MAX_IN_FLIGHT = 512  # the default of `pool_size`


class Baseline:
    """Keeps the queue. A subclass defines in `ready_s` when the next request may go."""

    def __init__(self) -> None:
        self._queue: list[tuple[int, Ticket]] = []
        self._arrivals = 0
        self.in_flight = 0

    def enqueue(self, ticket: Ticket, now: float) -> Rejection | None:
        if ticket.state is TicketState.NEW:
            self._arrivals += 1
            ticket.arrival = self._arrivals
        ticket.state = TicketState.WAITING
        heapq.heappush(self._queue, (ticket.arrival, ticket))
        return None

    def poll(self, now: float) -> Verdicts:
        granted = []
        while self._queue and self.in_flight < MAX_IN_FLIGHT and self.ready_s(now) <= now:
            ticket = heapq.heappop(self._queue)[1]
            ticket.state = TicketState.ADMITTED
            self.in_flight += 1
            self.on_grant(now)
            ticket.granted_at_s = now
            granted.append(ticket)
        wake_s = self.ready_s(now) if self._queue and self.in_flight < MAX_IN_FLIGHT else math.inf
        return Verdicts(granted, (), wake_s if now < wake_s < math.inf else None)

    def settle(self, ticket: Ticket, outcome: Outcome, now: float, retry_after_s: float | None = None) -> None:
        self.in_flight -= 1
        ticket.state = TicketState.RETURNED
        self.on_end(ticket, outcome, now, retry_after_s)

    def ready_s(self, now: float) -> float:
        raise NotImplementedError

    def on_grant(self, now: float) -> None:
        pass

    def on_end(self, ticket: Ticket, outcome: Outcome, now: float, hint_s: float | None) -> None:
        pass


class ReleaseAll(Baseline):
    """Closes for the hint, then releases all requests at once."""

    def __init__(self) -> None:
        super().__init__()
        self._opens_at_s = 0.0

    def ready_s(self, now: float) -> float:
        return self._opens_at_s

    def on_end(self, ticket: Ticket, outcome: Outcome, now: float, hint_s: float | None) -> None:
        if outcome is Outcome.THROTTLED:
            self._opens_at_s = max(self._opens_at_s, now + (1.0 if hint_s is None else hint_s))


class SingleProbe(Baseline):
    """Closes for the hint, then releases one request, then twice as many after each round without refusals."""

    def __init__(self) -> None:
        super().__init__()
        self._opens_at_s = 0.0
        self._left: float = math.inf
        self._size = 1
        self._backoff_s = 1.0

    def ready_s(self, now: float) -> float:
        if now < self._opens_at_s:
            return self._opens_at_s
        return now if self._left else math.inf

    def on_grant(self, now: float) -> None:
        self._left -= 1

    def on_end(self, ticket: Ticket, outcome: Outcome, now: float, hint_s: float | None) -> None:
        if outcome is Outcome.THROTTLED:
            if now >= self._opens_at_s and hint_s is None:
                hint_s = self._backoff_s
                self._backoff_s = min(60.0, 2 * self._backoff_s)
            self._opens_at_s = max(self._opens_at_s, now + (hint_s or 0.0))
            self._left = self._size = 1
        elif not self.in_flight and not self._left:
            self._backoff_s = 1.0
            self._size *= 2
            self._left = self._size


class Aimd(Baseline):
    """Adds 1/s to its rate for each second without a refusal, and halves it after a refusal."""

    def __init__(self) -> None:
        super().__init__()
        self._rate, self._next_s, self._cut_s = 10.0, 0.0, -1.0

    def ready_s(self, now: float) -> float:
        return self._next_s

    def on_grant(self, now: float) -> None:
        self._next_s = max(now, self._next_s) + 1 / self._rate

    def on_end(self, ticket: Ticket, outcome: Outcome, now: float, hint_s: float | None) -> None:
        if outcome is Outcome.THROTTLED:
            if ticket.granted_at_s >= self._cut_s:  # one cut per round trip
                self._rate = max(0.05, self._rate / 2)
                self._cut_s = now
                self._next_s = now + 1 / self._rate
        else:
            self._rate += 1 / max(1.0, self._rate)


class Cubic(Baseline):
    """The client-side rate limiter of the AWS SDKs' adaptive retry mode."""

    _BETA, _SCALE, _SMOOTH = 0.7, 0.4, 0.8

    def __init__(self) -> None:
        super().__init__()
        self._rate = math.inf
        self._tokens, self._at_s = 0.0, 0.0
        self._max_rate = self._window_s = self._throttled_s = 0.0
        self._measured, self._bucket_s, self._sent = 0.0, 0.0, 0

    def _fill(self, now: float) -> None:
        self._tokens = min(max(self._rate, 1.0), self._tokens + (now - self._at_s) * self._rate)
        self._at_s = now

    def ready_s(self, now: float) -> float:
        if self._rate == math.inf:
            return now
        self._fill(now)
        return now if self._tokens >= 1 - 1e-9 else now + (1 - self._tokens) / self._rate

    def on_grant(self, now: float) -> None:
        if self._rate < math.inf:
            self._tokens -= 1

    def on_end(self, ticket: Ticket, outcome: Outcome, now: float, hint_s: float | None) -> None:
        self._measure(now)
        if outcome is Outcome.THROTTLED:
            rate = self._measured if self._rate == math.inf else min(self._measured, self._rate)
            self._max_rate, self._throttled_s = rate, now
            self._window_s = (rate * (1 - self._BETA) / self._SCALE) ** (1 / 3)
            rate *= self._BETA
            if self._rate == math.inf:
                self._at_s = now
        else:
            if self._rate == math.inf:
                return
            rate = self._SCALE * (now - self._throttled_s - self._window_s) ** 3 + self._max_rate
        self._rate = max(0.5, min(rate, 2 * self._measured))

    def _measure(self, now: float) -> None:
        self._sent += 1
        bucket_s = math.floor(now * 2) / 2
        if bucket_s > self._bucket_s:
            rate = self._sent / (bucket_s - self._bucket_s)
            self._measured = rate * self._SMOOTH + self._measured * (1 - self._SMOOTH)
            self._sent, self._bucket_s = 0, bucket_s


class Oracle(Baseline):
    """Knows the limiter, and so gets the best goodput. Its world must be `instant`."""

    def __init__(self, limiter: Limiter) -> None:
        super().__init__()
        self._limiter = limiter

    def ready_s(self, now: float) -> float:
        wait_s = self._limiter.wait_s(now)
        return now if wait_s <= 0 else max(now + wait_s, math.nextafter(now, math.inf))

    def poll(self, now: float) -> Verdicts:
        # One grant per poll: the limiter must count a request before it computes the next wait.
        if not self._queue or self.in_flight >= MAX_IN_FLIGHT or (at_s := self.ready_s(now)) > now:
            wake = bool(self._queue) and self.in_flight < MAX_IN_FLIGHT and at_s < math.inf
            return Verdicts((), (), at_s if wake else None)
        ticket = heapq.heappop(self._queue)[1]
        ticket.state = TicketState.ADMITTED
        self.in_flight += 1
        return Verdicts([ticket], (), math.nextafter(now, math.inf))
