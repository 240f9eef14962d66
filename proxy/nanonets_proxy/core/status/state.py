"""The state of an environment in one sentence, and the party to look at.

The first rule that applies decides: what keeps all requests from being served comes before what delays some.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from nanonets_proxy.core.status.document import GateStatus, KeysStatus, ScopeEntry, State
from nanonets_proxy.core.status.recent_errors import LastFailure
from nanonets_proxy.core.status.request_counts import LatestRequests
from nanonets_proxy.core.status.upstream_watch import Finding

_FEWEST: Final = 3
_FAILING_SHARE: Final = 0.25
_SOME_SHARE: Final = 0.05
_MOST_SHARE: Final = 0.5
_FEW_RETRIED: Final = 2
_SLOW_LAG_S: Final = 1.0
_OWN_FAILURES: Final = frozenset(
    {
        "internal_error",
        "jobs_full",
        "jobs_storage_full",
        "jobs_unavailable",
        "shutting_down",
        "too_many_connections",
    }
)
"""The kinds of 5xx that come from the proxy, not from Nanonets or the way to it."""
_URGENCY: Final = (
    *("no_key", "key_rejected", "proxy_failing", "upstream_failing", "key_forbidden", "proxy_slow"),
    *("upstream_silent", "proxy_full", "quota_used_up", "starting", "draining", "upstream_slow"),
    *("partly_failing", "queue_full", "attempts_failing", "waiting_for_place", "waiting_for_upstream"),
    *("limit_closed", "callers_gone", "last_failed", "serving", "idle"),
)


@dataclass(frozen=True, slots=True)
class StateFacts:
    """The facts that decide the state of an environment."""

    phase: str
    """The environment's own state: `ready`, `starting` or `draining`."""
    gate: GateStatus
    keys: KeysStatus
    latest: LatestRequests
    failure: str | None
    """The kind of the newest request that got a 5xx, or a response that broke off."""
    retry: str = ""
    """The kind of the newest failure after which a request was sent again."""
    queue_full: tuple[str, str] = ("", "")
    """The reason of the newest refusal because too many requests waited, and the cause of their wait."""
    last_failure: LastFailure | None = None
    """The last request, if it failed."""
    upstream: Finding | None = None
    """What is wrong with the upstream, as far as its connections show."""
    lag_s: float = 0.0
    """How late the event loop was in the last minute, at most."""
    full: str = ""
    """The limit that new connections meet now, such as `max_connections`; empty: none."""


def state_of(facts: StateFacts) -> State:
    """Returns the state."""
    gate = facts.gate
    match facts.phase:
        case "starting":
            return State("starting", "proxy", "Starting: callers are not served yet.")
        case "draining":
            return State(
                "draining", "proxy", f"Draining: {_requests(gate.in_flight)} in flight, no new connections."
            )
    quiet = ""
    if facts.upstream is not None and facts.upstream.kind == "quiet":
        quiet = f"; {facts.upstream.sentence}"
    return (
        _fault(facts)
        or _slowness(facts)
        or _quota(gate)
        or _partial_fault(facts)
        or _overflow(facts)
        or _retries(facts)
        or _delay(gate, quiet)
        or _loss(facts)
        or _failure(facts)
        or _activity(gate, quiet)
    )


def most_urgent(states: Iterable[State]) -> State:
    """Returns the state that needs the most attention; there must be one."""
    return min(states, key=lambda state: _URGENCY.index(state.code))


