"""What a policy would have rejected, judged by the routes of past requests.

A route is a template, so it stands for many paths. Plain text in a rule may or may not match a placeholder of the
route: `deny * /api/v4/workflows/42` concerns some requests of `/api/v4/workflows/{workflow}`. They are *possibly*
rejected. A route that ends with `other` stands for paths of any length.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from nanonets_proxy.core.access.access_rules import NOT_ALLOWED, READ_ONLY, AccessRule
from nanonets_proxy.core.access.budget_rule import BudgetRule
from nanonets_proxy.core.http.methods import SAFE_METHODS
from nanonets_proxy.core.usage.rollups import OTHER_METHODS

_REST: Final = "other"


class Match(IntEnum):
    """Whether a rule matches the requests of a route."""

    NO = 0
    SOME = 1
    """It depends on the values of the placeholders."""
    ALL = 2


@dataclass(frozen=True, slots=True)
class PolicyRejection:
    """Why requests of a route would be rejected."""

    reason: str
    is_certain: bool
    """False: only some of the requests, depending on their paths."""


def judge_route(
    rules: Iterable[AccessRule], caller: str, method: str, route: str, *, read_only: bool
) -> PolicyRejection | None:
    """Returns why the policy rejects requests of this caller, method and route; None: it allows them all."""
    if read_only and method not in SAFE_METHODS:
        return PolicyRejection(READ_ONLY, is_certain=True)
    own_allows: list[AccessRule] = []
    common_allows: list[AccessRule] = []
    possible: PolicyRejection | None = None
    for rule in rules:
        if rule.allows:
            if rule.caller in (None, caller):
                (common_allows if rule.caller is None else own_allows).append(rule)
        elif rule.caller in (None, caller) and (match := match_route(rule, method, route)):
            rejection = PolicyRejection(f"rule: {rule.text}", is_certain=match is Match.ALL)
            if rejection.is_certain:
                return rejection
            possible = possible or rejection
    allows = own_allows or common_allows
    if allows:
        best = max(match_route(rule, method, route) for rule in allows)
        if best is not Match.ALL:
            not_allowed = PolicyRejection(NOT_ALLOWED, is_certain=best is Match.NO)
            return not_allowed if not_allowed.is_certain else possible or not_allowed
    return possible


def match_route(rule: AccessRule, method: str, route: str) -> Match:
    """Returns whether the rule matches requests with this method and route."""
    match = Match.ALL
    if rule.methods and method not in rule.methods:
        if method != OTHER_METHODS:
            return Match.NO
        match = Match.SOME
    segments = route.split("/")[1:]
    has_rest = segments[-1:] == [_REST]  # an edited ledger may have a route without a slash
    if has_rest:
        segments.pop()
    if len(rule.segments) > len(segments):
        if not has_rest:
            return Match.NO
        match = Match.SOME
    elif not rule.is_prefix:
        if len(rule.segments) < len(segments):
            return Match.NO
        if has_rest:
            match = Match.SOME
    return min(match, _match_segments(rule, segments))


def _match_segments(rule: AccessRule, segments: Sequence[str]) -> Match:
    match = Match.ALL
    for own, other in zip(rule.segments, segments, strict=False):
        if own == "*":
            continue
        if other.startswith("{"):
            match = Match.SOME
        elif own != other and (rule.allows or own.casefold() != other.casefold()):
            return Match.NO
    return match


def beyond_budget(rules: Iterable[BudgetRule], requests_by_day: Mapping[int, Mapping[str, int]]) -> dict[str, int]:
    """Returns how many requests of each caller a daily budget would have rejected."""
    limits = {rule.caller: rule.count for rule in rules}
    rejected: dict[str, int] = {}
    for callers in requests_by_day.values():
        for caller, requests in callers.items():
            limit = limits.get(caller, limits.get(None))
            if limit is not None and requests > limit:
                rejected[caller] = rejected.get(caller, 0) + requests - limit
    return rejected
