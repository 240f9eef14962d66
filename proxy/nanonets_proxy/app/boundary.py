"""The boundary, put together from a plan: guard, door, and the files that they are read from."""

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


def make_guard(plan: EnvironmentConfig) -> PeerGuard:
    # Clients with a proxy variable keep the upstream's own name in Host; no stranger can register it.
    hosts = (*plan.guard.allowed_hosts, plan.dial.origin.host)
    return PeerGuard(replace(plan.guard, allowed_hosts=hosts))


def connection_policy(plan: EnvironmentConfig) -> ConnectionPolicy:
    """No more connections than there may be open files, beside a connection and a spool file for each request in
    flight: the system's own limit would stop all accepting for a second each time."""
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    most = plan.max_connections
    if files != resource.RLIM_INFINITY:
        most = min(most, max(_FEWEST_CONNECTIONS, files - 2 * plan.gate.max_in_flight - _OTHER_FILES))
    return ConnectionPolicy(most, plan.max_connections_per_peer)


def make_door(plan: EnvironmentConfig, metrics: Metrics) -> Authorizer | None:
    """None where nothing is asked beyond the guard: then it costs nothing."""
    if (asked := plan.door) is None:
        return None
    policy = AccessRules(asked.rules, read_only=asked.read_only) if asked.rules or asked.read_only else None
    budget = DailyBudget(asked.budgets) if asked.budgets else None
    door = Authorizer(AuthorizerPolicy(asked.own_header, policy, budget, asked.dry_run), metrics.registry)
    if asked.tokens_file is not None:
        door.use_tokens(read_caller_tokens(asked.tokens_file))
    elif asked.tokens:
        door.use_tokens(asked.tokens)
    return door


def reloaded_files(plan: EnvironmentConfig, door: Authorizer | None, tls: ListenerTls | None) -> list[ReloadedFile]:
    """The files that door and listeners are made of, to be read again when they change."""
    files = []
    if door is not None and plan.door is not None and (path := plan.door.tokens_file) is not None:
        files.append(ReloadedFile(path, lambda: door.use_tokens(read_caller_tokens(path))))
    if tls is not None and plan.tls is not None:
        pem = (plan.tls.cert_file, plan.tls.key_file, plan.tls.client_ca_file)
        files += [ReloadedFile(path, tls.reload) for path in dict.fromkeys(filter(None, pem))]
    return files
