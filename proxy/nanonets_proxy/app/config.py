"""The frozen configuration of a process, which settings produce and servers need.

It can be pickled, and importing it imports no settings code. It holds the sources of the API key, but not the key.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from nanonets_proxy.core.access.access_rules import AccessRule
from nanonets_proxy.core.access.budget_rule import BudgetRule
from nanonets_proxy.core.access.caller_tokens import CallerToken
from nanonets_proxy.core.access.peer_guard_policy import PeerGuardPolicy
from nanonets_proxy.core.http.retry import RetryPolicy
from nanonets_proxy.core.keys.audience import Audience, AuthScheme
from nanonets_proxy.core.keys.keyring_policy import KeyringPolicy
from nanonets_proxy.core.net.addresses import Listener, Origin
from nanonets_proxy.core.ratelimit.fleet.policy import FleetPolicy
from nanonets_proxy.core.ratelimit.gate_policy import GatePolicy
from nanonets_proxy.core.ratelimit.scopes.scope_table import ScopeRule
from nanonets_proxy.jobs.policy import JobsPolicy
from nanonets_proxy.keys.source import FileKey, KeySource, KeySourceConfig
from nanonets_proxy.request.policy import HandlerPolicy
from nanonets_proxy.server.tls_policy import ListenerTlsPolicy
from nanonets_proxy.telemetry.ledger.policy import SANDBOX, LedgerPolicy
from nanonets_proxy.telemetry.otlp.policy import MetricsPolicy, TracesPolicy
from nanonets_proxy.telemetry.webhook.policy import WebhookPolicy
from nanonets_proxy.upstream.policy import BodyPolicy, DialPolicy

if TYPE_CHECKING:  # most processes never serve the sandbox
    from nanonets_proxy.sandbox.policy import SandboxPolicy


GivenValues: TypeAlias = Mapping[str, Mapping[str, tuple[Any, str]]]
"""For each environment, and for the whole process under "": each setting's unparsed value, and its source."""


@dataclass(frozen=True, slots=True)
class AuthorizerConfig:
    """The checks after the peer guard: tokens, access rules and budgets."""

    has_token_header: bool
    """Whether the token has a header field of its own, without a scheme such as Bearer."""
    rules: tuple[AccessRule, ...]
    read_only: bool
    budgets: tuple[BudgetRule, ...]
    dry_run: bool
    tokens: tuple[CallerToken, ...]
    tokens_file: Path | None
    """The file that holds the tokens instead of `tokens`."""


@dataclass(frozen=True, slots=True)
class EnvironmentConfig:
    """One environment. The only environment has the empty name."""

    name: str
    listen: tuple[Listener, ...]
    tls: ListenerTlsPolicy | None
    guard: PeerGuardPolicy
    authorizer: AuthorizerConfig | None
    """None: the peer guard is the only check."""
    max_connections: int
    max_connections_per_peer: int
    keep_alive_s: float
    head_timeout_s: float
    handler: HandlerPolicy
    permissive_settings: Mapping[str, str]
    """The settings that permit more than their defaults, with their values, for a warning at start."""

    gate: GatePolicy
    scopes: tuple[ScopeRule, ...]
    state_file: Path | None

    upstream_name: str
    """The upstream's name in the log."""
    auth: AuthScheme
    dial: DialPolicy
    upstream_keep_alive_s: float
    pool_per_caller: bool
    """Whether a connection to the upstream is used again only for the same caller."""
    first_byte_timeout_s: float
    retries: RetryPolicy
    bodies: BodyPolicy

    key_source_config: KeySourceConfig
    keyring: KeyringPolicy
    key_max_age_s: float
    """The age of a key at which a warning asks for its rotation. 0: no warning."""
    key_probe: str
    """The path of the GET that tests a new key. Empty: callers' requests test it."""

    fleet: FleetPolicy | None = None
    """None: this process decides alone."""
    jobs: JobsPolicy | None = None
    """None: callers wait for their responses."""
    traces: TracesPolicy | None = None
    """None: no traces are sent."""
    environments: int = 1
    """How many environments share this process's open files."""

    @property
    def audience(self) -> Audience:
        """The upstream that alone may get this environment's key, and the scheme."""
        return Audience(self.dial.origin, self.auth)

    @property
    def has_sandbox(self) -> bool:
        """Whether a sandbox replaces the upstream."""
        return self.handler.keeps_host

    @property
    def usage_name(self) -> str:
        """The environment's name in the usage ledger, where a sandbox's requests are not the upstream's."""
        return SANDBOX if self.has_sandbox else self.name

    def secret_files(self, source: KeySource) -> list[Path]:
        """Returns the files that nobody else should be able to read. `source` holds the API key."""
        files = [source.path] if isinstance(source, FileKey) else []
        return files if self.tls is None else [*files, self.tls.key_file]

    def with_sandbox(self, origin: Origin) -> Self:
        """Returns a copy for a sandbox, whose page shows examples for the address that the caller used.

        Callers with a proxy variable send the name of the upstream, which the sandbox replaces. The way to the
        upstream, such as an egress proxy, does not lead to the sandbox. State file and traces are for the upstream,
        and in log and ledger the sandbox's requests have an environment of their own.
        """
        return replace(
            self,
            upstream_name="sandbox",
            dial=DialPolicy(origin, self.dial.connect_timeout_s, self.dial.idle_timeout_s),
            fleet=None,
            state_file=None,
            traces=None,
            guard=replace(self.guard, allowed_hosts=(*self.guard.allowed_hosts, self.dial.origin.host)),
            handler=replace(
                self.handler, keeps_host=True, log_fields={**self.handler.log_fields, "environment": SANDBOX}
            ),
        )


@dataclass(frozen=True, slots=True)
class SandboxConfig:
    """The simulated API. Without keys in its policy, the process makes a key at start."""

    listen: tuple[Listener, ...]
    policy: "SandboxPolicy"


@dataclass(frozen=True, slots=True)
class ServeConfig:
    """The configuration of `serve`: environments, and the admin listener that they share."""

    environments: tuple[EnvironmentConfig, ...]
    sandbox: SandboxConfig | None
    """Replaces the upstream of the only environment, if it is set."""
    admin_listen: tuple[Listener, ...]
    admin_guard: PeerGuardPolicy
    admin_tokens: tuple[CallerToken, ...]
    """Requests to the admin listener from other machines need one of these tokens. Empty: they need none."""
    admin_quit: bool
    """Whether POST /quitquitquit on the admin listener drains the proxy."""
    drain_delay_s: float
    """How long callers are served after the first stop signal, before the drain."""
    drain_timeout_s: float
    ledger: LedgerPolicy | None
    """None: there is no usage ledger."""
    otlp_metrics: MetricsPolicy | None
    """None: no metrics are sent to a collector."""
    webhook: WebhookPolicy | None
    """None: alerts are not sent."""
    log_format: str
    log_level: str
    given: GivenValues = field(repr=False)
    """The unparsed settings that this configuration was made from, for a reload to compare. May hold secrets."""
    secret_variables: tuple[str, ...]
    """The environment variables that may hold a secret. Nothing reads them after the keys are read."""
    secret_flags: tuple[str, ...]
    """The settings whose secret is on the command line."""

    def with_source(self, error: str) -> str:
        """Appends the source of the setting that an error begins with, unless it has none, or several."""
        setting = error.partition(":")[0]
        sources = {values[setting][1] for values in self.given.values() if setting in values}
        return f"{error} ({sources.pop()})" if len(sources) == 1 else error


Config: TypeAlias = ServeConfig | SandboxConfig
