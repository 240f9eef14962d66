"""The fields RateLimit and RateLimit-Policy of a served response."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanonets_proxy.core.ratelimit.hints.rate_limit_fields import Advice, read_advice
from nanonets_proxy.core.ratelimit.scopes.static_limits import PAGES, StaticLimit


def advice(state: str = "", policy: str = "") -> Advice | None:
    fields = [(b"Date", b"x"), (b"RateLimit", state.encode("latin-1")), (b"ratelimit-policy", policy.encode())]
    return read_advice(fields, "account")


def limit(count: int, period_s: float) -> StaticLimit:
    return StaticLimit("account", count, period_s)


@pytest.mark.parametrize(
    ("unit", "remaining"), [("", 5), (';qu="pages"', 5), (';qu="requests"', None), (';qu="content-bytes"', None)]
)
def test_in_a_scope_in_pages_only_quotas_of_pages_count(unit: str, remaining: int | None) -> None:
    fields = [(b"RateLimit", b'"p";r=5;t=9'), (b"RateLimit-Policy", f'"p";q=20;w=60{unit}'.encode())]
    found = read_advice(fields, "account", PAGES)
    assert (None if found is None else found.remaining) == remaining
    assert found is None or found.limit == StaticLimit("account", 20, 60.0, PAGES)


@pytest.mark.parametrize(
    ("state", "policy", "expected"),
    [
        ('"p";r=0;t=5', "", Advice(0, 5.0, None)),
        ("p;r=7;t=5", "", Advice(7, 5.0, None)),
        ('"p" ; r=0 ; t=5', "", Advice(0, 5.0, None)),
        ("", '"p";q=100;w=60', Advice(None, 0.0, limit(100, 60.0))),
        ('"p";r=0', '"p";q=100;w=60', Advice(0, 60.0, limit(100, 60.0))),
        ("", '"p";q=999999999999999;w=2678400', Advice(None, 0.0, limit(10**9, 2_678_400.0))),
        ('"a,;t=9";r=0;t=5;pk=:cHs=:', '"a,;t=9";q=5;w=1;qu="requests"', Advice(0, 5.0, limit(5, 1.0))),
        ('"a";r=3;t=1, "b";r=0;t=9', '"a";q=10;w=1, "b";q=99;w=3600', Advice(0, 9.0, limit(10, 1.0))),
        ('"a";r=0;t=1, "b";r=0;t=9', "", Advice(0, 9.0, None)),
        ('"a";r=0;t=9, "b";r=5;t=1', '"a";q=9;w=60;qu="content-bytes"', Advice(5, 1.0, None)),
    ],
)
def test_the_scarcest_quota_of_requests_and_the_shortest_window_count(
    state: str, policy: str, expected: Advice
) -> None:
    assert advice(state, policy) == expected


@pytest.mark.parametrize(
    ("state", "policy"),
    [
        ("limit=9, remaining=1, reset=5", "9;w=60"),
        ('"p";r=-1;t=5', '"p";q=-1;w=60'),
        ('"p";r=x;t=5', '"p";q=0;w=60'),
        ('"p";r=1;t=0', '"p";q=5'),
        ('"p";r=1;t=999999999', '"p";q=1;w=999999999'),
        ('"p";t=5', '"p";w=5'),
        ('"p', '"'),
        ('"p";r=1;t=5' + " " * 2000, ""),
    ],
)
def test_unusable_fields_tell_nothing(state: str, policy: str) -> None:
    assert advice(state, policy) is None


@given(st.text('"\\;,= rtqw059ab', max_size=80), st.text('"\\;,= rtqw059ab', max_size=80))
def test_any_field_is_read_without_an_error(state: str, policy: str) -> None:
    found = advice(state, policy)
    assert found is None or found.remaining is not None or found.limit is not None
