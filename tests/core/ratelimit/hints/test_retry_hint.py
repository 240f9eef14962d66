"""The hint of a 429, in each form that it can have."""

import json
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanonets_proxy.core.ratelimit.hints.retry_hint import MAX_HINT_S, Hint, read_hint

NOW_S = 1_800_000_000.0


def from_header(name: str, value: str) -> float | None:
    return read_hint([(name.encode(), value.encode("latin-1"))], b"", wall_now_s=NOW_S).retry_after_s


def from_body(body: bytes) -> float | None:
    return read_hint([], body, wall_now_s=NOW_S).retry_after_s


def test_a_429_without_fields_or_body_has_no_hint() -> None:
    assert read_hint([], b"", wall_now_s=NOW_S) == Hint(None, sources_disagree=False)


def test_the_documented_v4_body_is_a_hint() -> None:
    body = b'{"code":"rate_limit_exceeded","message":"Rate limit exceeded","details":{"retry_after":60}}'
    assert from_body(body) == 60


@pytest.mark.parametrize(
    ("written", "hint_s"),
    [("0", 0), ("1.5", 1.5), ('"30"', 30), ('" 2.5 "', 2.5), ("6e1", 60), ("604800", 604_800)],
)
def test_a_number_in_the_body_is_a_hint(written: str, hint_s: float) -> None:
    assert from_body(b'{"details":{"retry_after":%s}}' % written.encode()) == hint_s


@pytest.mark.parametrize(
    "written",
    [
        "-1", "NaN", "Infinity", "-Infinity", "true", "false", "null", "[]", "{}", '""', '"soon"', '"1_0"', '"1e3"',
        '"inf"', '"\u0663"', "604801", "1e400", "9" * 400, "9" * 5000,
    ],
)  # fmt: skip
def test_an_unusable_value_in_the_body_is_no_hint(written: str) -> None:
    assert from_body(b'{"details":{"retry_after":%s}}' % written.encode()) is None


@pytest.mark.parametrize(
    "body",
    [
        b"Too many requests",
        b'{"details":{"retry_after":60',
        b'{"retry_after":60}',
        b'{"details":[60]}',
        b'[{"details":{"retry_after":60}}]',
        b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03",
        b"\xff\xfe\xfd",
        b"[" * 100_000,
        b'{"details":' * 50_000,
    ],
)
def test_a_body_of_another_form_has_no_hint(body: bytes) -> None:
    assert from_body(body) is None


@pytest.mark.parametrize("value", ["30", " 30 ", "030"])
def test_retry_after_in_seconds_is_a_hint(value: str) -> None:
    assert from_header("Retry-After", value) == 30


@pytest.mark.parametrize(
    "value",
    [
        "Sun, 06 Nov 1994 08:49:37 GMT",
        "Sunday, 06-Nov-94 08:49:37 GMT",
        "Sun Nov  6 08:49:37 1994",
        "Sun, 06 Nov 1994 08:49:37 -0000",
    ],
)
def test_retry_after_may_be_a_date_in_each_form_of_rfc_9110(value: str) -> None:
    hint = read_hint([(b"retry-after", value.encode())], b"", wall_now_s=784_111_777 - 90.5)
    assert hint.retry_after_s == 90.5


@pytest.mark.parametrize(
    "value",
    [
        "", "-5", "+5", "soon", "1e3", "inf", "5s", "9" * 30, "604801", "5" * 2000,
        "Sun, 06 Nov 1994 08:49:37 GMT", "Sun, 99 Nov 2099 08:49:37 GMT", "Fri, 01 Jan 99999 00:00:00 GMT",
        "Fri, 01 Jan 0000 00:00:00 GMT",
    ],
)  # fmt: skip
def test_an_unusable_retry_after_is_no_hint(value: str) -> None:
    assert from_header("Retry-After", value) is None


@pytest.mark.parametrize(
    ("value", "hint_s"),
    [
        ('"default";r=0;t=30', 30),
        ('"default";t=30', 30),
        ('"a;t=99";r=0;t=30', 30),
        ('"a\\",;t=99";r=0;t=30', 30),
        ('"burst";r=0;t=2, "day";r=0;t=500', 500),
        ('"burst";r=0;t=2, "day";r=90;t=500', 2),
        ("default;r=0;t=30", 30),
        ("burst;r=0;t=2,day;r=90;t=500", 2),
        ("limit=100, remaining=0, reset=50", 50),
        ("limit=100,remaining=0,reset=50", 50),
        ("limit=100, reset=50", 50),
    ],
)
def test_the_ratelimit_field_of_both_drafts_is_a_hint(value: str, hint_s: float) -> None:
    assert from_header("RateLimit", value) == hint_s


