"""Converts the settings to the frozen configuration of a process."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from nanonets_proxy.app.config import AuthorizerConfig, EnvironmentConfig, SandboxConfig, ServeConfig
from nanonets_proxy.core.access.peer_guard_policy import PeerGuardPolicy
from nanonets_proxy.core.http.retry import RetryPolicy
from nanonets_proxy.core.jobs.window import Window
from nanonets_proxy.core.keys.keyring_policy import KeyringPolicy
from nanonets_proxy.core.net.addresses import Listener, TcpListener, is_host_name, is_loopback
from nanonets_proxy.core.ratelimit.fleet.policy import FleetPolicy
from nanonets_proxy.core.ratelimit.gate_policy import GatePolicy
from nanonets_proxy.core.ratelimit.scopes.static_limits import StaticLimits
from nanonets_proxy.jobs.policy import JobsPolicy
from nanonets_proxy.keys.source import KeySourceConfig
from nanonets_proxy.request.policy import HandlerPolicy
from nanonets_proxy.server.connection.body_times import BodyTimes
from nanonets_proxy.server.open_files import most_forwarded
from nanonets_proxy.settings.key_source import key_source_config, secret_flags, secret_variables
from nanonets_proxy.settings.loaded import LoadedSettings, given_values
from nanonets_proxy.settings.model.proxy import Settings
from nanonets_proxy.settings.model.sandbox import SandboxSettings
from nanonets_proxy.telemetry.ledger.policy import LedgerPolicy
from nanonets_proxy.telemetry.otlp.policy import MetricsPolicy, TracesPolicy
from nanonets_proxy.telemetry.webhook.policy import WebhookPolicy
from nanonets_proxy.upstream.policy import BodyPolicy, DialPolicy

_PROXY_VARIABLES: Final = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")


def serve_config(
    loaded: LoadedSettings[Settings], sandbox: SandboxSettings | None, environ: Mapping[str, str]
) -> ServeConfig:
    """Returns the configuration of `serve`. `sandbox` replaces the upstream if it is set, and needs no key."""
    settings = loaded.settings
    environments = tuple(
        environment_config(
            own.settings,
            KeySourceConfig() if sandbox else key_source_config(own.settings, environ, name),
            name,
            environ,
            len(loaded.by_name()),
        )
        for name, own in loaded.by_name().items()
    )
    return ServeConfig(
        environments=environments,
        sandbox=None
        if sandbox is None
        else SandboxConfig((TcpListener("127.0.0.1", 0),), sandbox.policy(api_keys=())),
        admin_listen=settings.admin_listen,
        admin_guard=_admin_guard_policy(settings),
        admin_tokens=settings.admin_tokens,
        admin_quit=settings.admin_quit,
        drain_delay_s=settings.drain_delay,
        drain_timeout_s=settings.drain_timeout,
        ledger=None
        if settings.ledger is None
        else LedgerPolicy(settings.ledger, settings.ledger_days, settings.ledger_rows),
        otlp_metrics=None
        if settings.otlp_metrics_endpoint is None
        else MetricsPolicy(settings.otlp_metrics_endpoint, settings.otlp_metrics_interval),
        webhook=None
        if settings.webhook_url is None
        else WebhookPolicy(settings.webhook_url, settings.webhook_secret_file),
        log_format=settings.log_format,
        log_level=settings.log_level,
        given=given_values(loaded),
        secret_variables=secret_variables(loaded.environments),
        secret_flags=secret_flags(loaded),
    )


def sandbox_config(settings: SandboxSettings) -> SandboxConfig:
    """Returns the configuration of the command `sandbox`."""
    return SandboxConfig(settings.listen, settings.policy(settings.api_keys))


def environment_config(
    settings: Settings, key_source: KeySourceConfig, name: str, environ: Mapping[str, str], environments: int
) -> EnvironmentConfig:
    """Returns the configuration of one environment. The only environment has the empty name."""
    return EnvironmentConfig(
        name=name,
        listen=settings.listen,
        tls=settings.listener_tls(),
        guard=replace(_guard_policy(settings, settings.listen), any_peer=settings.requires_authentication()),
        authorizer=_authorizer_config(settings),
        max_connections=settings.max_connections,
        max_connections_per_peer=settings.max_connections_per_peer,
        keep_alive_s=settings.keep_alive,
        head_timeout_s=settings.head_timeout,
        handler=_handler_policy(settings, name),
        permissive_settings=_permissive_settings(settings),
        gate=_gate_policy(settings),
        scopes=settings.scopes,
        state_file=settings.state_file,
        upstream_name=str(settings.upstream),
        auth=settings.auth,
        dial=dial_policy(settings, environ),
        upstream_keep_alive_s=settings.upstream_keep_alive,
        pool_per_caller=settings.pool_per_caller,
        first_byte_timeout_s=settings.first_byte_timeout,
        retries=RetryPolicy(settings.retries, settings.retry_backoff, settings.retry_budget),
        bodies=_body_policy(settings),
        key_source_config=key_source,
        keyring=KeyringPolicy(
            hold_s=settings.key_gap, grace_s=settings.key_grace, requests_probe=not settings.key_probe
        ),
        key_max_age_s=settings.key_max_age,
        key_probe=settings.key_probe,
        fleet=fleet_policy(settings, name),
        jobs=_jobs_policy(settings),
        traces=_traces_policy(settings),
        environments=environments,
    )


def dial_policy(settings: Settings, environ: Mapping[str, str]) -> DialPolicy:
    """Returns how to connect to the upstream. `environ` is the process's environment."""
    return DialPolicy(
        origin=settings.upstream,
        connect_timeout_s=settings.connect_timeout,
        idle_timeout_s=settings.idle_timeout,
        ca_file=settings.ca_file,
        egress_proxy=settings.egress_proxy,
        may_be_private=settings.upstream_private,
        pins=settings.upstream_pins,
        ignored_variable=ignored_proxy_variable(settings, environ),
    )


