"""The likely lengths of periods."""

import pytest

from nanonets_proxy.core.ratelimit.adaptive.estimate.likely_period import likely_period_s


@pytest.mark.parametrize(
    ("longest_s", "above_s", "rounded_by_s", "likely_s"),
    [
        (1.07, 0.07, 1.0, 1.0),
        (3.011, 0.011, 1.0, 3.0),  # a period of 2 s has no hint of 3 s
        (10.9, 0.9, 1.0, 10.0),
        (11.02, 10.02, 1.0, 11.0),
        (7.4, 0.0, 1.0, 7.0),
        (3.999, 0.999, 1.0, 4.0),  # its first request took longer to the upstream than the refused one
        (147.0, 87.0, 1.0, 147.0),
        (0.5, 0.1, 1.0, 0.5),
        (10.05, 0.1, 0.0, 10.0),  # exact, but for the travel time
        (9.5, 0.1, 0.0, 9.5),
    ],
)
def test_a_likely_period_is_round_and_within_the_hint(
    longest_s: float, above_s: float, rounded_by_s: float, likely_s: float
) -> None:
    assert likely_period_s(longest_s, above_s, rounded_by_s) == likely_s