@pytest.mark.parametrize(
    "value",
    [
        "",
        '"default";r=5;t=30',
        '"default"',
        '"default";r=0;t=-3',
        '"default";t=x',
        '"t=5',
        "limit=9, remaining=1, reset=5",
    ],
)
def test_a_ratelimit_field_with_requests_remaining_or_bad_syntax_is_no_hint(value: str) -> None:
    assert from_header("RateLimit", value) is None


def test_the_reset_fields_are_in_seconds() -> None:
    assert from_header("RateLimit-Reset", "12") == 12
    assert from_header("X-RateLimit-Reset", "12") == 12
    assert from_header("X-RateLimit-Reset", "soon") is None


def test_x_ratelimit_reset_may_be_in_seconds_since_the_epoch() -> None:
    assert from_header("X-RateLimit-Reset", f"{NOW_S + 45:.0f}") == 45
    assert from_header("X-RateLimit-Reset", f"{NOW_S - 45:.0f}") is None
    assert from_header("X-RateLimit-Reset", f"{NOW_S * 1000:.0f}") is None
    assert from_header("RateLimit-Reset", f"{NOW_S + 45:.0f}") is None


@pytest.mark.parametrize("skew_s", [-7200, -90.5, 3.25, 3600, 86_400])
def test_dates_are_measured_against_the_date_of_the_same_response(skew_s: float) -> None:
    theirs_s = int(NOW_S + skew_s)
    date = (b"Date", formatdate(theirs_s, usegmt=True).encode())
    later = formatdate(theirs_s + 30, usegmt=True).encode()
    assert read_hint([date, (b"Retry-After", later)], b"", wall_now_s=NOW_S).retry_after_s == pytest.approx(30)
    epoch = (b"X-RateLimit-Reset", b"%d" % (theirs_s + 30))
    assert read_hint([epoch, date], b"", wall_now_s=NOW_S).retry_after_s == pytest.approx(30)


@pytest.mark.parametrize("date", [formatdate(NOW_S, usegmt=True).encode(), b"soon", b"9" * 2000])
def test_a_date_that_agrees_with_our_clock_or_is_no_date_leaves_the_fractions_of_our_clock(date: bytes) -> None:
    headers = [(b"Date", date), (b"Retry-After", formatdate(NOW_S + 30, usegmt=True).encode())]
    assert read_hint(headers, b"", wall_now_s=NOW_S + 0.75).retry_after_s == 29.25


def test_a_429_may_say_that_a_quota_is_used_up_for_long() -> None:
    assert read_hint([], b'{"detail":"Daily rate limit exceeded"}', wall_now_s=NOW_S).quota_used_up
    body = b'{"message":"monthly quota","details":{"retry_after":9}}'
    assert read_hint([], body, wall_now_s=NOW_S) == Hint(9.0, sources_disagree=False, quota_used_up=True)


def test_the_largest_usable_hint_counts_and_a_disagreement_is_reported() -> None:
    headers = [(b"X-Other", b"99"), (b"RETRY-AFTER", b"5"), (b"Retry-After", b"-1"), (b"ratelimit-reset", b"20")]
    body = b'{"details":{"retry_after":60}}'
    assert read_hint(headers, body, wall_now_s=NOW_S) == Hint(60.0, sources_disagree=True)
    assert read_hint(headers[:3], b"", wall_now_s=NOW_S) == Hint(5.0, sources_disagree=False)


def test_sources_that_differ_by_rounding_agree() -> None:
    headers = [(b"Retry-After", formatdate(NOW_S + 60, usegmt=True).encode()), (b"Retry-After", b"61")]
    assert read_hint(headers, b"", wall_now_s=NOW_S + 0.5) == Hint(61.0, sources_disagree=True)
    assert read_hint(headers, b"", wall_now_s=NOW_S) == Hint(61.0, sources_disagree=False)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["details", "retry_after"]), inner),
)
BODIES = st.binary() | JSON.map(lambda document: json.dumps(document).encode())
NAMES = st.sampled_from([b"Retry-After", b"RateLimit", b"RateLimit-Reset", b"X-RateLimit-Reset"]) | st.binary()
VALUES = (
    st.binary()
    | st.text(alphabet='0123456789.,;= "\\rteslimn', max_size=60).map(str.encode)
    | st.builds("{}, {} {} {} {}:{}:{} {}".format, *[st.text(max_size=5) | st.integers()] * 8).map(str.encode)
    | st.integers().map(lambda number: str(number).encode())
)


@given(
    st.lists(st.tuples(NAMES, VALUES), max_size=5),
    BODIES,
    st.floats(min_value=0, max_value=1e11),
)
def test_any_429_gives_a_bounded_hint_or_none(
    headers: list[tuple[bytes, bytes]], body: bytes, wall_now_s: float
) -> None:
    hint = read_hint(headers, body, wall_now_s=wall_now_s)
    assert hint.retry_after_s is None or 0 <= hint.retry_after_s <= MAX_HINT_S
    assert not (hint.retry_after_s is None and hint.sources_disagree)
