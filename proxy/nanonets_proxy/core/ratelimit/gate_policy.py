"""The gate's bounds and constants."""

from dataclasses import dataclass, field

from nanonets_proxy.core.ratelimit.static_limits import StaticLimits


@dataclass(frozen=True, slots=True)
class GatePolicy:
    """The gate's parameters. Raises ValueError for bounds that would let no request through."""

    max_in_flight: int
    """The most unsettled permits, all scopes together."""
    max_waiting: int
    """The most waiting tickets, all scopes together. Each ticket waits at least until the next poll."""
    max_waiting_per_lane: int = 1_000_000
    """The most waiting tickets of one caller in one scope."""
    lane_weights: tuple[tuple[str, int], ...] = ()
    """Turns of a caller per round. Callers without an entry have 1."""
    static_limits: StaticLimits = field(default_factory=StaticLimits)
    """The limits from the settings."""
    initial_unconfirmed: int = 10
    """The most unconfirmed requests of a cold start: fewer than any documented paid plan allows."""
    backoff_first_s: float = 1.0
    backoff_last_s: float = 60.0  # the vendor advises 30, 60, 120 s; a probe is one request, it may come sooner
    backoff_jitter: float = 0.25
    """Up to this share is added to each backoff, so that several proxies on one account do not probe in step."""
    acceptance_timeout_min_s: float = 0.05
    acceptance_timeout_first_s: float = 1.0
    """The time in which a 429 is expected after a grant, while none has been seen."""
    acceptance_timeout_max_s: float = 30.0

    def __post_init__(self) -> None:
        if min(self.max_in_flight, self.max_waiting, self.max_waiting_per_lane) < 1:
            raise ValueError("max_in_flight, max_waiting and max_waiting_per_lane must be at least 1")
        if any(weight < 1 for _, weight in self.lane_weights):
            raise ValueError("a lane's weight must be at least 1")
