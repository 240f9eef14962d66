"""Another client on the same quota, in the simulator: how many of them the gate notices, and how soon."""

from nanonets_proxy.core.ratelimit.quota_watch import QuotaChange
from simulator.theft import QUOTAS, changes

SEEDS = range(5)
(FIRST,) = (quota for quota in QUOTAS if quota.first and (quota.count, quota.period_s) == (20, 10.0))


def noticed(found: list[tuple[float, QuotaChange]], within: float) -> bool:
    """Returns whether there was an alarm within so many windows, and none before the other client began."""
    assert all(windows >= 0 for windows, _ in found), "a false alarm"
    return any(windows <= within for windows, _ in found)


def test_a_client_that_takes_a_fifth_is_mostly_noticed_after_two_windows() -> None:
    found = [changes(FIRST, FIRST.stolen(0.2, seed), seed) for seed in SEEDS]
    # The closure of the second window ends with it.
    assert sum(noticed(each, 3) for each in found) >= 4
    assert all(noticed(each, 10) for each in found)
    assert all(QuotaChange.SHARED in [change for _, change in each] for each in found)


def test_a_client_at_random_instants_is_noticed_although_the_limit_seems_to_have_a_longer_period() -> None:
    (sliding,) = (q for q in QUOTAS if q.name == "sliding, steady" and (q.count, q.period_s) == (20, 10.0))
    found = [changes(sliding, sliding.stolen(0.2, seed), seed) for seed in SEEDS]
    assert sum(noticed(each, 20) for each in found) >= 4


def test_a_limit_that_is_lowered_by_a_fifth_is_told_from_another_client() -> None:
    for seed in SEEDS:
        found = changes(FIRST, FIRST.lowered(0.2, seed), seed)
        assert noticed(found, 3)
        assert [change for _, change in found] == [QuotaChange.SHORT, QuotaChange.LOWERED]
