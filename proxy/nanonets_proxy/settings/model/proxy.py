"""The proxy's settings, in the order in which `--help` and the reference show them."""

import tempfile
from pathlib import Path
from typing import Annotated, Final

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from nanonets_proxy.core.coalescing.groups import DEFAULT_COALESCE
from nanonets_proxy.core.keys.audience import DEFAULT_UPSTREAM, AuthScheme
from nanonets_proxy.core.ratelimit.scopes.scope_table import DEFAULT_SCOPE_RULES, ScopeRule
from nanonets_proxy.settings.model.access import AccessSettings
from nanonets_proxy.settings.model.fields import (
    CollectorOrigin,
    HttpToken,
    LaneWeights,
    Limits,
    OptionalEgressProxy,
    OptionalPath,
    OptionalWebhookUrl,
    PathPatterns,
    PublicKeyPins,
    ScopeRules,
    SecretPath,
    UpstreamOrigin,
)
from nanonets_proxy.settings.model.fleet import FleetSettings
from nanonets_proxy.settings.model.jobs import JobSettings
from nanonets_proxy.settings.model.keys import KeySettings
from nanonets_proxy.settings.model.listeners import ListenerSettings
from nanonets_proxy.settings.model.quantities import Count, Delay, Duration, Metavar, OneOf, Share, Size, Switch
from nanonets_proxy.settings.presets import PRESETS

_MIB: Final = 2**20
_GIB: Final = 2**30


