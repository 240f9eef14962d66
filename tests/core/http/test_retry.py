"""Retries: after which failures, after which pause, and how often."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanonets_proxy.core.http.methods import IDEMPOTENT_METHODS, SAFE_METHODS
from nanonets_proxy.core.http.retry import MAX_PAUSE_S, Failure, Retries, RetryPolicy, may_use_new_connection

METHODS = ["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE", "FROB"]


def retries(count: int = 3, *, backoff_s: float = 0.1, budget: float = 0.2, chance: float = 1.0) -> Retries:
    return Retries(RetryPolicy(count, backoff_s, budget), lambda: chance)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("failure", [Failure.LOST, Failure.UNAVAILABLE])
def test_a_request_that_may_have_arrived_is_repeated_only_if_its_method_is_safe(
    method: str, failure: Failure
) -> None:
    pause_s = retries().pause_s(failure, method, retries_made=0, time_left_s=60)
    assert (pause_s is not None) == (method in SAFE_METHODS)


@pytest.mark.parametrize("method", METHODS)
def test_a_request_that_was_not_sent_is_repeated_with_any_method(method: str) -> None:
    assert retries().pause_s(Failure.NOT_SENT, method, retries_made=0, time_left_s=60) is not None


def test_the_bound_of_the_pause_doubles_up_to_a_limit() -> None:
    made = retries(20)
    pauses_s = [made.pause_s(Failure.LOST, "GET", retries_made=done, time_left_s=60) for done in (0, 1, 2, 3, 9)]
    assert pauses_s == [0.1, 0.2, 0.4, 0.8, MAX_PAUSE_S]


def test_the_pause_is_drawn_between_zero_and_its_bound() -> None:
    assert retries(chance=0.0).pause_s(Failure.LOST, "GET", retries_made=2, time_left_s=60) == 0
    assert retries(chance=0.5).pause_s(Failure.LOST, "GET", retries_made=0, time_left_s=60) == 0.05


def test_a_request_is_retried_at_most_as_often_as_the_policy_says() -> None:
    made = retries(2)
    assert made.pause_s(Failure.LOST, "GET", retries_made=1, time_left_s=60) is not None
    assert made.pause_s(Failure.LOST, "GET", retries_made=2, time_left_s=60) is None
    assert retries(0).pause_s(Failure.NOT_SENT, "GET", retries_made=0, time_left_s=60) is None


def test_a_hint_lengthens_the_pause_and_a_hint_beyond_the_longest_pause_forbids_the_retry() -> None:
    assert retries().pause_s(Failure.UNAVAILABLE, "GET", retries_made=0, time_left_s=60, hint_s=2) == 2
    assert retries().pause_s(Failure.UNAVAILABLE, "GET", retries_made=0, time_left_s=60, hint_s=0.01) == 0.1
    assert (
        retries().pause_s(Failure.UNAVAILABLE, "GET", retries_made=0, time_left_s=60, hint_s=MAX_PAUSE_S + 1)
        is None
    )


def test_a_pause_beyond_the_deadline_forbids_the_retry() -> None:
    assert retries().pause_s(Failure.LOST, "GET", retries_made=0, time_left_s=0.05) is None


def test_while_everything_fails_the_budget_bounds_the_share_of_retries() -> None:
    made = retries(1, budget=0.2)
    granted = 0
    for _ in range(1000):
        made.note_request()
        granted += made.pause_s(Failure.LOST, "GET", retries_made=0, time_left_s=60) is not None
    assert 200 <= granted <= 212


def test_unused_retries_are_saved_up_to_a_limit() -> None:
    made = retries(1, budget=1.0)
    for _ in range(1000):
        made.note_request()
    granted = [made.pause_s(Failure.LOST, "GET", retries_made=0, time_left_s=60) for _ in range(20)]
    assert sum(pause_s is not None for pause_s in granted) == 10


@given(
    st.lists(
        st.tuples(
            st.sampled_from(Failure),
            st.sampled_from(METHODS),
            st.integers(0, 6),
            st.floats(0, 400),
            st.none() | st.floats(0, 400),
        )
    ),
    st.integers(0, 5),
    st.floats(0.001, 60),
    st.floats(0, 1),
)
def test_a_granted_pause_is_within_every_bound_and_costs_one_retry(
    failures: list[tuple[Failure, str, int, float, float | None]], count: int, backoff_s: float, chance: float
) -> None:
    made = retries(count, backoff_s=backoff_s, budget=0.0, chance=chance)
    granted = 0
    for failure, method, done, time_left_s, hint_s in failures:
        pause_s = made.pause_s(failure, method, retries_made=done, time_left_s=time_left_s, hint_s=hint_s)
        if pause_s is not None:
            granted += 1
            assert done < count
            assert (hint_s or 0) <= pause_s <= min(MAX_PAUSE_S, time_left_s)
            assert failure is Failure.NOT_SENT or method in SAFE_METHODS
    assert granted <= 10


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("response_began", "can_be_sent_again"), [(True, True), (False, False), (False, True)])
def test_an_idempotent_request_without_a_response_may_use_a_new_connection(
    method: str, response_began: bool, can_be_sent_again: bool
) -> None:
    allowed = may_use_new_connection(method, response_began=response_began, can_be_sent_again=can_be_sent_again)
    assert allowed == (method in IDEMPOTENT_METHODS and can_be_sent_again and not response_began)
