"""The state of an environment in one sentence, and the party to look at."""

from dataclasses import replace
from typing import Any

import pytest

from nanonets_proxy.core.status.document import FleetStatus, GateStatus, KeysStatus, ScopeEntry, State
from nanonets_proxy.core.status.recent_errors import LastFailure
from nanonets_proxy.core.status.request_counts import LatestRequests
from nanonets_proxy.core.status.state import StateFacts, duration, most_urgent, state_of
from nanonets_proxy.core.status.upstream_watch import Finding

_SCOPE = ScopeEntry("account", "open", 0.0, None, None, None, 0.0, quota_used_up=False, waiting=0, in_flight=0)
_GATE = GateStatus(0, 0, 10_000, 0, 256, None, (_SCOPE,), 1, (), 0)
_KEYS = KeysStatus("env", "serving", is_rejected=False, keys=(), warnings=(), source_fault=None)
_FACTS = StateFacts("ready", _GATE, _KEYS, LatestRequests(), None)


def _state(*, scope: dict[str, Any] | None = None, **changes: Any) -> State:
    """Returns the state after changes to the facts of an idle environment."""
    gate = {name: changes.pop(name) for name in list(changes) if hasattr(_GATE, name)}
    keys = {name.removeprefix("key_"): changes.pop(name) for name in list(changes) if name.startswith("key_")}
    if scope:
        gate["scopes"] = (_SCOPE, replace(_SCOPE, **scope))
    return state_of(replace(_FACTS, gate=replace(_GATE, **gate), keys=replace(_KEYS, **keys), **changes))


