"""The status document: the body of GET /status, version 1.

Its JSON schema and docs/reference/status.md are generated from these classes. A later version may add fields;
removing a field or changing its meaning takes a new `schema_version`. Null stands for an unknown value.
"""

from dataclasses import dataclass
from typing import Final

SCHEMA_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class State:
    """The state in one sentence."""

    code: str
    """`starting`, `draining`, `no_key`, `key_rejected`, `proxy_failing`, `upstream_failing`, `proxy_slow`,
    `proxy_full`, `key_forbidden`, `upstream_silent`, `upstream_slow`, `quota_used_up`, `partly_failing`,
    `queue_full`, `attempts_failing`, `waiting_for_upstream`, `waiting_for_place`, `limit_closed`, `callers_gone`,
    `last_failed`, `serving` or `idle`."""
    cause: str | None
    """The party to look at: `proxy`, `key`, `limit` or `upstream`; null if nothing is wrong."""
    sentence: str
    """A sentence that describes the state."""


@dataclass(frozen=True, slots=True)
class ScopeEntry:
    """One scope: the requests that share one rate limit of the upstream."""

    name: str
    """The scope's name."""
    state: str
    """`open` (the limit is unknown), `learned` (the limit is estimated), `closed` (by a 429) or `probing` (one
    request tests whether the limit is open again)."""
    opens_in_s: float
    """The cooldown left. 0: the scope is not closed."""
    count: float | None
    """The estimated limit: this many requests, or pages, in `period_s`. Null while it is unknown."""
    period_s: float | None
    """The period of `count`."""
    concurrency: float | None
    """The estimated limit of requests in flight. Null while it is unknown."""
    reserve: float
    """The part of `count` that another client of the key seems to use."""
    quota_used_up: bool
    """Whether a quota of a day or a month is used up."""
    waiting: int
    """Requests that wait for a permit."""
    in_flight: int
    """Requests that have a permit."""


@dataclass(frozen=True, slots=True)
class LaneEntry:
    """The queue of one caller in one scope."""

    caller: str
    """The caller's name, cut to 64 characters. Callers may have chosen it: show it as text."""
    scope: str
    """The scope's name."""
    waiting: int
    """The caller's waiting requests in this scope."""
    ends_in_s: float | None
    """When the last of them is expected to be sent. Null while the limit is unknown."""


@dataclass(frozen=True, slots=True)
class FleetStatus:
    """The replicas that share the rate limits (setting `coordination`)."""

    role: str
    """`leads` (this replica's gate decides for all), `follows` (it asks the leader), `joins` (for a moment, nobody
    decides) or `alone` (it uses its share of each limit)."""
    replicas: int
    """The replicas that this one has last heard of, itself included."""


@dataclass(frozen=True, slots=True)
class GateStatus:
    """The queue and the rate limits."""

    waiting: int
    """Requests that wait for a permit."""
    waiting_callers: int
    """Callers with waiting requests."""
    max_waiting: int
    """The setting `max_waiting`."""
    in_flight: int
    """Requests in flight."""
    max_in_flight: int
    """The setting `pool_size`."""
    next_permit_in_s: float | None
    """The shortest time until a waiting request gets its permit. Null if none waits, or if the permit depends on a
    response, or on the leader of a fleet."""
    scopes: tuple[ScopeEntry, ...]
    """The busiest scopes that wait, are in use, or have a known limit."""
    scopes_total: int
    """The number of scopes, shown or not."""
    lanes: tuple[LaneEntry, ...]
    """The longest lanes."""
    lanes_total: int
    """The number of lanes, shown or not."""
    fleet: FleetStatus | None = None
    """Null without `coordination`. With it, `lanes` of the replica that leads has the callers of all replicas, and
    callers that only others know have a hash as their name. All else is about this replica."""

    @property
    def asks_leader(self) -> bool:
        """Whether another replica decides."""
        return self.fleet is not None and self.fleet.role in ("follows", "joins")


@dataclass(frozen=True, slots=True)
class KeyEntry:
    """One known API key."""

    name: str
    """The source that the key came from."""
    fingerprint: str
    """8 hex digits that identify the key and do not reveal it."""
    state: str
    """`candidate`, `active`, `previous` or `rejected`."""
    age_s: int
    """The time since the key was put into its source."""


@dataclass(frozen=True, slots=True)
class KeysStatus:
    """The API keys."""

    source: str
    """The source of the keys."""
    state: str
    """`serving`, `gap` (requests wait for a new key) or `spent` (callers get the upstream's 401)."""
    is_rejected: bool
    """Whether the upstream rejects every request, although a key is in use."""
    keys: tuple[KeyEntry, ...]
    """The known keys."""
    warnings: tuple[str, ...]
    """Sentences for the operator."""
    source_fault: str | None
    """Why the last reading of the source failed."""


