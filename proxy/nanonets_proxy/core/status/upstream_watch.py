"""Finds out whether the upstream is silent or slow, by the usual times of its responses.

A rightful call may take minutes, such as a synchronous extraction. So a wait is judged by its route, and silence
by all connections together. The first rule that applies decides:

| finding | rule |
|---|---|
| unreachable | a connection has been under way for `_SLOW_CONNECT_S`, and none was made since it began |
| silent | no byte of a response has come for `_SILENT_S`, and a request is overdue |
| slow | half of the last minute's responses to GETs of a route took `_FAR_ABOVE` times as long as usual |
| slow | half of a route's GETs in flight, and at least `_FEWEST_SLOW`, are overdue; then until a response is fast |
| quiet | no byte has come for `_SILENT_S`, and none of the requests in flight is overdue: a fact, and no fault |
| quiet | none has come since the upstream was silent, although the overdue requests have ended |

A request is *overdue* if it has waited for `_FAR_ABOVE` times as long as almost all requests of its method and
route. While these are too few, a GET is overdue after `_SILENT_S`, and another request the later, the fewer are
known: 330 s without any, because calls of 300 s exist. Each is overdue `_BEFORE_TIMEOUT_S` before the proxy gives
it up, because no look would see it later.
"""

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final

from nanonets_proxy.core.http.methods import SAFE_METHODS, USUAL_METHODS

Route = tuple[str, str]
"""A method, and one of `ROUTES` (core/api/routes.py)."""

_SLOW_CONNECT_S: Final = 4.0  # a second SYN has had no answer either (RFC 6298 §2.1: after 1 and 3 s)
_SILENT_S: Final = 8.0  # with a look each two seconds, named within ten
_SILENT_IF_NOT_SAFE_S: Final = 30.0  # other methods may do work that takes minutes now and then
_BEFORE_TIMEOUT_S: Final = 4.0  # two looks
_FAR_ABOVE: Final = 3
_LEAST_SLOW_S: Final = 5.0
_FEWEST_KNOWN: Final = 10
_FEWEST_SLOW: Final = 3
_LATEST_S: Final = 60.0
_SLOW_FOR_S: Final = 600.0
_MOST_LATEST: Final = 16
_ALMOST_ALL: Final = 0.99
_LEAST_WEIGHT: Final = 0.5
_HALF_LIFE_S: Final = 86400.0  # so that the calls of a nightly batch are known in the next night
_DECAY_EACH_S: Final = 600.0
_INFINITE: Final = float("inf")
_BUCKETS: Final = 14  # up to 1, 2, 4, ... 8192 s


@dataclass(frozen=True, slots=True)
class Owed:
    """A request in flight that waits for the next byte of its response, since this instant."""

    route: Route
    since_s: float


@dataclass(frozen=True, slots=True)
class Dialing:
    """A connection that is being made, since this instant. `step` is the part that it waits for."""

    since_s: float
    step: str


@dataclass(frozen=True, slots=True)
class Progress:
    """What the upstream side of the proxy waits for."""

    owed: Collection[Owed] = ()
    dialing: Collection[Dialing] = ()
    """The connections that are being made, if none was made since."""
    heard_at_s: float = 0.0
    """When the last byte of a response came, as far as it is known."""
    gives_up_after_s: float = _INFINITE
    """How long a request waits for its response before it ends with a 504."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong with the upstream: `unreachable`, `silent` or `slow`, and a sentence with the figures.

    `quiet` is no fault; its sentence has no full stop, because it ends another one.
    """

    kind: str
    sentence: str


