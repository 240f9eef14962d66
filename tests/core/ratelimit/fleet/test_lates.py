"""Late messages in a row."""

from nanonets_proxy.core.ratelimit.fleet.lates import LATE_S, MOST_LATE, Lates


def test_only_late_ones_in_a_row_count_and_then_anew() -> None:
    lates, late_s = Lates(), LATE_S + 0.001
    assert not any(lates.note(late_s) for _ in range(MOST_LATE - 1))
    assert not lates.note(LATE_S)  # in time
    for _ in range(2):
        assert [lates.note(late_s) for _ in range(MOST_LATE)] == [False] * (MOST_LATE - 1) + [True]
