"""Counts finished requests by outcome: by 10 seconds for the last minute, and by minute for the last hour.

Viewers of the dashboard read the counts once a second, on the event loop, so full minutes are added up only once.
"""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Final, Generic, Protocol, TypeVar

from nanonets_proxy.core.status.document import RequestCounts

BUCKET_S: Final = 10
SHOWN_BUCKET_S: Final = 60
_MINUTES: Final = 3600 // SHOWN_BUCKET_S
_PER_RECENT: Final = 2
_FEWEST_RECENT: Final = 3
_PER_SHOWN: Final = SHOWN_BUCKET_S // BUCKET_S
_ERRORS_FROM: Final = 400
_THROTTLED_STATUS: Final = 429
_FORBIDDEN_STATUS: Final = 403
_SERVER_ERRORS_FROM: Final = 500
CALLER_GONE: Final = "caller_gone"
CALLER_FAULTS: Final = frozenset({"not_implemented", "http_version_not_supported"})
"""The kinds of 5xx that the proxy sends because of a caller's fault. They count as 4xx."""

Bucket = list[float]
_FIELDS: Final = 13
_ENDED, _WAIT_S, _UPSTREAM_S, _RESPONSES = range(4)  # as in Totals
_GONE, _CLIENT_ERRORS, _THROTTLED, _SERVER_ERRORS, *_ = range(4, _FIELDS)
_BROKEN_OFF, _FORBIDDEN, _UNEXPECTED, _RETRIED, _QUEUE_FULL = range(8, _FIELDS)

_Minute = tuple[int, int, int, int, int, float, float]
"""The figures of `RequestCounts` for one of its buckets, in their order."""

Totals = tuple[float, float, float, float]
"""The numbers since the start: requests that ended, their seconds in the queue, and upstream, and responses."""


class Unusual(Protocol):
    """The facts that count, of a request that failed or was sent again."""

    @property
    def status(self) -> int:
        """0: the caller hung up."""

    @property
    def code(self) -> str:
        """The error's code; empty: the response is the upstream's."""

    @property
    def retried_after(self) -> str:
        """The kind of the last failure after which it was sent again; empty: none."""


Request = TypeVar("Request", bound=Unusual)


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
    queue_full: int = 0
    """How many of them were refused because too many requests waited."""


