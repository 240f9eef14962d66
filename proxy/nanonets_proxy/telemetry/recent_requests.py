"""The requests of the last hour, for the status: their numbers by outcome, and the last errors."""

import asyncio
from collections.abc import Callable
from typing import Final

from nanonets_proxy.core.ratelimit.tickets import Reason
from nanonets_proxy.core.status.recent_errors import RecentErrors
from nanonets_proxy.core.status.request_counts import BUCKET_S, RequestRing, Totals
from nanonets_proxy.telemetry.finished_request import FinishedRequest

_QUEUE_FULL: Final = frozenset({Reason.QUEUE_FULL.value, Reason.LANE_FULL.value})


class RecentRequests:
    """Its `ring.count_unusual` takes the requests that failed or were sent again. Call `start`, then `stop`."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        read_totals: Callable[[], Totals],
        has_free_places: Callable[[], bool],
    ) -> None:
        self._loop = loop
        self._has_free_places = has_free_places
        self._rotation: asyncio.TimerHandle | None = None
        self.ring = RequestRing[FinishedRequest](read_totals, self._note_error)
        self.errors = RecentErrors()

    def _note_error(self, request: FinishedRequest) -> None:
        reason, now_s = str((request.details or {}).get("reason", "")), self._loop.time()
        if reason in _QUEUE_FULL:
            # Noted now: when the status is read, the queue may be empty again.
            self.ring.note_queue_full(reason, "limit" if self._has_free_places() else "proxy")
        self.errors.note(
            *(request.status, request.code, request.caller, request.request_id, now_s),
            reason=reason,
            good=self.ring.good,
        )

    def start(self) -> None:
        """Begins to rotate the buckets."""
        self._rotate_at(self._loop.time() + BUCKET_S)

    def _rotate_at(self, at_s: float) -> None:
        self._rotation = self._loop.call_at(at_s, self._rotate, at_s)

    def _rotate(self, at_s: float) -> None:
        self.ring.rotate()
        # From the planned instant on, so that a late call does not shift the later ones.
        self._rotate_at(at_s + BUCKET_S)

    def stop(self) -> None:
        if self._rotation is not None:
            self._rotation.cancel()