# pydantic puts the fields of the last base class first.
class Settings(JobSettings, FleetSettings, AccessSettings, ListenerSettings, KeySettings):
    """All settings of the proxy. Durations are in seconds, sizes in bytes."""

    model_config = SettingsConfigDict(env_prefix="NANONETS_PROXY_", title="nanonets-proxy")

    upstream: UpstreamOrigin = Field(
        DEFAULT_UPSTREAM,
        description="Origin of the Nanonets API. Plain http is allowed only to loopback.",
    )
    auth: Annotated[AuthScheme, OneOf(tuple(AuthScheme), AuthScheme), Metavar("SCHEME")] = Field(
        AuthScheme.BASIC,
        description="How the upstream gets the key: basic, as the user name of HTTP Basic (the Nanonets API), or "
        "bearer, as a bearer token (DocStrange).",
    )
    preset: Annotated[str, OneOf(("none", *PRESETS)), Metavar("NAME")] = Field(
        "none",
        description="Other defaults for another upstream. docstrange: upstream, auth, scopes, coalesce and "
        "key_probe for the DocStrange API. Settings that are given win.",
    )
    ca_file: OptionalPath = Field(
        None,
        description="PEM file of the certificate authorities to trust instead of the system's.",
    )
    egress_proxy: OptionalEgressProxy = Field(
        None,
        description="HTTP proxy for connections to the upstream, as http://[user:password@]host:port. TLS runs "
        "through it, so it never sees the key.",
    )
    upstream_private: Switch = Field(
        default=False,
        description="Allow the upstream's name to resolve to a private address. An upstream given as an address or "
        "as localhost does not need it.",
    )
    upstream_pins: PublicKeyPins = Field(
        (),
        description="Accepted public keys of the upstream's certificate, as sha256//BASE64, the form of `curl "
        "--pinnedpubkey`. The certificate must also be valid.",
    )
    connect_timeout: Duration = Field(
        10.0, description="Maximum time to connect to the upstream, including the TLS handshake."
    )
    first_byte_timeout: Duration = Field(
        330.0,
        description="Maximum time from the end of a request to the first byte of its response. Synchronous "
        "extractions take up to 300s.",
    )
    idle_timeout: Duration = Field(
        120.0, description="Maximum time without a byte in either direction during a request or response."
    )
    pool_size: Annotated[int, Count(1, 16384), Metavar("NUMBER")] = Field(
        512, description="Maximum connections to the upstream, and therefore maximum requests in flight."
    )
    pool_per_caller: Switch = Field(
        default=False,
        description="Use a connection to the upstream again only for the same caller, as named in the log. Late "
        "bytes of a faulty upstream then reach no other caller. When the proxy notices such bytes, it does so by "
        "itself until it restarts.",
    )
    upstream_keep_alive: Duration = Field(
        55.0, description="How long an idle connection to the upstream stays open for the next request."
    )

    retries: Annotated[int, Count(0, 10), Metavar("NUMBER")] = Field(
        2,
        description="Maximum retries of a GET, HEAD or OPTIONS after a 502, 503, 504 or a lost connection, and of "
        "any request whose connection could not be made. 0: no retries.",
    )
    retry_backoff: Duration = Field(
        0.1,
        description="Maximum delay before the first retry; it doubles for each further retry. Each delay is random "
        "below its maximum.",
    )
    retry_budget: Share = Field(
        0.2,
        description="Maximum share of retries among all requests, so that retries cannot overload the upstream.",
    )

    max_wait: Duration = Field(
        300.0,
        description="Maximum time that a request waits in the queue. A caller can lower it with Prefer: wait.",
    )
    max_waiting: Annotated[int, Count(1, 1_000_000), Metavar("NUMBER")] = Field(
        10_000,
        description="Maximum requests in the queue. The proxy rejects further requests with 429 and a Retry-After "
        "that it forecasts from the queue.",
    )
    scopes: ScopeRules = Field(
        tuple(map(ScopeRule.parse, DEFAULT_SCOPE_RULES)),
        description="Rules METHOD PATH -> SCOPE that say which requests share one rate limit of the upstream. The "
        "first match applies; the scope `account` takes all other requests. A rule may end with `pages`: its limit "
        "is in pages. This list replaces the default rules.",
    )
    cost_header: HttpToken = Field(
        "",
        description="Request header in which a caller states the pages of its request, for scopes whose rule, or "
        "limit in limits, is in pages. It is not forwarded. With the extra `pages`, the proxy counts the pages of "
        "other requests; if it cannot, a request counts as the mean of its scope.",
    )
    limits: Limits = Field(
        (),
        description="Known rate limits, as SCOPE COUNT [UNIT]/PERIOD, such as account 60/minute, or "
        "v2:predict:* 20 pages/minute. * in a scope matches any text; the first match applies. The proxy never "
        "exceeds them, and lowers its estimate if the upstream refuses earlier.",
    )
    max_waiting_per_caller: Annotated[int, Count(1, 1_000_000), Metavar("NUMBER")] = Field(
        8_000, description="Maximum requests of one caller in the queue of one scope."
    )
    lane_weights: LaneWeights = Field(
        (),
        description="Requests sent in each turn of a caller, as NAME=NUMBER; 1 for other callers. NAME is the "
        "caller's name in the log: from its token or certificate, caller_header, its address, or unix:uid=NUMBER.",
    )
    quota_probe: Duration = Field(
        3600.0,
        description="Maximum time between two tests of a quota that is used up for the day or month. A new request "
        "is the test. The first test comes after a minute, and the time between tests doubles.",
    )
    coalesce: PathPatterns = Field(
        DEFAULT_COALESCE,
        description="Paths whose identical GETs share one request to the upstream while it is in flight, such as "
        "/api/v4/workflows/{workflow}/documents/{document}. {name} stands for one segment, a final ** for any "
        "number. The default paths are those that clients poll for a document's status. A GET that comes after a "
        "write to the same path, or below it, is sent by itself. Empty: none.",
    )
    revalidate: PathPatterns = Field(
        (),
        description="Paths whose responses to GETs the proxy keeps in memory if they have an ETag: the latest, "
        "16 MiB in all. An identical GET asks the upstream whether the response has changed. On a 304, its caller "
        "gets the kept response. The paths have the form of coalesce. Empty: none.",
    )
    state_file: OptionalPath = Field(
        None,
        description="File that keeps the learned rate limits across restarts. Empty: the proxy learns them again.",
    )

    ledger: OptionalPath = Field(
        None,
        description="SQLite file that records each attempt: when, by which caller, method, route and status, bytes "
        "and pages. `nanonets-proxy usage` shows it, and daily_budget counts from it across restarts. In a "
        "container, its directory must be a volume that the container's user may write. Empty: none.",
    )
    ledger_days: Annotated[int, Count(1, 36_500), Metavar("NUMBER")] = Field(
        400, description="How many days the ledger keeps attempts and their sums."
    )
    ledger_rows: Annotated[int, Count(0, 10**9), Metavar("NUMBER")] = Field(
        10_000_000,
        description="Maximum single attempts in the ledger, about 35 bytes each. Without the oldest ones, the sums "
        "by hour stay.",
    )
    webhook_url: OptionalWebhookUrl = Field(
        None,
        description="URL that gets each alert as a POST with a JSON document. Plain http is allowed only to "
        "loopback and private addresses, and egress_proxy is not used. The path counts as a secret. Empty: none.",
    )
    webhook_secret_file: SecretPath = Field(
        None,
        description="File with the secret that signs the documents for webhook_url, as Standard Webhooks says: "
        "whsec_ and 24 to 64 random bytes in base64. Empty: the documents are not signed.",
    )

    body_memory: Size = Field(
        1 * _MIB, description="Memory for the copy of one request body. The remainder goes to disk."
    )
    body_memory_total: Size = Field(64 * _MIB, description="Memory for the copies of all request bodies together.")
    spool_dir: OptionalPath = Field(
        None, description="Directory for copies on disk. Empty: the system's temporary directory."
    )
    spool_total: Size = Field(4 * _GIB, description="Disk space for the copies of all request bodies together.")
    replay_limit: Size = Field(
        256 * _MIB,
        description="Largest request body that the proxy copies. It sends a request with a larger body only once.",
    )

    server_timing: Switch = Field(
        default=True,
        description="Add Server-Timing to responses: the time in the queue and the upstream's time.",
    )
    via: HttpToken = Field(
        "nanonets-proxy",
        description="Pseudonym in the Via header field of requests and responses. Empty: no Via. Some servers, "
        "such as nginx without `gzip_proxied`, compress no response to a request with Via.",
    )
    trace_upstream: Switch = Field(
        default=False,
        description="Send the trace context of a request upstream: traceparent with a span of the proxy, and "
        "tracestate. Off: both end at the proxy, and only the log has the trace.",
    )
    otlp_endpoint: CollectorOrigin = Field(
        None,
        description="Origin of an OpenTelemetry collector that takes OTLP over HTTP, such as "
        "http://localhost:4318. The proxy sends it the traces of requests: the request, its waits in the queue, "
        "and each attempt. Empty: none.",
    )
    otlp_share: Share = Field(
        1.0,
        description="Share of the requests without a traceparent that are traced. A traceparent decides for its "
        "own request.",
    )
    otlp_metrics_endpoint: CollectorOrigin = Field(
        None,
        description="Origin of an OpenTelemetry collector that takes OTLP over HTTP. The proxy sends it the "
        "metrics of /metrics, with exponential histograms of durations. Empty: none.",
    )
    otlp_metrics_interval: Duration = Field(
        60.0, description="Time from one sending of metrics to otlp_metrics_endpoint to the next."
    )
    log_format: Annotated[str, OneOf(("auto", "json", "console")), Metavar("FORMAT")] = Field(
        "auto", description="auto, json or console. auto: console on a terminal, otherwise JSON lines."
    )
    log_level: Annotated[str, OneOf(("debug", "info", "warning", "error")), Metavar("LEVEL")] = Field(
        "info", description="Minimum level of logged events: debug, info, warning or error."
    )
    log_successes: Share = Field(
        1.0,
        description="Share of successful requests that get a log event, chosen at random, from 0 to 1. A request "
        "with an error, a status of 400 or more or a retry always gets one. Metrics and the ledger count every "
        "request.",
    )
    drain_delay: Delay = Field(
        0.0,
        description="How long the proxy keeps serving after SIGTERM or SIGINT, while /readyz already says "
        "draining. A sidecar needs the time that its service takes to stop.",
    )
    drain_timeout: Duration = Field(
        25.0,
        description="Maximum time for requests in flight to finish after drain_delay.",
    )

    def spool_path(self) -> Path:
        """Returns the directory for copies on disk."""
        return self.spool_dir or Path(tempfile.gettempdir())
