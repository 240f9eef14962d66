"""What the sandbox has really seen, call by call: a test of a proxy reads it back."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

MAX_DIGESTS = 100_000
"""Different requests told apart per call; beyond it `distinct` stands still."""


@dataclass(slots=True)
class CallCounts:
    """The counters of one call, such as `GET /api/v4/workflows`."""

    admitted: int = 0
    """Let through by key and limit, whatever was then answered."""
    refused: int = 0
    """Answered with 429."""
    unauthorized: int = 0
    """Answered with 401."""
    failed: int = 0
    """Admitted, then answered with an invented 503."""
    in_flight: int = 0
    digests: set[bytes] = field(default_factory=set)

    def saw(self, digest: bytes) -> None:
        """Note an admitted request by the hash of its method, target and body."""
        if len(self.digests) < MAX_DIGESTS:
            self.digests.add(digest)

    def to_json(self) -> dict[str, int]:
        return {
            "admitted": self.admitted,
            "refused": self.refused,
            "unauthorized": self.unauthorized,
            "failed": self.failed,
            "in_flight": self.in_flight,
            "distinct": len(self.digests),
        }


class Stats:
    """Counters per call, and their sums."""

    def __init__(self) -> None:
        self._calls: dict[str, CallCounts] = {}  # as many as there are routes
        self._in_flight = 0
        self._max_in_flight = 0

    def of(self, call: str) -> CallCounts:
        return self._calls.setdefault(call, CallCounts())

    @contextmanager
    def admitted(self, counts: CallCounts) -> Iterator[None]:
        """Count a call as admitted, and as in flight within the block."""
        counts.admitted += 1
        counts.in_flight += 1
        self._in_flight += 1
        self._max_in_flight = max(self._max_in_flight, self._in_flight)
        try:
            yield
        finally:
            counts.in_flight -= 1
            self._in_flight -= 1

    def to_json(self) -> dict[str, Any]:
        calls = {call: counts.to_json() for call, counts in sorted(self._calls.items())}
        totals = {
            name: sum(counts[name] for counts in calls.values())
            for name in ("admitted", "refused", "unauthorized", "failed", "in_flight", "distinct")
        }
        return {**totals, "max_in_flight": self._max_in_flight, "calls": calls}