def _fault(facts: StateFacts) -> State | None:
    """Returns the state if many requests fail, or all must fail."""
    keys = facts.keys
    if keys.state == "spent":
        return State("no_key", "key", "No usable API key: Nanonets rejects every known key (401).")
    if keys.state == "gap":
        return State("no_key", "key", "No usable API key: requests wait for a new key.")
    if keys.is_rejected:
        return State("key_rejected", "key", "Nanonets rejects the API key of every request (401).")
    latest = facts.latest
    if _are_many(latest.failed, latest):
        if facts.failure in _OWN_FAILURES:
            return State("proxy_failing", "proxy", f"The proxy fails: {_failed_of(facts)}.")
        return State("upstream_failing", "upstream", f"Nanonets fails or cannot be reached: {_failed_of(facts)}.")
    if _are_many(latest.unexpected, latest):
        text = f"Nanonets does not respond as itself: {_unexpected_of(latest)}."
        return State("upstream_failing", "upstream", text)
    if _are_most(latest.forbidden, latest):
        got = f"{latest.forbidden} of {_in_span(latest)} got a 403"
        return State("key_forbidden", "key", f"Nanonets forbids what most requests ask for: {got}.")
    return None


def _failed_of(facts: StateFacts) -> str:
    kind = f" ({facts.failure})" if facts.failure else ""
    return f"{facts.latest.failed} of {_in_span(facts.latest)} failed{kind}"


def _unexpected_of(latest: LatestRequests) -> str:
    return f"{latest.unexpected} of {_in_span(latest)} got an unexpected response"


def _are_many(count: int, latest: LatestRequests) -> bool:
    return count >= _FEWEST and count >= _FAILING_SHARE * latest.ended


def _are_most(count: int, latest: LatestRequests) -> bool:
    return count >= _FEWEST and count >= _MOST_SHARE * latest.ended


def _in_span(latest: LatestRequests) -> str:
    return f"{_requests(latest.ended)} in the last {'minute' if latest.span_s == 60 else f'{latest.span_s} s'}"


def _slowness(facts: StateFacts) -> State | None:
    """Returns the state if the proxy or the upstream is full, or slower than it should be."""
    if facts.lag_s >= _SLOW_LAG_S:
        held_up = f"its event loop was held up for {duration(facts.lag_s)} in the last minute"
        return State("proxy_slow", "proxy", f"The proxy is slow: {held_up}, so CPU time or memory is short.")
    upstream = facts.upstream
    if upstream is not None and upstream.kind in ("silent", "unreachable"):  # it may be what fills the proxy
        return State("upstream_silent", "upstream", upstream.sentence)
    if facts.full:
        text = f"The proxy is full: it rejects new connections, because {facts.full} allows no more."
        return State("proxy_full", "proxy", text)
    if upstream is not None and upstream.kind == "slow":
        return State("upstream_slow", "upstream", upstream.sentence)
    return None


def _quota(gate: GateStatus) -> State | None:
    """Returns the state if a quota of a day or a month is used up."""
    used_up = next((scope for scope in gate.scopes if scope.quota_used_up), None)
    if used_up is None:
        return None
    opens_in_s = used_up.opens_in_s
    test = f"next test in {duration(opens_in_s)}" if opens_in_s else "the next request tests it"
    return State("quota_used_up", "limit", f"The quota of {used_up.name} is used up: {test}.")


def _partial_fault(facts: StateFacts) -> State | None:
    """Returns the state if some requests fail."""
    latest = facts.latest
    if latest.failed >= max(_FEWEST, _SOME_SHARE * latest.ended):
        cause = "proxy" if facts.failure in _OWN_FAILURES else "upstream"
        return State("partly_failing", cause, f"Some requests fail: {_failed_of(facts)}.")
    if latest.unexpected >= max(_FEWEST, _SOME_SHARE * latest.ended):
        return State(
            "partly_failing", "upstream", f"Some responses are not those of Nanonets: {_unexpected_of(latest)}."
        )
    return None


def _overflow(facts: StateFacts) -> State | None:
    """Returns the state if many requests are refused because too many others wait."""
    latest, gate = facts.latest, facts.gate
    if not _are_many(latest.queue_full, latest):
        return None
    reason, cause = facts.queue_full
    full, setting = "queue of a caller was full", "max_waiting_per_caller"
    if reason == "queue_full":
        setting = f"max_waiting ({gate.max_waiting})"
        full = "queue is full" if gate.waiting >= gate.max_waiting else "queue was full"
    refused = f"{latest.queue_full} of {_in_span(latest)} were refused, because {setting} lets no more wait"
    return State("queue_full", cause, f"The {full}: {refused}.")


