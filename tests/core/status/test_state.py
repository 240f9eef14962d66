"""The state of an environment in one sentence, and the party to look at."""

from dataclasses import replace
from typing import Any

import pytest

from nanonets_proxy.core.status.document import GateStatus, KeysStatus, ScopeEntry, State
from nanonets_proxy.core.status.request_counts import LastMinute
from nanonets_proxy.core.status.state import Facts, duration, most_urgent, state_of

_SCOPE = ScopeEntry("account", "open", 0.0, None, None, None, 0.0, quota_used_up=False, waiting=0, in_flight=0)
_GATE = GateStatus(0, 0, 10_000, 0, 256, None, (_SCOPE,), 1, (), 0)
_KEYS = KeysStatus("env", "serving", is_rejected=False, keys=(), warnings=(), source_fault=None)
_FACTS = Facts("ready", _GATE, _KEYS, LastMinute(), None)


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
            {"minute": LastMinute(14, 12), "failure": "internal_error"},
            *(
                "proxy_failing",
                "proxy",
                "The proxy fails: 12 of 14 requests in the last minute failed (internal_error).",
            ),
        ),
        (
            {"minute": LastMinute(4, 4), "failure": "jobs_storage_full"},
            "proxy_failing",
            "proxy",
            "The proxy fails: 4 of 4 requests in the last minute failed (jobs_storage_full).",
        ),
        (
            {"minute": LastMinute(3, 3, 3), "failure": "upstream_timeout"},
            "upstream_failing",
            "upstream",
            "Nanonets fails or cannot be reached: 3 of 3 requests in the last minute failed (upstream_timeout).",
        ),
        (
            {"minute": LastMinute(3, 3)},
            "upstream_failing",
            "upstream",
            "Nanonets fails or cannot be reached: 3 of 3 requests in the last minute failed.",
        ),
        (
            {"minute": LastMinute(14, 2, 12), "failure": "upstream_503"},
            "upstream_failing",
            "upstream",
            "Nanonets does not respond as itself: 12 of 14 requests in the last minute got an unexpected response.",
        ),
        (
            {"scope": {"quota_used_up": True, "opens_in_s": 3600}},
            *("quota_used_up", "limit", "The quota of account is used up: next test in 1 h."),
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
            {"waiting": 2, "waiting_callers": 2, "in_flight": 256},
            "waiting_for_place",
            "upstream",
            "Waiting for a free place: 2 callers, 256 of 256 places are in flight.",
        ),
        (
            {"scope": {"opens_in_s": 61}},
            *("limit_closed", "limit", "The rate limit of account is used up: opens in 1 min 1 s; nobody waits."),
        ),
        (
            {"minute": LastMinute(4, gone=3), "in_flight": 1},
            "callers_gone",
            "upstream",
            "Callers hang up before Nanonets responds: 3 of 4 requests in the last minute, 1 request in flight.",
        ),
        (
            {"minute": LastMinute(4, gone=4), "scope": {"opens_in_s": 61}},
            *("limit_closed", "limit", "The rate limit of account is used up: opens in 1 min 1 s; nobody waits."),
        ),
        ({"scopes": ()}, "idle", None, "Ready: no request is in flight or waits."),
    ],
)
def test_the_state_names_the_party_to_look_at(
    changes: dict[str, Any], code: str, cause: str | None, sentence: str
) -> None:
    assert _state(**changes) == State(code, cause, sentence)


@pytest.mark.parametrize(("ended", "failed"), [(2, 2), (100, 40), (0, 0)])
def test_a_few_failures_are_not_the_state(ended: int, failed: int) -> None:
    assert _state(minute=LastMinute(ended, failed)).code == "idle"
    assert _state(minute=LastMinute(ended, unexpected=failed)).code == "idle"
    assert _state(minute=LastMinute(ended, gone=failed)).code == "idle"


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
