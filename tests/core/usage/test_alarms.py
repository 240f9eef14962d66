"""Alarms about usage: each by example, and their rates on a simulated quarter."""

import random
from collections import deque
from collections.abc import Iterator
from dataclasses import replace

import pytest

from nanonets_proxy.core.usage.alarms import PAST_DAYS, Facts, FirstCall, Spending, Volume, alarms_of

OLD_H = 24 * 60
USUAL = Volume("caller", "billing", 900, 1000, 1000, OLD_H)


def found(**facts) -> list[tuple[str, str]]:
    return [(alarm.kind, alarm.subject) for alarm in alarms_of(Facts(**{"age_h": OLD_H, **facts}))]


def sentence(**facts) -> str:
    (alarm,) = alarms_of(Facts(**{"age_h": OLD_H, **facts}))
    return alarm.sentence


def test_an_ordinary_hour_is_no_alarm() -> None:
    assert (
        found(volumes=[USUAL], rejections=19, spendings=[Spending("billing", 400, 1000, 900)], hours_left=2) == []
    )


@pytest.mark.parametrize(
    ("volume", "kinds"),
    [
        (replace(USUAL, current=1999), []),
        (replace(USUAL, current=2000), [("volume_caller", "billing")]),
        (replace(USUAL, current=3000, age_h=100), []),
        (replace(USUAL, current=99, peak=1, peak_at_this_time=1), []),
        (replace(USUAL, current=600, peak_at_this_time=100), [("volume_caller", "billing")]),
        (replace(USUAL, current=599, peak_at_this_time=100), []),
        (replace(USUAL, current=499, peak_at_this_time=1), []),
        (Volume("hour", "", 3000, 1000, 1000, OLD_H), [("volume_hour", "")]),
    ],
)
def test_requests_far_above_the_past_are_an_alarm(volume: Volume, kinds: list[tuple[str, str]]) -> None:
    assert found(volumes=[volume]) == kinds


def test_the_sentence_of_a_volume_has_both_figures() -> None:
    assert sentence(volumes=[replace(USUAL, current=3000)]) == (
        "3,000 requests in this hour of the caller billing; the highest hour of the last 35 days had 1,000."
    )
    assert sentence(volumes=[Volume("hour", "", 3000, 1000, 1000, OLD_H)]).startswith(
        "3,000 requests in this hour of all callers together; "
    )
    assert sentence(volumes=[replace(USUAL, current=600, peak_at_this_time=100)]).endswith(
        "at this time of day, the highest of the last 35 days had 100."
    )


def test_many_rejections_are_an_alarm() -> None:
    assert found(rejections=20) == [("rejections", "")]
    assert found(rejections=59, peak_rejections=20) == []
    assert sentence(rejections=60, peak_rejections=20) == (
        "60 responses with 401 or 403 in this hour; the most in an hour of the last 35 days were 20."
    )


def test_a_new_caller_and_a_first_deletion_are_alarms() -> None:
    facts = {
        "new_callers": ["10.0.0.9"],
        "first_calls": [FirstCall("billing", "DELETE", "/api/v4/workflows/{workflow}")],
    }
    assert found(**facts) == [("new_caller", "10.0.0.9"), ("first_call", "billing")]
    assert found(**facts, age_h=167) == [], "in the first week everything is new"
    assert sentence(new_callers=["10.0.0.9"]) == "The caller 10.0.0.9 has sent its first request."
    assert sentence(first_calls=facts["first_calls"]) == (
        "The caller billing has sent its first DELETE to /api/v4/workflows/{workflow}."
    )


@pytest.mark.parametrize(
    ("spending", "hours_left", "is_alarm"),
    [
        (Spending("billing", 500, 1000, 100), 5.1, True),
        (Spending("billing", 500, 1000, 100), 5.0, False),
        (Spending("billing", 499, 1000, 100), 20, False),
        (Spending("billing", 1000, 1000, 100), 20, False),
        (Spending("billing", 900, 1000, 0), 20, False),
    ],
)
def test_a_budget_that_ends_before_the_day_is_an_alarm(
    spending: Spending, hours_left: float, is_alarm: bool
) -> None:
    assert found(spendings=[spending], hours_left=hours_left, age_h=0) == [("budget", "billing")] * is_alarm


def test_the_sentence_of_a_budget_says_when_it_ends() -> None:
    assert sentence(spendings=[Spending("billing", 500, 1000, 100)], hours_left=8) == (
        "The caller billing has used 500 of 1,000 requests of today; at 100 an hour, its budget ends in 5.0 h, and "
        "the day (UTC) in 8.0 h."
    )


