"""The texts of 429s that name a quota which is used up for long."""

import pytest

from nanonets_proxy.core.ratelimit.hints.quota_text import names_long_quota


@pytest.mark.parametrize(
    "body",
    [
        b'{"detail":"Daily rate limit exceeded. Please try again tomorrow."}',
        b'{"code":"quota_exceeded","message":"You have used all 500 pages of this month","details":{}}',
        b'{"message":"Monthly quota exceeded"}',
        b"1000 requests per day",
        b"requests_per_day exceeded",
        b'{"message":"Insufficient credits. Please upgrade your plan."}',
        b"limit of the billing period reached",
    ],
)
def test_a_day_a_month_or_credits_name_a_long_quota(body: bytes) -> None:
    assert names_long_quota(body)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b'{"code":"rate_limit_exceeded","message":"Rate limit exceeded","details":{"retry_after":60}}',
        b"Too many requests, 20 pages per minute",
        b"accredited",
        b"holidaying at the Monday market",
        b"tomorrow" + b" " * 5000,
    ],
)
def test_other_texts_do_not(body: bytes) -> None:
    assert not names_long_quota(body)
