"""How many requests follow the first recovery probe, and the first limit probe after it."""

import pytest

from nanonets_proxy.core.ratelimit.adaptive.limit import Limit
from nanonets_proxy.core.ratelimit.adaptive.limit_snapshot import restore_snapshot, take_snapshot
from nanonets_proxy.core.ratelimit.adaptive.other_gates import merge
from nanonets_proxy.core.ratelimit.gate_policy import GatePolicy
from nanonets_proxy.core.ratelimit.tickets import Outcome


class Scene:
    """A limit that nothing is known of, with an endless queue."""

    def __init__(self) -> None:
        self.limit = Limit(GatePolicy(max_in_flight=512, max_waiting=512), lambda: 0.0)

    def go(self, now: float) -> list[int]:
        """Grants all that is allowed now. Returns the serial numbers."""
        serials = []
        while (kind := self.limit.grant_kind(now)) is not None:
            serials.append(self.limit.grant(kind, now))
        return serials

    def serve(self, serials: list[int], now: float) -> None:
        for serial in serials:
            self.limit.served(serial, now)

    def refuse(self, serials: list[int], granted_at_s: float, now: float, hint_s: float | None) -> None:
        for serial in serials:
            self.limit.not_served(serial, granted_at_s, Outcome.THROTTLED, now, hint_s)

    def burst(self, now: float, accepted: int, hint_s: float | None) -> float:
        """Sends a burst, of which so many are accepted. Returns when the scope opens."""
        serials = self.go(now)
        self.refuse(serials[accepted:], now, now + 0.04, hint_s)
        self.serve(serials[:accepted], now + 0.05)
        return max(self.limit.opens_at_s, now + 0.1)

    def probe(self, now: float) -> float:
        """Sends the recovery probe, which is accepted. Returns when."""
        probe = self.go(now)
        assert len(probe) == 1
        self.serve(probe, now + 0.05)
        return now + 0.05


@pytest.mark.parametrize("accepted", [60, 40, 20, 10])
def test_after_a_first_short_hint_the_rest_of_the_count_follows_the_probe(accepted: int) -> None:
    """If all of these were refused too, as by a token bucket, that would make 64 refusals."""
    scene = Scene()
    now = scene.probe(scene.burst(0.0, accepted, 0.3))
    assert len(scene.go(now)) == accepted - 1


def test_after_the_next_short_hint_few_requests_follow_the_probe() -> None:
    """The upstream may be a token bucket."""
    scene = Scene()
    now = scene.probe(scene.burst(0.0, 20, 0.05))
    now = scene.probe(scene.burst(now, 2, 0.05))
    assert len(scene.go(now)) <= 5


@pytest.mark.parametrize("hint_s", [None, 0.0])
def test_without_a_hint_few_requests_follow_the_first_probe(hint_s: float | None) -> None:
    scene = Scene()
    now = scene.probe(scene.burst(0.0, 20, hint_s))
    assert len(scene.go(now)) == 4


def test_a_known_limit_has_no_first_meeting() -> None:
    scene = Scene()
    scene.limit.estimate.set_known(60, 10.0, 0)
    scene.limit.slow_start.restart(64)
    now = scene.probe(scene.burst(0.0, 40, 0.3))
    assert len(scene.go(now)) <= 5


def test_after_a_restart_a_closed_scope_has_no_first_meeting() -> None:
    """The refusals before the restart are part of the 64."""
    before = Scene()
    before.burst(0.0, 20, 2.5)
    snapshot = take_snapshot(before.limit, "account", 0.1)
    assert snapshot is not None
    assert snapshot.opens_in_s
    after = Scene()
    restore_snapshot(after.limit, snapshot, 0.1, 0.0)
    now = after.probe(after.limit.opens_at_s)
    assert len(after.go(now)) == 4


def test_a_closure_that_other_gates_tell_of_is_no_first_meeting() -> None:
    scene = Scene()
    merge(scene.limit, [], 2.5)
    now = scene.probe(2.5)
    assert len(scene.go(now)) == 4


def test_the_refusals_of_a_closure_in_doubt_are_part_of_the_64() -> None:
    scene = Scene()
    scene.burst(0.0, 20, 0.3)
    scene.limit.reopen(0.2)
    now = scene.probe(0.2)
    assert len(scene.go(now)) == 20


@pytest.mark.parametrize(("hint_s", "tested_at_once"), [(10.0, True), (9.9, False)])
def test_a_hint_in_whole_seconds_to_calls_that_are_all_in_flight_is_tested_at_once(
    hint_s: float, *, tested_at_once: bool
) -> None:
    """The upstream may have a concurrency limit, and no limit of five in ten seconds."""
    scene = Scene()
    serials = scene.go(0.0)
    scene.refuse(serials[5:], 0.0, 0.04, hint_s)
    scene.serve(serials[:5], 1.0)
    now = scene.probe(0.04 + hint_s)
    scene.serve(scene.go(now), now + 1.0)
    assert bool(scene.go(now + 1.0)) == tested_at_once


def test_a_limit_that_is_forgotten_is_met_with_early_tries_again() -> None:
    """Its refusals concerned their own requests. A known limit has early tries in two closures at most."""
    scene = Scene()
    unknown = scene.limit.estimate.belief
    for now in (0.0, 100.0, 200.0):
        for accepted in (10, 5):
            opens_at_s = scene.burst(now, accepted, 4.0)
            assert opens_at_s == pytest.approx(now + 3.125)
            now = scene.probe(opens_at_s)
        scene.limit.restore(unknown)
