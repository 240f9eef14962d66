"""Alarms about usage: each by example, and how often volume shows a thief on simulated quarters."""

import random
from dataclasses import replace

import pytest

from nanonets_proxy.core.usage.alarms import FirstCall, Spending, UsageFacts, Volume, alarms_of
from support.telemetry.usage_quarter import WARM_UP_WEEKS, quarter

OLD_H = 24 * 60
USUAL = Volume("caller", "billing", 900, 1000, 1000, OLD_H)


def found(**facts) -> list[tuple[str, str]]:
    return [(alarm.kind, alarm.subject) for alarm in alarms_of(UsageFacts(**{"age_h": OLD_H, **facts}))]


def sentence(**facts) -> str:
    (alarm,) = alarms_of(UsageFacts(**{"age_h": OLD_H, **facts}))
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
        (Spending("billing", 500, 1000, 100, 5.1), 20, True),
        (Spending("billing", 500, 1000, 100, 5.0), 20, False),
        (Spending("billing", 500, 1000, 100, 20.0), 5, False),
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


@pytest.mark.parametrize(
    ("factor", "at_night", "least", "most"),
    [(3, False, 0.95, 1), (2, False, 0.95, 1), (1, False, 0, 0.5), (1, True, 0.95, 1), (0.5, True, 0.9, 1)],
)
def test_stolen_tokens_are_noticed_within_the_hour(
    factor: float, at_night: bool, least: float, most: float
) -> None:
    """The thief sends `factor` times the caller's highest hour, by day or by night."""
    rng = random.Random(1)
    quarters = [quarter(seed) for seed in range(4)]
    noticed = []
    for _ in range(400):
        chosen = rng.choice(quarters)
        thief = rng.choice(list(chosen.callers))
        day = rng.randrange(WARM_UP_WEEKS * 7, chosen.hours // 24)
        hour = day * 24 + (rng.choice([21, 22, 23]) if at_night else rng.choice([9, 11, 15]))
        stolen = round(factor * chosen.callers[thief].peaks[hour])
        if stolen >= 100:
            noticed.append(("volume_caller", thief) in chosen.alarms(hour, thief, stolen))
    assert len(noticed) > 100
    assert least <= sum(noticed) / len(noticed) <= most
