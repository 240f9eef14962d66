"""The boundary, put together from a config: guard, authorizer, and the files that they are read from."""

import resource
from dataclasses import replace
from typing import Final

from nanonets_proxy.app.config import EnvironmentConfig
from nanonets_proxy.core.access.access_rules import AccessRules
from nanonets_proxy.core.access.daily_budget import DailyBudget
from nanonets_proxy.core.access.peer_guard import PeerGuard
from nanonets_proxy.keys.reloaded_file import ReloadedFile, read_caller_tokens
from nanonets_proxy.request.authorizer import Authorizer, AuthorizerPolicy
from nanonets_proxy.server.connection_limits import ConnectionPolicy
from nanonets_proxy.server.tls import ListenerTls
from nanonets_proxy.telemetry.metrics import Metrics

_FEWEST_CONNECTIONS: Final = 16
_OTHER_FILES: Final = 128  # listeners, watches, the log, the admin listener's callers


def make_guard(config: EnvironmentConfig) -> PeerGuard:
    # Clients with a proxy variable keep the upstream's own name in Host; no stranger can register it.
    hosts = (*config.guard.allowed_hosts, config.dial.origin.host)
    return PeerGuard(replace(config.guard, allowed_hosts=hosts))


def connection_policy(config: EnvironmentConfig) -> ConnectionPolicy:
    """No more connections than there may be open files, beside a connection and a spool file for each request in
    flight: the system's own limit would stop all accepting for a second each time."""
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    most = config.max_connections
    if files != resource.RLIM_INFINITY:
        most = min(most, max(_FEWEST_CONNECTIONS, files - 2 * config.gate.max_in_flight - _OTHER_FILES))
    return ConnectionPolicy(most, config.max_connections_per_peer, config.keep_alive_s, config.head_timeout_s)


def make_authorizer(config: EnvironmentConfig, metrics: Metrics) -> Authorizer | None:
    """None where nothing is wanted beyond the guard: then it costs nothing."""
    if (wanted := config.authorizer) is None:
        return None
    policy = AccessRules(wanted.rules, read_only=wanted.read_only) if wanted.rules or wanted.read_only else None
    budget = DailyBudget(wanted.budgets) if wanted.budgets else None
    authorizer = Authorizer(AuthorizerPolicy(wanted.own_header, policy, budget, wanted.dry_run), metrics.registry)
    if wanted.tokens_file is not None:
        authorizer.use_tokens(read_caller_tokens(wanted.tokens_file))
    elif wanted.tokens:
        authorizer.use_tokens(wanted.tokens)
    return authorizer


def reloaded_files(
    config: EnvironmentConfig, authorizer: Authorizer | None, tls: ListenerTls | None
) -> list[ReloadedFile]:
    """The files that authorizer and listeners are made of, to be read again when they change."""
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
