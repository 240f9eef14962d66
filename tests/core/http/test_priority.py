"""How urgent a caller's request is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanonets_proxy.core.http.priority import urgency


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], 3),
        ([b"u=0"], 0),
        ([b"u=7"], 7),
        ([b" u=1 ;x"], 1),
        ([b"i, u=5"], 5),
        ([b"u=1, u=2"], 2),
        ([b"u=1", b"u=6"], 6),
    ],
)
def test_the_last_well_formed_urgency_counts(values: list[bytes], expected: int) -> None:
    assert urgency(values) == expected


@pytest.mark.parametrize("value", [b"", b"u", b"u=", b"u=8", b"u=-1", b"u=10", b"U=1", b"u=1.5", b"xu=1"])
def test_a_malformed_urgency_is_ignored(value: bytes) -> None:
    assert urgency([value]) == 3


def test_members_beyond_the_64th_are_ignored_so_that_a_long_list_costs_little() -> None:
    assert urgency([b"u=1," * 63 + b"u=5"]) == 5
    assert urgency([b"u=1," * 64 + b"u=5"]) == 1
    assert urgency([b"," * 16_000] * 3 + [b"u=5"]) == 3


@given(st.lists(st.binary(max_size=40), max_size=5))
def test_any_bytes_give_an_urgency_from_0_to_7(values: list[bytes]) -> None:
    assert 0 <= urgency(values) <= 7