@dataclass(slots=True)
class _Times:
    """The times of one route's responses. The older they are, the less they weigh."""

    weights: list[float] = field(default_factory=lambda: [0.0] * _BUCKETS)
    latest: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=_MOST_LATEST))
    """The instants and times of the latest responses."""
    decayed_at_s: float = 0.0
    slow_from_s: float = _INFINITE
    """After GETs in flight were overdue: a response that takes less ends that. Infinite: none were."""
    slow_at_s: float = 0.0
    """The last sign of that: an overdue GET, or a slow response. It counts for `_SLOW_FOR_S`."""

    def note(self, took_s: float, now: float) -> None:
        if now - self.decayed_at_s >= _DECAY_EACH_S:
            decay = 0.5 ** ((now - self.decayed_at_s) / _HALF_LIFE_S)
            self.weights = [weight * decay for weight in self.weights]
            self.decayed_at_s = now
        self.weights[min(int(took_s).bit_length(), _BUCKETS - 1)] += 1
        self.latest.append((now, took_s))
        if took_s < self.slow_from_s or now - self.slow_at_s >= _SLOW_FOR_S:
            self.slow_from_s = _INFINITE
        else:
            self.slow_at_s = now

    @property
    def known(self) -> float:
        """How many requests are known. Old ones count less."""
        return sum(self.weights)

    def longest_s(self, share: float) -> float:
        """Returns how long this share of the requests takes at most."""
        above = max(_LEAST_WEIGHT, (1 - share) * self.known)
        longer, bucket = 0.0, _BUCKETS
        while longer < above:
            bucket -= 1
            longer += self.weights[bucket]
        return 2.0**bucket

    def latest_s(self, now: float) -> list[float]:
        return [took_s for at_s, took_s in self.latest if now - at_s < _LATEST_S]