@pytest.mark.parametrize(
    ("changes", "code", "cause", "sentence"),
    [
        ({}, "idle", None, "Ready: no request is in flight or waits."),
        ({"in_flight": 1}, "serving", None, "Serving: 1 request in flight, nobody waits."),
        ({"phase": "starting"}, "starting", "proxy", "Starting: callers are not served yet."),
        (
            {"phase": "draining", "in_flight": 3},
            *("draining", "proxy", "Draining: 3 requests in flight, no new connections."),
        ),
        (
            {"key_state": "spent"},
            *("no_key", "key", "No usable API key: Nanonets rejects every known key (401)."),
        ),
        ({"key_state": "gap"}, "no_key", "key", "No usable API key: requests wait for a new key."),
        (
            {"key_is_rejected": True},
            *("key_rejected", "key", "Nanonets rejects the API key of every request (401)."),
        ),
        (
            {"latest": LatestRequests(14, 12), "failure": "internal_error"},
            *(
                "proxy_failing",
                "proxy",
                "The proxy fails: 12 of 14 requests in the last minute failed (internal_error).",
            ),
        ),
        (
            {"latest": LatestRequests(4, 4), "failure": "jobs_storage_full"},
            "proxy_failing",
            "proxy",
            "The proxy fails: 4 of 4 requests in the last minute failed (jobs_storage_full).",
        ),
        (
            {"latest": LatestRequests(3, 3, 3), "failure": "upstream_timeout"},
            "upstream_failing",
            "upstream",
            "Nanonets fails or cannot be reached: 3 of 3 requests in the last minute failed (upstream_timeout).",
        ),
        (
            {"latest": LatestRequests(3, 3, span_s=20)},
            "upstream_failing",
            "upstream",
            "Nanonets fails or cannot be reached: 3 of 3 requests in the last 20 s failed.",
        ),
        (
            {"latest": LatestRequests(14, 2, 12), "failure": "upstream_503"},
            "upstream_failing",
            "upstream",
            "Nanonets does not respond as itself: 12 of 14 requests in the last minute got an unexpected response.",
        ),
        (
            {"latest": LatestRequests(60, 3, span_s=20), "failure": "upstream_closed", "waiting": 1},
            "partly_failing",
            "upstream",
            "Some requests fail: 3 of 60 requests in the last 20 s failed (upstream_closed).",
        ),
        (
            {"latest": LatestRequests(60, 3, span_s=20), "failure": "jobs_full"},
            "partly_failing",
            "proxy",
            "Some requests fail: 3 of 60 requests in the last 20 s failed (jobs_full).",
        ),
        (
            {"latest": LatestRequests(264, unexpected=36, span_s=20)},
            "partly_failing",
            "upstream",
            (
                "Some responses are not those of Nanonets: 36 of 264 requests in the last 20 s got an unexpected "
                "response."
            ),
        ),
        (
            {
                "latest": LatestRequests(4, retried=3, queue_full=3),
                "queue_full": ("queue_full", "limit"),
                "max_waiting": 8,
                "waiting": 8,
                "in_flight": 256,
            },
            "queue_full",
            "limit",
            (
                "The queue is full: 3 of 4 requests in the last minute were refused, because max_waiting (8) lets "
                "no more wait."
            ),
        ),
        (
            {
                "latest": LatestRequests(9, queue_full=9, span_s=20),
                "queue_full": ("queue_full", "proxy"),
                "max_waiting": 8,
                "waiting": 7,
            },
            "queue_full",
            "proxy",
            (
                "The queue was full: 9 of 9 requests in the last 20 s were refused, because max_waiting (8) lets "
                "no more wait."
            ),
        ),
        (
            {"latest": LatestRequests(9, queue_full=9), "queue_full": ("queue_full_for_caller", "limit")},
            "queue_full",
            "limit",
            (
                "The queue of a caller was full: 9 of 9 requests in the last minute were refused, because "
                "max_waiting_per_caller lets no more wait."
            ),
        ),
        (
            {"latest": LatestRequests(120, 5, span_s=20, retried=8), "retry": "upstream_503", "in_flight": 1},
            "attempts_failing",
            "upstream",
            "Nanonets fails at first: 8 of 120 requests in the last 20 s were sent again (upstream_503).",
        ),
        (
            {"latest": LatestRequests(3, retried=3), "retry": "upstream_closed", "waiting": 1},
            "attempts_failing",
            "upstream",
            "Nanonets fails at first: 3 of 3 requests in the last minute were sent again (upstream_closed).",
        ),
        (
            {"latest": LatestRequests(61, 3), "failure": "upstream_closed"},
            *("idle", None, "Ready: no request is in flight or waits."),
        ),
        (
            {"latest": LatestRequests(9, 2), "failure": "upstream_closed"},
            *("idle", None, "Ready: no request is in flight or waits."),
        ),
        (
            {"latest": LatestRequests(20, 4), "scope": {"quota_used_up": True, "opens_in_s": 3600}},
            *("quota_used_up", "limit", "The quota of account is used up: next test in 1 h."),
        ),
        (
            {"scope": {"quota_used_up": True, "opens_in_s": 3600}},
            *("quota_used_up", "limit", "The quota of account is used up: next test in 1 h."),
        ),
        (
            {"scope": {"quota_used_up": True, "opens_in_s": 0.0}},
            *("quota_used_up", "limit", "The quota of account is used up: the next request tests it."),
        ),
        (
            {"waiting": 14, "waiting_callers": 14, "next_permit_in_s": 22.4},
            *("waiting_for_upstream", "limit", "Waiting for Nanonets: 14 callers, next permit in 23 s."),
        ),
        (
            {"waiting": 40, "waiting_callers": 1},
            "waiting_for_upstream",
            "limit",
            "Waiting for Nanonets: 1 caller with 40 requests, next permit when a response arrives.",
        ),
        (
            {"waiting": 2, "waiting_callers": 1, "fleet": FleetStatus("follows", 3)},
            "waiting_for_upstream",
            "limit",
            "Waiting for Nanonets: 1 caller with 2 requests, the leader of the fleet grants the next permit.",
        ),
        (
            {"waiting": 2, "waiting_callers": 2, "in_flight": 256},
            "waiting_for_place",
            "proxy",
            "Waiting for a free place: 2 callers, 256 of 256 places are in flight.",
        ),
        (
            {"scope": {"opens_in_s": 61}},
            *("limit_closed", "limit", "The rate limit of account is used up: opens in 1 min 1 s; nobody waits."),
        ),
        (
            {"latest": LatestRequests(4, gone=3), "in_flight": 1},
            "callers_gone",
            "upstream",
            "Callers hang up before Nanonets responds: 3 of 4 requests in the last minute, 1 request in flight.",
        ),
        (
            {"latest": LatestRequests(4, gone=4), "scope": {"opens_in_s": 61}},
            *("limit_closed", "limit", "The rate limit of account is used up: opens in 1 min 1 s; nobody waits."),
        ),
        ({"scopes": ()}, "idle", None, "Ready: no request is in flight or waits."),
        (
            {"upstream": Finding("silent", "Nanonets is silent."), "waiting": 2, "in_flight": 256},
            *("upstream_silent", "upstream", "Nanonets is silent."),
        ),
        (
            {"upstream": Finding("unreachable", "Nanonets cannot be reached."), "in_flight": 1},
            *("upstream_silent", "upstream", "Nanonets cannot be reached."),
        ),
        (
            {"upstream": Finding("slow", "Nanonets is slow."), "in_flight": 1},
            *("upstream_slow", "upstream", "Nanonets is slow."),
        ),
        (
            {"upstream": Finding("silent", "Nanonets is silent."), "lag_s": 3.2},
            "proxy_slow",
            "proxy",
            (
                "The proxy is slow: its event loop was held up for 4 s in the last minute, so CPU time or memory "
                "is short."
            ),
        ),
        (
            {"upstream": Finding("silent", "Nanonets is silent."), "full": "max_connections (9)"},
            *("upstream_silent", "upstream", "Nanonets is silent."),
        ),
        (
            {"upstream": Finding("quiet", "Nanonets has sent nothing for 9 s"), "in_flight": 1},
            *("serving", None, "Serving: 1 request in flight, nobody waits; Nanonets has sent nothing for 9 s."),
        ),
        (
            {
                "upstream": Finding("quiet", "Nanonets is quiet"),
                "in_flight": 256,
                "waiting": 1,
                "waiting_callers": 1,
            },
            "waiting_for_place",
            "proxy",
            "Waiting for a free place: 1 caller, 256 of 256 places are in flight; Nanonets is quiet.",
        ),
        (
            {
                "upstream": Finding("slow", "Nanonets is slow."),
                "full": "max_connections (9)",
                "in_flight": 9,
            },
            "proxy_full",
            "proxy",
            "The proxy is full: it rejects new connections, because max_connections (9) allows no more.",
        ),
        (
            {"latest": LatestRequests(4, forbidden=2)},
            *("idle", None, "Ready: no request is in flight or waits."),
        ),
        (
            {"latest": LatestRequests(6, forbidden=3)},
            "key_forbidden",
            "key",
            "Nanonets forbids what most requests ask for: 3 of 6 requests in the last minute got a 403.",
        ),
        (
            {"latest": LatestRequests(149, 73), "failure": "upstream_closed"},
            "upstream_failing",
            "upstream",
            "Nanonets fails or cannot be reached: 73 of 149 requests in the last minute failed (upstream_closed).",
        ),
        ({"lag_s": 0.9}, "idle", None, "Ready: no request is in flight or waits."),
        (
            {"last_failure": LastFailure("upstream_timeout", is_refusal=False, age_s=720, reason="")},
            *(
                "last_failed",
                "upstream",
                "The last request failed 12 min ago (upstream_timeout); none is in flight.",
            ),
        ),
        (
            {"last_failure": LastFailure("internal_error", is_refusal=False, age_s=5, reason=""), "in_flight": 2},
            "last_failed",
            "proxy",
            "The last request failed 5 s ago (internal_error); 2 requests in flight.",
        ),
        (
            {"last_failure": LastFailure("rate_limit_exceeded", is_refusal=True, age_s=60, reason="quota_used_up")},
            "last_failed",
            "limit",
            (
                "The rate limit refused the last request 1 min ago (rate_limit_exceeded: quota_used_up); none is "
                "in flight."
            ),
        ),
    ],
)
def test_the_state_names_the_party_to_look_at(
    changes: dict[str, Any], code: str, cause: str | None, sentence: str
) -> None:
    assert _state(**changes) == State(code, cause, sentence)


