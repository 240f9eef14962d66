"""The gate's bounds and constants."""

from dataclasses import dataclass, field

from nanonets_proxy.core.ratelimit.static_limits import StaticLimits


@dataclass(frozen=True, slots=True)
class GatePolicy:
    """What the gate is told; the rest it learns."""

    max_in_flight: int
    """Permits out at the same time, all scopes together."""
    max_waiting: int
    """Tickets waiting at the same time, all scopes together. A ticket waits at least until the next poll."""
    max_waiting_per_lane: int = 1_000_000
    """Tickets of one caller waiting at the same time in one scope."""
    lane_weights: tuple[tuple[str, int], ...] = ()
    """Turns of a caller in a round; 1 for whoever is not named."""
    static_limits: StaticLimits = field(default_factory=StaticLimits)
    """Limits known beforehand."""
    initial_unconfirmed: int = 10
    """Requests that may be on trial while nothing is known: fewer than any documented paid plan allows."""
    backoff_first_s: float = 1.0
    backoff_last_s: float = 60.0  # the vendor advises 30, 60, 120 s; a probe is one request, it may come sooner
    backoff_jitter: float = 0.25
    """Each backoff is longer by up to this share: several proxies on one account must not probe in step."""
    acceptance_timeout_min_s: float = 0.05
    acceptance_timeout_first_s: float = 1.0
    """While no 429 was seen, none is presumed absent sooner than this after its request went."""
    acceptance_timeout_max_s: float = 30.0

    def __post_init__(self) -> None:
        if min(self.max_in_flight, self.max_waiting, self.max_waiting_per_lane) < 1:
            raise ValueError("max_in_flight and max_waiting are at least 1: at 0 nothing would ever be sent")
        if any(weight < 1 for _, weight in self.lane_weights):
            raise ValueError("a lane's weight is at least 1: at 0 it would wait for ever")
