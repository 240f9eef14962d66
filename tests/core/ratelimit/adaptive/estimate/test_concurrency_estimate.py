"""Which refusals a concurrency limit explains."""

import math

import pytest

from nanonets_proxy.core.ratelimit.adaptive.estimate.concurrency_estimate import ConcurrencyEstimate
from nanonets_proxy.core.ratelimit.adaptive.estimate.sliding_window import SlidingWindow
from nanonets_proxy.core.ratelimit.adaptive.grant_kind import GrantKind

WINDOW_PROBES = (GrantKind.COUNT_PROBE, GrantKind.PERIOD_PROBE)


def estimate_of(limit: float) -> ConcurrencyEstimate:
    estimate = ConcurrencyEstimate(SlidingWindow())
    estimate.limit = limit
    return estimate


@pytest.mark.parametrize("kind", WINDOW_PROBES)
def test_a_raised_limit_explains_one_refusal_of_a_probe_of_the_window(kind: GrantKind) -> None:
    estimate = estimate_of(12)
    assert not estimate.explains(kind, 12)
    estimate.probe_accepted()
    assert (estimate.limit, estimate.explains(kind, 12), estimate.explains(kind, 11)) == (13, True, False)
    estimate.refused(12, 1.0, now=0.0)
    assert (estimate.limit, estimate.explains(kind, 12)) == (12, False)


@pytest.mark.parametrize("kind", GrantKind)
def test_an_unknown_limit_explains_only_the_refusal_of_its_own_probe(kind: GrantKind) -> None:
    assert estimate_of(math.inf).explains(kind, 100) == (kind is GrantKind.CONCURRENCY_PROBE)


def test_a_limit_explains_a_usual_refusal_beside_nearly_as_many_requests() -> None:
    estimate = estimate_of(12)
    assert [estimate.explains(GrantKind.PROVEN, number) for number in (10, 11, 12)] == [False, True, True]
