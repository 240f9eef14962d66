"""Counts finished requests by outcome, in a ring of buckets of 10 seconds that covers the last hour."""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final, Generic, Protocol, TypeVar

from nanonets_proxy.core.status.document import RequestCounts

BUCKET_S: Final = 10
SHOWN_BUCKET_S: Final = 60
_BUCKETS: Final = 3600 // BUCKET_S
_PER_RECENT: Final = 2
_FEWEST_RECENT: Final = 3
_PER_SHOWN: Final = SHOWN_BUCKET_S // BUCKET_S
_ERRORS_FROM: Final = 400
_THROTTLED: Final = 429
_UNUSUAL_FROM: Final = 600  # an upstream may send any three digits
_THROTTLED_CLASS: Final = 6  # behind the status classes 0 (gone) to 5
_WAIT, _UPSTREAM, _UPSTREAM_COUNT = 7, 8, 9
_UNEXPECTED: Final = 10
_BROKEN_OFF: Final = 11
_FORBIDDEN: Final = 12
_RETRIED: Final = 13
_FIELDS: Final = 14
_FORBIDDEN_STATUS: Final = 403
CALLER_GONE: Final = "caller_gone"
CALLER_FAULTS: Final = frozenset({"not_implemented", "http_version_not_supported"})
"""The kinds of 5xx that the proxy sends because of a caller's fault. They count as 4xx."""

Bucket = list[float]


class Finished(Protocol):
    """The facts of a finished request that count. Durations are in seconds."""

    @property
    def status(self) -> int:
        """0: the caller hung up."""

    @property
    def code(self) -> str:
        """The error's code; empty: the request was served."""

    @property
    def retried_after(self) -> str:
        """The kind of the last failure after which it was sent again; empty: none."""

    @property
    def wait_s(self) -> float: ...
    @property
    def upstream_s(self) -> float | None:
        """None: no response came."""


Request = TypeVar("Request", bound=Finished)


@dataclass(frozen=True, slots=True)
class LatestRequests:
    """The requests of the last 10 to 20 s, or of about the last minute if these are too few."""

    ended: int = 0
    """Requests that ended."""
    failed: int = 0
    """How many of them got a 5xx, or a response that broke off."""
    unexpected: int = 0
    """How many of them got a response that the API does not send."""
    gone: int = 0
    """How many of their callers hung up before a response."""
    span_s: int = 60
    forbidden: int = 0
    """How many of them got a 403 of the upstream."""
    retried: int = 0
    """How many of them were sent again after a failure, whatever their end."""


