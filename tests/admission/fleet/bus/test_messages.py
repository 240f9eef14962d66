"""The form of messages: each field is checked before anything acts on the message."""

import math
import re
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanonets_proxy.admission.fleet.bus.messages import read
from support.gate.fleet_messages import EXAMPLES, changed, example

FLEET_PAGE = Path(__file__).parents[4] / "docs" / "fleet-protocol.md"

json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
)


def numbers(value: Any) -> list[float]:
    if isinstance(value, dict):
        return [each for inner in value.values() for each in numbers(inner)]
    if isinstance(value, list | tuple):
        return [each for inner in value for each in numbers(inner)]
    return [value] if isinstance(value, int | float) else []


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_well_formed_message_is_read(name: str) -> None:
    assert read(example(name)) == ""


def test_each_message_of_the_documentation_has_a_form() -> None:
    table = FLEET_PAGE.read_text().split("## Messages", 1)[1].split("\n## ", 1)[0]
    named = {name for row in re.findall(r"^\| (`.*?) \|", table, re.M) for name in re.findall(r"`(\w+)`", row)}
    assert named - {"t"} == {name.split(" ", maxsplit=1)[0] for name in EXAMPLES}


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_message_with_a_strange_value_is_malformed_or_harmless(name: str) -> None:
    refused = 0
    for what, message in changed(name):
        message = orjson.loads(orjson.dumps(message))
        try:
            read(message)
        except ValueError:
            refused += 1
        else:
            assert all(math.isfinite(each) and abs(each) <= 1e15 for each in numbers(message)), what
            assert len(str(message)) < 3000, what
    assert refused > 0 or not EXAMPLES[name]


@given(json, json, st.sampled_from(sorted(EXAMPLES)))
def test_whatever_the_fields_hold_a_message_is_read_or_malformed(value: Any, kind: Any, name: str) -> None:
    for message in ({"t": kind}, *({**example(name), field: value} for field in EXAMPLES[name])):
        try:
            read(message)
        except ValueError:
            continue


@pytest.mark.parametrize(
    ("name", "field"), [("beat", "beliefs"), ("hello", "beliefs"), ("beat of two versions", "told")]
)
def test_limits_that_cannot_be_read_are_left_out_of_their_message(name: str, field: str) -> None:
    """The rest of a beat says that a leader decides: a share beside it would be too much."""
    message = example(name)
    document = message[field] if name == "beat" else message[field][2]
    document["scopes"][0]["period_s"] = -1.0
    assert "period_s" in read(message)
    assert message.get(field) == (None if name == "beat" else (5, 1.5, [], 3, 0.5))


def test_a_claim_is_in_use_once() -> None:
    message = example("hello")
    message["held"] *= 2
    with pytest.raises(ValueError, match="held is malformed"):
        read(message)
