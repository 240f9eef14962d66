"""The command `policy test`: replays the usage ledger against the policy of a settings file."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

from nanonets_proxy.cli.ledger.usage import in_columns, span_text
from nanonets_proxy.core.status.text import printable
from nanonets_proxy.core.usage.policy_replay import PolicyRejection, beyond_budget, judge_route
from nanonets_proxy.core.usage.rollups import DAY_H
from nanonets_proxy.settings import Settings
from nanonets_proxy.telemetry.ledger.policy import SANDBOX
from nanonets_proxy.telemetry.ledger.reader import open_ledger

_EVERY: Final = "*"
_SERIES: Final = ("environment", "caller", "method", "route")


@dataclass(frozen=True, slots=True)
class Rejected:
    """Requests that the policy would reject. `certain` False: only some of them, depending on their paths."""

    environment: str
    caller: str
    method: str
    route: str
    requests: int
    certain: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Replay:
    """The result of a replay."""

    since_h: int
    until_h: int
    requests: int
    rejected: Sequence[Rejected]


def replay(path: Path, by_environment: Mapping[str, Settings], since_h: int, until_h: int) -> Replay:
    """Judges the requests of each environment by its settings. Without named environments, by the only settings.

    Raises DatabaseFault.
    """
    with open_ledger(path) as ledger:
        rows = ledger.by(_SERIES, since_h, until_h)
        days = list(ledger.requests_by_day(_SERIES, since_h // DAY_H, (until_h - 1) // DAY_H))
    policies = _Policies(by_environment)
    rejected = [
        Rejected(environment, caller, method, route, counts.requests, found.is_certain, found.reason)
        for (environment, caller, method, route), counts in rows
        if counts.requests and (found := policies.judge(environment, caller, method, route)) is not None
    ]
    rejected += policies.beyond_budgets(days)
    rejected.sort(key=lambda item: (not item.certain, -item.requests))
    return Replay(since_h, until_h, sum(counts.requests for _, counts in rows), rejected)


class _Policies:
    """The policy of each environment. One without a name is for all environments that have none of their own.

    No policy rejects the requests of a sandbox, which the ledger has under a name of their own.
    """

    def __init__(self, by_environment: Mapping[str, Settings]) -> None:
        self._by_environment = by_environment
        self.judge = lru_cache(None)(self._judge)

    def _of(self, environment: str) -> Settings | None:
        if environment == SANDBOX:
            return None
        return self._by_environment.get(environment, self._by_environment.get(""))

    def _judge(self, environment: str, caller: str, method: str, route: str) -> PolicyRejection | None:
        settings = self._of(environment)
        if settings is None:
            return None
        return judge_route(settings.policy, caller, method, route, read_only=settings.read_only)

    def beyond_budgets(self, days: Iterable[tuple[int, tuple[str, ...], int]]) -> Iterator[Rejected]:
        """Yields what daily budgets would have rejected of the requests that the rules allow, by whole days."""
        allowed: dict[str, dict[int, dict[str, int]]] = {}
        for day, (environment, caller, method, route), requests in days:
            found = self.judge(environment, caller, method, route)
            if found is None or not found.is_certain:
                callers = allowed.setdefault(environment, {}).setdefault(day, {})
                callers[caller] = callers.get(caller, 0) + requests
        for environment, by_day in allowed.items():
            settings = self._of(environment)
            budgets = () if settings is None else settings.daily_budget
            for caller, requests in beyond_budget(budgets, by_day).items():
                yield Rejected(environment, caller, _EVERY, _EVERY, requests, certain=True, reason="daily_budget")


def as_json(result: Replay) -> str:
    """Returns `{"requests": number, "rejected": [{"environment", "caller", "method", "route", "requests", …}]}`."""
    return json.dumps(
        {"requests": result.requests, "rejected": [asdict(item) for item in result.rejected]}, indent=2
    )


def as_text(result: Replay) -> str:
    """Returns the result for people: what would be rejected, then what might be."""
    span = span_text(result.since_h, result.until_h)
    certain = sum(item.requests for item in result.rejected if item.certain)
    possible = sum(item.requests for item in result.rejected if not item.certain)
    head = f"{span}: of {result.requests:,} requests, {certain:,} would be rejected"
    if possible:
        head += f", and up to {possible:,} more might be: it depends on the ids in their paths"
    if not result.rejected:
        return head
    lines = [
        ("", "requests", "caller", "method", "route", "reason"),
        *(
            (
                "rejected" if item.certain else "possible",
                f"{item.requests:,}",
                *(printable(text) for text in (item.caller, item.method, item.route, item.reason)),
            )
            for item in result.rejected
        ),
    ]
    return f"{head}\n{in_columns(lines, right=(1,))}"
