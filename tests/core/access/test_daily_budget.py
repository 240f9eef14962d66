"""Daily budgets: how many requests a caller may make in a day."""

import pytest

from nanonets_proxy.core.access import daily_budget as module
from nanonets_proxy.core.access.budget_rule import BudgetRule
from nanonets_proxy.core.access.daily_budget import DailyBudget

DAY_S = 86_400.0
NOON_S = 20_000 * DAY_S + DAY_S / 2


def budget(*rules: str) -> DailyBudget:
    return DailyBudget(map(BudgetRule.parse, rules))


def test_each_caller_has_its_own_count() -> None:
    counts = budget("2")
    assert [counts.take(caller, NOON_S) for caller in "aab"] == [None, None, None]
    assert counts.take("a", NOON_S + 60) == DAY_S / 2 - 60
    assert counts.take("b", NOON_S) is None


def test_the_counts_start_again_the_next_day() -> None:
    counts = budget("1")
    counts.take("a", NOON_S)
    assert counts.take("a", NOON_S) == DAY_S / 2
    assert counts.take("a", NOON_S + DAY_S / 2) is None


def test_a_callers_own_rule_replaces_the_common_one() -> None:
    counts = budget("0", "billing: 1")
    assert counts.take("billing", NOON_S) is None
    assert counts.take("billing", NOON_S) is not None
    assert counts.take("other", NOON_S) is not None


def test_without_a_common_rule_other_callers_are_not_counted() -> None:
    counts = budget("billing: 0")
    assert counts.take("other", NOON_S) is None
    assert counts.take("billing", NOON_S) is not None


def test_the_number_of_counted_callers_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_CALLERS", 3)
    counts = budget("1")
    taken = [counts.take(str(number), NOON_S) for number in range(5)]
    assert taken[:4] == [None] * 4
    assert taken[4] is not None, "further callers share one count"
    assert counts.take("1", NOON_S) is not None, "a counted caller keeps its count"
    assert len(counts._used) == 4


def test_invented_names_never_use_the_count_of_a_named_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_CALLERS", 3)
    counts = budget("2", "billing: 3")
    for number in range(20):
        counts.take(f"invented-{number}", NOON_S)
    assert [counts.take("billing", NOON_S) for _ in range(3)] == [None] * 3
    assert counts.take("billing", NOON_S) is not None


@pytest.mark.parametrize("text", ["", "many", "-1", "a:1", "a: b", "1.5"])
def test_a_malformed_budget_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="is not a daily budget"):
        BudgetRule.parse(text)


@pytest.mark.parametrize("text", ["5000", "billing: 5000"])
def test_a_budget_rule_prints_as_its_text(text: str) -> None:
    assert str(BudgetRule.parse(text)) == text


def test_earlier_requests_count_after_a_restart() -> None:
    counts = budget("3", "billing: 2")
    today = int(NOON_S // DAY_S)
    counts.restore({today - 1: {"a": 3}, today: {"a": 2, "billing": 2}})
    assert counts.take("billing", NOON_S) is not None
    assert [counts.take("a", NOON_S) for _ in range(2)] == [None, DAY_S / 2]


def test_a_clock_that_jumps_back_finds_the_counts_of_its_day() -> None:
    counts = budget("1")
    assert counts.take("a", NOON_S) is None
    assert counts.take("a", NOON_S + DAY_S) is None
    assert counts.take("a", NOON_S) is not None


def test_the_counts_of_few_days_are_kept() -> None:
    counts = budget("1")
    for day in range(20):
        counts.take("a", NOON_S + day * DAY_S)
    assert len(counts._days) == 4


def test_a_request_that_was_not_sent_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_CALLERS", 1)
    counts = budget("1")
    for caller in "ab":  # b shares the count of all further callers
        assert counts.take(caller, NOON_S) is None
        assert counts.take(caller, NOON_S) is not None
        counts.give_back(caller, NOON_S)
        assert counts.take(caller, NOON_S) is None
    counts.give_back("a", NOON_S + 5 * DAY_S)
    counts.give_back("a", NOON_S)
    counts.give_back("a", NOON_S)
    assert [counts.take("a", NOON_S) for _ in range(2)] == [None, DAY_S / 2], "never below 0"


def test_other_rules_keep_the_counts_of_the_day() -> None:
    counts = budget("5")
    for _ in range(3):
        counts.take("a", NOON_S)
    counts.change_rules([BudgetRule.parse("4")])
    assert counts.take("a", NOON_S) is None
    assert counts.take("a", NOON_S) == DAY_S / 2
