"""Daily budgets that the replicas of a fleet count together."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanonets_proxy.core.access import shared_counts as module
from nanonets_proxy.core.access.budget_rule import BudgetRule
from nanonets_proxy.core.access.daily_budget import DailyBudget
from nanonets_proxy.core.access.shared_counts import SharedCounts

DAY_S = 86_400.0
DAY = 20_000
NOON_S = DAY * DAY_S + DAY_S / 2


class Peer:
    """One replica's budget and counts."""

    def __init__(self, name: str, *rules: str, earlier: int = 0) -> None:
        self.shared = SharedCounts(name, lambda caller: f"hash of {caller}")
        self.budget = DailyBudget(map(BudgetRule.parse, rules))
        if earlier:
            self.budget.restore({DAY: {"a": earlier}})
        self.budget.share(self.shared)
        self.served = 0

    def takes(self, times: int, caller: str = "a", at_s: float = NOON_S) -> int:
        """Returns how many of so many requests the budget admits."""
        served = sum(self.budget.take(caller, at_s) is None for _ in range(times))
        self.served += served
        return served


def exchange(*peers: Peer, day: int = DAY) -> None:
    told = [peer.shared.tell(day) for peer in peers]
    for peer in peers:
        for entries in told:
            peer.shared.hear(entries, day)


def test_replicas_count_together() -> None:
    one, two = Peer("1", "10"), Peer("2", "10")
    assert one.takes(6) == 6
    exchange(one, two)
    assert two.takes(6) == 4
    exchange(one, two)
    assert (one.takes(1), two.takes(1)) == (0, 0)
    assert one.takes(1, "b") == 1
    assert one.takes(1, at_s=NOON_S + DAY_S) == 1


def test_a_caller_is_told_to_come_back_the_next_day() -> None:
    one, two = Peer("1", "2"), Peer("2", "2")
    one.takes(2)
    exchange(one, two)
    assert two.budget.take("a", NOON_S) == DAY_S / 2
    assert not two.budget.is_part


def test_only_the_latest_count_of_a_replica_is_true_however_often_it_is_told() -> None:
    one, two = Peer("1", "10"), Peer("2", "10")
    one.takes(3)
    old = one.shared.tell(DAY)
    one.takes(1)
    new = one.shared.tell(DAY)
    for entries in (new, old, new, old):
        two.shared.hear(entries, DAY)
    assert two.takes(10) == 6


def test_a_request_that_was_never_sent_is_uncounted_everywhere() -> None:
    one, two = Peer("1", "10"), Peer("2", "10")
    one.takes(4)
    exchange(one, two)
    one.budget.give_back("a", NOON_S)
    exchange(one, two)
    assert two.takes(10) == 7


def test_a_replica_that_is_alone_uses_its_part_of_what_is_left() -> None:
    one, two = Peer("1", "10"), Peer("2", "10")
    one.takes(1)
    two.takes(1)
    exchange(one, two)
    for peer in (one, two):
        peer.shared.go_alone(2)
        assert peer.budget.is_part
    assert (one.takes(10), two.takes(10)) == (4, 4)
    assert one.budget.take("a", NOON_S) == 60  # the other one may have some left
    assert one.budget.take("a", NOON_S + DAY_S / 2 - 10) == 10
    one.shared.go_alone(2)  # a failed attempt to join: it is no other part
    assert one.takes(1) == 0
    assert one.takes(10, at_s=NOON_S + DAY_S) == 5


def test_a_process_goes_on_with_the_part_of_an_earlier_one() -> None:
    one = Peer("1", "100")
    one.takes(10)
    assert one.shared.used_alone() == []
    one.shared.go_alone(3)
    assert one.takes(5) == 5
    one.budget.give_back("a", NOON_S)
    one.shared.tell(DAY)
    two = Peer("2", "100", earlier=14)
    two.shared.hear(one.shared.everything(), DAY)
    two.shared.meet()
    two.shared.go_on_alone(3, one.shared.used_alone())
    assert two.takes(100) == 30 - 4
    two.shared.tell(DAY)
    two.shared.go_together()
    assert two.takes(100) == 60


def test_what_was_given_back_while_alone_is_no_part_that_was_used() -> None:
    one, two = Peer("1", "100"), Peer("2", "100")
    one.takes(10)
    one.shared.go_alone(2)
    one.budget.give_back("a", NOON_S)
    two.shared.go_on_alone(2, one.shared.used_alone())
    assert two.takes(100) == 50


