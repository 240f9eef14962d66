"""How slowly a caller may send a body."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BodyTimes:
    """How slowly a body may arrive."""

    idle_timeout_s: float
    timeout_s: float
    min_rate_bytes_s: int
    """0: no minimum."""
