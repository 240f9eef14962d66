"""Parsing and validation of a sandbox's settings."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanonets_proxy.sandbox.policy import LimitRule, SandboxPolicy, make_key


@pytest.mark.parametrize(
    ("text", "count", "per_s"),
    [
        ("20/60s", 20, 60),
        ("60/minute", 60, 60),
        ("5/2s", 5, 2),
        ("1/500ms", 1, 0.5),
        ("10/1.5 s", 10, 1.5),
        ("7/hour", 7, 3600),
        (" 2/Day ", 2, 86400),
    ],
)
def test_a_limit_is_a_count_and_a_window(text, count, per_s):
    assert LimitRule.parse(text) == LimitRule(count, per_s)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "not COUNT/WINDOW"),
        ("20", "not COUNT/WINDOW"),
        ("5/-2s", "not COUNT/WINDOW"),
        ("5/2s/3", "not COUNT/WINDOW"),
        ("0/60s", "count"),
        ("-1/60s", "count"),
        ("1.5/60s", "count"),
        ("many/60s", "count"),
        ("9999999999/s", "count"),
        ("5/60", "unit"),
        ("5/", "unit"),
        ("5/2 weeks", "unit"),
        ("5/0s", "longer than 0"),
    ],
)
def test_an_invalid_limit_is_reported_in_one_sentence(text, complaint):
    with pytest.raises(ValueError, match=complaint) as caught:
        LimitRule.parse(text)
    assert repr(text) in str(caught.value)
    assert "\n" not in str(caught.value)


@given(st.integers(1, 10**9 - 1), st.integers(1, 10**6).map(lambda eighths: eighths / 8))
def test_a_limit_can_be_parsed_from_its_text(count, per_s):
    rule = LimitRule(count, per_s)
    assert LimitRule.parse(str(rule)) == rule


@given(st.text(max_size=20))
def test_parsing_any_text_gives_a_limit_or_a_value_error(text):
    try:
        LimitRule.parse(text)
    except ValueError as exc:
        assert str(exc).startswith(repr(text))  # noqa: PT017 - both outcomes are valid


@pytest.mark.parametrize(("count", "per_s"), [(0, 1), (1, 0), (1, float("inf")), (1, float("nan"))])
def test_an_invalid_limit_cannot_be_constructed(count, per_s):
    with pytest.raises(ValueError, match="of a limit must be"):
        LimitRule(count, per_s)


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"api_keys": ("",)}, "key"),
        ({"api_keys": ("a:b",)}, "key"),
        ({"latency_s": -1}, "latency_s"),
        ({"latency_s": float("nan")}, "latency_s"),
        ({"failure_rate": 1.5}, "failure_rate"),
        ({"pending_polls": -1}, "pending_polls"),
        ({"max_body_bytes": 0}, "max_body_bytes"),
    ],
)
def test_an_invalid_policy_is_rejected_with_the_settings_name(settings, name):
    with pytest.raises(ValueError, match=name):
        SandboxPolicy(**{"api_keys": (), **settings})


def test_generated_keys_are_valid_and_differ():
    first, second = make_key(), make_key()
    assert first != second
    assert SandboxPolicy(api_keys=(first, second)).api_keys == (first, second)
