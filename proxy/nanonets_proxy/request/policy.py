"""The parameters of the handling of requests."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from nanonets_proxy.core.http.prefer import wait_s
from nanonets_proxy.server.connection.body_times import BodyTimes


@dataclass(frozen=True, slots=True)
class HandlerPolicy:
    """How one environment handles its requests."""

    max_wait_s: float
    """Bounds the time that one request waits, over all its permits."""
    idle_timeout_s: float
    """Bounds each wait for bytes of a body, in both directions."""
    body_times: BodyTimes
    caller_header: str = ""
    """Name of the field that names the caller; "": the peer's address names it."""
    cost_header: str = ""
    """Name of the field that states the request's pages; "": none."""
    server_timing: bool = True
    """Whether responses carry Server-Timing."""
    via: str = ""
    """The pseudonym in Via, in both directions; "": no Via."""
    trace_upstream: bool = False
    """Whether the upstream gets the trace context of requests that have one."""
    credentials_header: str = "authorization"
    """Name of the field that holds a caller's token."""
    tls: bool = False
    """Whether callers use https."""
    keeps_host: bool = False
    """Whether the upstream gets the caller's Host."""
    coalesce: tuple[str, ...] = ()
    """Patterns of the paths whose identical GETs share one upstream request."""
    revalidate: tuple[str, ...] = ()
    """Patterns of the paths whose responses are kept with their ETag."""
    log_successes: float = 1.0
    """The share of successful requests that get a log event."""
    log_fields: Mapping[str, str] = field(default_factory=dict)
    """Added to the fields of each log event."""

    def max_wait_for(self, prefer: tuple[bytes, ...]) -> float:
        """Returns how long a request may wait: the caller's preference (RFC 7240 §4.3), within `max_wait_s`."""
        preferred_s = wait_s(prefer)
        return self.max_wait_s if preferred_s is None else min(preferred_s, self.max_wait_s)
