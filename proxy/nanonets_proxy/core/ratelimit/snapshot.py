"""The limits as values, and as the JSON document of the state file.

Instants are stored relative to the moment of saving. `load` returns how long ago that was.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from nanonets_proxy.core.ratelimit.hints.retry_hint import MAX_HINT_S
from nanonets_proxy.core.ratelimit.scopes.static_limits import MAX_COUNT, MAX_PERIOD_S

VERSION = 1
_MAX_SCOPES = 10_000
_MAX_GRANTS = 20_000  # the state file has at most 4 MiB
MAX_GRANTS_OF_SCOPE = 1000
"""If more requests count, `used` and `newest_age_s` stand for them, as if all were as young as the newest."""


@dataclass(frozen=True, slots=True)
class ScopeSnapshot:
    """The limit of one scope: `count` requests in `period_s`, of which `proven` are proven.

    A scope whose limit is unknown has no `count`: only `opens_in_s` and `grants` are set then.
    """

    scope: str
    count: float | None
    period_s: float
    proven: float
    concurrency_limit: float | None
    """The most requests in flight; None: no limit is known."""
    used: int
    """The number of requests that still counted."""
    newest_age_s: float
    """How long ago the newest of these requests was granted."""
    opens_in_s: float
    """How long the scope stays closed; 0 if it is open."""
    pause_periods: float = 1.0
    """How many periods the next pause between two probes for a higher limit lasts."""
    probe_in_s: float = 0.0
    """When the next such probe is due."""
    probe_refusals: int = 0
    """How many such probes were refused."""
    probe_step: float = 1.0
    """How large the next step to a shorter period is; halved by each refusal."""
    refused_period_s: float = 0.0
    """A period this short was refused; 0: none was."""
    hints_are_exact: bool = False
    """Whether hints have named the true end of a period."""
    latest_hint_s: float = 0.0
    """The hint of the latest refusal; 0 if it had none."""
    refusal_delay_s: float = 0.0
    """How long a 429 usually takes: requests count for a little longer than the period. 0: unknown."""
    grants: tuple[tuple[float, float], ...] = ()
    """How long ago each of the latest requests was granted, and its cost; the oldest first. Empty: unknown."""


def unknown(scope: str, opens_in_s: float, grants: tuple[tuple[float, float], ...] = ()) -> ScopeSnapshot:
    """Returns the snapshot of a scope whose limit is unknown."""
    return ScopeSnapshot(scope, None, 0.0, 0.0, None, 0, 0.0, opens_in_s, grants=grants)


def dump(snapshots: Iterable[ScopeSnapshot], upstream: str, saved_at_s: float) -> dict[str, Any]:
    """Returns the JSON document; `saved_at_s` is in seconds since the epoch.

    Keeps at most 10,000 scopes, and drops those with an unknown limit first. Keeps at most 20,000 grants.
    """
    kept = sorted(snapshots, key=lambda snapshot: snapshot.count is None)[:_MAX_SCOPES]
    scopes, room = [], _MAX_GRANTS
    for snapshot in kept:
        document = _to_document(snapshot)
        if snapshot.grants and len(snapshot.grants) <= room:
            room -= len(snapshot.grants)
            document["grants"] = [list(grant) for grant in snapshot.grants]
        scopes.append(document)
    return {"version": VERSION, "upstream": upstream, "saved_at_s": saved_at_s, "scopes": scopes}


def load(document: object, upstream: str, now_s: float) -> tuple[list[ScopeSnapshot], float]:
    """Returns the scopes, and the seconds since the document was saved: 0 if the clock went backwards.

    Raises ValueError for anything but a document of this version and this upstream.
    """
    if not isinstance(document, Mapping) or document.get("version") != VERSION:
        raise ValueError(f"it is not a state file of version {VERSION}")
    if document.get("upstream") != upstream:
        raise ValueError("it belongs to another upstream")
    saved_at_s, scopes = document.get("saved_at_s"), document.get("scopes")
    if not isinstance(saved_at_s, int | float) or not 0 <= saved_at_s < math.inf or not isinstance(scopes, list):
        raise ValueError("it lacks a valid saved_at_s or scopes")
    return [_from_document(scope) for scope in scopes[:_MAX_SCOPES]], max(0.0, now_s - saved_at_s)


def _to_document(snapshot: ScopeSnapshot) -> dict[str, Any]:
    # The keys "sure" and "cap" stay as files of version 1 have them.
    return {
        "scope": snapshot.scope,
        "count": snapshot.count,
        "period_s": snapshot.period_s,
        "sure": snapshot.proven,
        "cap": snapshot.concurrency_limit,
        "used": snapshot.used,
        "newest_age_s": snapshot.newest_age_s,
        "opens_in_s": snapshot.opens_in_s,
        "pause_periods": snapshot.pause_periods,
        "probe_in_s": snapshot.probe_in_s,
        "probe_refusals": snapshot.probe_refusals,
        "probe_step": snapshot.probe_step,
        "refused_period_s": snapshot.refused_period_s,
        "hints_are_exact": snapshot.hints_are_exact,
        "latest_hint_s": snapshot.latest_hint_s,
        "refusal_delay_s": snapshot.refusal_delay_s,
    }


def _from_document(document: object) -> ScopeSnapshot:
    if not isinstance(document, dict) or not isinstance(scope := document.get("scope"), str):
        raise ValueError("a scope has no name")  # noqa: TRY004 - every fault of a file is a ValueError
    opens_in_s = _number(document, "opens_in_s", 0, MAX_HINT_S)
    if document.get("count", 0) is None:
        return unknown(scope, opens_in_s, _grants(document))
    has_concurrency_limit = document.get("cap") is not None
    return ScopeSnapshot(
        scope=scope,
        count=_number(document, "count", 1, MAX_COUNT),
        period_s=_number(document, "period_s", 1e-6, MAX_PERIOD_S),
        proven=_number(document, "sure", 0, MAX_COUNT),
        concurrency_limit=_number(document, "cap", 1, MAX_COUNT) if has_concurrency_limit else None,
        used=int(_number(document, "used", 0, MAX_COUNT)),
        newest_age_s=_number(document, "newest_age_s", 0, MAX_PERIOD_S),
        opens_in_s=opens_in_s,
        pause_periods=_number(_ABSENT | document, "pause_periods", 1, MAX_COUNT),
        probe_in_s=_number(_ABSENT | document, "probe_in_s", 0, MAX_PERIOD_S),
        probe_refusals=int(_number(_ABSENT | document, "probe_refusals", 0, MAX_COUNT)),
        probe_step=_number(_ABSENT | document, "probe_step", 0, MAX_COUNT),
        refused_period_s=_number(_ABSENT | document, "refused_period_s", 0, MAX_PERIOD_S),
        hints_are_exact=document.get("hints_are_exact") is True,
        latest_hint_s=_number(_ABSENT | document, "latest_hint_s", 0, MAX_HINT_S),
        refusal_delay_s=_number(_ABSENT | document, "refusal_delay_s", 0, MAX_PERIOD_S),
        grants=_grants(document),
    )


def _grants(document: Mapping[str, Any]) -> tuple[tuple[float, float], ...]:
    """Returns the grants, the oldest first; none if the document has none, as those of earlier releases."""
    grants = document.get("grants", [])
    if not isinstance(grants, list) or len(grants) > MAX_GRANTS_OF_SCOPE:
        raise ValueError(f"grants of a scope are not a list of at most {MAX_GRANTS_OF_SCOPE}")
    read = []
    for grant in grants:
        if not isinstance(grant, list) or len(grant) != 2:
            raise ValueError("a grant of a scope is not an age and a cost")
        named = {"age": grant[0], "cost": grant[1]}
        read.append((_number(named, "age", 0, MAX_PERIOD_S), _number(named, "cost", 0, MAX_COUNT)))
    return tuple(sorted(read, reverse=True))


_ABSENT = {
    "pause_periods": 1.0,
    "probe_in_s": 0.0,
    "probe_refusals": 0,
    "probe_step": 1.0,
    "refused_period_s": 0.0,
    "latest_hint_s": 0.0,
    "refusal_delay_s": 0.0,
}  # the files of earlier releases lack them


def _number(document: Mapping[str, Any], name: str, least: float, most: float) -> float:
    number = document.get(name)
    if isinstance(number, bool) or not isinstance(number, int | float) or not least <= number <= most:
        raise ValueError(f"{name} of a scope is not a number from {least} to {most}")
    return number
