"""The gate's snapshots across a restart, and the document of the state file."""

import json
import math

import pytest

from nanonets_proxy.core.ratelimit.hints.rate_limit_fields import read_advice
from nanonets_proxy.core.ratelimit.hints.retry_hint import MAX_HINT_S
from nanonets_proxy.core.ratelimit.scopes.static_limits import StaticLimit
from nanonets_proxy.core.ratelimit.snapshot import ScopeSnapshot, dump, load, unknown
from nanonets_proxy.core.ratelimit.tickets import Outcome, Ticket
from support.gate.gate_scene import GateScene

UPSTREAM = "https://app.nanonets.com"


def learned_scene() -> GateScene:
    """Returns a gate that learned a limit of 10 requests in 10 s, and has just been closed again for 10 s."""
    scene = GateScene(max_in_flight=10)
    scene.ask(200)
    granted = [*scene.gate.poll(scene.now).granted]
    for permit in granted:
        scene.gate.settle(permit, Outcome.SERVED, scene.now)
    refuse(scene)
    scene.now += 10
    (probe,) = scene.gate.poll(scene.now).granted
    scene.gate.settle(probe, Outcome.SERVED, scene.now)
    refuse(scene)
    return scene


def refuse(scene: GateScene) -> None:
    """Refuses all that is granted. A refusal in doubt makes the gate grant a substitute."""
    while granted := scene.gate.poll(scene.now).granted:
        for permit in granted:
            scene.gate.settle(permit, Outcome.THROTTLED, scene.now, 10.0)
            assert scene.gate.enqueue(permit, scene.now) is None


def test_an_estimate_survives_a_restart() -> None:
    before = learned_scene()
    document = json.loads(json.dumps(dump(before.gate.scopes.snapshots(before.now), UPSTREAM, 5000.0)))
    snapshots, away_s = load(document, UPSTREAM, 5004.0)
    after = GateScene()
    after.gate.scopes.restore(snapshots, after.now, away_s)
    after.ask(50)
    assert after.go() == 0
    assert after.gate.scopes.closed(after.now) == {"account": after.now + 6}
    after.now += 6
    assert 1 <= after.go() <= 10
    assert after.gate.scopes.snapshots(after.now)[0].count == before.gate.scopes.snapshots(before.now)[0].count


def test_what_was_refused_is_not_tried_again_at_once_after_a_restart() -> None:
    """Without them, the next probe would ask for a shorter period, or for half as many requests more."""
    known = ScopeSnapshot(
        scope="account",
        count=40,
        period_s=4.0,
        proven=40,
        concurrency_limit=None,
        used=0,
        newest_age_s=0.0,
        opens_in_s=0.0,
        pause_periods=8.0,
        probe_refusals=2,
        probe_step=0.25,
        refused_period_s=3.6,
        latest_hint_s=4.0,
    )
    document = json.loads(json.dumps(dump([known], UPSTREAM, 5000.0)))
    assert load(document, UPSTREAM, 5000.0)[0] == [known]
    after = GateScene()
    after.gate.scopes.restore([known], after.now, 0.0)
    estimate = after.gate.scopes.by_name["account"].limit.estimate
    assert estimate.prefers_count_probe
    assert estimate.window_probes.shorter_period_s(4.0) > 3.6
    (snapshot,) = after.gate.scopes.snapshots(after.now)
    assert (snapshot.probe_refusals, snapshot.probe_step, snapshot.refused_period_s) == (2, 0.25, 3.6)
    assert snapshot.latest_hint_s == 4.0


def test_a_scope_that_opened_during_a_restart_is_open_and_a_static_limit_bounds_it() -> None:
    before = learned_scene()
    snapshots, away_s = load(dump(before.gate.scopes.snapshots(before.now), UPSTREAM, 5000.0), UPSTREAM, 5100.0)
    after = GateScene("account 4/minute")
    after.gate.scopes.restore(snapshots, after.now, away_s)
    after.ask(50)
    assert after.go() == 4


def closed_scene(hint_s: float | None = 30.0) -> GateScene:
    """Returns a gate whose very first request was refused."""
    scene = GateScene()
    scene.ask(1)
    for permit in scene.gate.poll(scene.now).granted:
        scene.gate.settle(permit, Outcome.THROTTLED, scene.now, hint_s)
    return scene


def restarted(before: GateScene, away_s: float, *static_limits: str) -> GateScene:
    """Returns the gate of a process that starts `away_s` after the other one saved its state."""
    document = json.loads(json.dumps(dump(before.gate.scopes.snapshots(before.now), UPSTREAM, 5000.0)))
    after = GateScene(*static_limits)
    snapshots, loaded_away_s = load(document, UPSTREAM, 5000.0 + away_s)
    after.gate.scopes.restore(snapshots, after.now, loaded_away_s)
    return after


