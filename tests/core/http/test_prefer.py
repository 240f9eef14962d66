"""How long a caller is willing to wait."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanonets_proxy.core.http.prefer import prefers_async, wait_s


@pytest.mark.parametrize(
    ("values", "seconds"),
    [
        ([b"wait=10"], 10),
        ([b"WAIT = 10"], 10),
        ([b'wait="10"'], 10),
        ([b"wait=0"], 0),
        ([b"wait=10;why=because"], 10),
        ([b"respond-async, wait=7"], 7),
        ([b"return=minimal", b"wait=5"], 5),
        ([b"wait=5, wait=9"], 5),
        ([b"wait=soon", b"wait=9"], 9),
        ([b'note="a, wait=5", wait=9'], 9),
    ],
)
def test_the_first_well_formed_wait_counts(values: list[bytes], seconds: int) -> None:
    assert wait_s(values) == seconds


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"wait",
        b"wait=",
        b"wait=-1",
        b"wait=1.5",
        b"wait=1e3",
        b"wait=soon",
        b'wait="5',
        b'wait=5"',
        b"wait=9999999999",
        b"await=5",
        b"wait=5 6",
        b"wait=\xb2",
        b"respond-async",
    ],
)
def test_a_malformed_wait_is_ignored(value: bytes) -> None:
    assert wait_s([value]) is None


def test_without_the_field_there_is_no_wait() -> None:
    assert wait_s([]) is None


@given(st.lists(st.binary(max_size=40), max_size=5))
def test_any_bytes_give_a_bounded_number_or_none(values: list[bytes]) -> None:
    seconds = wait_s(values)
    assert seconds is None or 0 <= seconds <= 999_999_999


@given(st.integers(0, 999_999_999), st.lists(st.sampled_from([b"respond-async", b"handling=lenient", b"x"])))
def test_a_wait_is_found_after_other_preferences(seconds: int, others: list[bytes]) -> None:
    assert wait_s([b", ".join([*others, b"wait=%d" % seconds])]) == seconds


@pytest.mark.parametrize(
    "values",
    [
        [b"respond-async"],
        [b"Respond-Async"],
        [b"wait=5", b"handling=lenient, respond-async"],
        [b"respond-async; wait=5"],
        [b'respond-async=""'],
        [b'note="a, b", respond-async'],
        [b'note="a, respond-async'],  # no quoted string
    ],
)
def test_a_caller_may_prefer_to_poll(values: list[bytes]) -> None:
    assert prefers_async(values)


@pytest.mark.parametrize(
    "values",
    [[], [b""], [b"respond-async=false"], [b"respond-asynchronous"], [b"wait=5"], [b'note="a, respond-async, b"']],
)
def test_other_preferences_do_not_ask_for_it(values: list[bytes]) -> None:
    assert not prefers_async(values)


@pytest.mark.parametrize("filler", [b"a,", b'"",'])
def test_preferences_beyond_the_64th_are_ignored_so_that_a_long_list_costs_little(filler: bytes) -> None:
    assert wait_s([filler * 63 + b"wait=5"]) == 5
    assert wait_s([filler * 64 + b"wait=5"]) is None
    assert not prefers_async([filler * 8000] * 8 + [b"respond-async"])
