"""Authorizes requests beyond the peer guard: callers' tokens, access rules, daily budgets.

All three are off by default; then no authorizer exists.
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import structlog
from prometheus_client import CollectorRegistry, Counter

from nanonets_proxy.core.access.access_rules import AccessRules
from nanonets_proxy.core.access.caller_tokens import CallersByToken, CallerToken, tokens_in_authorization
from nanonets_proxy.core.access.daily_budget import DailyBudget
from nanonets_proxy.core.http.target import loggable_target
from nanonets_proxy.errors import BudgetUsedUp, ForbiddenByPolicy, ProxyError, UnknownCaller
from nanonets_proxy.server.peers import Peer
from nanonets_proxy.telemetry.finished_request import FinishedRequest

_BY_RULE = "rule: "
_USED_UP = "This caller has used up its daily budget."
_PART_USED_UP = (
    "This caller has used up the part of its daily budget that this replica may use while it is alone in its fleet."
)


@dataclass(frozen=True, slots=True)
class AuthorizerPolicy:
    """The checks of one environment; None: no such check."""

    has_token_header: bool
    """Whether the token has a header field of its own, without a scheme such as Bearer."""
    rules: AccessRules | None
    budget: DailyBudget | None
    dry_run: bool
    """Whether rejections are only logged and counted, while the requests are forwarded."""


class Authorizer:
    """Checks each request once, after the peer guard."""

    def __init__(self, policy: AuthorizerPolicy, registry: CollectorRegistry) -> None:
        self._policy = policy
        self._callers: CallersByToken | None = None  # `change_policy` sets them
        self._log = structlog.get_logger()
        self._rejections = Counter(
            "nanonets_proxy_policy_rejections",
            "Requests that the access rules or a daily budget rejected, or would have rejected in a dry run.",
            ["reason"],
            registry=registry,
        )

    def change_policy(self, policy: AuthorizerPolicy, callers: CallersByToken | None) -> None:
        """Applies another policy from the next request on. `callers`: None requires no token."""
        self._policy, self._callers = policy, callers

    def use_tokens(self, tokens: Iterable[CallerToken]) -> None:
        """Requires one of these tokens of every caller from now on. Raises ValueError if two callers share one."""
        self._callers = CallersByToken(tokens)

    def identify(self, peer: Peer, credentials: bytes | None) -> str | None:
        """Returns the proven name of the caller; None if no proof is required. Raises UnknownCaller."""
        if peer.certificate is not None:
            return peer.certificate
        if self._callers is None:
            return None
        name = None
        if credentials is not None:
            own_header = self._policy.has_token_header
            tokens = (credentials,) if own_header else tokens_in_authorization(credentials)
            name = self._callers.caller_of_any(tokens)
        if name is None:
            raise UnknownCaller(
                "The request needs a caller's token: send one, as Authorization: Bearer or as the client's API key."
            )
        return name

    def check(self, caller: str, method: str, target: str, names: Iterable[bytes]) -> bool:
        """Raises ForbiddenByPolicy or BudgetUsedUp. `names` are the names of the request's header fields.

        Returns whether the request counts in a daily budget.
        """
        rules = self._policy.rules
        if rules is not None:
            reason = rules.judge(caller, method, target, (name.lower() for name in names))
            if reason is not None:
                message = "The proxy's access rules do not allow this request."
                error = ForbiddenByPolicy(message, reason=reason)
                self._reject(error, reason, caller, method, target)
        return self.take(caller, method, target)

    def take(self, caller: str, method: str, target: str) -> bool:
        """Takes a request from the caller's daily budget. Returns whether it counts. Raises BudgetUsedUp."""
        if (budget := self._policy.budget) is None:
            return False
        retry_after_s = budget.take(caller, time.time())
        if retry_after_s is not None:
            message = _PART_USED_UP if budget.is_part else _USED_UP
            self._reject(BudgetUsedUp(message, retry_after_s=retry_after_s), "daily_budget", caller, method, target)
        return retry_after_s is None

    def give_back(self, request: FinishedRequest) -> None:
        """Uncounts a finished request that was never sent. The usage ledger does not count it either."""
        if request.is_counted and not request.attempts and self._policy.budget is not None:
            self._policy.budget.give_back(request.caller, time.time() - request.total_s)

    def _reject(self, error: ProxyError, reason: str, caller: str, method: str, target: str) -> None:
        """Counts the rejection and raises `error`. In a dry run, logs the rejection instead of raising."""
        self._rejections.labels("rule" if reason.startswith(_BY_RULE) else reason).inc()
        if not self._policy.dry_run:
            raise error
        facts: dict[str, Any] = {"caller": caller, "method": method, "path": loggable_target(target)}
        self._log.warning("policy_would_reject", reason=reason, **facts)
