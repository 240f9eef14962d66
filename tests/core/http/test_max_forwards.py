"""Max-Forwards of OPTIONS (RFC 9110 §7.6.2)."""

import pytest

from nanonets_proxy.core.http.max_forwards import counted_down

NAMES = (b"A", b"MAX-forwards", b"B")


@pytest.mark.parametrize(
    ("count", "left"), [(b"10", b"9"), (b"1", b"0"), (b"007", b"6"), (b"-1", b"-1"), (b"9" * 30, b"9" * 30)]
)
def test_a_number_is_counted_down_and_anything_else_stays(count: bytes, left: bytes) -> None:
    assert counted_down(NAMES, (b"a", count, b"b")) == (b"a", left, b"b")


def test_at_zero_the_request_is_not_forwarded() -> None:
    assert counted_down(NAMES, (b"a", b"0", b"b")) is None


def test_without_one_such_field_nothing_changes() -> None:
    assert counted_down((b"A",), (b"0",)) == (b"0",)
    assert counted_down((b"Max-Forwards", b"max-forwards"), (b"0", b"0")) == (b"0", b"0")
