"""The limit algorithms, in virtual time."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanonets_proxy.sandbox.limiter import (
    MAX_SCOPES,
    Admitted,
    FixedWindow,
    Refused,
    SlidingWindow,
    TokenBucket,
    make_limiter,
    scope_of,
)
from nanonets_proxy.sandbox.policy import LimitKind, LimitRule, LimitScope

# Eighths of a second are exact in binary, so that no property depends on rounding.
arrivals = st.lists(st.integers(0, 40), max_size=120).map(
    lambda steps: [sum(steps[: i + 1]) / 8 for i in range(len(steps))]
)
rules = st.builds(LimitRule, st.integers(1, 6), st.sampled_from([0.5, 1.0, 2.0, 5.0]))
TIMED = [LimitKind.FIXED_WINDOW, LimitKind.SLIDING_WINDOW, LimitKind.TOKEN_BUCKET]


def admitted(limiter, times_s):
    return [at for at in times_s if isinstance(limiter.decide("s", at), Admitted)]


@given(rules, arrivals)
def test_a_fixed_window_never_admits_more_than_its_count(rule, times_s):
    windows = Counter((at - times_s[0]) // rule.per_s for at in admitted(FixedWindow(rule), times_s))
    assert all(used <= rule.count for used in windows.values())


@pytest.mark.parametrize("start_s", [0.0, 59.99, 60.0, 1e9 + 0.25])
def test_requests_in_a_row_share_a_fixed_window_at_any_time_of_the_clock(start_s):
    assert admitted(FixedWindow(LimitRule(1, 60)), [start_s, start_s + 0.125]) == [start_s]


@given(rules, arrivals)
def test_a_sliding_window_never_admits_more_than_its_count_in_any_interval(rule, times_s):
    times_s = admitted(SlidingWindow(rule), times_s)
    for start_s in times_s:
        assert sum(start_s <= at < start_s + rule.per_s for at in times_s) <= rule.count


@given(rules, arrivals)
def test_a_bucket_never_admits_more_than_its_burst_and_its_refill(rule, times_s):
    times_s = admitted(TokenBucket(rule), times_s)
    for i, start_s in enumerate(times_s):
        for j, end_s in enumerate(times_s[i:], start=1):
            assert j <= rule.count + (end_s - start_s) * rule.count / rule.per_s + 1e-9


@pytest.mark.parametrize("kind", TIMED)
@given(rule=rules, times_s=arrivals)
def test_the_delay_of_a_refusal_is_positive_and_sufficient(kind, rule, times_s):
    limiter = make_limiter(kind, rule)
    for at in times_s:
        verdict = limiter.decide("s", at)
        if isinstance(verdict, Refused):
            assert 0 < verdict.retry_after_s <= rule.per_s
            assert limiter.decide("s", at + verdict.retry_after_s + 1e-9) == Admitted()
            return


@pytest.mark.parametrize("kind", TIMED)
def test_an_idle_limiter_admits_its_whole_count_at_once_and_then_refuses(kind):
    limiter = make_limiter(kind, LimitRule(3, 60))
    assert [type(limiter.decide("s", 0.0)) for _ in range(4)] == [Admitted, Admitted, Admitted, Refused]


def test_a_bucket_gains_one_token_after_each_share_of_its_window():
    bucket = TokenBucket(LimitRule(2, 1))
    assert admitted(bucket, [0, 0, 0, 0.25, 0.5, 0.5, 1.0]) == [0, 0, 0.5, 1.0]


def test_a_concurrency_limit_counts_requests_in_flight():
    limiter = make_limiter(LimitKind.CONCURRENCY, LimitRule(2, 5))
    assert [type(limiter.decide("s", 0)) for _ in range(3)] == [Admitted, Admitted, Refused]
    assert limiter.decide("s", 100) == Refused(5)
    limiter.release("s")
    assert limiter.decide("s", 0) == Admitted()
    for _ in range(2):
        limiter.release("s")
    assert [type(limiter.decide("s", 0)) for _ in range(3)] == [Admitted, Admitted, Refused]


@pytest.mark.parametrize("kind", list(LimitKind))
def test_each_scope_is_counted_separately(kind):
    limiter = make_limiter(kind, LimitRule(1, 60))
    assert limiter.decide("a", 0) == Admitted()
    assert isinstance(limiter.decide("a", 0), Refused)
    assert limiter.decide("b", 0) == Admitted()


def test_a_new_scope_beyond_the_maximum_replaces_the_oldest():
    limiter = FixedWindow(LimitRule(1, 60))
    for number in range(MAX_SCOPES + 1):
        limiter.decide(str(number), 0)
    assert limiter.decide("0", 0) == Admitted()
    assert isinstance(limiter.decide(str(MAX_SCOPES), 0), Refused)


V4 = ("GET", "/api/v4/workflows")
PREDICT = ("POST", "/api/v2/OCR/Model/m1/LabelFile/")
PREDICT_URLS = ("POST", "/api/v2/OCR/Model/m1/LabelUrls")
LOOK_UP = ("GET", "/api/v2/Inferences/Model/m1/ImageLevelInferences/p")
CLASSIFY = ("POST", "/api/v2/ImageCategorization/Model/m1/LabelFile/")


@pytest.mark.parametrize(
    ("limited", "covered"),
    [
        (LimitScope.DOCUMENTED, {V4: "account", PREDICT: "v2-predict:m1", PREDICT_URLS: "v2-predict:m1"}),
        (LimitScope.ACCOUNT, {V4: "account"}),
        (LimitScope.V2_PREDICT, {PREDICT: "v2-predict:m1", PREDICT_URLS: "v2-predict:m1"}),
        (LimitScope.ALL, dict.fromkeys((V4, PREDICT, PREDICT_URLS, LOOK_UP, CLASSIFY), "all")),
    ],
)
def test_a_limit_covers_only_the_requests_of_its_scope(limited, covered):
    for call in (V4, PREDICT, PREDICT_URLS, LOOK_UP, CLASSIFY):
        assert scope_of(limited, *call) == covered.get(call)
