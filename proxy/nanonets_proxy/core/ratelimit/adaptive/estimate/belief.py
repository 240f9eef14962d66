"""The limit estimate at one instant, as an immutable value that can be logged and restored."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Belief:
    """At most `count` requests in `period_s`, and at most `concurrency_limit` in flight; inf: unknown."""

    count: float
    period_s: float
    concurrency_limit: float
    proven: float
    """The part of `count` that is granted at once."""
    reserve: float
    """The part of `count` that another client seems to use."""
    admitted: tuple[float, ...] = field(default=(), compare=False)
    """What the latest periods admitted until they refused a request. It makes no other belief of the same limit."""


@dataclass(frozen=True, slots=True)
class ProvenWindow:
    """The window that held before a raise."""

    count: float
    period_s: float
    proven: float
