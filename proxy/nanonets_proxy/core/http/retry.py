"""Whether a request that failed is sent again, and after which pause. Chance is passed in.

What the upstream may have received is repeated for the safe methods alone (RFC 9110 §9.2.1): a document that is
sent twice is billed twice. What it surely never saw may be repeated for every method.
The pause is drawn from 0 to a bound that doubles ("full jitter"), so that callers who failed together do not come
back together. The budget keeps retries a share of all requests: where everything fails, repeating it is load that
helps nobody.
"""

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from nanonets_proxy.core.http.methods import SAFE_METHODS

# RFC 9110 §15.6.3-5: a gateway's trouble behind it, or a server's that will pass.
RETRIED_STATUSES: Final = frozenset({502, 503, 504})
MAX_PAUSE_S: Final = 5.0
# So many retries are there before any request has earned one, and no more can be saved up.
_MAX_SAVED: Final = 10.0


class Failure(enum.Enum):
    """How far the request came."""

    NOT_SENT = "not sent"
    """Not a byte of it reached the upstream."""
    LOST = "lost"
    """It went out, and the connection ended before an answer."""
    UNAVAILABLE = "unavailable"
    """It was answered with one of RETRIED_STATUSES."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """At most `retries` of one request, the first after up to `backoff_s`; each request earns `budget` retries."""

    retries: int = 0
    backoff_s: float = 0.1
    budget: float = 0.2


class Retries:
    """Decides for all requests, whose budget is common. `chance()` is uniform in 0..1."""

    def __init__(self, policy: RetryPolicy, chance: Callable[[], float]) -> None:
        self._policy = policy
        self.are_on = policy.retries > 0
        self._chance = chance
        self._saved = _MAX_SAVED

    def note_request(self) -> None:
        """A request came: it earns its share of a retry."""
        if self._saved < _MAX_SAVED:
            self._saved = min(_MAX_SAVED, self._saved + self._policy.budget)

    def pause_s(
        self, failure: Failure, method: str, *, done: int, may_take_s: float, hint_s: float | None = None
    ) -> float | None:
        """Seconds until the request goes out again; None: the failure is its answer. Spends from the budget.

        `done` retries were made of it before, it may wait `may_take_s` more, and the upstream asked to be left
        alone for `hint_s`.
        """
        if done >= self._policy.retries or self._saved < 1:
            return None
        if failure is not Failure.NOT_SENT and method not in SAFE_METHODS:
            return None
        bound_s: float = min(MAX_PAUSE_S, self._policy.backoff_s * 2**done)
        pause_s = max(bound_s * self._chance(), hint_s or 0.0)
        if pause_s > min(MAX_PAUSE_S, may_take_s):
            return None
        self._saved -= 1
        return pause_s
