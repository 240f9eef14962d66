"""What a process is to serve: all that its settings come to, in frozen values that can be pickled.

Nothing here, or below, knows how settings are read: whoever serves needs no more than a plan. The key is not in
it; where it may be found is.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeAlias

from nanonets_proxy.core.access.access_rules import AccessRule
from nanonets_proxy.core.access.caller_tokens import CallerToken
from nanonets_proxy.core.access.daily_budget import BudgetRule
from nanonets_proxy.core.access.peer_guard import PeerGuardPolicy
from nanonets_proxy.core.http.retry import RetryPolicy
from nanonets_proxy.core.keys.keyring import KeyringPolicy
from nanonets_proxy.core.net.addresses import Listener, Origin
from nanonets_proxy.core.ratelimit.gate_policy import GatePolicy
from nanonets_proxy.core.ratelimit.scopes import ScopeRule
from nanonets_proxy.keys.source import KeySourceConfig
from nanonets_proxy.request.policy import HandlerPolicy
from nanonets_proxy.server.tls import ListenerTlsPolicy
from nanonets_proxy.upstream.body import BodyPolicy
from nanonets_proxy.upstream.dial import DialPolicy

if TYPE_CHECKING:  # most processes never serve it
    from nanonets_proxy.sandbox.policy import SandboxPolicy


@dataclass(frozen=True, slots=True)
class AuthorizerConfig:
    """What the door asks beyond the guard. `own_header`: the token stands in a field of its own, as it is."""

    own_header: bool
    rules: tuple[AccessRule, ...]
    read_only: bool
    budgets: tuple[BudgetRule, ...]
    dry_run: bool
    tokens: tuple[CallerToken, ...]
    tokens_file: Path | None
    """Holds the tokens instead, and is watched."""


@dataclass(frozen=True, slots=True)
class EnvironmentConfig:
    """One environment. The only one has the empty name."""

    name: str
    listen: tuple[Listener, ...]
    tls: ListenerTlsPolicy | None
    guard: PeerGuardPolicy
    authorizer: AuthorizerConfig | None
    """None where nothing is asked beyond the guard."""
    max_connections: int
    max_connections_per_peer: int
    keep_alive_s: float
    head_timeout_s: float
    handler: HandlerPolicy
    permissive_settings: Mapping[str, str]
    """The settings that let more in, or out, than the default, with their values: for the log."""

    gate: GatePolicy
    scopes: tuple[ScopeRule, ...]
    state_file: Path | None

    upstream_name: str
    """What the log calls the upstream."""
    dial: DialPolicy
    upstream_keep_alive_s: float
    first_byte_timeout_s: float
    retries: RetryPolicy
    bodies: BodyPolicy

    key_source_config: KeySourceConfig
    keyring: KeyringPolicy
    key_max_age_s: float
    """0: no key is too old."""
    key_probe: str
    """The path that a new key is tried on; empty: requests try it."""

    def with_upstream(self, origin: Origin, upstream_name: str = "") -> Self:
        """The same in front of another upstream, which the log calls by its origin if by nothing else."""
        return replace(self, upstream_name=upstream_name or str(origin), dial=replace(self.dial, origin=origin))


@dataclass(frozen=True, slots=True)
class SandboxConfig:
    """The simulated API. Without keys in its policy, one is made at start."""

    listen: tuple[Listener, ...]
    policy: "SandboxPolicy"


@dataclass(frozen=True, slots=True)
class ServeConfig:
    """All that a process runs: its environments, and the admin listener that they share."""

    environments: tuple[EnvironmentConfig, ...]
    sandbox: SandboxConfig | None
    """Served in the upstream's place; then there is one environment."""
    admin_listen: tuple[Listener, ...]
    admin_guard: PeerGuardPolicy
    drain_timeout_s: float
    log_format: str
    log_level: str
    secret_variables: tuple[str, ...]
    """The variables that may hold a secret, which nobody reads again once the keys are found."""


Config: TypeAlias = ServeConfig | SandboxConfig
