"""The gate's bounds, limits and times."""

import math
from dataclasses import dataclass, field

from nanonets_proxy.core.ratelimit.scopes.static_limits import StaticLimits


@dataclass(frozen=True, slots=True)
class GatePolicy:
    """The gate's parameters. Raises ValueError for bounds that would let no request through."""

    max_in_flight: int
    """Maximum number of unsettled permits in all scopes together."""
    max_waiting: int
    """Maximum number of waiting tickets in all scopes together. Each enqueued ticket waits until the next poll."""
    max_waiting_per_lane: int = 1_000_000
    """Maximum number of waiting tickets of one caller in one scope."""
    lane_weights: tuple[tuple[str, int], ...] = ()
    """Grants per turn, by caller. Callers without an entry get 1."""
    max_wait_s: float = math.inf
    """The longest wait of any request. After a longer hint, callers get the 429 at once."""
    max_quota_probe_s: float = 3600.0
    """The longest time between two probes of a quota that is used up for long."""
    static_limits: StaticLimits = field(default_factory=StaticLimits)
    max_scopes: int = 4096
    """Requests of further scopes share one scope, or one for each static limit: callers choose model ids. A scope
    takes about 5 KiB."""
    initial_unconfirmed: int = 64
    """How many unconfirmed requests a cold start may have: fewer than any documented paid plan allows."""
    backoff_first_s: float = 1.0
    acceptance_timeout_first_s: float = 0.045
    """The acceptance timeout until a first 429 shows how long a 429 takes."""
    is_share: bool = False
    """Whether the limits are one replica's share. The gate then rejects no request because of its forecast, since a
    leader may grant it soon, and takes hints literally, since other replicas would try early too."""

    def __post_init__(self) -> None:
        if min(self.max_in_flight, self.max_waiting, self.max_waiting_per_lane) < 1:
            raise ValueError("max_in_flight, max_waiting and max_waiting_per_lane must be at least 1")
        if any(weight < 1 for _, weight in self.lane_weights):
            raise ValueError("a lane's weight must be at least 1")
