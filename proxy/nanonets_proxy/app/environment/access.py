"""Builds access control from a configuration: peer guard, authorizer, TLS, connection limits, reloaded files."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from nanonets_proxy.app.config import AuthorizerConfig, EnvironmentConfig
from nanonets_proxy.app.environment.certificate_alarm import CertificateAlarm
from nanonets_proxy.core.access.access_rules import AccessRules
from nanonets_proxy.core.access.caller_tokens import CallersByToken
from nanonets_proxy.core.access.daily_budget import DailyBudget
from nanonets_proxy.core.access.peer_guard import PeerGuard
from nanonets_proxy.core.access.peer_guard_policy import PeerGuardPolicy
from nanonets_proxy.core.access.shared_counts import SharedCounts
from nanonets_proxy.keys.files import read_caller_tokens
from nanonets_proxy.keys.reloaded_file import ReloadedFile
from nanonets_proxy.request.authorizer import Authorizer, AuthorizerPolicy
from nanonets_proxy.server.connection_limits import ConnectionPolicy
from nanonets_proxy.server.open_files import last_file, most_connections, open_files_limit
from nanonets_proxy.server.tls import ListenerTls, make_listener_context
from nanonets_proxy.telemetry.alerts import Alerts
from nanonets_proxy.telemetry.metrics import Metrics


def connection_policy(config: EnvironmentConfig) -> ConnectionPolicy:
    """Returns the connection limits, lowered if the process may not open enough files."""
    files = open_files_limit()
    limit = most_connections(
        config.max_connections,
        config.gate.max_in_flight,
        files,
        config.environments,
        has_jobs=config.jobs is not None,
    )
    return ConnectionPolicy(
        limit,
        config.max_connections_per_peer,
        config.keep_alive_s,
        config.head_timeout_s,
        last_file(files),
        is_lowered=limit < config.max_connections,
    )


class AccessControl:
    """The access control of one environment. `authorizer` is None if no setting needs one."""

    def __init__(
        self,
        config: EnvironmentConfig,
        metrics: Metrics,
        requests_by_day: Mapping[int, Mapping[str, int]],
        counts: SharedCounts | None,
        alerts: Alerts,
    ) -> None:
        """Takes the numbers of earlier requests, by day and caller, and those of a fleet.

        Raises OSError or ValueError for a bad file.
        """
        self.guard = PeerGuard(_guard_policy(config))
        self.tls = None if config.tls is None else ListenerTls(config.tls)
        self.authorizer: Authorizer | None = None
        self.files: list[ReloadedFile] = []
        """The files that are loaded again when they change."""
        self._registry = metrics.registry
        self._alerts = alerts
        self._certificate_alarm = CertificateAlarm(alerts)
        self._certificate: Path | None = None
        self._budget = DailyBudget(())
        self._budget.restore(requests_by_day)
        if counts is not None:
            self._budget.share(counts)
        self._made_authorizer: Authorizer | None = None  # stays while no setting needs it, with its metric
        self._is_started = False
        self.prepare(config)()

    def prepare(self, config: EnvironmentConfig) -> Callable[[], None]:
        """Returns a function that applies another configuration, and cannot fail.

        Raises:
            OSError, ValueError: a file cannot be used.
        """
        files = self._files_of(config)  # before they are read, so that no later change is missed
        guard = _guard_policy(config)
        access = config.authorizer
        policy = None if access is None else self._authorizer_policy(access)
        callers = None if access is None else _callers(access)
        context = None if config.tls is None else make_listener_context(config.tls)

        def apply() -> None:
            self.guard.change_policy(guard)
            self._budget.change_rules(() if access is None else access.budgets)
            if policy is not None and self._made_authorizer is None:
                self._made_authorizer = Authorizer(policy, self._registry)
            self.authorizer = None if policy is None else self._made_authorizer
            if policy is not None and self.authorizer is not None:
                self.authorizer.change_policy(policy, callers)
            if self.tls is not None and config.tls is not None and context is not None:
                self.tls.change_policy(config.tls, context)
                self._certificate = config.tls.cert_file
                if self._is_started:
                    self._certificate_alarm.start(self._certificate)
            self._watch(files)

        return apply

    def budget_of(self, caller: str) -> int | None:
        """Returns the caller's daily budget; None: it has none."""
        return self._budget.limit_of(caller)

    def start(self) -> None:
        """Begins to watch the files."""
        self._is_started = True
        self._watch_files()
        if self._certificate is not None:
            self._certificate_alarm.start(self._certificate)

    def _watch_files(self) -> None:
        for file in self.files:
            file.start()

    async def stop(self) -> None:
        self._certificate_alarm.stop()
        for file in self.files:
            await file.stop()

    def _authorizer_policy(self, access: AuthorizerConfig) -> AuthorizerPolicy:
        rules = AccessRules(access.rules, read_only=access.read_only) if access.rules or access.read_only else None
        budget = self._budget if access.budgets else None
        return AuthorizerPolicy(access.has_token_header, rules, budget, access.dry_run)

    def _files_of(self, config: EnvironmentConfig) -> list[ReloadedFile]:
        files, tls = [], self.tls
        if config.authorizer is not None and (path := config.authorizer.tokens_file) is not None:
            files.append(ReloadedFile(path, "caller_tokens_file", lambda: self._use_tokens(path), self._alerts))
        if tls is not None and (own := config.tls) is not None:
            # One file may be all three.
            pem = {own.client_ca_file: "tls_client_ca", own.key_file: "tls_key", own.cert_file: "tls_cert"}
            files += [ReloadedFile(file, name, tls.reload, self._alerts) for file, name in pem.items() if file]
        return files

    def _use_tokens(self, path: Path) -> None:
        assert self.authorizer is not None, "it has a file of tokens"
        self.authorizer.use_tokens(read_caller_tokens(path))

    def _watch(self, files: list[ReloadedFile]) -> None:
        if [file.path for file in files] == [file.path for file in self.files]:
            return
        for file in self.files:
            file.cancel()
        self.files = files
        if self._is_started:
            self._watch_files()


def _guard_policy(config: EnvironmentConfig) -> PeerGuardPolicy:
    """Returns the guard's policy, which also accepts the upstream's name as Host."""
    # Clients with HTTP_PROXY set send the upstream's name. No attacker can register that name (DNS rebinding).
    return replace(config.guard, allowed_hosts=(*config.guard.allowed_hosts, config.dial.origin.host))


def _callers(access: AuthorizerConfig) -> CallersByToken | None:
    if access.tokens_file is not None:
        return CallersByToken(read_caller_tokens(access.tokens_file))
    return CallersByToken(access.tokens) if access.tokens else None