@pytest.mark.parametrize("static_limits", [(), ("account 5/minute",)])
def test_a_closure_survives_a_restart_though_the_limit_is_unknown(static_limits: tuple[str, ...]) -> None:
    after = restarted(closed_scene(), 10.0, *static_limits)
    after.ask(50)
    assert after.go() == 0
    assert after.gate.scopes.closed(after.now) == {"account": after.now + 20}
    after.now += 20
    assert after.go() >= 5


def test_a_closure_that_ended_during_a_restart_leaves_nothing_behind() -> None:
    after = restarted(closed_scene(), 30.0)
    after.ask(50)
    assert after.go() == 50
    assert closed_scene().gate.scopes.snapshots(1030.0) == []


def test_a_restored_closure_lasts_at_most_the_longest_hint_though_the_clock_went_backwards() -> None:
    before = closed_scene(10 * MAX_HINT_S)  # the gate accepts any hint, but the file does not
    after = restarted(before, -1000.0)
    assert after.gate.scopes.closed(after.now) == {"account": after.now + MAX_HINT_S}


def test_closures_never_displace_estimates_in_the_document() -> None:
    closures = [unknown(f"v2:predict:{number}", 5.0) for number in range(20_000)]
    document = dump([*closures, *learned_scene().gate.scopes.snapshots(1010.0)], UPSTREAM, 1.0)
    assert len(document["scopes"]) == 10_000
    assert document["scopes"][0]["scope"] == "account"
    assert len(load(document, UPSTREAM, 1.0)[0]) == 10_000


def test_an_open_scope_with_an_unknown_limit_keeps_only_its_recent_requests() -> None:
    scene = GateScene()
    assert scene.gate.scopes.snapshots(scene.now) == []
    scene.ask(3)
    scene.go()
    assert scene.gate.scopes.snapshots(scene.now + 5) == [unknown("account", 0.0, ((5.0, 1),) * 3)]
    assert scene.gate.scopes.snapshots(scene.now + 3601) == []


def test_the_first_lesson_counts_the_requests_before_a_restart() -> None:
    before = GateScene()
    before.ask(30)
    assert before.go() == 30
    after = restarted(before, 1.0)
    after.now += 1
    after.ask(1)
    for permit in after.gate.poll(after.now).granted:
        after.gate.settle(permit, Outcome.THROTTLED, after.now, 20.0)
    after.now += 20
    after.ask(10)
    after.go()
    assert after.gate.scopes.snapshots(after.now)[0].count == 30


def test_each_request_counts_for_its_own_period_after_a_restart() -> None:
    before = GateScene("account 4/10s")
    before.ask(1)
    before.go()
    before.now += 6
    before.ask(3)
    assert before.go() == 3
    after = restarted(before, 2.0, "account 4/10s")
    after.ask(10)
    assert after.go() == 0
    after.now += 2.5  # the requests were granted 8 s and 2 s before the restart
    assert after.go() == 1
    after.now += 6
    assert after.go() == 3


@pytest.mark.parametrize("hint_s", [None, 3.0])
def test_one_refusal_after_a_restart_makes_no_proven_limit_faster(hint_s: float | None) -> None:
    """60 a minute are proven. Of 20 requests in a second, one is refused, and the probe after it is accepted."""
    after = GateScene()
    after.gate.scopes.restore([ScopeSnapshot("account", 60, 60.0, 60, None, 0, 0.0, 0.0)], after.now, 1.0)
    for _ in range(20):
        after.ask(1)
        assert after.go() == 1
        after.now += 0.05
    after.ask(1)
    (refused,) = after.gate.poll(after.now).granted
    after.gate.settle(refused, Outcome.THROTTLED, after.now, hint_s)
    after.ask(1)
    while not after.go():
        assert after.wake_at_s is not None
        after.now = after.wake_at_s
    (snapshot,) = after.gate.scopes.snapshots(after.now)
    assert snapshot.count is not None
    assert snapshot.count / snapshot.period_s <= 60 / 60.0


def test_requests_that_are_too_many_to_list_count_from_the_newest_on() -> None:
    before = GateScene("account 1500/10s", max_in_flight=2000)
    before.ask(1500)
    assert before.go() == 1500
    (snapshot,) = before.gate.scopes.snapshots(before.now)
    assert (snapshot.grants, snapshot.used) == ((), 1500)
    after = GateScene("account 1500/10s", max_in_flight=2000)
    after.gate.scopes.restore([snapshot], after.now, 1.0)
    after.ask(10)
    assert after.go() == 0


def test_a_document_keeps_a_bounded_number_of_grants() -> None:
    snapshots = [unknown(f"v2:predict:{number}", 0.0, ((1.0, 1),) * 900) for number in range(30)]
    kept = [len(scope.grants) for scope in load(dump(snapshots, UPSTREAM, 1.0), UPSTREAM, 1.0)[0]]
    assert kept == [900] * 22 + [0] * 8


