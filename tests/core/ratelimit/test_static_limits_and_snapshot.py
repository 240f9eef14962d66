"""Limits that are known beforehand, and those that are kept across a restart."""

import json
import math

import pytest

from nanonets_proxy.core.ratelimit.gate import Gate
from nanonets_proxy.core.ratelimit.gate_policy import GatePolicy
from nanonets_proxy.core.ratelimit.retry_hint import MAX_HINT_S
from nanonets_proxy.core.ratelimit.snapshot import ScopeSnapshot, closed, dump, load
from nanonets_proxy.core.ratelimit.static_limits import StaticLimit, StaticLimits
from nanonets_proxy.core.ratelimit.tickets import Outcome, Ticket

UPSTREAM = "https://app.nanonets.com"


@pytest.mark.parametrize(
    ("text", "scope", "count", "period_s"),
    [
        ("account 60/minute", "account", 60, 60.0),
        ("v2:predict:* 20/60s", "v2:predict:*", 20, 60.0),
        ("  x 5 / 2 h ", "x", 5, 7200.0),
        ("x 1/day", "x", 1, 86400.0),
    ],
)
def test_a_known_limit_reads(text: str, scope: str, count: int, period_s: float) -> None:
    assert StaticLimit.parse(text) == StaticLimit(scope, count, period_s)
    assert StaticLimit.parse(str(StaticLimit.parse(text))) == StaticLimit.parse(text)


@pytest.mark.parametrize(
    "text", ["", "account", "60/minute", "account 60", "account 0/s", "account 1/0s", "a 1/month"]
)
def test_what_is_no_limit_is_refused_in_a_sentence(text: str) -> None:
    with pytest.raises(ValueError, match="limit "):
        StaticLimit.parse(text)


def test_the_first_limit_that_matches_counts() -> None:
    static_limits = StaticLimits(tuple(map(StaticLimit.parse, ["v2:predict:big 5/minute", "v2:* 20/minute"])))
    assert static_limits.of("v2:predict:big") == StaticLimit("v2:predict:big", 5, 60.0)
    assert static_limits.of("v2:other") == StaticLimit("v2:*", 20, 60.0)
    assert static_limits.of("account") is None


class Scene:
    """A gate with a line that never ends; grants are served at once unless told otherwise."""

    def __init__(self, *static_limits: str, max_in_flight: int = 100) -> None:
        policy = GatePolicy(
            max_in_flight=max_in_flight,
            max_waiting=10_000,
            static_limits=StaticLimits(tuple(map(StaticLimit.parse, static_limits))),
        )
        self.gate = Gate(policy, lambda: 0.0)
        self.now = 1000.0
        self.wake_at_s: float | None = None

    def ask(self, count: int) -> None:
        for _ in range(count):
            assert self.gate.enqueue(Ticket("account", math.inf), self.now) is None

    def go(self) -> int:
        """Everything that can go now is served; how much it was."""
        served = 0
        while True:
            verdicts = self.gate.poll(self.now)
            self.wake_at_s = verdicts.wake_at_s
            if not verdicts.granted:
                return served
            for permit in verdicts.granted:
                self.gate.settle(permit, Outcome.SERVED, self.now)
                served += 1


def test_a_known_limit_holds_from_the_start_and_is_never_exceeded() -> None:
    scene = Scene("account 5/minute")
    scene.ask(100)
    for _ in range(4):
        assert scene.go() == 5
        scene.now += 59.9
        assert scene.go() == 0
        scene.now += 0.1


def test_a_known_limit_is_learned_downwards_and_back_up_to_it() -> None:
    scene = Scene("account 10/minute")
    scene.ask(200)
    granted = scene.gate.poll(scene.now).granted
    for permit in granted[:6]:
        scene.gate.settle(permit, Outcome.SERVED, scene.now)
    for permit in granted[6:]:
        scene.gate.settle(permit, Outcome.THROTTLED, scene.now, 60.0)
        assert scene.gate.enqueue(permit, scene.now) is None
    scene.gate.poll(scene.now)
    scene.now += 60
    assert scene.go() == 6
    most = 0
    for _ in range(40):
        scene.now += 60
        most = max(most, scene.go())
    assert most == 10


def learned_scene() -> Scene:
    """Ten in ten seconds, used up, and just closed again for ten."""
    scene = Scene()
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


def refuse(scene: Scene) -> None:
    for permit in scene.gate.poll(scene.now).granted:
        scene.gate.settle(permit, Outcome.THROTTLED, scene.now, 10.0)
        assert scene.gate.enqueue(permit, scene.now) is None
    assert scene.go() == 0


