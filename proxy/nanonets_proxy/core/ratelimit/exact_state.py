"""The exact limits of one gate as a JSON document, for the gate of a process that replaces this one.

A snapshot (`snapshot.py`) is for a process that starts later, and keeps an estimate and the latest grants. The
document here has every field of a limit: slow start, probes, a closure and its lesson. So the other gate decides
as this one would have. Instants are those of the machine's monotonic clock, which both processes share.

The classes are the format. Two releases whose classes have different fields do not understand each other, and the
snapshot must do.

| value | in the document |
|---|---|
| None, truth value, number, text | itself |
| list, tuple, deque | a list |
| dict | a list of keys and values |
| enumeration, dataclass, long quota | `{"NAME": …}`: its value, or its fields |
| part of a limit | its fields. A part that others share is there once, at its first place |
"""

import enum
from collections import deque
from collections.abc import Iterable, Iterator
from operator import attrgetter
from typing import Any, Final

from nanonets_proxy.core.ratelimit.adaptive.announced_quota import AnnouncedQuota
from nanonets_proxy.core.ratelimit.adaptive.backoff import Backoff
from nanonets_proxy.core.ratelimit.adaptive.closure_timer import ClosureTimer
from nanonets_proxy.core.ratelimit.adaptive.estimate.belief import Belief, ProvenWindow
from nanonets_proxy.core.ratelimit.adaptive.estimate.closure import Closure
from nanonets_proxy.core.ratelimit.adaptive.estimate.concurrency_estimate import ConcurrencyEstimate
from nanonets_proxy.core.ratelimit.adaptive.estimate.hint_history import HintHistory
from nanonets_proxy.core.ratelimit.adaptive.estimate.interval_fit import IntervalFit
from nanonets_proxy.core.ratelimit.adaptive.estimate.limit_estimate import LimitEstimate
from nanonets_proxy.core.ratelimit.adaptive.estimate.period_fit import Candidate, PeriodFit
from nanonets_proxy.core.ratelimit.adaptive.estimate.probe_schedule import ProbeSchedule
from nanonets_proxy.core.ratelimit.adaptive.estimate.sliding_window import SlidingWindow
from nanonets_proxy.core.ratelimit.adaptive.grant_kind import GrantKind
from nanonets_proxy.core.ratelimit.adaptive.learned_grants import LearnedGrants
from nanonets_proxy.core.ratelimit.adaptive.limit import Limit, LimitState
from nanonets_proxy.core.ratelimit.adaptive.slow_start import SlowStart
from nanonets_proxy.core.ratelimit.adaptive.stated_limits import StatedLimits
from nanonets_proxy.core.ratelimit.long_quota import LongQuota
from nanonets_proxy.core.ratelimit.quota_watch import Accepted, QuotaWatch
from nanonets_proxy.core.ratelimit.scope_state import ScopeState
from nanonets_proxy.core.ratelimit.scopes.static_limits import StaticLimit

MAX_GRANTS: Final = 20_000
"""The most grants in the document. Scopes with older grants are left out if there are more."""

_PARTS: Final = (
    *(Limit, LimitEstimate, SlidingWindow, ConcurrencyEstimate, ProbeSchedule, HintHistory, PeriodFit, IntervalFit),
    *(StatedLimits, AnnouncedQuota, SlowStart, LearnedGrants, ClosureTimer, Backoff, QuotaWatch),
)
_ENUMS: Final = {own.__name__: own for own in (LimitState, GrantKind)}
_VALUES: Final = {
    own.__name__: own for own in (Belief, Closure, ProvenWindow, Candidate, Accepted, StaticLimit, LongQuota)
}
_OF_THE_PROCESS: Final = {"_policy", "_jitter"}
_OF_A_SCOPE: Final = ("limit", "watch", "quota", "closed_at_s", "refused_count", "longest_hint_s", "was_long")


def take_exact(scopes: Iterable[ScopeState]) -> dict[str, Any]:
    """Returns the document of the scopes with the latest grants. Refusals in doubt are left out."""
    document: dict[str, Any] = {}
    left = MAX_GRANTS
    for scope in sorted(scopes, key=attrgetter("limit.last_grant_s"), reverse=True):
        left -= scope.limit.estimate.window.logged
        if left < 0:
            break
        seen: set[int] = set()
        document[scope.name] = {name: _encoded(getattr(scope, name), seen) for name in _OF_A_SCOPE}
    return document


def apply_exact(scope: ScopeState, document: Any) -> None:
    """Applies one scope of the document to a new scope, without the requests in flight. A new policy must follow.

    Raises ValueError if the document is of another release. The scope must not be used then.
    """
    seen: set[int] = set()
    try:
        _expect(document, _OF_A_SCOPE)
        for name in _OF_A_SCOPE:
            setattr(scope, name, _decoded(document[name], getattr(scope, name), seen))
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"its gate is of another release: {error}") from None
    scope.limit.in_flight = 0


def _expect(document: Any, names: Iterable[str]) -> None:
    if set(document) != set(names):
        raise ValueError("its gate is of another release")


def _names(value: object) -> list[str]:
    slots: Iterable[str] = type(value).__slots__  # type: ignore[attr-defined]  # each of these classes has slots
    return sorted(name for name in slots if name not in _OF_THE_PROCESS)


def _fields(part: object, seen: set[int]) -> Iterator[tuple[str, Any]]:
    """Yields the fields of a part, without the parts that came before."""
    seen.add(id(part))
    for name in _names(part):
        value = getattr(part, name)
        if not (isinstance(value, _PARTS) and id(value) in seen):
            yield name, value


def _encoded(value: Any, seen: set[int]) -> Any:
    if isinstance(value, _PARTS):
        return {name: _encoded(own, seen) for name, own in _fields(value, seen)}
    if isinstance(value, enum.Enum):
        return {type(value).__name__: value.value}
    if type(value).__name__ in _VALUES:
        return {type(value).__name__: {name: _encoded(getattr(value, name), seen) for name in _names(value)}}
    if isinstance(value, dict):
        return [[key, _encoded(own, seen)] for key, own in value.items()]
    if isinstance(value, list):
        return [_encoded(own, seen) for own in value]
    return list(value) if isinstance(value, deque) else value


def _decoded(document: Any, present: Any, seen: set[int]) -> Any:
    """Returns the value for a field that has a `present` value. Parts stay, and their fields change."""
    if isinstance(present, _PARTS):
        own = {}
        for name, value in _fields(present, seen):
            own[name] = _decoded(document[name], value, seen)
        _expect(document, own)
        for name, value in own.items():
            setattr(present, name, value)
        return present
    if isinstance(present, deque):
        return deque((tuple(own) if isinstance(own, list) else own for own in document), present.maxlen)
    if isinstance(present, dict):
        return {key: _decoded(own, None, seen) for key, own in document}
    if isinstance(document, list):
        return [_decoded(own, None, seen) for own in document]
    return _named(document, seen) if isinstance(document, dict) else document


def _named(document: dict[str, Any], seen: set[int]) -> Any:
    ((name, content),) = document.items()
    if (kind := _ENUMS.get(name)) is not None:
        return kind(content)
    value = object.__new__(_VALUES[name])
    _expect(content, _names(value))
    for field, own in content.items():
        object.__setattr__(value, field, _decoded(own, None, seen))  # dataclasses may be frozen
    return value