@pytest.mark.parametrize("entry", [(DAY, "a", -1), (DAY, "a", "1"), (DAY, "a")])
def test_a_malformed_part_is_an_error(entry: object) -> None:
    with pytest.raises(ValueError, match=r"is no count|not enough values"):
        Peer("1", "100").shared.go_on_alone(2, [entry])  # type: ignore[list-item]


def test_counts_that_a_leader_does_not_tell_are_known_to_be_missing_there() -> None:
    one, two, leader = Peer("1", "10"), Peer("2", "10"), Peer("3", "10")
    one.takes(1)
    two.takes(2)
    exchange(one, two)
    two.shared.compare()
    two.shared.hear(leader.shared.everything(), DAY)
    (missing,) = two.shared.unheard()
    assert missing[:4] == ("1", DAY, "hash of a", 1)
    assert leader.shared.hear([missing], DAY) == [missing]
    assert leader.shared.hear([missing], DAY) == []
    one.takes(1)
    (later,) = one.shared.tell(DAY)
    two.shared.hear([later], DAY)
    two.shared.compare()
    two.shared.hear(leader.shared.everything(), DAY)
    assert two.shared.unheard() == [later]
    leader.shared.hear([later], DAY)
    two.shared.compare()
    two.shared.hear(leader.shared.everything(), DAY)
    assert two.shared.unheard() == []


def test_after_they_were_alone_replicas_use_what_is_left_together() -> None:
    one, two = Peer("1", "10"), Peer("2", "10")
    for peer in (one, two):
        peer.shared.go_alone(2)
    assert one.takes(3) == 3
    exchange(one)  # the message is lost
    for peer in (one, two):
        peer.shared.go_together()
    exchange(one, two)
    assert not one.budget.is_part
    assert two.takes(10) == 7
    exchange(one, two)
    assert one.budget.take("a", NOON_S) == DAY_S / 2


def test_the_last_request_of_a_budget_can_be_used_alone() -> None:
    peers = [Peer(str(number), "1") for number in range(3)]
    for peer in peers:
        peer.shared.go_alone(3)
    assert [peer.takes(2) for peer in peers] == [1, 1, 1]


def test_a_new_replica_learns_all_counts_from_one_of_them() -> None:
    one, two = Peer("1", "10"), Peer("2", "10")
    one.takes(2)
    two.takes(3)
    exchange(one, two)
    new = Peer("3", "10")
    new.shared.hear(one.shared.everything(), DAY)
    new.shared.meet()
    assert new.takes(10) == 5


def test_restored_requests_that_the_fleet_remembers_count_once() -> None:
    one, two = Peer("1", "10"), Peer("2", "10")
    one.takes(4)
    exchange(one, two)
    again = Peer("3", "10", earlier=4)
    again.shared.hear(two.shared.everything(), DAY)
    again.shared.meet()
    again.shared.go_together()
    exchange(again, two)
    assert again.takes(3) == 3
    exchange(again, two)
    assert two.takes(10) == 3
    exchange(again, two)
    assert again.takes(1) == 0


def test_restored_requests_that_nobody_remembers_are_told() -> None:
    one, two = Peer("1", "10", earlier=6), Peer("2", "10")
    one.shared.go_alone(1)
    assert not one.budget.is_part
    assert one.takes(2) == 2
    one.shared.meet()
    one.shared.go_together()
    exchange(one, two)
    assert two.takes(10) == 2


def test_old_days_are_forgotten() -> None:
    one, two = Peer("1", "10"), Peer("2", "10", earlier=1)
    for day in range(5):
        one.takes(1, at_s=NOON_S + day * DAY_S)
        two.takes(1, at_s=NOON_S + day * DAY_S)
        two.shared.go_alone(2)
        exchange(one, two, day=DAY + day)
    assert {day for _, day, *_ in two.shared.everything()} == {DAY + 2, DAY + 3, DAY + 4}
    assert two.shared.tell(DAY) == []


def test_the_number_of_counts_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MAX_ENTRIES", 2)
    one = Peer("1", "10")
    one.shared.hear(
        [("2", DAY, "hash of a", 1, 1), ("3", DAY, "hash of a", 1, 1), ("4", DAY, "hash of a", 1, 1)], DAY
    )
    one.shared.hear([("2", DAY, "hash of a", 3, 2)], DAY)
    assert one.takes(10) == 6


