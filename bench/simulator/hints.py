"""The hints of 429s: real header fields and bodies, which the proxy's `read_hint` reads."""

import json
import math
import random
from collections.abc import Callable
from email.utils import formatdate

from nanonets_proxy.core.ratelimit.hints.retry_hint import read_hint

WALL_START_S = 1_800_000_000.0

HintStyle = Callable[[float, float, float, random.Random], float | None]
"""(remaining wait, period, now, random) -> the hint as the proxy reads it, in seconds."""


def _read(headers: list[tuple[bytes, bytes]], body: object, now: float) -> float | None:
    return read_hint(headers, json.dumps(body).encode(), wall_now_s=WALL_START_S + now).retry_after_s


def _seconds(rest_s: float, period_s: float) -> float:
    """Returns the remaining wait; the period if the wait depends on a release."""
    return rest_s if rest_s < math.inf else period_s


def _body(seconds: object) -> object:
    return {"code": "rate_limit_exceeded", "message": "", "details": {"retry_after": seconds}}


def exact(rest_s: float, period_s: float, now: float, _: random.Random) -> float | None:
    return _read([], _body(_seconds(rest_s, period_s)), now)


def whole_seconds(rest_s: float, period_s: float, now: float, _: random.Random) -> float | None:
    """Gives whole seconds in the body, rounded up, as in the vendor's example."""
    return _read([], _body(math.ceil(_seconds(rest_s, period_s))), now)


def header(rest_s: float, period_s: float, now: float, _: random.Random) -> float | None:
    seconds = math.ceil(_seconds(rest_s, period_s))
    return _read([(b"Retry-After", b"%d" % seconds)], {}, now)


def date(rest_s: float, period_s: float, now: float, _: random.Random) -> float | None:
    at_s = math.ceil(WALL_START_S + now + _seconds(rest_s, period_s))
    return _read([(b"Retry-After", formatdate(at_s, usegmt=True).encode())], {}, now)


def disagreeing(rest_s: float, period_s: float, now: float, _: random.Random) -> float | None:
    """Gives half as many seconds in the header field as in the body."""
    seconds = _seconds(rest_s, period_s)
    return _read([(b"Retry-After", b"%d" % (seconds / 2))], _body(seconds), now)


def constant(rest_s: float, period_s: float, now: float, _: random.Random) -> float | None:
    return _read([], _body(period_s), now)


def always(seconds: float) -> HintStyle:
    """Returns the style of an upstream that sends this hint with each 429, whatever its limit is."""
    return lambda rest_s, period_s, now, rng: _read([], _body(seconds), now)


def none(rest_s: float, period_s: float, now: float, _: random.Random) -> float | None:
    return _read([], {}, now)


def garbage(rest_s: float, period_s: float, now: float, rng: random.Random) -> float | None:
    return _read([(b"Retry-After", b"soon")], _body(rng.choice([-5, "NaN", 1e300, None, [], "later"])), now)
