"""Alarms about usage: what is judged, by which figures, and the sentence that explains each alarm.

Each judgement compares the current hour, as far as it has come, with the past of the same caller, route or
environment. An unusual hour belongs to the past of all later hours, so a new level of usage soon causes no further
alarms.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

PAST_DAYS: Final = 35
"""The past that counts: five weeks, so that it has the end of a month."""
_LEARNING_H: Final = 7 * 24
# Fewer requests in an hour are never far above the past.
_MIN_REQUESTS: Final = 100
# How far above the highest hour of the past, and above the highest at about the same time of day.
_FAR_ABOVE: Final = 2
_FAR_ABOVE_TIME_OF_DAY: Final = 6
_MIN_REJECTIONS: Final = 20
_FAR_MORE_REJECTIONS: Final = 3
_MIN_BUDGET_SHARE: Final = 0.5


LimitOf = Callable[[str], int | None]
"""Returns a caller's daily budget; None: it has none."""


@dataclass(frozen=True, slots=True)
class Alarm:
    """One alarm. `subject` is the caller or route that it is about; empty: the whole environment."""

    kind: str
    subject: str
    sentence: str
    method: str = ""
    """Of a first call. Each method has its own alarm, so that a first DELETE does not hide a first training."""


@dataclass(frozen=True, slots=True)
class Volume:
    """The requests of one caller, one route or all: of the current hour, and the highest figures of the past."""

    dimension: str
    """`caller`, `route` or `hour` (everything in the environment)."""
    subject: str
    current: int
    peak: int
    """The highest hour."""
    peak_at_this_time: int
    """The highest hour at this time of day, an hour earlier or later."""
    age_h: int
    """Hours since its first request."""


@dataclass(frozen=True, slots=True)
class FirstCall:
    """A caller's first request of one kind: a deletion, or the training of a model."""

    caller: str
    method: str
    route: str


@dataclass(frozen=True, slots=True)
class Spending:
    """What a caller has used of its daily budget."""

    caller: str
    used: int
    limit: int
    last_hour: int
    """Its requests in the last 60 minutes, or a little more."""
    usual_hours: float | None = None
    """Its usual requests from this time of day on, divided by those of the usual hour before it. None: no past."""


@dataclass(frozen=True, slots=True)
class UsageFacts:
    """What is known about one environment in the current hour."""

    age_h: int
    """Hours since the first attempt in the ledger. The first week has only alarms about budgets."""
    volumes: Sequence[Volume] = ()
    rejections: int = 0
    """Responses with 401 or 403 in the current hour."""
    peak_rejections: int = 0
    """The most in an hour of the past."""
    new_callers: Sequence[str] = ()
    first_calls: Sequence[FirstCall] = ()
    spendings: Sequence[Spending] = ()
    hours_left: float = 0.0
    """Until the end of the day (UTC)."""


def alarms_of(facts: UsageFacts) -> Iterator[Alarm]:
    """Yields the alarms of the current hour. The same facts give the same alarms."""
    if facts.age_h >= _LEARNING_H:
        for caller in facts.new_callers:
            yield Alarm("new_caller", caller, f"The caller {caller} has sent its first request.")
        for call in facts.first_calls:
            sentence = f"The caller {call.caller} has sent its first {call.method} to {call.route}."
            yield Alarm("first_call", call.caller, sentence, call.method)
        for volume in facts.volumes:
            yield from _volume_alarms(volume)
        if facts.rejections >= max(_MIN_REJECTIONS, _FAR_MORE_REJECTIONS * facts.peak_rejections):
            yield Alarm(
                "rejections",
                "",
                f"{facts.rejections:,} responses with 401 or 403 in this hour; the most in an hour of the last "
                f"{PAST_DAYS} days were {facts.peak_rejections:,}.",
            )
    for spending in facts.spendings:
        yield from _budget_alarms(spending, facts.hours_left)


def _volume_alarms(volume: Volume) -> Iterator[Alarm]:
    if volume.age_h < _LEARNING_H or volume.current < _MIN_REQUESTS:
        return
    name = "all callers together" if volume.dimension == "hour" else f"the {volume.dimension} {volume.subject}"
    if volume.current >= _FAR_ABOVE * volume.peak:
        past = f"the highest hour of the last {PAST_DAYS} days had {volume.peak:,}"
    # A busy night is unusual even if the day is busier.
    elif volume.current >= max(_FAR_ABOVE_TIME_OF_DAY * volume.peak_at_this_time, volume.peak / 2):
        past = f"at this time of day, the highest of the last {PAST_DAYS} days had {volume.peak_at_this_time:,}"
    else:
        return
    yield Alarm(
        f"volume_{volume.dimension}", volume.subject, f"{volume.current:,} requests in this hour of {name}; {past}."
    )


def _budget_alarms(spending: Spending, hours_left: float) -> Iterator[Alarm]:
    # A caller with working hours does not go on at the rate of the afternoon until midnight.
    hours_more = hours_left if spending.usual_hours is None else min(spending.usual_hours, hours_left)
    expected = spending.used + spending.last_hour * hours_more
    if _MIN_BUDGET_SHARE * spending.limit <= spending.used < spending.limit < expected:
        hours = (spending.limit - spending.used) / spending.last_hour
        yield Alarm(
            "budget",
            spending.caller,
            f"The caller {spending.caller} has used {spending.used:,} of {spending.limit:,} requests of today; at "
            f"{spending.last_hour:,} an hour, its budget ends in {hours:.1f} h, and the day (UTC) in "
            f"{hours_left:.1f} h.",
        )
