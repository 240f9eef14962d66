"""Models of the upstream's limit. Each judges a request at the instant of its arrival."""

import math
import random
from abc import ABC, abstractmethod
from collections import deque


class Limiter(ABC):
    """A limit. Its `wait_s` serves the hints of 429s and the oracle."""

    @abstractmethod
    def wait_s(self, now: float) -> float:
        """Returns how long until the limit admits a request: 0 if now, inf if that depends on a `release`."""

    @abstractmethod
    def admit(self, now: float) -> None:
        """Counts one request. `wait_s` must be 0."""

    def refuse(self, now: float) -> None:  # noqa: B027 - most limits do not count refusals
        """Notes a refused request."""

    def release(self) -> None:  # noqa: B027 - only a concurrency limit needs it
        """Notes the end of an admitted request."""


class NoLimit(Limiter):
    def wait_s(self, now: float) -> float:
        return 0.0

    def admit(self, now: float) -> None:
        pass


class NeverAdmits(NoLimit):
    """Refuses each request for ever, such as one that is larger than the whole limit."""

    def wait_s(self, now: float) -> float:
        return math.inf


class FixedWindow(Limiter):
    """At most `count` requests per window. A window begins with a request or, if `aligned`, by the clock."""

    def __init__(self, count: int, period_s: float, *, aligned: bool = False, phase_s: float = 0.0) -> None:
        self.count, self.period_s, self._aligned, self._phase_s = count, period_s, aligned, phase_s
        self._ends_at_s = -math.inf
        self.used = 0

    def _roll(self, now: float) -> None:
        if now >= self._ends_at_s:
            self.used = 0
            if self._aligned:
                number = math.floor((now + self._phase_s) / self.period_s)
                self._ends_at_s = (number + 1) * self.period_s - self._phase_s

    def wait_s(self, now: float) -> float:
        self._roll(now)
        return 0.0 if self.used < self.count else self._ends_at_s - now

    def admit(self, now: float) -> None:
        self._roll(now)
        if not self.used and not self._aligned:
            self._ends_at_s = now + self.period_s
        self.used += 1


class Penalty(FixedWindow):
    """A fixed window that each refused request restarts."""

    def refuse(self, now: float) -> None:
        self._ends_at_s = now + self.period_s


class SlidingLog(Limiter):
    def __init__(self, count: int, period_s: float) -> None:
        self.count, self.period_s = count, period_s
        self._log: deque[float] = deque()

    def wait_s(self, now: float) -> float:
        while self._log and self._log[0] + self.period_s <= now:
            self._log.popleft()
        if len(self._log) < self.count:
            return 0.0
        return self._log[len(self._log) - self.count] + self.period_s - now

    def admit(self, now: float) -> None:
        self._log.append(now)


class TokenBucket(Limiter):
    """A token bucket. With a size of 1 it is GCRA without a burst."""

    def __init__(self, size: float, rate: float) -> None:
        self._size, self._rate = size, rate
        self._tokens, self._at_s = size, 0.0

    def wait_s(self, now: float) -> float:
        self._tokens = min(self._size, self._tokens + (now - self._at_s) * self._rate)
        self._at_s = now
        # 1e-9: the oracle comes at the exact instant, and rounding must not refuse it.
        return 0.0 if self._tokens >= 1 - 1e-9 else (1 - self._tokens) / self._rate

    def admit(self, now: float) -> None:
        self._tokens -= 1


class Concurrency(Limiter):
    """At most `limit` requests at once."""

    def __init__(self, limit: int) -> None:
        self._limit, self._in_flight = limit, 0

    def wait_s(self, now: float) -> float:
        return 0.0 if self._in_flight < self._limit else math.inf

    def admit(self, now: float) -> None:
        self._in_flight += 1

    def release(self) -> None:
        self._in_flight -= 1


class Changed(Limiter):
    """Changes from one limiter to another at `at_s`."""

    def __init__(self, before: Limiter, after: Limiter, at_s: float) -> None:
        self._before, self._after, self._at_s = before, after, at_s

    def _current(self, now: float) -> Limiter:
        return self._before if now < self._at_s else self._after

    def wait_s(self, now: float) -> float:
        wait_s = self._current(now).wait_s(now)
        return wait_s if now >= self._at_s or now + wait_s < self._at_s else max(self._at_s - now, 1e-9)

    def admit(self, now: float) -> None:
        self._current(now).admit(now)


class Shared(Limiter):
    """Another client draws on the same quota: `rate` requests per second at random instants."""

    def __init__(self, inner: Limiter, rate: float, seed: int) -> None:
        self._inner, self._rate = inner, rate
        self._random = random.Random(seed)  # noqa: S311 - a simulation
        self._next_s = self._random.expovariate(rate)

    def _other_client(self, now: float) -> None:
        while self._next_s <= now:
            if self._inner.wait_s(self._next_s) == 0:
                self._inner.admit(self._next_s)
            self._next_s += self._random.expovariate(self._rate)

    def wait_s(self, now: float) -> float:
        self._other_client(now)
        return self._inner.wait_s(now)

    def admit(self, now: float) -> None:
        self._inner.admit(now)


class RaidedWindow(FixedWindow):
    """A fixed window by the clock. At the start of each window, another client takes 0 to `most` requests."""

    def __init__(self, count: int, period_s: float, most: int, seed: int) -> None:
        super().__init__(count, period_s, aligned=True)
        self._most = most
        self._random = random.Random(seed)  # noqa: S311 - a simulation
        self._window = -1

    def _roll(self, now: float) -> None:
        super()._roll(now)
        window = math.floor(now / self.period_s)
        while self._window < window:  # one draw per window, so that the other client is the same for all gates
            self._window += 1
            draw = self._random.randint(0, self._most)
            if self._window == window:
                self.used += draw