def test_what_was_learned_outlives_a_restart() -> None:
    before = learned_scene()
    document = json.loads(json.dumps(dump(before.gate.snapshots(before.now), UPSTREAM, 5000.0)))
    snapshots, away_s = load(document, UPSTREAM, 5004.0)
    after = Scene()
    after.gate.restore(snapshots, after.now, away_s)
    after.ask(50)
    assert after.go() == 0
    assert after.gate.closed_scopes(after.now) == {"account": after.now + 6}
    after.now += 6
    assert 1 <= after.go() <= 10
    assert after.gate.snapshots(after.now)[0].count == before.gate.snapshots(before.now)[0].count


def test_a_scope_that_has_opened_meanwhile_is_open_and_a_limit_in_the_settings_bounds_it() -> None:
    before = learned_scene()
    snapshots, away_s = load(dump(before.gate.snapshots(before.now), UPSTREAM, 5000.0), UPSTREAM, 5100.0)
    after = Scene("account 4/minute")
    after.gate.restore(snapshots, after.now, away_s)
    after.ask(50)
    assert after.go() == 4


def closed_scene(hint_s: float | None = 30.0) -> Scene:
    """Nothing is known but that the very first request was refused."""
    scene = Scene()
    scene.ask(1)
    for permit in scene.gate.poll(scene.now).granted:
        scene.gate.settle(permit, Outcome.THROTTLED, scene.now, hint_s)
    return scene


def restarted(before: Scene, away_s: float, *static_limits: str) -> Scene:
    document = json.loads(json.dumps(dump(before.gate.snapshots(before.now), UPSTREAM, 5000.0)))
    after = Scene(*static_limits)
    after.gate.restore(*restored(document, 5000.0 + away_s, after.now))
    return after


def restored(document: object, wall_s: float, now: float) -> tuple[list[ScopeSnapshot], float, float]:
    snapshots, away_s = load(document, UPSTREAM, wall_s)
    return snapshots, now, away_s


@pytest.mark.parametrize("static_limits", [(), ("account 5/minute",)])
def test_a_closure_outlives_a_restart_though_nothing_was_learned(static_limits: tuple[str, ...]) -> None:
    after = restarted(closed_scene(), 10.0, *static_limits)
    after.ask(50)
    assert after.go() == 0
    assert after.gate.closed_scopes(after.now) == {"account": after.now + 20}
    after.now += 20
    assert after.go() >= 5


def test_a_closure_that_is_over_at_the_restart_leaves_nothing_behind() -> None:
    after = restarted(closed_scene(), 30.0)
    after.ask(50)
    assert after.go() == 50
    assert closed_scene().gate.snapshots(1030.0) == []


def test_a_closure_is_kept_no_longer_than_the_longest_hint_though_the_clock_went_backwards() -> None:
    before = closed_scene(10 * MAX_HINT_S)  # the gate obeys whoever calls it, the file does not
    after = restarted(before, -1000.0)
    assert after.gate.closed_scopes(after.now) == {"account": after.now + MAX_HINT_S}


def test_closures_never_displace_what_was_learned() -> None:
    closures = [closed(f"v2:predict:{number}", 5.0) for number in range(20_000)]
    document = dump([*closures, *learned_scene().gate.snapshots(1010.0)], UPSTREAM, 1.0)
    assert len(document["scopes"]) == 10_000
    assert document["scopes"][0]["scope"] == "account"
    assert len(load(document, UPSTREAM, 1.0)[0]) == 10_000


def test_nothing_known_is_nothing_kept() -> None:
    scene = Scene()
    scene.ask(3)
    scene.go()
    assert scene.gate.snapshots(scene.now) == []


GOOD = {
    "scope": "account",
    "count": 5,
    "period_s": 60.0,
    "sure": 5,
    "cap": None,
    "used": 1,
    "newest_age_s": 1.0,
    "opens_in_s": 0.0,
}


def test_a_clock_that_went_backwards_means_no_time_away() -> None:
    document = {"version": 1, "upstream": UPSTREAM, "saved_at_s": 9000.0, "scopes": [{**GOOD, "cap": 3}]}
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
        {"version": 1, "upstream": UPSTREAM, "saved_at_s": 1.0, "scopes": [{**GOOD, "scope": 7}]},
        {"version": 1, "upstream": UPSTREAM, "saved_at_s": 1.0, "scopes": [{**GOOD, "count": "5"}]},
        {"version": 1, "upstream": UPSTREAM, "saved_at_s": 1.0, "scopes": [{**GOOD, "count": True}]},
        {"version": 1, "upstream": UPSTREAM, "saved_at_s": 1.0, "scopes": [{**GOOD, "period_s": 0}]},
        {"version": 1, "upstream": UPSTREAM, "saved_at_s": 1.0, "scopes": [{**GOOD, "opens_in_s": 1e30}]},
        {"version": 1, "upstream": UPSTREAM, "saved_at_s": 1.0, "scopes": [{**GOOD, "used": math.nan}]},
    ],
)
def test_a_foreign_or_broken_state_is_refused(document: object) -> None:
    with pytest.raises(ValueError, match=r"."):
        load(document, UPSTREAM, 10.0)
