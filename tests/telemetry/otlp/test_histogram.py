"""The exponential histogram against its definition."""

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanonets_proxy.telemetry.otlp.histogram import MOST_BUCKETS, DurationHistogram

durations = st.floats(1e-6, 1e6)


@given(st.lists(durations, min_size=1, max_size=40))
def test_each_duration_lies_within_the_bounds_of_its_bucket(values: list[float]) -> None:
    histogram = DurationHistogram()
    for value in values:
        histogram.count(value)
    scale, offset, counts = histogram.buckets()
    assert len(counts) <= MOST_BUCKETS
    assert sum(counts) == histogram.total == len(values)
    expected = [0] * len(counts)
    for value in values:
        number = math.ceil(math.log2(value) * 2**scale) - 1
        # The logarithm is rounded, so the neighbour counts as well if the value is next to the bound.
        near = [each for each in (number - 1, number, number + 1) if _lies_in(each, scale, value)]
        expected[(near or [number])[0] - offset] += 1
    assert counts == expected


def _lies_in(number: int, scale: int, value: float) -> bool:
    step = 2.0 ** (1 / 2**scale)
    return step**number * (1 + 1e-12) < value <= step ** (number + 1) * (1 - 1e-12)


@pytest.mark.parametrize("exponent", range(-19, 20))
def test_a_power_of_two_is_the_upper_bound_of_its_bucket(exponent: int) -> None:
    histogram = DurationHistogram()
    histogram.count(float(Fraction(2) ** exponent))
    scale, offset, counts = histogram.buckets()
    assert (offset, counts) == (exponent * 2**scale - 1, [1])


def test_no_durations_have_no_buckets() -> None:
    assert DurationHistogram().buckets().counts == []


def test_the_memory_is_bounded() -> None:
    histogram = DurationHistogram()
    for number in range(-400, 400):
        histogram.count(10.0 ** (number / 10))
    histogram.count(0.0)
    assert len(histogram._counts) < 1300
    assert sum(histogram.buckets().counts) == 801