@dataclass(frozen=True, slots=True)
class RequestCounts:
    """The finished requests of the last hour, in buckets of `bucket_s` seconds, the oldest first."""

    bucket_s: int
    """The length of a bucket. The last bucket is not full yet."""
    per_second: float
    """The mean rate of the last minute."""
    served: tuple[int, ...]
    """Whole responses with 1xx, 2xx or 3xx."""
    client_errors: tuple[int, ...]
    """Responses with 4xx, without 429; and 501 `not_implemented` and 505, which callers cause too."""
    throttled: tuple[int, ...]
    """Responses with 429: the caller waited in vain, or the proxy relayed the upstream's 429."""
    server_errors: tuple[int, ...]
    """Responses with 5xx, and those that the upstream broke off."""
    gone: tuple[int, ...]
    """Requests whose caller hung up before the response."""
    mean_wait_s: tuple[float, ...]
    """The mean time in the queue, for each bucket."""
    mean_upstream_s: tuple[float, ...]
    """The mean time from the permit to the end of the upstream's response, for each bucket."""


@dataclass(frozen=True, slots=True)
class Problem:
    """An alert, or errors of one kind, with the cure."""

    kind: str
    """An alert's event, the `code` of an error response of the proxy, or `upstream_` and the upstream's status."""
    times: int
    """How often: since the start for an alert, among the last 50 errors for an error."""
    age_s: int
    """The time since the last one."""
    is_alert: bool
    """Whether it is an alert, which an operator can fix."""
    caller: str
    """The caller of the last one; empty for an alert."""
    request_id: str
    """The id of the last one, to find it in the log; empty for an alert."""
    advice: str
    """What to do."""
    sentence: str = ""
    """What happened, with its figures, if the alert has such a sentence."""
    what: str = ""
    """What came in place of the API's response, if the kind is `unexpected_response`: `html`, `other_type`,
    `broken_json` or `not_http`."""
    reason: str = ""
    """Why, if the alert has a reason or an error, such as `cannot be written: the disk is full`; at most 200
    characters."""


@dataclass(frozen=True, slots=True)
class Usage:
    """A usage that has a limit."""

    used: int
    """In use now."""
    limit: int
    """The limit."""


@dataclass(frozen=True, slots=True)
class CallerUsage:
    """What one caller has used today (UTC), according to the usage ledger."""

    caller: str
    """The caller's name, as in the lanes."""
    requests: int
    """Requests sent to the upstream."""
    pages: float
    """Pages sent to the upstream."""


@dataclass(frozen=True, slots=True)
class JobsStatus:
    """The durable jobs, of all processes that use their directory."""

    queued: Usage
    """Jobs that wait; the limit is the setting `max_jobs`."""
    sending: int
    """Jobs that are being sent."""
    done: int
    """Jobs whose response is stored."""
    failed: int
    """Jobs that could never be sent."""
    unknown: int
    """Jobs that were sent, and whose response is not known."""
    oldest_queued_s: int
    """The age of the oldest queued job; 0 without one."""
    bytes: Usage
    """Disk space of jobs and responses; the limit is the setting `jobs_total`."""


@dataclass(frozen=True, slots=True)
class EnvironmentStatus:
    """One environment."""

    name: str
    """The environment's name; empty if there is only one."""
    upstream: str
    """The upstream's origin, or `sandbox`."""
    state: State
    """The state in one sentence."""
    gate: GateStatus
    """The queue and the rate limits."""
    keys: KeysStatus
    """The API keys."""
    requests: RequestCounts
    """The requests of the last hour."""
    problems: tuple[Problem, ...]
    """The recent problems: alerts first, then the newest errors."""
    caller_connections: Usage
    """Open connections from callers."""
    idle_upstream_connections: int
    """Idle connections to the upstream."""
    body_memory_bytes: Usage
    """Memory for copies of request bodies."""
    body_spool_bytes: Usage
    """Disk space for copies of request bodies."""
    usage: tuple[CallerUsage, ...] | None
    """The callers that have used the most today. Null without a usage ledger."""
    jobs: JobsStatus | None
    """The durable jobs. Null without the setting `jobs`."""


@dataclass(frozen=True, slots=True)
class StatusDocument:
    """The status of the process and its environments."""

    schema_version: int
    """The version of this document: 1."""
    version: str
    """The proxy's version."""
    time: str
    """When the status was read, in UTC (RFC 3339)."""
    uptime_s: int
    """The time since the start."""
    state: State
    """The state of the environment that needs the most attention."""
    open_files_limit: int
    """The limit of open files of the process."""
    is_shortened: bool
    """Whether lists are shorter than usual, because the document would exceed 64 KiB."""
    environments: tuple[EnvironmentStatus, ...]
    """The environments."""
