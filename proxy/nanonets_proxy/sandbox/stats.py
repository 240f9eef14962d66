"""Counts the requests that reached the sandbox, so that a test of a proxy can check them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

MAX_DIGESTS = 100_000
"""The largest value of `distinct` per operation; it bounds the memory for digests."""


@dataclass(slots=True)
class OperationCounts:
    """The counters of one operation, such as `GET /api/v4/workflows`."""

    admitted: int = 0
    """Requests that passed the key check and the rate limit, with any response."""
    refused: int = 0
    """Requests that got a 429."""
    unauthorized: int = 0
    """Requests that got a 401."""
    failed: int = 0
    """Admitted requests that got a simulated fault."""
    in_flight: int = 0
    digests: set[bytes] = field(default_factory=set)

    def record(self, digest: bytes) -> None:
        """Records an admitted request by the hash of its method, target and body."""
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
    """The counters of all operations, and their sums."""

    def __init__(self) -> None:
        self._operations: dict[str, OperationCounts] = {}  # at most one per route
        self._in_flight = 0
        self._max_in_flight = 0

    def of(self, operation: str) -> OperationCounts:
        return self._operations.setdefault(operation, OperationCounts())

    @contextmanager
    def admitted(self, counts: OperationCounts) -> Iterator[None]:
        """Counts a request as admitted, and as in flight during the block."""
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
        operations = {name: counts.to_json() for name, counts in sorted(self._operations.items())}
        totals = {
            name: sum(counts[name] for counts in operations.values())
            for name in ("admitted", "refused", "unauthorized", "failed", "in_flight", "distinct")
        }
        return {**totals, "max_in_flight": self._max_in_flight, "calls": operations}
