"""The access record: the facts of one request, for its log event and its observers."""

import os
import re
import struct
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from math import floor
from time import perf_counter
from typing import Any, Final

from nanonets_proxy.core.access.caller_names import stated_name
from nanonets_proxy.core.api.routes import OTHER_ROUTE
from nanonets_proxy.core.http.target import loggable_target
from nanonets_proxy.core.http.trace_context import (
    NEW_TRACE_FLAGS,
    RANDOM_SPAN_BYTES,
    TRACE_ID_BYTES,
    TraceContext,
    span_number,
)
from nanonets_proxy.server.connection.caller_request import CallerRequest
from nanonets_proxy.telemetry.finished_request import Observer, RecordedSpan
from nanonets_proxy.telemetry.log import EventWriter

_VALID_REQUEST_ID: Final = re.compile(rb"[!-~]{1,128}")
_TRACE_ID_DIGITS: Final = 2 * TRACE_ID_BYTES
_OWN_NUMBER: Final = span_number(0).hex()


class AccessRecord:
    """The log fields of one request. Durations are in seconds."""

    __slots__ = (
        *(
            "attempts",
            "caller",
            "code",
            "details",
            "error",
            "ids",
            "is_coalesced",
            "is_counted",
            "key",
            "level",
            "loggable_target",
            "method",
            "path",
            "pages",
        ),
        *("received_bytes", "request_id", "route", "scope", "sent_bytes", "started_s", "status", "total_s"),
        *("retried_after", "spans", "trace", "upstream_s", "wait_s"),
    )

    def __init__(self, request: CallerRequest, caller: str) -> None:
        self.method = request.method
        self.path = request.target
        """With the query."""
        self.route = OTHER_ROUTE
        """The path's template, known after the target is read."""
        self.loggable_target = ""
        """The target for the log, known with the route."""
        self.status = 0
        """0: the caller hung up before the response began."""
        self.caller = caller
        self.scope = ""
        self.pages: int | None = None
        """Stated by the caller or counted, in a scope whose limit is in pages; None: unknown."""
        self.is_counted = False
        """Whether it counts in the caller's daily budget."""
        self.is_coalesced = False
        """Whether the response is that to an identical GET of another caller or connection."""
        self.attempts = 0
        self.retried_after = ""
        """The kind of the last failure after which the request was sent again, such as `upstream_503`."""
        self.wait_s = 0.0
        self.upstream_s: float | None = None
        """From the last permit to the end of the response; None: nothing was sent upstream, or no response came."""
        self.started_s = perf_counter()
        self.total_s = 0.0
        """Known when the request is finished."""
        self.received_bytes = 0
        self.sent_bytes = 0
        self.request_id = new_id()
        self.key = ""
        """The key's name."""
        self.code = ""
        """The error's code; "": the request was served. `error` is its message."""
        self.error = ""
        self.details: dict[str, Any] | None = None
        """Further facts for the caller, and facts for the log alone."""
        self.trace: TraceContext | None = None
        """The caller's trace; None: there is none."""
        self.ids = b""
        """The ids of the trace and of the request's own span in it, without its number; b"": there is no trace."""
        self.spans: list[RecordedSpan] | None = None
        """The waits and attempts, in order of their ends; None: the request is not sampled."""
        self.level = ""
        """The level of the log event; "": info."""

    def identify(self, request_id: bytes | None, caller: bytes | None, redact: Callable[[bytes], bytes]) -> None:
        """Takes over the request's id if it is valid, and the caller's name as `stated_name` reads it.

        A client that still sends the API key may put it there. The name goes into the ledger and to other places
        without a filter of their own, so `redact` masks secrets here. A cut first would leave a part of a secret.
        """
        if request_id is not None and _VALID_REQUEST_ID.fullmatch(request_id):
            self.request_id = request_id.decode("ascii")
        if caller:
            self.caller = stated_name(redact(caller))

    def continue_trace(self, trace: TraceContext) -> None:
        """Makes the request a span of the caller's trace."""
        self.trace, self.ids = trace, bytes.fromhex(trace.trace_id) + _new_ids()[TRACE_ID_BYTES:]

    def begin_trace(self) -> None:
        """Makes the request the first span of a new trace."""
        self.ids = _new_ids()

    def trace_fields(self) -> bytes:
        """Returns traceparent and tracestate for the next attempt, which has its own span if spans are recorded."""
        number = 0 if self.spans is None else len(self.spans) + 1
        trace = self.trace or TraceContext(self.ids[:TRACE_ID_BYTES].hex(), "", NEW_TRACE_FLAGS)
        return trace.fields_for((self.ids[TRACE_ID_BYTES:] + span_number(number)).hex())

    @property
    def is_success(self) -> bool:
        """Whether the request ended without an error, the upstream's or ours."""
        return not self.code and 0 < self.status < 400

    def finish(self, log: EventWriter | None, observers: Iterable[Observer]) -> None:
        """Calls the observers, and writes the log event with durations rounded to 100 µs; `log` None: no event."""
        wait_s, upstream_s = self.wait_s, self.upstream_s
        total_s = self.total_s = perf_counter() - self.started_s
        for observe in observers:
            observe(self)
        if log is None:
            return
        # `round` converts to decimal text and back, which takes longer than `floor`.
        event: dict[str, Any] = {
            "method": self.method,
            "path": self.loggable_target or loggable_target(self.path),
            "status": self.status,
            "caller": self.caller,
            "scope": self.scope,
            "attempts": self.attempts,
            "wait_s": floor(wait_s * 10_000 + 0.5) / 10_000 if wait_s else 0.0,
            "upstream_s": None if upstream_s is None else floor(upstream_s * 10_000 + 0.5) / 10_000,
            "total_s": floor(total_s * 10_000 + 0.5) / 10_000,
            "received_bytes": self.received_bytes,
            "sent_bytes": self.sent_bytes,
            "request_id": self.request_id,
            "key": self.key,
        }
        if self.ids:
            ids = self.ids.hex()
            event["trace_id"], event["span_id"] = ids[:_TRACE_ID_DIGITS], ids[_TRACE_ID_DIGITS:] + _OWN_NUMBER
        if self.is_coalesced:
            event["coalesced"] = True
        if self.pages is not None:
            event["pages"] = self.pages
        if self.retried_after:
            event["retried_after"] = self.retried_after
        if self.code:
            event["code"], event["error"] = self.code, self.error
        if self.details:
            event["details"] = self.details
        log(event)


def _id_batches() -> Iterator[list[str]]:
    """Yields 64 ids of 64 random bits at a time: one system call per id would cost twice as much."""
    while True:
        yield os.urandom(8 * 64).hex(" ", 8).split()


new_id: Final = chain.from_iterable(_id_batches()).__next__
"""Returns 16 random hex digits."""


def _trace_batches() -> Iterator[tuple[bytes, ...]]:
    """Yields the ids of 64 traces, each with that of a span, without its number."""
    batch = struct.Struct(f"{TRACE_ID_BYTES + RANDOM_SPAN_BYTES}s" * 64)
    while True:
        yield batch.unpack(os.urandom(batch.size))


_new_ids: Final = chain.from_iterable(_trace_batches()).__next__