def ignored_proxy_variable(settings: Settings, environ: Mapping[str, str]) -> str:
    """Returns the variable that names a proxy for the upstream while `egress_proxy` is not set, or ""."""
    upstream = settings.upstream
    if settings.egress_proxy is not None or not upstream.tls or is_loopback(upstream.host):
        return ""
    excluded = (environ.get("NO_PROXY") or environ.get("no_proxy") or "").replace(",", " ").lower().split()
    if any(name == "*" or f".{upstream.host}".endswith(f".{name.lstrip('.')}") for name in excluded):
        return ""
    return next((name for name in _PROXY_VARIABLES if environ.get(name)), "")


def _guard_policy(settings: Settings, listen: Sequence[Listener]) -> PeerGuardPolicy:
    # The user names the proxy so. An address needs no mention: it is the connection's own.
    names = {item.host for item in listen if isinstance(item, TcpListener) and is_host_name(item.host)}
    return PeerGuardPolicy(
        allow_from=settings.allow_from,
        allowed_hosts=(*settings.allowed_hosts, *sorted(names)),
        allow_uids=frozenset(settings.allow_uids),
    )


def _admin_guard_policy(settings: Settings) -> PeerGuardPolicy:
    policy = _guard_policy(settings, settings.admin_listen)
    if not settings.admin_allow_from:
        return policy
    return replace(policy, allow_from=settings.admin_allow_from, setting="admin_allow_from")


def _authorizer_config(settings: Settings) -> AuthorizerConfig | None:
    if not (settings.policy or settings.read_only or settings.daily_budget or settings.requires_authentication()):
        return None
    return AuthorizerConfig(
        has_token_header=bool(settings.caller_token_header),
        rules=settings.policy,
        read_only=settings.read_only,
        budgets=settings.daily_budget,
        dry_run=settings.policy_dry_run,
        tokens=settings.caller_tokens,
        tokens_file=settings.caller_tokens_file,
    )


def _handler_policy(settings: Settings, name: str) -> HandlerPolicy:
    return HandlerPolicy(
        max_wait_s=settings.max_wait,
        idle_timeout_s=settings.idle_timeout,
        body_times=BodyTimes(settings.idle_timeout, settings.body_timeout, settings.min_body_rate),
        caller_header=settings.caller_header,
        cost_header=settings.cost_header,
        server_timing=settings.server_timing,
        via=settings.via,
        trace_upstream=settings.trace_upstream,
        credentials_header=settings.caller_token_header or "authorization",
        tls=settings.tls_cert is not None,
        coalesce=settings.coalesce,
        revalidate=settings.revalidate,
        log_successes=settings.log_successes,
        log_fields={"environment": name} if name else {},
    )


def _gate_policy(settings: Settings) -> GatePolicy:
    return GatePolicy(
        max_in_flight=settings.pool_size,
        max_waiting=settings.max_waiting,
        max_wait_s=settings.max_wait,
        max_quota_probe_s=settings.quota_probe,
        max_waiting_per_lane=settings.max_waiting_per_caller,
        lane_weights=settings.lane_weights,
        static_limits=StaticLimits(settings.limits),
    )


def fleet_policy(settings: Settings, name: str) -> FleetPolicy | None:
    """Returns the policy of the fleet of an environment; None if it has none."""
    if settings.coordination is None:
        return None
    account = "\n".join((str(settings.upstream), name, settings.coordination_account))
    return FleetPolicy(settings.coordination, account, settings.coordination_required)


def _jobs_policy(settings: Settings) -> JobsPolicy | None:
    if settings.jobs is None:
        return None
    window = Window.within(settings.max_waiting, settings.max_waiting_per_caller)
    return JobsPolicy(settings.jobs, settings.jobs_keep, settings.max_jobs, settings.jobs_total, window)


def _body_policy(settings: Settings) -> BodyPolicy:
    return BodyPolicy(
        memory_bytes=settings.body_memory,
        memory_total_bytes=settings.body_memory_total,
        spool_dir=settings.spool_path(),
        spool_total_bytes=settings.spool_total,
        replay_limit_bytes=settings.replay_limit,
        spool_files=most_forwarded(settings.pool_size),
    )


def _traces_policy(settings: Settings) -> TracesPolicy | None:
    collector = settings.otlp_endpoint
    return None if collector is None else TracesPolicy(collector, settings.otlp_share)


def _permissive_settings(settings: Settings) -> dict[str, str]:
    """Returns the settings that permit more than their defaults, for a warning at start."""
    values = {
        "listen": ", ".join(str(item) for item in settings.listen if not item.is_local),
        "allow_from": ", ".join(map(str, settings.allow_from)),
        "admin_allow_from": ", ".join(map(str, settings.admin_allow_from)),
        "allowed_hosts": ", ".join(settings.allowed_hosts),
        "upstream_private": "true" if settings.upstream_private else "",
        "policy_dry_run": "true" if settings.policy_dry_run else "",
        "admin_quit": "true" if settings.admin_quit else "",
    }
    return {name: value for name, value in values.items() if value}
