"""Roll-ups: which periods cover a range, and the names that attempts are counted under."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanonets_proxy.core.usage import rollups
from nanonets_proxy.core.usage.rollups import (
    LEVELS_H,
    CallerNames,
    Counts,
    Periods,
    cut_of,
    cuts,
    known_method,
    periods_within,
    status_class,
)

hours = st.integers(0, 600_000)


@given(hours, hours)
def test_the_periods_of_a_range_cover_each_hour_once(since_h: int, until_h: int) -> None:
    covered = [
        hour
        for part in periods_within(since_h, min(until_h, since_h + 20_000))
        for hour in range(part.first * part.hours, part.last * part.hours)
    ]
    assert sorted(covered) == list(range(since_h, min(until_h, since_h + 20_000)))


@given(hours, st.integers(0, 100_000))
def test_a_range_needs_few_periods(since_h: int, length_h: int) -> None:
    parts = list(periods_within(since_h, since_h + length_h))
    count = sum(part.last - part.first for part in parts)
    assert count <= length_h // LEVELS_H[-1] + 2 * sum(larger // level for level, larger in pairwise(LEVELS_H))
    assert len(parts) <= 2 * len(LEVELS_H)


@pytest.mark.parametrize(
    ("since_h", "until_h", "parts"),
    [
        (5, 5, []),
        (5, 4, []),
        (3, 4, [Periods(1, 3, 4)]),
        (0, 4, [Periods(4, 0, 1)]),
        (3, 9, [Periods(1, 3, 4), Periods(1, 8, 9), Periods(4, 1, 2)]),
        (0, 3072, [Periods(1536, 0, 2)]),
    ],
)
def test_a_range_uses_the_largest_periods(since_h: int, until_h: int, parts: list[Periods]) -> None:
    assert list(periods_within(since_h, until_h)) == parts


def test_each_level_divides_the_next_one() -> None:
    assert all(not larger % level for level, larger in pairwise(LEVELS_H))


@pytest.mark.parametrize(
    ("status", "name"),
    [(0, "none"), (200, "2xx"), (201, "2xx"), (304, "3xx"), (400, "4xx"), (401, "401"), (403, "403"), (429, "429")],
)
def test_a_status_has_a_class(status: int, name: str) -> None:
    assert status_class(status) == name


def test_unusual_methods_share_a_name() -> None:
    assert [known_method("DELETE"), known_method("BREW")] == ["DELETE", "other"]


def test_callers_beyond_the_limit_of_a_day_share_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollups, "MAX_CALLERS", 2)
    names = CallerNames()
    assert [names.name(caller, 0) for caller in "abca"] == ["a", "b", "(others)", "a"]
    assert names.name("c", 86_400) == "c"
    assert names.name("d" * 200, 86_400) == "d" * 128


def test_counts_add_up() -> None:
    assert Counts(1, 1, 10, 20, 5).plus(Counts(2, 0, 1, 2, 1)) == Counts(3, 1, 11, 22, 6)


def test_an_attempt_counts_in_its_series_and_in_one_cut_by_each_dimension() -> None:
    assert list(cuts(("eu", "billing", "GET", "/other", "2xx"))) == [
        (0, ("eu", "billing", "GET", "/other", "2xx")),
        (1, ("eu", "", "", "", "")),
        (2, ("eu", "billing", "", "", "")),
        (3, ("eu", "", "GET", "", "")),
        (4, ("eu", "", "", "/other", "")),
        (5, ("eu", "", "", "", "2xx")),
    ]
    assert [cut_of(["caller"]), cut_of(["environment"]), cut_of(["caller", "route"])] == [2, 1, 0]
