"""All alarms about usage on simulated quarters: how often they are false, and which events they notice.

A false alarm is one that no operator needs: a new service, a feature that deletes for the first time, a planned
rotation of the key, an hour above the past by chance, a budget that would have sufficed.
"""

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from statistics import median

import pytest

from nanonets_proxy.core.usage.alarms import PAST_DAYS, FirstCall, Spending, UsageFacts, alarms_of
from support.telemetry.usage_quarter import PAST_H, WARM_UP_WEEKS, Past, quarter

SEEDS = range(4)
CHECKS = (0.25, 0.5, 0.75, 1.0)
"""Parts of an hour at which budgets are judged. The proxy judges more often."""


def kinds(age_h: int, **facts) -> list[str]:
    return [alarm.kind for alarm in alarms_of(UsageFacts(age_h=age_h, **facts))]


@dataclass(frozen=True)
class Budgeted:
    """A caller's hours and its daily budget."""

    counts: list[int]
    limit: int

    def hours(self, day: int, loop: int = 0, loop_from: int = 24) -> list[int]:
        """Returns the requests of a day; from one of its hours on, a loop sends `loop` more in each hour."""
        counts = self.counts[24 * day : 24 * day + 24]
        return [count + loop * (hour >= loop_from) for hour, count in enumerate(counts)]

    def spent_by(self, hours: list[int]) -> float:
        """Returns the hour in which the budget is used up; 24 or more: it suffices."""
        for hour, (used, count) in enumerate(zip(accumulate(hours), hours, strict=True)):
            if used >= self.limit:
                return hour + 1 - (used - self.limit) / count
        return 24.0

    def alarm_at(self, day: int, hours: list[int]) -> float | None:
        """Returns the hour of the first alarm of a day."""
        spent = 0
        for hour, count in enumerate(hours):
            if spent + count >= self.limit / 2:
                usual, usual_before, usual_later = self._usual(day, hour)
                before = hours[hour - 1] if hour else self.counts[24 * day - 1]
                for part in CHECKS:
                    last_hour = round(count * part + before * (1 - part))
                    usual_last = usual * part + usual_before * (1 - part)
                    more = (usual_later + usual * (1 - part)) / usual_last if usual_last else None
                    spending = Spending("c", round(spent + count * part), self.limit, last_hour, more)
                    if kinds(0, spendings=[spending], hours_left=24 - hour - part):
                        return hour + part
            spent += count
        return None

    def _usual(self, day: int, hour: int) -> tuple[int, int, int]:
        """Returns the requests of the past days in this hour, in the hour before it, and after it."""
        past = self.counts[24 * (day - PAST_DAYS) : 24 * day]
        later = sum(sum(past[at::24]) for at in range(hour + 1, 24))
        return sum(past[hour::24]), sum(past[(hour - 1) % 24 :: 24]), later


class Events:
    """What happens in a quarter besides its volume: rejections, new callers, first deletions, budgets."""

    def __init__(self, seed: int) -> None:
        self.quarter = quarter(seed)
        self.rng = rng = random.Random(f"events {seed}")
        hours = self.hours = self.quarter.hours
        self.begin = WARM_UP_WEEKS * 168
        self.rejected = Past(self._rejections())
        self.new_callers = {rng.randrange(self.begin, hours) for _ in range(3)}
        self.first_calls = {rng.randrange(self.begin, hours) for _ in range(3)}
        self.budgets = [
            Budgeted(past.counts, round(rng.uniform(1.5, 4) * highest_day(past.counts[: self.begin])))
            for past in self.quarter.callers.values()
        ]

    def _rejections(self) -> list[int]:
        """Each caller asks for some things that it may not have. Each month, a rotation causes some 401s."""
        rng = self.rng
        shares = [10 ** rng.uniform(-4, -2) for _ in self.quarter.callers]
        expected = [
            sum(share * count for share, count in zip(shares, counts, strict=True))
            for counts in zip(*(past.counts for past in self.quarter.callers.values()), strict=True)
        ]
        found = [max(0, round(rng.gauss(level, level**0.5))) for level in expected]
        for month in range(0, self.hours, 30 * 24):
            found[min(month + rng.randrange(30 * 24), self.hours - 1)] += round(rng.lognormvariate(2.3, 0.8))
        return found

    def rejection_alarm(self, hour: int, burst: int = 0) -> bool:
        now, peak = self.rejected.counts[hour] + burst, self.rejected.peaks[hour]
        return bool(kinds(hour, rejections=now, peak_rejections=peak))

    def false_alarms(self) -> Counter[str]:
        found: Counter[str] = Counter()
        for hour in range(self.begin, self.hours):
            found.update(kind for kind, _ in self.quarter.alarms(hour))
            if hour in self.new_callers:
                found.update(kinds(hour, new_callers=["n"]))
            if hour in self.first_calls:
                found.update(kinds(hour, first_calls=[FirstCall("c", "DELETE", "/r")]))
            found["rejections"] += self.rejection_alarm(hour)
        for budgeted in self.budgets:
            for day in range(WARM_UP_WEEKS * 7, self.hours // 24):
                hours = budgeted.hours(day)
                suffices = budgeted.spent_by(hours) >= 24
                found["budget"] += suffices and budgeted.alarm_at(day, hours) is not None
        return found


def highest_day(counts: list[int]) -> int:
    return max(sum(counts[at : at + 24]) for at in range(0, len(counts), 24))


@cache
def events(seed: int) -> Events:
    return Events(seed)


def loops(seed: int, factor: float, from_hour: int) -> Iterator[tuple[bool, float]]:
    """Yields for each loop that uses up a budget: whether an alarm came before that, and how many hours before.

    A loop sends `factor` times the caller's highest hour, from one hour of a day on.
    """
    simulated = events(seed)
    for budgeted in simulated.budgets:
        for day in range(WARM_UP_WEEKS * 7, simulated.hours // 24, 9):
            loop = round(factor * max(budgeted.counts[24 * day - PAST_H : 24 * day]))
            hours = budgeted.hours(day, loop, from_hour)
            end = budgeted.spent_by(hours)
            if from_hour < end < 24:
                at = budgeted.alarm_at(day, hours)
                yield at is not None and at < end, end - (at or end)


@pytest.mark.parametrize("seed", SEEDS)
def test_all_kinds_together_have_at_most_one_false_alarm_a_week(seed: int) -> None:
    found = events(seed).false_alarms()
    assert found["new_caller"] == found["first_call"] == 3
    assert found.total() <= 6 + 3, "three by chance; an alarm a week would be thirteen"


@pytest.mark.parametrize(("burst", "least", "most"), [(30, 0.05, 0.5), (100, 0.95, 1), (300, 0.99, 1)])
def test_bursts_of_401_and_403_are_noticed_in_their_hour(burst: int, least: float, most: float) -> None:
    noticed = [
        events(seed).rejection_alarm(hour, burst)
        for seed in SEEDS
        for hour in range(events(seed).begin, events(seed).hours, 11)
    ]
    assert least <= sum(noticed) / len(noticed) <= most


@pytest.mark.parametrize("from_hour", [9, 20])
@pytest.mark.parametrize("factor", [1, 5])
def test_a_loop_is_noticed_before_it_has_used_up_the_budget(factor: float, from_hour: int) -> None:
    found = [loop for seed in SEEDS for loop in loops(seed, factor, from_hour)]
    assert len(found) > 40
    assert sum(is_noticed for is_noticed, _ in found) / len(found) >= 0.98
    assert median(hours for _, hours in found) > 1
