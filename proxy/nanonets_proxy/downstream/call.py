"""What is noted of one request while it lives, and the log event and metrics at its end."""

import random
import re
from collections.abc import Callable
from time import perf_counter
from typing import Any, Final

from aiohttp import web

from nanonets_proxy.core.target import loggable
from nanonets_proxy.telemetry.metrics import RequestTally

_GOOD_REQUEST_ID: Final = re.compile(rb"[!-~]{1,128}")
_MAX_CALLER_CHARS: Final = 128


class Call:
    """One request's notes, durations in seconds. `status` 0: the caller hung up first."""

    __slots__ = (
        "attempts",
        "caller",
        "code",
        "error",
        "key_name",
        "method",
        "queue_s",
        "received_bytes",
        "request_id",
        "scope",
        "sent_bytes",
        "started_s",
        "status",
        "target",
        "upstream_s",
    )

    def __init__(self, request: web.BaseRequest, caller: str) -> None:
        self.method = request.method
        self.target = request.raw_path
        self.caller = caller
        self.started_s = perf_counter()
        self.request_id = ""
        self.scope = ""
        self.key_name = ""
        self.status = 0
        self.code: str | None = None
        self.error: str | None = None
        self.attempts = 0
        self.queue_s = 0.0
        self.upstream_s: float | None = None
        self.received_bytes = 0
        self.sent_bytes = 0

    def identify(self, request_id: bytes | None, caller: bytes | None) -> None:
        """Takes over what the caller says of itself, within bounds; makes an id where there is no good one."""
        if request_id is not None and _GOOD_REQUEST_ID.fullmatch(request_id):
            self.request_id = request_id.decode("ascii")
        else:
            self.request_id = _new_id()
        if caller:
            self.caller = caller[:_MAX_CALLER_CHARS].decode("latin-1")

    def ensure_request_id(self) -> str:
        if not self.request_id:
            self.request_id = _new_id()
        return self.request_id

    def finish(self, log: Callable[[dict[str, Any]], None], requests: RequestTally) -> None:
        """One log event and the counts."""
        requests.observe(self.method, self.status, self.queue_s, self.upstream_s)
        event: dict[str, Any] = {
            "method": self.method,
            "path": loggable(self.target),
            "status": self.status,
            "caller": self.caller,
            "scope": self.scope,
            "attempts": self.attempts,
            "wait_s": _to_100_us(self.queue_s) if self.queue_s else 0.0,
            "upstream_s": None if self.upstream_s is None else _to_100_us(self.upstream_s),
            "total_s": _to_100_us(perf_counter() - self.started_s),
            "received_bytes": self.received_bytes,
            "sent_bytes": self.sent_bytes,
            "request_id": self.request_id or self.ensure_request_id(),
            "key": self.key_name,
        }
        if self.code is not None:
            event["code"] = self.code
        if self.error is not None:
            event["error"] = self.error
        log(event)


def _new_id() -> str:
    return random.getrandbits(64).to_bytes(8).hex()


def _to_100_us(seconds: float) -> float:
    """Rounded; `round` goes by way of decimal text, which three of them in each event would feel."""
    return int(seconds * 10_000 + 0.5) / 10_000
