"""Limits from the settings: their text, and how the gate keeps to them."""

import math
import re

import pytest

from nanonets_proxy.core.ratelimit.scopes.static_limits import StaticLimit, StaticLimits
from nanonets_proxy.core.ratelimit.tickets import Outcome, Ticket
from support.gate.gate_scene import GateScene


@pytest.mark.parametrize(
    ("text", "scope", "count", "period_s"),
    [
        ("account 60/minute", "account", 60, 60.0),
        ("v2:predict:* 20/60s", "v2:predict:*", 20, 60.0),
        ("  x 5 / 2 h ", "x", 5, 7200.0),
        ("x 1/day", "x", 1, 86400.0),
        ("x 3 requests/s", "x", 3, 1.0),
        ("x 999999999/3660 days", "x", 999_999_999, 3660 * 86_400.0),
    ],
)
def test_a_limit_is_parsed_and_written(text: str, scope: str, count: int, period_s: float) -> None:
    assert StaticLimit.parse(text) == StaticLimit(scope, count, period_s)
    assert StaticLimit.parse(str(StaticLimit.parse(text))) == StaticLimit.parse(text)


@pytest.mark.parametrize("text", ["v2:* 20 pages/minute", "v2:* 20pages / 60s", "v2:* 20 page/m"])
def test_a_limit_may_be_in_pages(text: str) -> None:
    assert StaticLimit.parse(text) == StaticLimit("v2:*", 20, 60.0, "pages")
    assert str(StaticLimit.parse(text)) == "v2:* 20 pages/60s"


@pytest.mark.parametrize(
    "text",
    [
        "a 1 sheets/s",
        "",
        "account",
        "60/minute",
        "account 60",
        "account 0/s",
        "account 1/0s",
        "a 1/month",
        "a 1/3661days",
    ],
)
def test_a_bad_limit_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(repr(text))):
        StaticLimit.parse(text)


def test_the_first_matching_limit_applies() -> None:
    static_limits = StaticLimits(tuple(map(StaticLimit.parse, ["v2:predict:big 5/minute", "v2:* 20/minute"])))
    assert static_limits.of("v2:predict:big") == StaticLimit("v2:predict:big", 5, 60.0)
    assert static_limits.of("v2:other") == StaticLimit("v2:*", 20, 60.0)
    assert static_limits.of("account") is None


def test_a_static_limit_holds_from_the_start_and_is_never_exceeded() -> None:
    scene = GateScene("account 5/minute")
    scene.ask(100)
    for _ in range(4):
        assert scene.go() == 5
        scene.now += 59.9
        assert scene.go() == 0
        scene.now += 0.1


def test_the_estimate_of_a_static_limit_falls_and_rises_back_to_it() -> None:
    scene = GateScene("account 10/minute")
    scene.ask(200)
    granted = scene.gate.poll(scene.now).granted
    for permit in granted[:6]:
        scene.gate.settle(permit, Outcome.SERVED, scene.now)
    for permit in granted[6:]:
        scene.gate.settle(permit, Outcome.THROTTLED, scene.now, 60.0)
        assert scene.gate.enqueue(permit, scene.now) is None
    scene.gate.poll(scene.now)
    scene.now += 60
    assert scene.go() == 6
    most = 0
    for _ in range(40):
        scene.now += 60
        most = max(most, scene.go())
    assert most == 10


def test_a_recovery_probe_keeps_to_the_static_limit() -> None:
    scene = GateScene("account 3/minute")
    for _ in range(2):
        assert scene.gate.try_admit(Ticket("account", math.inf), scene.now)
    refused = Ticket("account", math.inf)
    assert scene.gate.try_admit(refused, scene.now)
    scene.gate.settle(refused, Outcome.THROTTLED, scene.now, 2.5)
    large = Ticket("account", math.inf, cost=2)
    assert scene.gate.enqueue(large, scene.now) is None
    scene.gate.poll(scene.now)
    verdicts = scene.gate.poll(scene.now + 30)
    assert verdicts.granted == []
    assert verdicts.wake_at_s is not None
    assert scene.now + 60 <= verdicts.wake_at_s < scene.now + 63
    assert scene.gate.poll(verdicts.wake_at_s).granted == [large]
