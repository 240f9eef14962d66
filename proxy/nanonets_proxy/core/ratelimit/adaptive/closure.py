"""The closure of a scope by a refusal, and its length when the refusal has no hint."""

from collections.abc import Callable
from dataclasses import dataclass

from nanonets_proxy.core.ratelimit.adaptive.grant_kind import GrantKind
from nanonets_proxy.core.ratelimit.gate_policy import GatePolicy


@dataclass(slots=True)
class Closure:
    """The refusal (429) that closed the scope."""

    kind: GrantKind
    """The grant of the refused request."""
    granted_at_s: float
    closed_s: float
    """How long the refusal closes the scope, by its hint or by the backoff."""
    hinted: bool
    """Whether `closed_s` comes from a hint."""
    in_flight: int
    """Other requests in flight at the refusal, less those that were refused later."""


class Backoff:
    """The length of closures without a hint: it doubles from `backoff_first_s` up to `backoff_max_s`."""

    __slots__ = ("_jitter", "_next_s", "_policy")

    def __init__(self, policy: GatePolicy, jitter: Callable[[], float]) -> None:
        self._policy = policy
        self._jitter = jitter
        self._next_s = policy.backoff_first_s

    def next_s(self) -> float:
        """Returns the length of the next closure, jitter included."""
        length_s = self._next_s * (1 + self._policy.backoff_jitter * self._jitter())
        self._next_s = min(2 * self._next_s, self._policy.backoff_max_s)
        return length_s

    def reset(self) -> None:
        """Starts again at `backoff_first_s`."""
        self._next_s = self._policy.backoff_first_s
