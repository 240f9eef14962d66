"""The gate's news, which the log reports: a closure is over, or the estimate of a limit has changed."""

from dataclasses import dataclass

from nanonets_proxy.core.ratelimit.adaptive.estimate.belief import Belief


@dataclass(frozen=True, slots=True)
class LimitClosed:
    """The closure of a scope is over."""

    scope: str
    refused: int
    """The number of 429s that closed the scope or came while it was closed."""
    lasted_s: float
    retry_after_s: float | None
    """The longest hint; None: there was none."""
    quota_used_up: bool
    """Whether a quota is used up for long."""


@dataclass(frozen=True, slots=True)
class LimitLearned:
    """The estimate of a limit has changed."""

    scope: str
    before: Belief
    after: Belief


News = LimitClosed | LimitLearned