@pytest.mark.parametrize(("ended", "failed"), [(2, 2), (100, 4), (0, 0)])
def test_a_few_failures_and_unexpected_responses_are_not_the_state(ended: int, failed: int) -> None:
    assert _state(latest=LatestRequests(ended, failed)).code == "idle"
    assert _state(latest=LatestRequests(ended, unexpected=failed)).code == "idle"


@pytest.mark.parametrize(("ended", "retried"), [(2, 2), (21, 3), (100, 6), (0, 0)])
def test_a_few_requests_that_were_sent_again_are_not_the_state(ended: int, retried: int) -> None:
    assert _state(latest=LatestRequests(ended, retried=retried), retry="upstream_503").code == "idle"


@pytest.mark.parametrize(("ended", "failed"), [(2, 2), (100, 24), (0, 0)])
def test_a_few_refusals_of_a_full_queue_and_lost_callers_are_not_the_state(ended: int, failed: int) -> None:
    assert _state(latest=LatestRequests(ended, queue_full=failed)).code == "idle"
    assert _state(latest=LatestRequests(ended, gone=failed)).code == "idle"


def test_the_most_urgent_state_of_several_environments_counts() -> None:
    idle, closed, no_key = _state(), _state(scope={"opens_in_s": 5}), _state(key_state="spent")
    assert most_urgent([idle, closed]) == closed
    assert most_urgent([closed, no_key, idle]) == no_key


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.2, "1 s"),
        (59.01, "1 min"),
        (125, "2 min 5 s"),
        (3600, "1 h"),
        (7384, "2 h 3 min"),
        (86400 * 7, "7 d"),
        (90000, "1 d 1 h"),
    ],
)
def test_a_duration_has_its_two_largest_units(seconds: float, text: str) -> None:
    assert duration(seconds) == text
