"""A replica's share of what the fleet knows."""

import pytest

from nanonets_proxy.core.ratelimit.fleet.share import leader_policy, share_of, share_policy
from nanonets_proxy.core.ratelimit.gate import Gate
from nanonets_proxy.core.ratelimit.gate_policy import GatePolicy
from nanonets_proxy.core.ratelimit.scopes import static_limits
from nanonets_proxy.core.ratelimit.scopes.static_limits import StaticLimit, StaticLimits
from nanonets_proxy.core.ratelimit.snapshot import ScopeSnapshot, unknown
from nanonets_proxy.core.ratelimit.tickets import Outcome, Reason, Ticket

POLICY = GatePolicy(max_in_flight=10, max_waiting=100, static_limits=StaticLimits((StaticLimit("0.*", 60, 60.0),)))


def known(count: float, proven: float, period_s: float = 4.0, concurrency: float | None = None) -> ScopeSnapshot:
    return ScopeSnapshot("-.x", count, period_s, proven, concurrency, 3, 1.0, 0.0)


@pytest.mark.parametrize(
    ("count", "proven", "replicas", "share"),
    [
        (40, 40, 3, (13, 4.0)),
        (40, 20, 2, (10, 4.0)),
        (40, 0, 2, (20, 4.0)),  # learned, and not proven yet
        (2, 2, 8, (1, 16.0)),
        (1, 1, 1, (1, 4.0)),
    ],
)
def test_the_shares_of_all_replicas_together_are_at_most_what_is_proven(
    count: float, proven: float, replicas: int, share: tuple[int, float]
) -> None:
    own = share_of(known(count, proven), replicas)
    assert (own.count, own.period_s, own.proven) == (*share, share[0])
    assert own.count is not None
    assert replicas * own.count / own.period_s <= (proven or count) / 4.0 + 1e-9
    row = share_policy(POLICY, [known(count, proven)], replicas).static_limits.of("-.x")
    assert row is not None
    assert (row.count, row.period_s) == share


def test_a_concurrency_limit_is_shared_too() -> None:
    assert share_of(known(40, 40, concurrency=12), 5).concurrency_limit == 2
    assert share_of(known(40, 40, concurrency=2), 5).concurrency_limit == 1
    assert share_of(known(40, 40), 5).concurrency_limit is None


def test_a_closed_scope_whose_limit_is_unknown_stays_closed() -> None:
    assert share_of(unknown("-.x", 5.0), 3) == unknown("-.x", 5.0)
    assert share_policy(POLICY, [unknown("-.x", 5.0)], 3).static_limits.rows == (StaticLimit("0.*", 20, 60.0),)


def test_a_share_rejects_no_request_by_its_forecast() -> None:
    """A leader may grant it soon. The gate of a whole limit rejects it at once."""
    for replicas, granted in ((3, None), (1, Reason.CANNOT_BE_IN_TIME)):
        gate = Gate(share_policy(POLICY, [known(40, 3, 4000.0)], replicas), lambda: 0.0)
        gate.scopes.restore([share_of(known(40, 3, 4000.0), replicas)], 100.0, 0.0)
        rejection = None
        for _ in range(5):
            ticket = Ticket("-.x", 400.0)
            if not gate.try_admit(ticket, 100.0):
                rejection = gate.enqueue(ticket, 100.0)
                gate.poll(100.0)
        assert (rejection and rejection.reason) == granted


def test_a_share_takes_a_hint_literally() -> None:
    """The replicas would all try early, one after the other."""
    for replicas, opens_at_s in ((3, 104.02), (1, 103.125)):
        gate = Gate(share_policy(POLICY, [], replicas), lambda: 0.0)
        for outcome in (Outcome.SERVED, Outcome.THROTTLED):
            ticket = Ticket("-.x", 400.0)
            assert gate.try_admit(ticket, 100.0)
            gate.settle(ticket, outcome, 100.02, 4.0)
        assert gate.scopes.closed(100.1) == {"-.x": pytest.approx(opens_at_s)}


def test_a_replica_that_shares_with_nobody_has_no_share() -> None:
    assert share_policy(POLICY, [], 2).is_share
    assert not share_policy(POLICY, [], 1).is_share


def test_slow_start_of_an_unknown_limit_is_shared() -> None:
    assert share_policy(POLICY, [], 8).initial_unconfirmed == 8
    assert share_policy(POLICY, [], 100).initial_unconfirmed == 1


def test_the_leader_has_the_places_and_the_queue_of_all() -> None:
    policy = leader_policy(POLICY, 30, 3)
    assert (policy.max_in_flight, policy.max_waiting) == (30, 300)
    assert policy.static_limits.rows == (StaticLimit("0.*", 60, 60.0),)


def test_the_share_of_a_scope_is_the_limit_of_that_scope_alone() -> None:
    """Scopes beyond the most that a gate keeps share one, whose name has a *."""
    for name in ("0.* (others)", "*", "[a-z]?"):
        belief = ScopeSnapshot(name, 40, 4.0, 40, None, 0, 0.0, 0.0)
        limits = share_policy(GatePolicy(10, 100), [belief], 2).static_limits
        found = limits.of(name)
        assert found is not None
        assert found.count == 20
        assert limits.of("0.x (others)") is None
        assert limits.of("ab") is None


def test_the_share_of_a_scope_is_found_without_a_look_at_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """A gate with hundreds of scopes would take long to make: for each scope, it compared all names."""
    compared: list[str] = []
    monkeypatch.setattr(static_limits, "fnmatchcase", lambda name, _: compared.append(name))
    beliefs = [ScopeSnapshot(str(number), 40, 4.0, 40, None, 0, 0.0, 0.0) for number in range(100)]
    limits = share_policy(POLICY, beliefs, 2).static_limits
    assert all(limits.of(belief.scope) for belief in beliefs)
    assert compared == []
