"""The names of scopes and callers on the wire."""

from nanonets_proxy.core.ratelimit.fleet import names as module
from nanonets_proxy.core.ratelimit.fleet.names import Names
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


def test_a_scope_has_the_number_of_its_row_of_limits() -> None:
    names = Names(b"s", "a", LIMITS)
    rows = [names.scope(name).partition(".")[0] for name in ("v2:predict:7", "account", "other")]
    assert rows == ["0", "1", "-"]


def test_other_limits_give_a_scope_another_name() -> None:
    names = Names(b"s", "a", LIMITS)
    assert names.scope("account").startswith("1.")
    names.change_limits(StaticLimits())
    assert names.scope("account").startswith("-.")


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
