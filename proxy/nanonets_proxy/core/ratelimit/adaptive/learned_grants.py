"""The grants under an estimated limit: some go at once, some step by step, and some test the estimate.

- The proven part of the window goes at once, and its unproven part as slow start allows; one by one if the quota
  varies.
- The first request of a period goes alone, and the others go once it is accepted. This ends when two such starts
  were accepted; a start that a hint timed does not count.
- Limit probes exceed the estimate. They go one by one, when the probe schedule allows a probe and a request waits.

A stated limit is the upper bound of the estimate.
"""

import math

from nanonets_proxy.core.ratelimit.adaptive.estimate.limit_estimate import LimitEstimate
from nanonets_proxy.core.ratelimit.adaptive.grant_kind import LIMIT_PROBES, GrantKind
from nanonets_proxy.core.ratelimit.adaptive.slow_start import SlowStart
from nanonets_proxy.core.ratelimit.adaptive.stated_limits import StatedLimits

# In Python 3.11 each access to a member through its enum costs a call.
_PROVEN, _UNPROVEN, _PERIOD_START, _RECOVERY_PROBE, _COUNT_PROBE, _PERIOD_PROBE, _CONCURRENCY_PROBE = GrantKind

_ONE_BY_ONE = 0.1  # of a period: longer waits would cost more than refusals


