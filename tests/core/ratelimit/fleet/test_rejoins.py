"""When a replica may join a leader again."""

from nanonets_proxy.core.ratelimit.fleet.rejoins import Rejoins


def pause_s(rejoins: Rejoins, leader: str, now: float) -> float:
    """Returns how long the replica must wait, in steps of half a second."""
    return next(n / 2 for n in range(100) if rejoins.may_join(leader, now + n / 2))


def pauses_s(rejoins: Rejoins, leader: str, lasts_s: list[float]) -> list[float]:
    """Returns the pause after each time with a leader."""
    now, found = 1000.0, []
    for for_s in lasts_s:
        rejoins.joined(leader, now)
        now += for_s
        rejoins.left(now)
        found.append(pause_s(rejoins, leader, now))
        now += found[-1]
    return found


def test_an_unknown_leader_may_be_joined_at_once() -> None:
    assert Rejoins().may_join("a", 0.0)


def test_each_short_time_in_a_row_after_the_first_doubles_the_pause_up_to_8_s() -> None:
    assert pauses_s(Rejoins(), "a", [0.2] * 7) == [0.0, 1.0, 2.0, 4.0, 8.0, 8.0, 8.0]


def test_a_time_of_a_second_forgets_the_short_ones() -> None:
    assert pauses_s(Rejoins(), "a", [0.2, 0.2, 0.2, 1.0, 0.2, 0.2]) == [0.0, 1.0, 2.0, 0.0, 0.0, 1.0]


def test_a_short_time_with_one_leader_delays_no_other() -> None:
    rejoins = Rejoins()
    pauses_s(rejoins, "a", [0.2] * 5)
    assert rejoins.may_join("b", 1000.0)
    assert pauses_s(rejoins, "b", [0.2, 0.2]) == [0.0, 1.0]


def test_a_time_with_another_leader_forgets_no_short_ones() -> None:
    rejoins = Rejoins()
    pauses_s(rejoins, "a", [0.2] * 2)
    pauses_s(rejoins, "b", [100.0])
    assert pauses_s(rejoins, "a", [0.2]) == [2.0]


def test_a_join_ends_the_time_with_the_leader_before() -> None:
    rejoins = Rejoins()
    rejoins.joined("a", 0.0)
    rejoins.joined("a", 0.1)
    rejoins.joined("", 0.2)
    assert pause_s(rejoins, "a", 0.2) == 1.0
    rejoins.left(0.3)
    assert pause_s(rejoins, "a", 0.2) == 1.0


def test_the_leader_of_the_earliest_short_time_is_forgotten_first() -> None:
    rejoins = Rejoins()
    for number in range(9):
        pauses_s(rejoins, f"leader{number}", [0.2, 0.2])
    assert [rejoins.may_join(f"leader{number}", 1000.5) for number in range(3)] == [True, False, False]
