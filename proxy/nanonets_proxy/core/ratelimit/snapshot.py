"""What the gate knows of the limits, as a value that outlives the process.

Instants are kept as distances to the moment of saving; how long the program was away is the reader's to say.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from nanonets_proxy.core.ratelimit.retry_hint import MAX_HINT_S

VERSION = 1
_MAX_SCOPES = 10_000
_MAX_COUNT = 1e9
_MAX_PERIOD_S = 10 * MAX_HINT_S


@dataclass(frozen=True, slots=True)
class ScopeSnapshot:
    """One scope: `count` requests in `period_s`, of which `sure` proven; `cap` in flight, None for no cap.

    Without a `count` nothing was learned yet, and all but `opens_in_s` is 0 or None.
    """

    scope: str
    count: float | None
    period_s: float
    sure: float
    cap: float | None
    used: int
    """How many requests counted."""
    newest_age_s: float
    """How long ago the last of them was granted."""
    opens_in_s: float
    """How long the scope was still closed; 0 if it was open."""


def closed(scope: str, opens_in_s: float) -> ScopeSnapshot:
    """Of a scope that is closed, and nothing else is known of it."""
    return ScopeSnapshot(scope, None, 0.0, 0.0, None, 0, 0.0, opens_in_s)


def dump(memories: Iterable[ScopeSnapshot], upstream: str, saved_at_s: float) -> dict[str, Any]:
    """A JSON object; `saved_at_s` is in seconds since the epoch. Of too many, the only closed are left out."""
    kept = sorted(memories, key=lambda memory: memory.count is None)[:_MAX_SCOPES]
    scopes = [asdict(memory) for memory in kept]
    return {"version": VERSION, "upstream": upstream, "saved_at_s": saved_at_s, "scopes": scopes}


def load(document: object, upstream: str, now_s: float) -> tuple[list[ScopeSnapshot], float]:
    """The scopes, and for how many seconds the program was away: 0 where the clock went backwards.

    ValueError: it is not ours, of another version, or of another upstream.
    """
    if not isinstance(document, Mapping) or document.get("version") != VERSION:
        raise ValueError(f"it is no state of version {VERSION}")
    if document.get("upstream") != upstream:
        raise ValueError("it is of another upstream")
    saved_at_s, scopes = document.get("saved_at_s"), document.get("scopes")
    if not isinstance(saved_at_s, int | float) or not 0 <= saved_at_s < math.inf or not isinstance(scopes, list):
        raise ValueError("it lacks saved_at_s or scopes")
    return [_scope(scope) for scope in scopes[:_MAX_SCOPES]], max(0.0, now_s - saved_at_s)


def _scope(document: object) -> ScopeSnapshot:
    if not isinstance(document, Mapping) or not isinstance(scope := document.get("scope"), str):
        raise ValueError("a scope has no name")  # noqa: TRY004 - whatever is wrong with a file is a wrong value
    opens_in_s = _number(document, "opens_in_s", 0, MAX_HINT_S)
    if document.get("count", 0) is None:
        return closed(scope, opens_in_s)
    cap = document.get("cap")
    return ScopeSnapshot(
        scope=scope,
        count=_number(document, "count", 1, _MAX_COUNT),
        period_s=_number(document, "period_s", 1e-6, _MAX_PERIOD_S),
        sure=_number(document, "sure", 0, _MAX_COUNT),
        cap=None if cap is None else _number(document, "cap", 1, _MAX_COUNT),
        used=int(_number(document, "used", 0, _MAX_COUNT)),
        newest_age_s=_number(document, "newest_age_s", 0, _MAX_PERIOD_S),
        opens_in_s=opens_in_s,
    )


def _number(document: Mapping[str, Any], name: str, least: float, most: float) -> float:
    number = document.get(name)
    if isinstance(number, bool) or not isinstance(number, int | float) or not least <= number <= most:
        raise ValueError(f"{name} of a scope is not a number from {least} to {most}")
    return number