class UpstreamWatch:
    """Learns from a sample of the responses. Instants are seconds of one monotonic clock."""

    __slots__ = ("_routes", "_silent_from_s")

    def __init__(self) -> None:
        self._routes: dict[Route, _Times] = {}
        self._silent_from_s = _INFINITE
        """When the last silence began, if no byte is known to have come since. Infinite: one has come."""

    def note(self, route: Route, took_s: float, now: float) -> None:
        """Notes that a response began `took_s` after its request was sent."""
        times = self._routes.get(route)
        if times is None:
            if route[0] not in USUAL_METHODS:  # callers choose methods
                return
            times = self._routes[route] = _Times(decayed_at_s=now)
        times.note(took_s, now)

    def judge(self, progress: Progress, now: float) -> Finding | None:
        """Returns what is wrong with the upstream; None: nothing, as far as it is known."""
        return (
            self._unreachable(progress, now)
            or self._silent(progress, now)
            or self._slow(now)
            or self._slow_so_far(progress, now)
            or self._quiet(progress, now)
        )

    def _unreachable(self, progress: Progress, now: float) -> Finding | None:
        oldest = min(progress.dialing, key=lambda dialing: dialing.since_s, default=None)
        if oldest is None or now - oldest.since_s < _SLOW_CONNECT_S:
            return None
        waiting = f"{_requests(len(progress.dialing))} {'waits' if len(progress.dialing) == 1 else 'wait'} for it"
        lasting = f"{oldest.step} has taken {now - oldest.since_s:.0f} s so far"
        return Finding("unreachable", f"Nanonets cannot be reached: {lasting}, and {waiting}.")

    def _silent(self, progress: Progress, now: float) -> Finding | None:
        if progress.heard_at_s > self._silent_from_s:
            self._silent_from_s = _INFINITE
        if now - progress.heard_at_s < _SILENT_S:
            return None
        latest_s = max(_SILENT_S, progress.gives_up_after_s - _BEFORE_TIMEOUT_S)
        overdue = [
            owed for owed in progress.owed if now - owed.since_s >= min(latest_s, self._overdue_after_s(owed.route))
        ]
        if not overdue:
            return None
        oldest = min(overdue, key=lambda owed: owed.since_s)
        self._silent_from_s = min(self._silent_from_s, max(progress.heard_at_s, oldest.since_s))
        usual_s = self._usual_s(oldest.route, _ALMOST_ALL)
        usually = "" if usual_s is None else f", usually at most {usual_s:.0f} s"
        share = f"{len(overdue)} of {_requests(len(progress.owed))} in flight {_are(len(overdue))} overdue"
        waits = f"{' '.join(oldest.route)} has waited for {now - oldest.since_s:.0f} s{usually}"
        return Finding("silent", f"Nanonets is silent: {share}; {waits}.")

    def _overdue_after_s(self, route: Route) -> float:
        times, is_safe = self._routes.get(route), route[0] in SAFE_METHODS
        known = 0.0 if times is None else times.known
        if known < _FEWEST_KNOWN and is_safe:
            return _SILENT_S
        usual_s = 0.0 if times is None else times.longest_s(_ALMOST_ALL)
        after_s = max(_SILENT_S if is_safe else _SILENT_IF_NOT_SAFE_S, _FAR_ABOVE * usual_s)
        # The next of n requests takes longer than all before with a probability of 1 / (n + 1), and k times as long
        # with 1 / k of that or less. So this factor keeps the risk of a false alarm at that with _FEWEST_KNOWN.
        return after_s * max(1.0, (_FEWEST_KNOWN + 1) / (known + 1))

    def _usual_s(self, route: Route, share: float) -> float | None:
        times = self._routes.get(route)
        return None if times is None or times.known < _FEWEST_KNOWN else times.longest_s(share)

    def _slow(self, now: float) -> Finding | None:
        for route, times in self._routes.items():
            latest, usual_s = times.latest_s(now), self._usual_s(route, 0.5)
            if route[0] not in SAFE_METHODS or usual_s is None or not latest:
                continue
            name, now_s = " ".join(route), sorted(latest)[len(latest) // 2]
            if len(latest) >= _FEWEST_SLOW and now_s >= _slow_from_s(usual_s):
                took = f"half of the last {len(latest)} responses to {name} took {now_s:.0f} s or more"
            elif latest[-1] >= times.slow_from_s:
                took = f"the last response to {name} took {latest[-1]:.0f} s"
            else:
                continue
            return Finding("slow", f"Nanonets is slow: {took}, usually {usual_s:.0f} s.")
        return None

    def _slow_so_far(self, progress: Progress, now: float) -> Finding | None:
        """Returns a finding about requests in flight, which come long before their responses."""
        waits_s: dict[Route, list[float]] = {}
        for owed in progress.owed:
            waits_s.setdefault(owed.route, []).append(now - owed.since_s)
        for route, waited_s in waits_s.items():
            usual_s, after_s = self._usual_s(route, _ALMOST_ALL), self._overdue_after_s(route)
            overdue = sum(wait_s >= after_s for wait_s in waited_s)
            if usual_s is None or route[0] not in SAFE_METHODS or overdue < max(_FEWEST_SLOW, len(waited_s) / 2):
                continue
            times = self._routes[route]
            times.slow_from_s = min(times.slow_from_s, _slow_from_s(times.longest_s(0.5)))
            times.slow_at_s = now
            share = f"{overdue} of {_requests(len(waited_s))} in flight to {' '.join(route)} are overdue"
            waits = f"one has waited for {max(waited_s):.0f} s, usually at most {usual_s:.0f} s"
            return Finding("slow", f"Nanonets is slow: {share}; {waits}.")
        return None

    def _quiet(self, progress: Progress, now: float) -> Finding | None:
        owed_since_s = min((owed.since_s for owed in progress.owed), default=now)
        since_s = min(self._silent_from_s, max(progress.heard_at_s, owed_since_s))
        if now - since_s < _SILENT_S:
            return None
        return Finding("quiet", f"Nanonets has sent nothing for {now - since_s:.0f} s")


def _slow_from_s(usual_s: float) -> float:
    return max(_LEAST_SLOW_S, _FAR_ABOVE * usual_s)


def _requests(count: int) -> str:
    return "1 request" if count == 1 else f"{count} requests"


def _are(count: int) -> str:
    return "is" if count == 1 else "are"
