"""A simulated quarter of usage: hourly requests of callers, and the alarms about their volume."""

import random
from collections import deque
from collections.abc import Iterator
from functools import cache

from nanonets_proxy.core.usage.alarms import PAST_DAYS, UsageFacts, Volume, alarms_of

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
        volumes.append(self.total.volume("hour", "", hour, stolen))
        return [(alarm.kind, alarm.subject) for alarm in alarms_of(UsageFacts(age_h=hour, volumes=volumes))]


@cache
def quarter(seed: int) -> Quarter:
    """Returns a quarter of 15 callers, the same for each test."""
    return Quarter(seed, callers=15)