@pytest.mark.parametrize("entry", [("2", DAY, "x", -1, 1), ("2", "x", "x", 1, 1), ("2", DAY, "x", 1)])
def test_a_malformed_entry_is_an_error_and_changes_nothing(entry: tuple[object, ...]) -> None:
    one = Peer("1", "2")
    with pytest.raises(ValueError, match=r"no count|unpack"):
        one.shared.hear([("2", DAY, "hash of a", 1, 1), entry], DAY)  # type: ignore[list-item] # malformed on purpose
    assert one.takes(10) == 2


@given(st.integers(0, 2**32), st.integers(1, 5), st.integers(0, 60))
def test_whatever_is_lost_and_whenever_all_are_alone_the_budget_holds(seed: int, replicas: int, limit: int) -> None:
    """Messages between two outages arrive late, twice, in another order or not at all; before an outage, all do."""
    chance = random.Random(seed)
    peers = [Peer(str(number), str(limit)) for number in range(replicas)]
    outages = 0
    for _ in range(chance.randrange(1, 4)):
        for _ in range(chance.randrange(12)):
            peer = chance.choice(peers)
            peer.takes(chance.randrange(4))
            exchange(*peers)
            to = chance.choice(peers)
            to.shared.hear(chance.sample(everything := peer.shared.everything(), len(everything)), DAY)
        for peer in peers:
            peer.shared.go_alone(replicas)
        outages += 1
        for _ in range(chance.randrange(20)):
            peer = chance.choice(peers)
            peer.takes(chance.randrange(6))
            if chance.random() < 0.5:
                peer.shared.tell(DAY)  # nobody hears it
        for peer in peers:
            peer.shared.go_together()
        exchange(*peers)
    total = sum(peer.served for peer in peers)
    assert total <= limit + outages * (replicas - 1)
    for peer in peers:  # all know the same, and what is left can be used by anyone
        assert len(peer.shared.everything()) <= replicas
    assert chance.choice(peers).takes(limit + 1) == max(0, limit - total)


def test_a_replica_with_a_wrong_clock_does_not_end_the_present_day_of_others() -> None:
    """Its days are years ahead, and each one of them is later than the present day."""
    one, two, three, wrong = Peer("1", "10"), Peer("2", "10"), Peer("3", "10"), Peer("4", "10")
    three.takes(1)
    for day in range(5):
        assert wrong.takes(2, at_s=NOON_S + (1000 + day) * DAY_S) == 2
        exchange(one, two, three, wrong)
    assert one.takes(4) == 4
    exchange(one, two, three, wrong)
    assert two.takes(3) == 3
    exchange(one, two, three, wrong)
    assert three.takes(10) == 2
    assert {day for _, day, *_ in three.shared.everything()} >= {DAY}


def test_the_days_of_a_replica_with_a_wrong_clock_take_no_memory() -> None:
    one = Peer("1", "10")
    one.takes(1)
    for day in range(100):
        one.shared.hear([("2", DAY + 10 + day, "hash of a", 3, 1)], DAY)
    assert len(one.shared.everything()) <= 3
    one.shared.hear([("2", DAY, "hash of a", 3, 1)], DAY)
    assert one.takes(10) == 6


@pytest.mark.parametrize("earlier", [0, 1])
def test_a_replica_that_has_no_requests_for_days_knows_what_the_others_count_meanwhile(earlier: int) -> None:
    one, two = Peer("1", "10"), Peer("2", "10")
    one.takes(earlier)
    for day in range(1, 6):
        assert two.takes(7, at_s=NOON_S + day * DAY_S) == 7
        exchange(one, two, day=DAY + day)
    assert {day for _, day, *_ in one.shared.everything()} == {DAY + 3, DAY + 4, DAY + 5}
    assert one.takes(10, at_s=NOON_S + 5 * DAY_S) == 3


def test_a_replica_without_requests_keeps_the_present_day_beside_a_replica_with_a_wrong_clock() -> None:
    one = Peer("1", "10")
    one.shared.hear([("2", DAY, "hash of a", 7, 1)], DAY)
    one.shared.hear([("3", DAY + 1000 + day, "hash of a", 3, 1) for day in range(5)], DAY)
    assert one.takes(10) == 3
