"""The settings: the one definition behind flags, environment, files, `--help`, reference and schema."""

import tempfile
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, PlainSerializer, PlainValidator, WithJsonSchema
from pydantic_settings import NoDecode, SettingsConfigDict

from nanonets_proxy.core.net.addresses import Origin, TcpListener
from nanonets_proxy.core.ratelimit.scopes import DEFAULT_SCOPE_RULES
from nanonets_proxy.sandbox.policy import HintStyle, LimitKind, LimitRule, LimitScope, SandboxPolicy
from nanonets_proxy.settings.model.access import BoundarySettings
from nanonets_proxy.settings.model.base import ProgramSettings
from nanonets_proxy.settings.model.fields import (
    HostPatterns,
    LaneWeights,
    Limits,
    Listeners,
    Networks,
    OptionalEgressProxy,
    OptionalListeners,
    OptionalPath,
    PublicKeyPins,
    SandboxKeys,
    ScopeRules,
    Token,
    UpstreamOrigin,
    text,
)
from nanonets_proxy.settings.model.quantities import (
    Count,
    Delay,
    Duration,
    Metavar,
    OneOf,
    Share,
    Size,
    Switch,
)

MIB, GIB = 2**20, 2**30

GROUPS: dict[str, str] = {
    "api_key_file": "The key, or doing without",
    "key_gap": "Changing the key",
    "vault_path": "The key in HashiCorp Vault or OpenBao (extra `vault`)",
    "aws_secret": "The key in AWS Secrets Manager (extra `aws`)",
    "caller_tokens": "Who may call: tokens, users, certificates",
    "policy": "What may be called, and how often",
    "max_connections": "Connections",
    "listen": "Callers",
    "upstream": "Upstream",
    "max_wait": "Waiting",
    "body_memory": "Bodies kept for a repeat",
    "server_timing": "Responses and logs",
}
"""Where a group of settings begins, and its title in `--help` and in the reference."""

PROCESS_WIDE = frozenset({"admin_listen", "drain_timeout", "log_format", "log_level", "sandbox"})
"""What the environments of one process share; everything else a table `[environments.NAME]` may set."""


class Settings(BoundarySettings):
    """Everything that can be set about the proxy. Durations are in seconds, sizes in bytes."""

    model_config = SettingsConfigDict(env_prefix="NANONETS_PROXY_", title="nanonets-proxy")

    listen: Listeners = Field(
        (TcpListener("127.0.0.1", 8080),),
        description="Where callers connect: host:port, [::1]:8080, :8080 for all interfaces, "
        "or unix:/path?mode=0660&owner=app:team. Port 0 takes a free one, which the start event names.",
    )
    admin_listen: OptionalListeners = Field(
        (TcpListener("127.0.0.1", 8081),),
        description="Where /livez, /readyz and /metrics are served, in the same forms; off for nowhere.",
    )
    allow_from: Networks = Field(
        (),
        description="Networks that may call besides loopback and unix sockets, such as 10.0.0.0/8. "
        "Needed to listen on anything else, unless callers have tokens or certificates.",
    )
    allowed_hosts: HostPatterns = Field(
        (),
        description="Names that callers may use in Host besides IP addresses, names without a dot, "
        "and those below .localhost, .local, .internal, .svc and .svc.cluster.local. "
        "*.example.com takes all names below example.com.",
    )
    caller_header: Token = Field(
        "",
        description="The request header that names the caller, for fair turns and the log. "
        "Empty: the source address.",
    )
    keep_alive: Duration = Field(3630.0, description="How long a caller's idle connection stays open.")
    head_timeout: Duration = Field(
        30.0, description="Longest time from the first byte of a request to the end of its header section."
    )

    upstream: UpstreamOrigin = Field(
        Origin("https", "app.nanonets.com", 443),
        description="Origin of the Nanonets API. Plain http is refused except to loopback.",
    )
    ca_file: OptionalPath = Field(
        None,
        description="PEM file of the certificate authorities to trust instead of the system's.",
    )
    egress_proxy: OptionalEgressProxy = Field(
        None,
        description="HTTP proxy to reach the upstream through, http://[user:password@]host:port. "
        "It sees no key: TLS runs through it.",
    )
    upstream_private: Switch = Field(
        default=False,
        description="Let the upstream's name lead to an address of a private network. An address as the upstream, "
        "or localhost, needs no such permission.",
    )
    upstream_pins: PublicKeyPins = Field(
        (),
        description="Public keys of which the upstream's certificate must have one besides being valid, as "
        "sha256//BASE64. `curl --pinnedpubkey` takes the same.",
    )
    connect_timeout: Duration = Field(
        10.0, description="Longest time to connect to the upstream, its TLS handshake included."
    )
    first_byte_timeout: Duration = Field(
        330.0,
        description="Longest time from a request's end to its answer's first byte. Real calls take 300 s.",
    )
    idle_timeout: Duration = Field(
        120.0, description="Longest time within a request or answer in which no byte moves either way."
    )
    pool_size: Annotated[int, Count(1, 16384), Metavar("NUMBER")] = Field(
        256, description="Most connections to the upstream, and so most requests in flight."
    )
    upstream_keep_alive: Duration = Field(
        55.0, description="How long an idle connection to the upstream is kept for the next request."
    )

    retries: Annotated[int, Count(0, 10), Metavar("NUMBER")] = Field(
        2,
        description="How often a GET, HEAD or OPTIONS is sent again after a 502, 503 or 504 of the upstream or a "
        "lost connection, and any request after a connection that could not be made. 0 for never.",
    )
    retry_backoff: Duration = Field(
        0.1,
        description="Longest pause before the first retry; it doubles, and the pause is drawn at random below it.",
    )
    retry_budget: Share = Field(
        0.2, description="Retries as a share of all requests, so that they never become most of the load."
    )

    max_wait: Duration = Field(
        300.0,
        description="Longest time that a request waits for its turn; Prefer: wait asks for less.",
    )
    max_waiting: Annotated[int, Count(1, 1_000_000), Metavar("NUMBER")] = Field(
        10_000,
        description="Most requests that wait at one time; further ones get 429 with an honest Retry-After.",
    )
    scopes: ScopeRules = Field(
        DEFAULT_SCOPE_RULES,
        description="What one rate limit of the upstream applies to: METHOD PATH -> SCOPE, the first match "
        "counts. Replaces the default list; what no rule matches belongs to the account.",
    )

    limits: Limits = Field(
        (),
        description="Limits that are known: SCOPE COUNT/PERIOD, such as account 60/minute; * in a scope stands for "
        "any text, the first match counts. Never exceeded, and learned downwards like any other.",
    )
    max_waiting_per_caller: Annotated[int, Count(1, 1_000_000), Metavar("NUMBER")] = Field(
        8_000, description="Most requests of one caller that wait at one time for the same limit."
    )
    lane_weights: LaneWeights = Field(
        (),
        description="Turns of a caller in a round, NAME=NUMBER; 1 for whoever is not named. Callers are named as "
        "caller_header says, else by address or unix:uid=NUMBER.",
    )
    state_file: OptionalPath = Field(
        None,
        description="File to keep what was learned of the limits across restarts. Empty: nothing is kept.",
    )

    body_memory: Size = Field(
        1 * MIB, description="Memory for the copy of one request's body; the rest goes to disk."
    )
    body_memory_total: Size = Field(64 * MIB, description="Memory for the copies of all bodies together.")
    spool_dir: OptionalPath = Field(
        None, description="Directory for the copies that go to disk. Empty: the system's temporary directory."
    )
    spool_total: Size = Field(4 * GIB, description="Disk space for the copies of all bodies together.")
    replay_limit: Size = Field(
        256 * MIB,
        description="Largest body that a copy is kept of. A larger one is sent once.",
    )

    server_timing: Switch = Field(
        default=True,
        description="Add Server-Timing to answers: how long the request waited, and the upstream took.",
    )
    via: Token = Field("", description="Pseudonym to add in a Via header. Empty: no Via.")
    log_format: Annotated[str, OneOf(("auto", "json", "console")), Metavar("FORMAT")] = Field(
        "auto", description="auto, json or console. auto: console on a terminal, JSON lines otherwise."
    )
    log_level: Annotated[str, OneOf(("debug", "info", "warning", "error")), Metavar("LEVEL")] = Field(
        "info", description="Least serious events to log: debug, info, warning or error."
    )
    drain_timeout: Duration = Field(
        25.0, description="Longest time that requests in flight get to end after SIGTERM or SIGINT."
    )

    def spool_path(self) -> Path:
        """The directory for bodies on disk."""
        return self.spool_dir or Path(tempfile.gettempdir())


