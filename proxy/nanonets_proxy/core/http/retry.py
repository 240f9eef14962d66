"""Decides whether a failed request is sent again, and after which pause. Chance is passed in.

A request that the upstream may have received is repeated only if its method is safe (RFC 9110 §9.2.1): a document
sent twice is billed twice. A request of which no byte was sent may be repeated with any method.

A request that a reused connection lost before any byte of a response may be sent on a new connection if its method
is idempotent (RFC 9112 §9.3.1): the upstream probably closed the connection before it saw the request.

The pause before a retry is drawn between 0 and a bound that doubles ("full jitter"), so that callers that failed
together do not return together. A budget bounds the share of retries among all requests: while everything fails,
retries only add load.
"""

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from nanonets_proxy.core.http.methods import IDEMPOTENT_METHODS, SAFE_METHODS

# RFC 9110 §15.6.3-5: a failure behind a gateway, or a temporary one of a server.
RETRIED_STATUSES: Final = frozenset({502, 503, 504})
MAX_PAUSE_S: Final = 5.0
# The budget's bound, and its level at the start, in retries.
_MAX_SAVED_RETRIES: Final = 10.0


class Failure(enum.Enum):
    """How far a request got before it failed."""

    NOT_SENT = "not sent"
    """No byte of the request reached the upstream."""
    LOST = "lost"
    """The request was sent, and the connection ended before a response."""
    UNAVAILABLE = "unavailable"
    """The upstream responded with one of `RETRIED_STATUSES`."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """The bounds of retries."""

    retries: int = 0
    """The most retries of one request; 0: none at all."""
    backoff_s: float = 0.1
    """The bound of the pause before the first retry."""
    budget: float = 0.2
    """Retries that each request adds to the common budget."""


class Retries:
    """The retries of all requests, which share one budget. `chance()` is uniform between 0 and 1."""

    def __init__(self, policy: RetryPolicy, chance: Callable[[], float]) -> None:
        self.change_policy(policy)
        self._chance = chance
        self._saved_retries = _MAX_SAVED_RETRIES

    def change_policy(self, policy: RetryPolicy) -> None:
        """Applies another policy. The budget keeps its level."""
        self._policy = policy
        self.enabled = policy.retries > 0

    def note_request(self) -> None:
        """Adds a new request's share to the budget."""
        if self._saved_retries < _MAX_SAVED_RETRIES:
            self._saved_retries = min(_MAX_SAVED_RETRIES, self._saved_retries + self._policy.budget)

    def pause_s(
        self, failure: Failure, method: str, *, retries_made: int, time_left_s: float, hint_s: float | None = None
    ) -> float | None:
        """Returns the pause before a retry, which the budget then has paid; None: no retry.

        `retries_made` counts the request's earlier retries, `time_left_s` is the longest pause until its deadline,
        and `hint_s` is the pause that the upstream asked for.
        """
        if retries_made >= self._policy.retries or self._saved_retries < 1:
            return None
        if failure is not Failure.NOT_SENT and method not in SAFE_METHODS:
            return None
        bound_s: float = min(MAX_PAUSE_S, self._policy.backoff_s * 2**retries_made)
        pause_s = max(bound_s * self._chance(), hint_s or 0.0)
        if pause_s > min(MAX_PAUSE_S, time_left_s):
            return None
        self._saved_retries -= 1
        return pause_s


def may_use_new_connection(method: str, *, response_began: bool, can_be_sent_again: bool) -> bool:
    """Returns whether a request that a reused connection lost may be sent on a new connection, at once."""
    return method in IDEMPOTENT_METHODS and can_be_sent_again and not response_began
