"""How long a refusal without a hint closes its scope: until the next usual end of a period, but at most 1 s.

The bound doubles with each further refusal, up to a minute. The first closure is no longer than a known period.

An upstream may restart its period at each refusal. Then only a pause of a whole period succeeds:

- After a burst, the pauses never become shorter.
- After a refused limit probe, the second refused recovery probe may be the sign of such an upstream. So the scope
  stays closed for the whole known period, and keeps this period if the next probe is accepted.
"""

from collections.abc import Callable

from nanonets_proxy.core.ratelimit.adaptive.estimate.belief import Belief
from nanonets_proxy.core.ratelimit.adaptive.estimate.closure import Closure
from nanonets_proxy.core.ratelimit.adaptive.estimate.likely_period import length_to_try_s
from nanonets_proxy.core.ratelimit.adaptive.estimate.limit_estimate import LimitEstimate
from nanonets_proxy.core.ratelimit.adaptive.estimate.period_end import period_start_s
from nanonets_proxy.core.ratelimit.adaptive.estimate.probe_schedule import SMALL_COUNT
from nanonets_proxy.core.ratelimit.adaptive.grant_kind import LIMIT_PROBES
from nanonets_proxy.core.ratelimit.gate_policy import GatePolicy

_MAX_S = 60.0  # the vendor advises 30, 60, 120 s, but a probe is only one request
_JITTER = 0.25  # up to this share is added, so that proxies on one account do not probe together
_RESTARTED = 2  # recovery probes refused in a row after a limit probe


class Backoff:
    """The bound of the next closure: it doubles from `backoff_first_s` on."""

    __slots__ = ("_bound_s", "_jitter", "_of_burst", "_policy", "_proven", "_refused_probes")

    def __init__(self, policy: GatePolicy, jitter: Callable[[], float]) -> None:
        self._policy = policy
        self._jitter = jitter
        self._bound_s = policy.backoff_first_s
        self._of_burst = False  # whether a burst met the limit
        self._proven: Belief | None = None  # before a limit probe was refused without a hint
        self._refused_probes = 0  # recovery probes, one after the other

    def next_s(self, estimate: LimitEstimate, now: float) -> float:
        """Returns the length of the next closure, jitter included."""
        length_s = self._bound_s
        if length_s == self._policy.backoff_first_s and estimate.known:
            length_s = min(length_s, estimate.window.period_s)
        self._bound_s = min(2 * length_s, _MAX_S)
        began_at_s = period_start_s(estimate)
        if began_at_s is not None:
            length_s = min(length_s, length_to_try_s(now - began_at_s, of_burst=self._of_burst))
        if self._proven is not None and self._refused_probes == _RESTARTED:
            length_s = max(length_s, self._proven.period_s)
        return length_s + _JITTER * self._jitter() * min(length_s, 1.0)

    def probe_refused(self) -> None:
        """Notes a refused recovery probe."""
        self._refused_probes += 1

    def closed(self, closure: Closure, estimate: LimitEstimate) -> None:
        """Notes a closure that was not the refusal of a recovery probe, once its lesson is drawn."""
        self._of_burst = closure.refused >= SMALL_COUNT
        is_blind_probe = closure.kind in LIMIT_PROBES and not closure.hinted
        self._proven = estimate.belief if is_blind_probe and estimate.proven else None

    def probe_accepted(self) -> Belief | None:
        """Begins with the first bound again. Returns the estimate whose period refusals seem to have restarted."""
        self._bound_s = self._policy.backoff_first_s
        refused, self._refused_probes = self._refused_probes, 0
        return self._proven if refused >= _RESTARTED else None
