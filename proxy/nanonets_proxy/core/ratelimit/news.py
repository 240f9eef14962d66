"""What the gate reports to operators: the end of a closure, and a change of what it believes of a limit."""

from dataclasses import dataclass

from nanonets_proxy.core.ratelimit.adaptive.belief import Belief


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
    """The gate believes something else of a limit than before."""

    scope: str
    before: Belief
    after: Belief


News = LimitClosed | LimitLearned