VALID = {
    "scope": "account",
    "count": 5,
    "period_s": 60.0,
    "sure": 5,
    "cap": None,
    "used": 1,
    "newest_age_s": 1.0,
    "opens_in_s": 0.0,
}


def test_a_clock_that_went_backwards_counts_as_no_time_away() -> None:
    document = {"version": 1, "upstream": UPSTREAM, "saved_at_s": 9000.0, "scopes": [{**VALID, "cap": 3}]}
    snapshots, away_s = load(document, UPSTREAM, 10.0)
    assert (snapshots[0].concurrency_limit, away_s) == (3, 0.0)


@pytest.mark.parametrize(
    "document",
    [
        None,
        [],
        {},
        {"version": 2},
        {"version": 1, "upstream": "https://elsewhere.example"},
        {"version": 1, "upstream": UPSTREAM},
        {"version": 1, "upstream": UPSTREAM, "saved_at_s": math.nan, "scopes": []},
        {"version": 1, "upstream": UPSTREAM, "saved_at_s": 1.0, "scopes": {}},
        {"version": 1, "upstream": UPSTREAM, "saved_at_s": 1.0, "scopes": [7]},
        {"version": 1, "upstream": UPSTREAM, "saved_at_s": 1.0, "scopes": [{**VALID, "scope": 7}]},
        {"version": 1, "upstream": UPSTREAM, "saved_at_s": 1.0, "scopes": [{**VALID, "count": "5"}]},
        {"version": 1, "upstream": UPSTREAM, "saved_at_s": 1.0, "scopes": [{**VALID, "count": True}]},
        {"version": 1, "upstream": UPSTREAM, "saved_at_s": 1.0, "scopes": [{**VALID, "period_s": 0}]},
        {"version": 1, "upstream": UPSTREAM, "saved_at_s": 1.0, "scopes": [{**VALID, "opens_in_s": 1e30}]},
        {"version": 1, "upstream": UPSTREAM, "saved_at_s": 1.0, "scopes": [{**VALID, "used": math.nan}]},
        {"version": 1, "upstream": UPSTREAM, "saved_at_s": 1.0, "scopes": [{**VALID, "grants": {}}]},
        {"version": 1, "upstream": UPSTREAM, "saved_at_s": 1.0, "scopes": [{**VALID, "grants": [[1, 1]] * 1001}]},
        {"version": 1, "upstream": UPSTREAM, "saved_at_s": 1.0, "scopes": [{**VALID, "grants": [7]}]},
        {"version": 1, "upstream": UPSTREAM, "saved_at_s": 1.0, "scopes": [{**VALID, "grants": [[1]]}]},
        {"version": 1, "upstream": UPSTREAM, "saved_at_s": 1.0, "scopes": [{**VALID, "grants": [["1", 1]]}]},
        {"version": 1, "upstream": UPSTREAM, "saved_at_s": 1.0, "scopes": [{**VALID, "grants": [[1, -1]]}]},
    ],
)
def test_a_foreign_or_broken_document_is_a_value_error(document: object) -> None:
    with pytest.raises(ValueError, match=r"."):
        load(document, UPSTREAM, 10.0)


def test_a_document_keeps_the_keys_of_version_1() -> None:
    snapshot = ScopeSnapshot("account", 5, 60.0, 4, 3, 1, 1.0, 0.0)
    (scope,) = dump([snapshot], UPSTREAM, 1.0)["scopes"]
    assert scope.items() >= {**VALID, "sure": 4, "cap": 3}.items()
    assert load(dump([snapshot], UPSTREAM, 1.0), UPSTREAM, 1.0) == ([snapshot], 0.0)


@pytest.mark.parametrize("text", ["account 1000/365days", "account 999999999/3660days", "account 1/s"])
def test_each_limit_of_the_settings_can_be_loaded_again(text: str) -> None:
    scene = GateScene(text)
    scene.ask(3)
    scene.go()
    document = dump(scene.gate.scopes.snapshots(scene.now), UPSTREAM, 1.0)
    (loaded,), _ = load(json.loads(json.dumps(document)), UPSTREAM, 1.0)
    limit = StaticLimit.parse(text)
    assert (loaded.count, loaded.period_s) == (limit.count, limit.period_s)


def test_each_limit_that_the_upstream_announces_can_be_loaded_again() -> None:
    scene = GateScene()
    ticket = Ticket("account", math.inf)
    assert scene.gate.try_admit(ticket, scene.now)
    advice = read_advice([(b"RateLimit-Policy", b'"p";q=999999999999999;w=2678400')], "account")
    assert advice is not None
    scene.gate.note_advice(ticket, advice, scene.now)
    document = dump(scene.gate.scopes.snapshots(scene.now), UPSTREAM, 1.0)
    (loaded,), _ = load(json.loads(json.dumps(document)), UPSTREAM, 1.0)
    assert loaded.period_s == 2_678_400.0
