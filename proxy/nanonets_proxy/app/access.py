"""Builds access control from a configuration: peer guard, authorizer, connection limits and reloaded files."""

from collections.abc import Mapping
from dataclasses import replace

from nanonets_proxy.app.config import EnvironmentConfig
from nanonets_proxy.core.access.access_rules import AccessRules
from nanonets_proxy.core.access.daily_budget import DailyBudget
from nanonets_proxy.core.access.peer_guard import PeerGuard
from nanonets_proxy.keys.reloaded_file import ReloadedFile, read_caller_tokens
from nanonets_proxy.request.authorizer import Authorizer, AuthorizerPolicy
from nanonets_proxy.server.connection_limits import ConnectionPolicy
from nanonets_proxy.server.open_files import last_file, most_connections, open_files_limit
from nanonets_proxy.server.tls import ListenerTls
from nanonets_proxy.telemetry.metrics import Metrics


def make_guard(config: EnvironmentConfig) -> PeerGuard:
    """Returns the guard, which also accepts the upstream's name as Host."""
    # Clients with HTTP_PROXY set send the upstream's name. No attacker can register that name (DNS rebinding).
    hosts = (*config.guard.allowed_hosts, config.dial.origin.host)
    return PeerGuard(replace(config.guard, allowed_hosts=hosts))


def connection_policy(config: EnvironmentConfig) -> ConnectionPolicy:
    """Returns the connection limits, lowered if the process may not open enough files."""
    files = open_files_limit()
    limit = most_connections(config.max_connections, config.gate.max_in_flight, files, config.environments)
    return ConnectionPolicy(
        limit, config.max_connections_per_peer, config.keep_alive_s, config.head_timeout_s, last_file(files)
    )


def make_authorizer(
    config: EnvironmentConfig, metrics: Metrics, requests_by_day: Mapping[int, Mapping[str, int]]
) -> Authorizer | None:
    """Returns the authorizer, or None if no setting needs it. `requests_by_day`: earlier requests of callers."""
    if (access := config.authorizer) is None:
        return None
    rules = AccessRules(access.rules, read_only=access.read_only) if access.rules or access.read_only else None
    budget = DailyBudget(access.budgets) if access.budgets else None
    if budget is not None:
        budget.restore(requests_by_day)
    authorizer = Authorizer(
        AuthorizerPolicy(access.has_token_header, rules, budget, access.dry_run), metrics.registry
    )
    if access.tokens_file is not None:
        authorizer.use_tokens(read_caller_tokens(access.tokens_file))
    elif access.tokens:
        authorizer.use_tokens(access.tokens)
    return authorizer


def reloaded_files(
    config: EnvironmentConfig, authorizer: Authorizer | None, tls: ListenerTls | None
) -> list[ReloadedFile]:
    """Returns the files that the authorizer and the listeners reload when they change."""
    files = []
    if (
        authorizer is not None
        and config.authorizer is not None
        and (path := config.authorizer.tokens_file) is not None
    ):
        files.append(ReloadedFile(path, lambda: authorizer.use_tokens(read_caller_tokens(path))))
    if tls is not None and config.tls is not None:
        pem = (config.tls.cert_file, config.tls.key_file, config.tls.client_ca_file)
        files += [ReloadedFile(path, tls.reload) for path in dict.fromkeys(filter(None, pem))]
    return files