class RequestRing(Generic[Request]):
    """The owner calls `rotate` every `BUCKET_S` seconds. Counting needs no clock."""

    __slots__ = ("_current", "_full", "_good_before", "_on_error", "_phase", "newest_retry")

    def __init__(self, on_error: Callable[[Request], None]) -> None:
        """Calls `on_error` with each request that failed."""
        self._on_error = on_error
        self.newest_retry = ""
        """The kind of the newest failure after which a request was sent again."""
        self._current: Bucket = [0.0] * _FIELDS
        self._phase = 0  # the full buckets of the minute that is shown last
        self._good_before = 0.0
        self._full: deque[Bucket] = deque(([0.0] * _FIELDS for _ in range(_BUCKETS - 1)), maxlen=_BUCKETS - 1)

    def count(self, request: Request) -> None:
        """Counts a finished request."""
        # One function, since every request pays for each call.
        status, upstream_s = request.status, request.upstream_s
        current = self._current
        if status < _ERRORS_FROM:
            current[status // 100] += 1
        elif status == _THROTTLED:
            current[_THROTTLED_CLASS] += 1
        elif request.code in CALLER_FAULTS:
            current[4] += 1
        else:
            current[status // 100 if status < _UNUSUAL_FROM else 5] += 1
        current[_WAIT] += request.wait_s
        if upstream_s is not None:
            current[_UPSTREAM] += upstream_s
            current[_UPSTREAM_COUNT] += 1
        if request.retried_after:
            current[_RETRIED] += 1
            self.newest_retry = request.retried_after
        if status >= _ERRORS_FROM or request.code:
            if 0 < status < _ERRORS_FROM and request.code != CALLER_GONE:
                current[_BROKEN_OFF] += 1
            elif status == _FORBIDDEN_STATUS and not request.code:
                current[_FORBIDDEN] += 1
            self._on_error(request)

    @property
    def good(self) -> float:
        """The number of requests since the start that got a whole response other than 429 and 5xx."""
        return self._good_before + sum(self._current[1:5]) - self._current[_BROKEN_OFF]

    def note_unexpected(self) -> None:
        """Counts a response that the API does not send. Its request ends later, so `count` comes after this."""
        self._current[_UNEXPECTED] += 1

    def rotate(self) -> None:
        """Begins a new bucket."""
        self._good_before = self.good
        self._full.append(self._current)
        self._current = [0.0] * _FIELDS
        self._phase = (self._phase + 1) % _PER_SHOWN

    def latest(self) -> LatestRequests:
        """Returns the requests of the last two buckets, or of the last six if these are too few.

        So a failure of all requests shows within ten seconds, and no longer than twenty after its end.
        """
        total, span_s = _sum(self._newest(_PER_RECENT)), _PER_RECENT * BUCKET_S
        if max(_requests(total), total[_UNEXPECTED]) < _FEWEST_RECENT:
            total, span_s = _sum(self._newest(_PER_SHOWN)), SHOWN_BUCKET_S
        ended, unexpected = _requests(total), total[_UNEXPECTED]
        failed = total[5] + total[_BROKEN_OFF]
        return LatestRequests(
            *(int(max(ended, unexpected)), int(failed), int(unexpected), int(total[0]), span_s),
            *(int(total[_FORBIDDEN]), int(total[_RETRIED])),
        )

    def counts(self) -> RequestCounts:
        """Returns the counts of the last hour, in buckets of a minute. Only the last bucket changes later."""
        buckets = [*self._full, self._current][_PER_SHOWN - 1 - self._phase :]
        shown = [_sum(buckets[at : at + _PER_SHOWN]) for at in range(0, len(buckets), _PER_SHOWN)]
        return RequestCounts(
            bucket_s=SHOWN_BUCKET_S,
            per_second=round(self._per_second(), 2),
            served=tuple(int(sum(bucket[1:4]) - bucket[_BROKEN_OFF]) for bucket in shown),
            client_errors=tuple(int(bucket[4]) for bucket in shown),
            throttled=tuple(int(bucket[_THROTTLED_CLASS]) for bucket in shown),
            server_errors=tuple(int(bucket[5] + bucket[_BROKEN_OFF]) for bucket in shown),
            gone=tuple(int(bucket[0]) for bucket in shown),
            mean_wait_s=tuple(_mean(bucket[_WAIT], _requests(bucket)) for bucket in shown),
            mean_upstream_s=tuple(_mean(bucket[_UPSTREAM], bucket[_UPSTREAM_COUNT]) for bucket in shown),
        )

    def _per_second(self) -> float:
        """Returns the mean rate over the full buckets of the last minute."""
        recent = list(islice(reversed(self._full), _PER_SHOWN))
        return sum(map(_requests, recent)) / SHOWN_BUCKET_S

    def _newest(self, count: int) -> list[Bucket]:
        return [self._current, *islice(reversed(self._full), count - 1)]


def _requests(bucket: Bucket) -> float:
    return sum(bucket[: _THROTTLED_CLASS + 1])


def _sum(buckets: Sequence[Bucket]) -> Bucket:
    return [sum(values) for values in zip(*buckets, strict=True)]


def _mean(total: float, count: float) -> float:
    return round(total / count, 3) if count else 0.0
