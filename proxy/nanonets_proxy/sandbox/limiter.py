"""Four algorithms that limit requests, as pure code: each method takes the time in seconds of a monotonic clock.

`decide` admits or refuses a request of a scope. `release` ends an admitted request.
A scope is a name under which requests are counted together.
"""

import math
import re
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from nanonets_proxy.sandbox.policy import LimitKind, LimitRule, LimitScope

MAX_SCOPES = 10_000
"""The largest number of scopes. A further scope replaces the oldest."""

_PREDICT = re.compile(r"/api/v2/OCR/Model/(?P<model>[^/]+)/Label(?:File|Urls)/?")
_State = TypeVar("_State")


@dataclass(frozen=True, slots=True)
class Admitted:
    """The request is admitted. Call `release` with its scope when it ends."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The request is refused. It would be admitted after `retry_after_s`, if no other request came before."""

    retry_after_s: float


_ADMITTED = Admitted()


class Limiter(ABC):
    """A rule that applies to each scope separately."""

    @abstractmethod
    def decide(self, scope: str, now_s: float) -> Admitted | Refused:
        """Admits and counts the request, or refuses it without counting it."""

    def release(self, scope: str) -> None:  # noqa: B027 - only a concurrency limit needs the ends of requests
        """Ends an admitted request of the scope."""


class _Scopes(Generic[_State]):
    """The state of each scope, at most `MAX_SCOPES` of them."""

    def __init__(self, fresh: Callable[[], _State]) -> None:
        self._fresh = fresh
        self._states: dict[str, _State] = {}

    def __getitem__(self, scope: str) -> _State:
        if scope not in self._states:
            if len(self._states) >= MAX_SCOPES:
                del self._states[next(iter(self._states))]
            self._states[scope] = self._fresh()
        return self._states[scope]


@dataclass(slots=True)
class _Window:
    first_at_s: float = math.nan
    index: int = -1
    used: int = 0


class FixedWindow(Limiter):
    """Admits `count` requests in each window. The first window starts with the first request.

    If windows began on the clock, a test that is run at the wrong moment could exceed its limit.
    """

    def __init__(self, rule: LimitRule) -> None:
        self._rule = rule
        self._windows = _Scopes(_Window)

    def decide(self, scope: str, now_s: float) -> Admitted | Refused:
        window = self._windows[scope]
        if window.index < 0:
            window.first_at_s = now_s
        index = math.floor((now_s - window.first_at_s) / self._rule.per_s)
        if index != window.index:
            window.index, window.used = index, 0
        if window.used < self._rule.count:
            window.used += 1
            return _ADMITTED
        return Refused(window.first_at_s + (index + 1) * self._rule.per_s - now_s)


class SlidingWindow(Limiter):
    """Admits `count` requests in any interval [t, t+w)."""

    def __init__(self, rule: LimitRule) -> None:
        self._rule = rule
        self._admitted_at_s = _Scopes[deque[float]](deque)

    def decide(self, scope: str, now_s: float) -> Admitted | Refused:
        admitted_at_s = self._admitted_at_s[scope]
        while admitted_at_s and admitted_at_s[0] + self._rule.per_s <= now_s:
            admitted_at_s.popleft()
        if len(admitted_at_s) < self._rule.count:
            admitted_at_s.append(now_s)
            return _ADMITTED
        return Refused(admitted_at_s[0] + self._rule.per_s - now_s)


@dataclass(slots=True)
class _Bucket:
    tokens: float = 0.0
    filled_at_s: float = -math.inf  # the first request finds the bucket full


class TokenBucket(Limiter):
    """Holds `count` tokens at first and gains `count` per window; each admitted request takes one."""

    def __init__(self, rule: LimitRule) -> None:
        self._size = float(rule.count)
        self._per_token_s = rule.per_s / rule.count
        self._buckets = _Scopes(_Bucket)

    def decide(self, scope: str, now_s: float) -> Admitted | Refused:
        bucket = self._buckets[scope]
        gained = (now_s - bucket.filled_at_s) / self._per_token_s
        bucket.tokens = min(self._size, bucket.tokens + gained)
        bucket.filled_at_s = now_s
        if bucket.tokens >= 1:
            bucket.tokens -= 1
            return _ADMITTED
        return Refused((1 - bucket.tokens) * self._per_token_s)


class Concurrency(Limiter):
    """Admits `count` requests at once. A refusal gives the window as the delay, since the true delay is unknown."""

    def __init__(self, rule: LimitRule) -> None:
        self._rule = rule
        self._in_flight: dict[str, int] = {}  # holds only scopes with requests in flight

    def decide(self, scope: str, now_s: float) -> Admitted | Refused:  # noqa: ARG002 - the interface's parameter; this limit needs no clock
        in_flight = self._in_flight.get(scope, 0)
        if in_flight >= self._rule.count:
            return Refused(self._rule.per_s)
        self._in_flight[scope] = in_flight + 1
        return _ADMITTED

    def release(self, scope: str) -> None:
        self._in_flight[scope] -= 1
        if not self._in_flight[scope]:
            del self._in_flight[scope]


_KINDS: dict[LimitKind, Callable[[LimitRule], Limiter]] = {
    LimitKind.FIXED_WINDOW: FixedWindow,
    LimitKind.SLIDING_WINDOW: SlidingWindow,
    LimitKind.TOKEN_BUCKET: TokenBucket,
    LimitKind.CONCURRENCY: Concurrency,
}


def make_limiter(kind: LimitKind, rule: LimitRule) -> Limiter:
    """Returns a new limiter of the given kind."""
    return _KINDS[kind](rule)


def is_docstrange(path: str) -> bool:
    """Returns whether a path belongs to DocStrange, where keys are bearer tokens."""
    return path.startswith("/api/v1/") or path.rstrip("/") == "/extract"


def scope_of(limited: LimitScope, method: str, path: str) -> str | None:
    """Returns the scope that counts a request, or None if the limit does not cover it."""
    if limited is LimitScope.ALL:
        return "all"
    if is_docstrange(path):
        return "docstrange" if limited is LimitScope.DOCUMENTED and method == "POST" else None
    if path.startswith("/api/v4/"):
        return None if limited is LimitScope.V2_PREDICT else "account"
    if limited is not LimitScope.ACCOUNT and method == "POST" and (predict := _PREDICT.fullmatch(path)):
        return f"v2-predict:{predict['model']}"
    return None