def _limit(value: Any) -> LimitRule | None:
    rule = text(value)
    return None if rule == "none" else LimitRule.parse(rule)


class SandboxSettings(ProgramSettings):
    """Everything that can be set about the simulated API alone."""

    model_config = SettingsConfigDict(env_prefix="NANONETS_SANDBOX_", title="nanonets-proxy sandbox")

    listen: Listeners = Field(
        (TcpListener("127.0.0.1", 8090),),
        description="Where to serve: host:port, [::1]:8090, :8090, or unix:/path.",
    )
    api_keys: SandboxKeys = Field((), description="Keys to accept. Empty: one is made and shown at start.")
    limit: Annotated[
        LimitRule | None,
        PlainValidator(_limit),
        PlainSerializer(lambda rule: "none" if rule is None else str(rule), return_type=str),
        WithJsonSchema({"type": "string"}),
        NoDecode,
        Metavar("LIMIT"),
    ] = Field(LimitRule(60, 60.0), description="Calls per time, such as 20/60s; none for no limit.")
    limit_kind: Annotated[LimitKind, OneOf(tuple(LimitKind), LimitKind), Metavar("KIND")] = Field(
        LimitKind.FIXED_WINDOW, description="What the limit counts: fixed, sliding, bucket or concurrency."
    )
    limit_scope: Annotated[LimitScope, OneOf(tuple(LimitScope), LimitScope), Metavar("SCOPE")] = Field(
        LimitScope.DOCUMENTED,
        description="Which calls the limit covers: documented, account, v2-predict or all.",
    )
    hint: Annotated[HintStyle, OneOf(tuple(HintStyle), HintStyle), Metavar("PLACE")] = Field(
        HintStyle.BODY, description="Where a 429 says when to come back: body, header, both or none."
    )
    latency: Delay = Field(0.0, description="Time added to every call.")
    failure_rate: Share = Field(0.0, description="Share of calls that fail with 503, from 0 to 1.")
    pending_polls: Annotated[int, Count(0, 1_000_000), Metavar("NUMBER")] = Field(
        1, description="How often an asynchronous document is still pending before it is done."
    )

    def policy(self, api_keys: tuple[str, ...]) -> SandboxPolicy:
        """How the simulated API behaves when it accepts `api_keys`."""
        return SandboxPolicy(
            api_keys=api_keys,
            limit=self.limit,
            limit_kind=self.limit_kind,
            limit_scope=self.limit_scope,
            hint=self.hint,
            latency_s=self.latency,
            failure_rate=self.failure_rate,
            pending_polls=self.pending_polls,
        )
