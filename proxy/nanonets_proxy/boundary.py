"""The boundary, put together from the settings: guard, door, and the files that they are read from."""

import resource
from typing import Final

from nanonets_proxy.core.budget import Budget, BudgetRule
from nanonets_proxy.core.call_policy import Policy, Rule
from nanonets_proxy.core.guard import Guard, GuardPolicy
from nanonets_proxy.downstream.connections import ConnectionPolicy
from nanonets_proxy.downstream.door import Door, DoorPolicy
from nanonets_proxy.downstream.tls import ListenerTls
from nanonets_proxy.keys.watched import WatchedFile, read_caller_tokens
from nanonets_proxy.settings import Settings
from nanonets_proxy.telemetry.metrics import Metrics

_FEWEST_CONNECTIONS: Final = 16
_OTHER_FILES: Final = 128  # listeners, watches, the log, the admin listener's callers


def make_guard(settings: Settings, *hosts: str, any_peer: bool = False) -> Guard:
    """`hosts` are further names that Host may have; `any_peer` where callers prove who they are."""
    return Guard(
        GuardPolicy(
            allow_from=settings.allow_from,
            allowed_hosts=(*settings.allowed_hosts, *hosts),
            allow_uids=frozenset(map(int, settings.allow_uids)),
            any_peer=any_peer,
        )
    )


def connection_policy(settings: Settings) -> ConnectionPolicy:
    """No more connections than there may be open files, beside a connection and a spool file for each request in
    flight: the system's own limit would stop all accepting for a second each time."""
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    most = settings.max_connections
    if files != resource.RLIM_INFINITY:
        most = min(most, max(_FEWEST_CONNECTIONS, files - 2 * settings.pool_size - _OTHER_FILES))
    return ConnectionPolicy(most, settings.max_connections_per_peer)


def make_door(settings: Settings, metrics: Metrics) -> Door | None:
    """None where the settings ask for nothing beyond the guard: then it costs nothing."""
    policy = None
    if settings.policy or settings.read_only:
        policy = Policy(map(Rule.parse, settings.policy), read_only=settings.read_only)
    budget = Budget(map(BudgetRule.parse, settings.daily_budget)) if settings.daily_budget else None
    if policy is None and budget is None and not settings.callers_prove_themselves():
        return None
    own_header = bool(settings.caller_token_header)
    door = Door(DoorPolicy(own_header, policy, budget, settings.policy_dry_run), metrics.registry)
    if settings.caller_tokens_file is not None:
        door.use_tokens(read_caller_tokens(settings.caller_tokens_file))
    elif settings.caller_tokens:
        door.use_tokens(settings.caller_tokens)
    return door


def watched_files(settings: Settings, door: Door | None, tls: ListenerTls | None) -> list[WatchedFile]:
    """The files that door and listeners are made of, to be read again when they change."""
    files = []
    path = settings.caller_tokens_file
    if path is not None and door is not None:
        files.append(WatchedFile(path, lambda: door.use_tokens(read_caller_tokens(path))))
    if tls is not None:
        pem = (settings.tls_cert, settings.tls_key, settings.tls_client_ca)
        files += [WatchedFile(path, tls.reload) for path in dict.fromkeys(filter(None, pem))]
    return files


def loosened(settings: Settings) -> dict[str, str]:
    """The settings that let more in, or out, than the default, with their values: for the log."""
    found = {
        "listen": ", ".join(str(item) for item in settings.listen if not item.is_local),
        "allow_from": ", ".join(map(str, settings.allow_from)),
        "allowed_hosts": ", ".join(settings.allowed_hosts),
        "upstream_private": "true" if settings.upstream_private else "",
        "policy_dry_run": "true" if settings.policy_dry_run else "",
    }
    return {name: value for name, value in found.items() if value}
