"""A sampled request that has ended, for the tests of its spans."""

from time import perf_counter
from types import SimpleNamespace
from typing import Any

from nanonets_proxy.core.http.trace_context import TraceContext

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def finished(number: int = 1, **facts: Any) -> Any:
    """Returns the facts of a sampled request without a wait and an attempt. `number` begins its span's id."""
    usual = {
        "trace": TraceContext(TRACE, PARENT, 3),
        "ids": bytes.fromhex(f"{TRACE}{number:012x}"),
        "spans": [],
        "started_s": perf_counter(),
        "total_s": 0.1,
        "method": "GET",
        "path": "/x",
        "route": "/other",
        "status": 200,
        "code": "",
        "caller": "a",
        "scope": "account",
        "request_id": "r",
    }
    return SimpleNamespace(**usual | facts)
