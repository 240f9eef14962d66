"""The facts of a finished request, as its observers read them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Finished:
    """A request that was served at once."""

    method: str = "GET"
    status: int = 200
    caller: str = "127.0.0.1"
    route: str = "/api/v4/workflows"
    scope: str = "account"
    code: str = ""
    details: Mapping[str, Any] | None = None
    attempts: int = 1
    retried_after: str = ""
    wait_s: float = 0.0
    upstream_s: float | None = None
    total_s: float = 0.0
    received_bytes: int = 0
    sent_bytes: int = 0
