"""The names of scopes and callers on the wire."""

from nanonets_proxy.core.ratelimit.fleet import names as module
from nanonets_proxy.core.ratelimit.fleet.names import Names
from nanonets_proxy.core.ratelimit.gate_policy import GatePolicy
from nanonets_proxy.core.ratelimit.scopes.static_limits import StaticLimit, StaticLimits

LIMITS = StaticLimits((StaticLimit("v2:*", 20, 60.0), StaticLimit("account", 60, 60.0)))


def test_replicas_with_the_same_secret_use_the_same_names() -> None:
    one, other = Names(b"s", "a", LIMITS), Names(b"s", "b", LIMITS)
    assert one.scope("account") == other.scope("account")
    assert one.lane("10.0.0.7") == other.lane("10.0.0.7")
    assert one.kind("/api/v4/x") == other.kind("/api/v4/x")


def test_another_secret_gives_other_names() -> None:
    assert Names(b"s", "a", LIMITS).lane("billing") != Names(b"t", "a", LIMITS).lane("billing")


def test_no_name_shows_what_it_stands_for() -> None:
    names = Names(b"s", "a", LIMITS)
    shown = names.scope("account") + names.lane("billing") + names.kind("/secret/path")
    assert not any(part in shown for part in ("account", "billing", "secret"))


def test_a_policy_on_the_wire_applies_to_the_names_on_the_wire() -> None:
    names = Names(b"s", "a", LIMITS)
    policy = names.policy(GatePolicy(1, 1, lane_weights=(("billing", 3),), static_limits=LIMITS))
    assert [policy.static_limits.of(names.scope(name)) for name in ("v2:predict:7", "account", "other")] == [
        *policy.static_limits.rows,
        None,
    ]
    assert [(row.count, row.period_s) for row in policy.static_limits.rows] == [(20, 60.0), (60, 60.0)]
    assert policy.lane_weights == ((names.lane("billing"), 3),)


def test_a_row_keeps_its_name_beside_other_rows_and_with_another_count() -> None:
    names = Names(b"s", "a", LIMITS)
    account, other = names.scope("account"), names.scope("other")
    names.change_limits(StaticLimits((StaticLimit("x", 1, 1.0), StaticLimit("account", 6, 6.0))))
    assert names.scope("account") == account
    names.change_limits(StaticLimits())
    assert names.scope("account").startswith("-.")
    assert names.scope("other") == other


def test_callers_of_a_loopback_address_count_per_machine() -> None:
    one, other = Names(b"s", "a", LIMITS), Names(b"s", "b", LIMITS)
    assert one.lane("127.0.0.1") != other.lane("127.0.0.1")
    assert one.lane("unix:uid=1000") != other.lane("unix:uid=1000")


def test_a_replica_knows_the_names_that_it_has_hashed() -> None:
    names, other = Names(b"s", "a", LIMITS), Names(b"s", "a", LIMITS)
    scope, lane = names.scope("account"), names.lane("billing")
    assert (names.clear(scope), names.clear(lane)) == ("account", "billing")
    assert other.clear(scope) == scope


def test_the_number_of_remembered_names_is_bounded() -> None:
    names = Names(b"s", "a", LIMITS)
    first = names.lane("first")
    for number in range(module._MAX_REMEMBERED):
        names.kind(f"/{number}")
    assert names.clear(first) == first
    assert names.lane("first") == first


def test_a_name_stays_the_same() -> None:
    names = Names(b"s", "a", LIMITS)
    assert names.scope("account") == names.scope("account")
    assert names.lane("billing") == names.lane("billing")
    assert names.kind("/x") == names.kind("/x")