class RequestRing(Generic[Request]):
    """The owner calls `rotate` every `BUCKET_S` seconds. Counting needs no clock.

    Other code counts all requests already, so `read_totals` tells their numbers. Only those that failed or were
    sent again are counted here too, by outcome.
    """

    __slots__ = (
        *("_current", "_earlier", "_full", "_good_before", "_minutes", "_on_error", "_phase"),
        *("_read_totals", "newest_full", "newest_retry"),
    )

    def __init__(self, read_totals: Callable[[], Totals], on_error: Callable[[Request], None]) -> None:
        """Calls `on_error` with each request that failed."""
        self._read_totals = read_totals
        self._on_error = on_error
        self.newest_full = ("", "")
        """The reason of the newest refusal because too many requests waited, and the cause of their wait."""
        self.newest_retry = ""
        """The kind of the newest failure after which a request was sent again."""
        self._current: Bucket = [0.0] * _FIELDS
        self._earlier = read_totals()  # of the requests before the current bucket
        self._phase = 0  # the full buckets of the minute that is shown last
        self._good_before = 0.0
        self._full: deque[Bucket] = deque(([0.0] * _FIELDS for _ in range(_PER_SHOWN)), maxlen=_PER_SHOWN)
        self._minutes: deque[_Minute] = deque((_minute([0.0] * _FIELDS),) * (_MINUTES - 1), maxlen=_MINUTES - 1)

    def count_unusual(self, request: Request) -> None:
        """Counts a request that failed or was sent again. The totals have it already."""
        status, current = request.status, self._current
        if request.retried_after:
            current[_RETRIED] += 1
            self.newest_retry = request.retried_after
        if request.code or not 0 < status < _ERRORS_FROM:
            self._count_failed(request, status)

    def _count_failed(self, request: Request, status: int) -> None:
        current = self._current
        if not status:
            current[_GONE] += 1
        elif status < _ERRORS_FROM:
            if request.code != CALLER_GONE:
                current[_BROKEN_OFF] += 1
        elif status == _THROTTLED_STATUS:
            current[_THROTTLED] += 1
        elif status < _SERVER_ERRORS_FROM or request.code in CALLER_FAULTS:
            current[_CLIENT_ERRORS] += 1
            if status == _FORBIDDEN_STATUS and not request.code:
                current[_FORBIDDEN] += 1
        else:
            current[_SERVER_ERRORS] += 1
        self._on_error(request)

    def _bucket(self) -> Bucket:
        """Returns the current bucket, with the totals of its requests."""
        totals = zip(self._read_totals(), self._earlier, strict=True)
        return [*(now - earlier for now, earlier in totals), *self._current[_GONE:]]

    @property
    def good(self) -> float:
        """The number of requests since the start that got a whole response other than 429 and 5xx."""
        return self._good_before + _good(self._bucket())

    def note_unexpected(self) -> None:
        """Counts a response that the API does not send. Its request ends later."""
        self._current[_UNEXPECTED] += 1

    def note_queue_full(self, reason: str, cause: str) -> None:
        """Counts a request that was refused because too many waited. `count_unusual` counts it, too.

        `cause` is the cause of their wait: `proxy`, if no place was free, or `limit`.
        """
        self._current[_QUEUE_FULL] += 1
        self.newest_full = reason, cause

    def rotate(self) -> None:
        """Begins a new bucket."""
        bucket = self._bucket()
        self._good_before += _good(bucket)
        self._full.append(bucket)
        self._earlier = self._read_totals()
        self._current = [0.0] * _FIELDS
        self._phase = (self._phase + 1) % _PER_SHOWN
        if not self._phase:
            self._minutes.append(_minute(_sum(self._full)))

    def latest(self) -> LatestRequests:
        """Returns the requests of the last two buckets, or of the last six if these are too few.

        So a failure of all requests shows within ten seconds, and no longer than twenty after its end.
        """
        total, span_s = _sum(self._newest(_PER_RECENT)), _PER_RECENT * BUCKET_S
        if max(total[_ENDED], total[_UNEXPECTED]) < _FEWEST_RECENT:
            total, span_s = _sum(self._newest(_PER_SHOWN)), SHOWN_BUCKET_S
        ended, unexpected = total[_ENDED], total[_UNEXPECTED]
        failed, gone, forbidden = _failed(total), total[_GONE], total[_FORBIDDEN]
        return LatestRequests(
            *(int(max(ended, unexpected)), int(failed), int(unexpected), int(gone), span_s, int(forbidden)),
            *(int(total[_RETRIED]), int(total[_QUEUE_FULL])),
        )

    def counts(self) -> RequestCounts:
        """Returns the counts of the last hour, in buckets of a minute. Only the last bucket changes later."""
        last = _minute(_sum(self._newest(self._phase + 1)))
        return RequestCounts(SHOWN_BUCKET_S, round(self._per_second(), 2), *zip(*self._minutes, last, strict=True))

    def _per_second(self) -> float:
        """Returns the mean rate over the full buckets of the last minute."""
        return sum(bucket[_ENDED] for bucket in self._full) / SHOWN_BUCKET_S

    def _newest(self, count: int) -> list[Bucket]:
        return [self._bucket(), *islice(reversed(self._full), count - 1)]


def _good(bucket: Bucket) -> float:
    return bucket[_ENDED] - bucket[_GONE] - bucket[_THROTTLED] - _failed(bucket)


def _failed(bucket: Bucket) -> float:
    return bucket[_SERVER_ERRORS] + bucket[_BROKEN_OFF]


def _minute(bucket: Bucket) -> _Minute:
    return (
        int(_good(bucket) - bucket[_CLIENT_ERRORS]),
        int(bucket[_CLIENT_ERRORS]),
        int(bucket[_THROTTLED]),
        int(_failed(bucket)),
        int(bucket[_GONE]),
        _mean(bucket[_WAIT_S], bucket[_ENDED]),
        _mean(bucket[_UPSTREAM_S], bucket[_RESPONSES]),
    )


def _sum(buckets: Iterable[Bucket]) -> Bucket:
    return [sum(values) for values in zip(*buckets, strict=True)]


def _mean(total: float, count: float) -> float:
    return round(total / count, 3) if count else 0.0