# --- a simulated quarter -----------------------------------------------------------------------

WEEKS = 13
WARM_UP_WEEKS = 5
PAST_H = PAST_DAYS * 24


class Past:
    """Hourly requests, and the highest hour of the past of each hour."""

    def __init__(self, counts: list[int]) -> None:
        self.counts = counts
        self.peaks: list[int] = []
        falling: deque[int] = deque()  # hours with falling counts: the first one is the highest
        for hour, count in enumerate(counts):
            if falling and falling[0] < hour - PAST_H:
                falling.popleft()
            self.peaks.append(counts[falling[0]] if falling else 0)
            while falling and counts[falling[-1]] <= count:
                falling.pop()
            falling.append(hour)

    def volume(self, dimension: str, subject: str, hour: int, extra: int) -> Volume:
        current, peak = self.counts[hour] + extra, self.peaks[hour]
        at_this_time = peak
        if current >= max(100, peak / 2):  # otherwise it makes no difference
            days = range(hour - PAST_H, hour, 24)
            at_this_time = max(self.counts[at + shift] for at in days for shift in (-1, 0, 1))
        return Volume(dimension, subject, current, peak, at_this_time, hour)


class Quarter:
    """Hourly requests of callers with working hours, weekends, holidays, month ends and growth."""

    def __init__(self, seed: int, callers: int) -> None:
        self.rng = random.Random(seed)
        self.hours = (WARM_UP_WEEKS + WEEKS) * 168
        self.holidays = set(self.rng.sample(range(self.hours // 24), 6))
        counts = [list(self._caller()) for _ in range(callers)]
        self.callers = {f"team-{number}": Past(own) for number, own in enumerate(counts)}
        self.total = Past([sum(column) for column in zip(*counts, strict=True)])

    def _caller(self) -> Iterator[int]:
        rng = self.rng
        daily = rng.choice([50, 300, 2000, 10_000])
        by_night = rng.random() < 0.2  # batch jobs
        growth = rng.uniform(1.0, 1.03)  # a week
        for hour in range(self.hours):
            day, of_day = divmod(hour, 24)
            busy = of_day in (1, 2, 3) if by_night else 7 <= of_day < 18
            level = daily / (3 if by_night else 11) if busy else daily / 400
            if day % 7 >= 5 or day in self.holidays:
                level *= 0.1
            if day % 30 >= 28:
                level *= rng.uniform(1.0, 1.8)  # the end of a month
            level *= growth ** (day / 7) * rng.lognormvariate(0, 0.25)
            yield max(0, round(rng.gauss(level, level**0.5)))

    def alarms(self, hour: int, thief: str = "", stolen: int = 0) -> list[tuple[str, str]]:
        volumes = [
            past.volume("caller", caller, hour, stolen if caller == thief else 0)
            for caller, past in self.callers.items()
        ]
        return found(age_h=hour, volumes=[*volumes, self.total.volume("hour", "", hour, stolen)])


@pytest.mark.parametrize("seed", range(4))
def test_a_quarter_has_at_most_one_false_alarm_a_week(seed: int) -> None:
    quarter = Quarter(seed, callers=15)
    alarms = [alarm for hour in range(WARM_UP_WEEKS * 168, quarter.hours) for alarm in quarter.alarms(hour)]
    assert len(alarms) <= WEEKS, alarms


@pytest.mark.parametrize(
    ("factor", "at_night", "least", "most"),
    [(3, False, 0.95, 1), (2, False, 0.95, 1), (1, False, 0, 0.5), (1, True, 0.95, 1), (0.5, True, 0.9, 1)],
)
def test_stolen_tokens_are_noticed_within_the_hour(
    factor: float, at_night: bool, least: float, most: float
) -> None:
    """The thief sends `factor` times the caller's highest hour, by day or by night."""
    rng = random.Random(1)
    quarters = [Quarter(seed, callers=15) for seed in range(4)]
    noticed = []
    for _ in range(400):
        quarter = rng.choice(quarters)
        thief = rng.choice(list(quarter.callers))
        day = rng.randrange(WARM_UP_WEEKS * 7, quarter.hours // 24)
        hour = day * 24 + (rng.choice([21, 22, 23]) if at_night else rng.choice([9, 11, 15]))
        stolen = round(factor * quarter.callers[thief].peaks[hour])
        if stolen >= 100:
            noticed.append(("volume_caller", thief) in quarter.alarms(hour, thief, stolen))
    assert len(noticed) > 100
    assert least <= sum(noticed) / len(noticed) <= most
