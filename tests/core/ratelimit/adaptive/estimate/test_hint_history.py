"""Whether hints tell the end of a period: hints that are repeated after their end are refuted."""

import pytest

from nanonets_proxy.core.ratelimit.adaptive.estimate.hint_history import HintHistory


def test_a_hint_that_is_repeated_after_its_end_is_refuted() -> None:
    hints = HintHistory()
    assert not hints.compare(3.0, after_previous=False)
    assert not hints.is_refuted(3.0)
    assert hints.compare(3.0, after_previous=True)
    assert hints.is_refuted(3.0)
    assert not hints.is_refuted(4.0)


@pytest.mark.parametrize(
    ("second_s", "after_previous"), [(3.0, False), (2.0, True), (0.0, True)], ids=["too early", "other", "none"]
)
def test_another_second_hint_refutes_nothing(second_s: float, after_previous: bool) -> None:
    hints = HintHistory()
    hints.compare(3.0, after_previous=False)
    assert not hints.compare(second_s, after_previous=after_previous)
    assert not hints.is_refuted(3.0)
    assert not hints.is_refuted(second_s)


def test_refusals_without_hints_refute_nothing() -> None:
    hints = HintHistory()
    assert not hints.compare(0.0, after_previous=True)
    assert not hints.is_refuted(0.0)


def test_a_hint_is_refuted_once() -> None:
    hints = HintHistory()
    assert [hints.compare(3.0, after_previous=True) for _ in range(3)] == [False, True, False]
