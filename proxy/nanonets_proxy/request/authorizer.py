"""Who calls, whether that may be called, and how often: what the settings ask beyond the guard. All of it is off
by default, and then there is no door."""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import structlog
from prometheus_client import CollectorRegistry, Counter

from nanonets_proxy.core.access.access_rules import AccessRules
from nanonets_proxy.core.access.caller_tokens import CallersByToken, CallerToken, token_from_authorization
from nanonets_proxy.core.access.daily_budget import DailyBudget
from nanonets_proxy.core.http.target import loggable_target
from nanonets_proxy.errors import BudgetUsedUp, ForbiddenByPolicy, UnknownCaller
from nanonets_proxy.server.peers import Peer

_BY_RULE = "rule: "


@dataclass(frozen=True, slots=True)
class AuthorizerPolicy:
    """`own_header`: the token stands in a field of its own, as it is. `dry_run`: what the policy and the budget
    would refuse is logged and goes."""

    own_header: bool
    policy: AccessRules | None
    budget: DailyBudget | None
    dry_run: bool


class Authorizer:
    """Asked once for each request, behind the guard."""

    def __init__(self, policy: AuthorizerPolicy, registry: CollectorRegistry) -> None:
        self._policy = policy
        self._callers: CallersByToken | None = None
        self._log = structlog.get_logger()
        self._refused = Counter(
            "nanonets_proxy_policy_refusals",
            "Requests that the policy or a budget refused, or would have in a dry run.",
            ["reason"],
            registry=registry,
        )

    def use_tokens(self, tokens: Iterable[CallerToken]) -> None:
        """From now on every caller needs one of these. ValueError: two callers have the same."""
        self._callers = CallersByToken(tokens)

    def identify(self, peer: Peer, credentials: bytes | None) -> str | None:
        """The proven name of the caller, None where none is asked for. Raises UnknownCaller."""
        if peer.certificate is not None:
            return peer.certificate
        if self._callers is None:
            return None
        token = (
            credentials if self._policy.own_header or credentials is None else token_from_authorization(credentials)
        )
        name = None if token is None else self._callers.caller_of(token)
        if name is None:
            raise UnknownCaller(
                "A caller's token is needed, as Authorization: Bearer or as the API key of a client."
            )
        return name

    def check(self, caller: str, method: str, target: str, names: Iterable[bytes]) -> None:
        """`names` are those of the request's fields. Raises ForbiddenByPolicy or BudgetUsedUp."""
        policy, budget = self._policy.policy, self._policy.budget
        if policy is not None:
            denial = policy.judge(caller, method, target, (name.lower() for name in names))
            if denial is not None and not self._passes(denial.reason, caller, method, target):
                raise ForbiddenByPolicy("The proxy's policy does not allow this call.", reason=denial.reason)
        if budget is not None:
            again_s = budget.take(caller, time.time())
            if again_s is not None and not self._passes("daily_budget", caller, method, target):
                raise BudgetUsedUp("Today's requests of this caller are used up.", retry_after_s=again_s)

    def _passes(self, reason: str, caller: str, method: str, target: str) -> bool:
        self._refused.labels("rule" if reason.startswith(_BY_RULE) else reason).inc()
        if self._policy.dry_run:
            facts: dict[str, Any] = {"caller": caller, "method": method, "path": loggable_target(target)}
            self._log.warning("policy_would_refuse", reason=reason, **facts)
        return self._policy.dry_run
