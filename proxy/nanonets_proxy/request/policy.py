"""How requests are handled, as a value."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class HandlerPolicy:
    """`max_wait_s` bounds all waiting of one request together; `idle_timeout_s` each wait for body bytes,
    `body_timeout_s` all of a request's body.
    `credentials_header` holds callers' tokens; `tls` says that callers reach us by https."""

    max_wait_s: float
    idle_timeout_s: float
    body_timeout_s: float
    caller_header: str = ""
    server_timing: bool = True
    via: str = ""
    credentials_header: str = "authorization"
    tls: bool = False
    log_fields: Mapping[str, str] = field(default_factory=dict)
    """What each of its events carries."""