def _retries(facts: StateFacts) -> State | None:
    """Returns the state if some requests succeed only when they are sent again.

    Callers see these failures only as slow responses. An upstream that fails once in a hundred times is usual.
    """
    latest = facts.latest
    if latest.retried < _FEW_RETRIED + _SOME_SHARE * latest.ended:
        return None
    retried = f"{latest.retried} of {_in_span(latest)} were sent again ({facts.retry})"
    return State("attempts_failing", "upstream", f"Nanonets fails at first: {retried}.")


def _delay(gate: GateStatus, quiet: str) -> State | None:
    """Returns the state if a limit delays requests. `quiet` ends the sentence if the upstream may be the cause."""
    if gate.waiting:
        callers = _callers(gate)
        if gate.in_flight >= gate.max_in_flight:
            places = f"{gate.max_in_flight} of {gate.max_in_flight} places are in flight"
            return State("waiting_for_place", "proxy", f"Waiting for a free place: {callers}, {places}{quiet}.")
        permit = "next permit when a response arrives"
        if gate.next_permit_in_s is not None:
            permit = f"next permit in {duration(gate.next_permit_in_s)}"
        elif gate.asks_leader:
            permit = "the leader of the fleet grants the next permit"
        return State("waiting_for_upstream", "limit", f"Waiting for Nanonets: {callers}, {permit}.")
    closed: ScopeEntry | None = max(gate.scopes, key=lambda scope: scope.opens_in_s, default=None)
    if closed is not None and closed.opens_in_s:
        opens = f"opens in {duration(closed.opens_in_s)}"
        return State("limit_closed", "limit", f"The rate limit of {closed.name} is used up: {opens}; nobody waits.")
    return None


def _loss(facts: StateFacts) -> State | None:
    """Returns the state if callers do not wait for their responses, although no limit delays them."""
    latest = facts.latest
    if not _are_most(latest.gone, latest):
        return None
    gone = f"{latest.gone} of {_in_span(latest)}"
    in_flight = f"{_requests(facts.gate.in_flight)} in flight"
    return State("callers_gone", "upstream", f"Callers hang up before Nanonets responds: {gone}, {in_flight}.")


def _failure(facts: StateFacts) -> State | None:
    """Returns the state if the last request failed, however long ago in the last hour."""
    last = facts.last_failure
    if last is None:
        return None
    in_flight = f"{_requests(facts.gate.in_flight)} in flight" if facts.gate.in_flight else "none is in flight"
    kind = f"{last.kind}: {last.reason}" if last.reason else last.kind
    when = f"{duration(last.age_s)} ago ({kind}); {in_flight}"
    if last.is_refusal:
        return State("last_failed", "limit", f"The rate limit refused the last request {when}.")
    cause = "proxy" if last.kind in _OWN_FAILURES else "upstream"
    return State("last_failed", cause, f"The last request failed {when}.")


def _activity(gate: GateStatus, quiet: str) -> State:
    if gate.in_flight:
        return State("serving", None, f"Serving: {_requests(gate.in_flight)} in flight, nobody waits{quiet}.")
    return State("idle", None, "Ready: no request is in flight or waits.")


def _callers(gate: GateStatus) -> str:
    callers = f"{gate.waiting_callers} caller{'' if gate.waiting_callers == 1 else 's'}"
    return callers if gate.waiting == gate.waiting_callers else f"{callers} with {_requests(gate.waiting)}"


def _requests(count: int) -> str:
    return "1 request" if count == 1 else f"{count} requests"


def duration(seconds: float) -> str:
    """Returns whole seconds, rounded up, in the two largest units."""
    whole_s = math.ceil(seconds)
    for unit_s, unit, smaller_s, smaller in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole_s >= unit_s:
            count, left = whole_s // unit_s, whole_s % unit_s // smaller_s
            return f"{count} {unit} {left} {smaller}" if left else f"{count} {unit}"
    return f"{whole_s} s"