class LearnedGrants:
    """Decides by the estimate whether one more request may go."""

    __slots__ = (
        "_estimate",
        "_probed_units",
        "_refused_alone",
        "_slow_start",
        "_stated",
        "_unconfirmed_kinds",
        "_used_up_by",
    )

    def __init__(self, estimate: LimitEstimate, slow_start: SlowStart, stated: StatedLimits) -> None:
        self._estimate = estimate
        self._slow_start = slow_start
        self._stated = stated
        self._unconfirmed_kinds: dict[int, GrantKind] = {}  # period starts and limit probes, by serial number
        self._probed_units: float = 1  # by how much the latest count probe exceeded the count
        self._used_up_by = math.inf  # the serial number of an unconfirmed grant that used up the window
        self._refused_alone = math.inf  # the smallest cost that was refused while nothing else counted

    def kind(self, now: float, cost: float, in_flight: int) -> GrantKind | None:
        """Returns the kind of grant of one more request beside `in_flight` others; None if it must wait."""
        estimate, slow_start = self._estimate, self._slow_start
        window = estimate.window
        used = window.used(now)
        may_probe = not slow_start.unconfirmed  # a probe goes only while no other request is unconfirmed
        if in_flight >= estimate.concurrency.limit:
            due = used + cost <= window.count and estimate.concurrency.probes.due(now)
            return _CONCURRENCY_PROBE if due and may_probe else None
        if used + cost <= estimate.proven:
            if estimate.starts_to_confirm and estimate.at_period_start:
                return _PERIOD_START if may_probe else None
            return _PROVEN
        if used + cost <= window.count:
            has_room = may_probe if self._goes_one_by_one else slow_start.has_room(now)
            return _UNPROVEN if has_room else None
        if not may_probe or window.count >= self._max_count:
            return None
        if not used:  # the request alone exceeds the estimate: only a trial can tell whether it fits the limit
            return _COUNT_PROBE if cost < self._refused_alone else None
        if not estimate.window_probes.due(now):
            return None
        if estimate.prefers_count_probe or self._stated.strictest is not None:
            return _COUNT_PROBE if estimate.count_probe_ready(now) else None
        return _PERIOD_PROBE if now >= estimate.period_probe_at_s else None

    @property
    def _goes_one_by_one(self) -> bool:
        """Whether unproven requests go one by one, so that a period of a varying quota refuses only one."""
        estimate = self._estimate
        longest_s = (estimate.window.count - estimate.proven) * estimate.refusal_delay_s
        return estimate.quota_varies and longest_s <= _ONE_BY_ONE * estimate.window.period_s

    def change_times_s(self, now: float, cost: float, in_flight: int) -> tuple[float, ...]:
        """Returns the instants at which `kind` may change if no permit settles before."""
        estimate = self._estimate
        if in_flight >= estimate.concurrency.limit:
            return (estimate.concurrency.probes.due_at_s,)
        if estimate.window.used(now) + cost <= estimate.window.count:
            return ()
        due_at_s = estimate.window_probes.due_at_s
        if not estimate.prefers_count_probe:
            due_at_s = max(due_at_s, estimate.period_probe_at_s)
        return (estimate.window.frees_at_s, due_at_s)

    def fits_stated_limit(self, now: float, cost: float) -> bool:
        """Returns whether one more request keeps to the stated limits, which hold for recovery probes too."""
        strictest = self._stated.strictest
        return strictest is None or self._estimate.window.used(now) + cost <= strictest.count

    def note_grant(self, serial: int, kind: GrantKind, now: float) -> None:
        """Notes a period start or a limit probe. The window has it already."""
        if kind is not _PERIOD_START:
            self._slow_start.restart(1)
            self._used_up_by = math.inf  # the probe may change the window
        window = self._estimate.window
        if kind is _COUNT_PROBE:
            self._probed_units = max(1, window.used(now) - window.count)
        self._unconfirmed_kinds[serial] = kind

    def note_unconfirmed(self, serial: int, now: float) -> None:
        """Notes a grant that is unconfirmed. The window has it already."""
        window, limit = self._estimate.window, self._estimate.concurrency.limit
        if limit < math.inf and self._used_up_by == math.inf and window.used(now) >= window.count:
            self._used_up_by = serial

    def used_up(self, now: float) -> bool:
        """Returns whether accepted requests have used up the window, when a request has been accepted.

        Where a concurrency limit makes requests go evenly, each is sent before the earlier ones are accepted, so
        that some are always unconfirmed. Then it is enough if the window was used up once, and all requests until
        then were accepted. Other traffic pauses by itself: there, this would raise the count too often.
        """
        window, first = self._estimate.window, next(iter(self._slow_start.unconfirmed), math.inf)
        is_used_up = self._used_up_by < first
        if is_used_up:
            self._used_up_by = math.inf
        return is_used_up if first < math.inf else window.used(now) >= window.count

    def end_kind(self, serial: int, usual: GrantKind) -> GrantKind:
        """Returns the kind of a grant that was not served; `usual` if it was no period start and no limit probe.

        An unconfirmed probe or period start explains the refusal of another request.
        """
        if serial <= self._used_up_by:
            self._used_up_by = math.inf
        kind = self._unconfirmed_kinds.pop(serial, usual)
        return kind if kind in LIMIT_PROBES else next(iter(self._unconfirmed_kinds.values()), kind)

    def accepted(self, serial: int, now: float) -> None:
        """Notes an accepted request, which may have been a period start or a limit probe."""
        if not self._unconfirmed_kinds:
            return
        estimate = self._estimate
        match self._unconfirmed_kinds.pop(serial, None):
            case GrantKind.PERIOD_START:
                estimate.period_start_accepted()
            case GrantKind.COUNT_PROBE:
                estimate.raise_count(now, self._probed_units, self._max_count)
            case GrantKind.PERIOD_PROBE:
                estimate.shorten_period(now)
            case GrantKind.CONCURRENCY_PROBE:
                estimate.concurrency.probe_accepted()

    def count_probe_refused(self, cost: float, now: float) -> None:
        """Notes the cost of a refused count probe. The window no longer has it."""
        window = self._estimate.window
        if cost > window.count and not window.used(now):
            self._refused_alone = min(self._refused_alone, cost)

    def forget_unconfirmed(self) -> None:
        """Forgets the unconfirmed probes and period starts: a closure has begun."""
        self._unconfirmed_kinds.clear()
        self._used_up_by = math.inf

    @property
    def has_unconfirmed_probe(self) -> bool:
        """Whether a limit probe is unconfirmed, which would explain a refusal."""
        return any(kind in LIMIT_PROBES for kind in self._unconfirmed_kinds.values())

    def is_unconfirmed_probe(self, serial: int) -> bool:
        """Returns whether this grant is a limit probe that is unconfirmed."""
        return self._unconfirmed_kinds.get(serial) in LIMIT_PROBES

    def is_too_large(self, cost: float) -> bool:
        """Returns whether a request of this cost certainly exceeds the whole limit."""
        if cost > self._max_count:
            return True
        return cost >= self._refused_alone and cost > self._estimate.window.count

    @property
    def _max_count(self) -> float:
        strictest = self._stated.strictest
        return math.inf if strictest is None else strictest.count
