"""Which failures are repeated, how soon and how often."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanonets_proxy.core.http.methods import SAFE_METHODS
from nanonets_proxy.core.http.retry import MAX_PAUSE_S, Failure, Retries, RetryPolicy

METHODS = ["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE", "FROB"]


def retries(count: int = 3, *, backoff_s: float = 0.1, budget: float = 0.2, chance: float = 1.0) -> Retries:
    return Retries(RetryPolicy(count, backoff_s, budget), lambda: chance)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("failure", [Failure.LOST, Failure.UNAVAILABLE])
def test_what_may_have_been_received_is_repeated_for_safe_methods_alone(method: str, failure: Failure) -> None:
    pause_s = retries().pause_s(failure, method, done=0, may_take_s=60)
    assert (pause_s is not None) == (method in SAFE_METHODS)


@pytest.mark.parametrize("method", METHODS)
def test_what_was_not_sent_is_repeated_for_every_method(method: str) -> None:
    assert retries().pause_s(Failure.NOT_SENT, method, done=0, may_take_s=60) is not None


def test_the_bound_of_the_pause_doubles_up_to_a_limit() -> None:
    made = retries(20)
    pauses_s = [made.pause_s(Failure.LOST, "GET", done=done, may_take_s=60) for done in (0, 1, 2, 3, 9)]
    assert pauses_s == [0.1, 0.2, 0.4, 0.8, MAX_PAUSE_S]


def test_the_pause_is_drawn_from_nothing_to_its_bound() -> None:
    assert retries(chance=0.0).pause_s(Failure.LOST, "GET", done=2, may_take_s=60) == 0
    assert retries(chance=0.5).pause_s(Failure.LOST, "GET", done=0, may_take_s=60) == 0.05


def test_a_request_is_repeated_so_often_and_no_more() -> None:
    made = retries(2)
    assert made.pause_s(Failure.LOST, "GET", done=1, may_take_s=60) is not None
    assert made.pause_s(Failure.LOST, "GET", done=2, may_take_s=60) is None
    assert retries(0).pause_s(Failure.NOT_SENT, "GET", done=0, may_take_s=60) is None


def test_a_hint_lengthens_the_pause_and_one_that_is_too_long_ends_it() -> None:
    assert retries().pause_s(Failure.UNAVAILABLE, "GET", done=0, may_take_s=60, hint_s=2) == 2
    assert retries().pause_s(Failure.UNAVAILABLE, "GET", done=0, may_take_s=60, hint_s=0.01) == 0.1
    assert retries().pause_s(Failure.UNAVAILABLE, "GET", done=0, may_take_s=60, hint_s=MAX_PAUSE_S + 1) is None


def test_a_pause_that_is_longer_than_the_caller_waits_is_not_begun() -> None:
    assert retries().pause_s(Failure.LOST, "GET", done=0, may_take_s=0.05) is None


def test_where_everything_fails_retries_are_a_share_of_the_requests() -> None:
    made = retries(1, budget=0.2)
    granted = 0
    for _ in range(1000):
        made.note_request()
        granted += made.pause_s(Failure.LOST, "GET", done=0, may_take_s=60) is not None
    assert 200 <= granted <= 212


def test_what_is_not_spent_is_saved_up_to_a_limit() -> None:
    made = retries(1, budget=1.0)
    for _ in range(1000):
        made.note_request()
    granted = [made.pause_s(Failure.LOST, "GET", done=0, may_take_s=60) for _ in range(20)]
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
def test_the_pause_is_within_every_bound_and_spends_one(
    failures: list[tuple[Failure, str, int, float, float | None]], count: int, backoff_s: float, chance: float
) -> None:
    made = retries(count, backoff_s=backoff_s, budget=0.0, chance=chance)
    granted = 0
    for failure, method, done, may_take_s, hint_s in failures:
        pause_s = made.pause_s(failure, method, done=done, may_take_s=may_take_s, hint_s=hint_s)
        if pause_s is not None:
            granted += 1
            assert done < count
            assert (hint_s or 0) <= pause_s <= min(MAX_PAUSE_S, may_take_s)
            assert failure is Failure.NOT_SENT or method in SAFE_METHODS
    assert granted <= 10
