"""The spans of one request: its own, one for each wait in the queue, and one for each attempt.

Names and attributes follow OpenTelemetry's HTTP semantic conventions
(https://opentelemetry.io/docs/specs/semconv/http/http-spans/). Most of a span is the same in other spans too, so a
layout is made once and remembered: the constant bytes of a span, and a function that adds the bytes that differ.
Their lengths are part of its key, because a span begins with its length.
"""

import struct
from collections.abc import Callable
from typing import Final, Protocol, TypeVar

from nanonets_proxy.core.api.routes import OTHER_ROUTE
from nanonets_proxy.core.http.methods import USUAL_METHODS
from nanonets_proxy.core.http.target import loggable_target
from nanonets_proxy.core.http.trace_context import (
    NEW_TRACE_FLAGS,
    RANDOM_SPAN_BYTES,
    SPAN_NUMBER_BYTES,
    TRACE_ID_BYTES,
    TraceContext,
    span_number,
)
from nanonets_proxy.core.net.addresses import Origin
from nanonets_proxy.telemetry.finished_request import RecordedSpan
from nanonets_proxy.telemetry.otlp.protobuf import (
    FIXED32,
    attribute,
    attribute_prefixes,
    message,
    number,
    tag,
    text,
    varint,
)

_NS_PER_S: Final = 1e9
_FIRST_SERVER_ERROR, _FIRST_CLIENT_ERROR = 500, 400
_INTERNAL, _SERVER, _CLIENT = 1, 2, 3
_MOST_REMEMBERED: Final = 256
_MOST_PATH_CHARS: Final = 512

# Tags of the fields that differ in each span. A message may have its fields in any order.
_TRACE_ID, _SPAN_ID, _PARENT_ID, _START, _END = b"\x0a\x10", b"\x12\x08", b"\x22\x08", b"\x39", b"\x41"
_OWN: Final = bytes(SPAN_NUMBER_BYTES)
_OWN_START, _OWN_SPAN = _OWN + _START, _OWN + _SPAN_ID
# The trace id, the tag of the span id, the random bytes of the span id; then the rest of the id and the tag of the
# start, the instants, and the tag of the end between them.
_IDS: Final = f"{TRACE_ID_BYTES}s2s{RANDOM_SPAN_BYTES}s"
_INSTANTS: Final = f"{SPAN_NUMBER_BYTES + 1}sqcq"
_OWN_ID: Final = f"{SPAN_NUMBER_BYTES + 2}s{RANDOM_SPAN_BYTES}s"
_FLAGS: Final = 16
_ATTRIBUTE, _SPAN = 9, 2  # in `Span`, and in `ScopeSpans`


_Kind = tuple[str, str, int, str, str, str]
"""Method, route, status, code, caller, scope of a request."""
_Child = tuple[str, int | None, str, int, int, int, int]
"""Method, status, error; numbers among the spans and among the attempts; flags, and the length of the URL."""
_Layout = tuple[Callable[..., bytes], bytes]
"""Packs the constant bytes and those that differ; the constant bytes."""
Key = TypeVar("Key")
Value = TypeVar("Value")


class TracedRequest(Protocol):
    """The facts of a finished request that its spans show."""

    trace: TraceContext | None
    """The caller's trace."""
    ids: bytes
    spans: list[RecordedSpan] | None
    started_s: float
    total_s: float
    method: str
    path: str
    route: str
    status: int
    code: str
    caller: str
    scope: str
    request_id: str


class SpanEncoder:
    """Encodes the spans of requests to one upstream."""

    def __init__(self, upstream: Origin, scheme: str) -> None:
        """`scheme` is that of callers."""
        self._upstream = str(upstream)
        self._of_upstream = _attribute("server.address", upstream.host) + _attribute("server.port", upstream.port)
        self._scheme = _attribute("url.scheme", scheme)
        self._targets: dict[str, tuple[bytes, bytes]] = {}
        self._request_ids = attribute_prefixes(_ATTRIBUTE, "nanonets_proxy.request_id")
        self._roots: dict[tuple[*_Kind, int, int, int, int], _Layout] = {}
        self._children: dict[_Child, tuple[Callable[..., bytes], bytes, bytes]] = {}

    def encode(self, request: TracedRequest, epoch_ns: int) -> bytes:
        """Returns the spans of a sampled request, as fields of `ScopeSpans`.

        `epoch_ns` converts an instant of `perf_counter` to nanoseconds since 1970.
        """
        trace, ids, spans, method = request.trace, request.ids, request.spans, request.method
        assert spans is not None
        path, url = self._targets.get(request.path) or self._target(request.path)
        request_id, flags, parent = request.request_id.encode(), NEW_TRACE_FLAGS, b""
        if trace is not None:
            flags, parent = trace.flags, _parent(trace)
        route, code, caller, scope = request.route, request.code, request.caller, request.scope
        root = method, route, request.status, code, caller, scope, flags, len(request_id), len(path), len(parent)
        pack, constant = self._roots.get(root) or self._root(root)
        span_id, began = ids[TRACE_ID_BYTES:], int(request.started_s * _NS_PER_S) + epoch_ns
        ended = began + int(request.total_s * _NS_PER_S)
        # An `s` of `struct` takes the first bytes of a longer value. A call with `*` takes 2,000 instructions more.
        encoded = pack(
            constant, request_id, path, parent, _TRACE_ID, ids, _SPAN_ID, span_id, _OWN_START, began, _END, ended
        )
        attempts = 0
        for place, (status, error, began, ended) in enumerate(spans, start=1):
            target = b"" if status is None else url
            child = method, status, error, place, attempts, flags, len(target)
            pack, constant, start = self._children.get(child) or self._child(child)
            began, ended = began + epoch_ns, ended + epoch_ns
            encoded += pack(
                constant, target, _TRACE_ID, ids, _PARENT_ID, span_id, _OWN_SPAN, span_id, start, began, _END, ended
            )
            if status is not None:
                attempts += 1
        return encoded

    def _root(self, key: tuple[*_Kind, int, int, int, int]) -> _Layout:
        """Returns the layout of a request's span. Its constant bytes end with the prefix of the request's id."""
        *_, flags, request_id_bytes, path_bytes, parent_bytes = key
        constant = self._request(*key[:6]) + _flags(flags) + self._request_ids[request_id_bytes]
        layout = _layout(constant, f"{request_id_bytes}s{path_bytes}s{parent_bytes}s2s{_IDS}{_INSTANTS}")
        _remember(self._roots, key, layout)
        return layout

    def _child(self, key: _Child) -> tuple[Callable[..., bytes], bytes, bytes]:
        """Returns the layout of a wait or an attempt, and the end of its id with the tag of its start."""
        method, status, error, number_of_span, number_of_attempt, flags, url_bytes = key
        constant = text(5, "queue") + number(6, _INTERNAL)
        if status is not None:
            constant = self._attempt(method, status, error, number_of_attempt)
        layout = _layout(constant + _flags(flags), f"{url_bytes}s2s{_IDS}{_OWN_ID}{_INSTANTS}")
        child = *layout, span_number(number_of_span) + _START
        _remember(self._children, key, child)
        return child

    def _target(self, target: str) -> tuple[bytes, bytes]:
        """Returns the attributes of a target: those of the request's span, and those of an attempt's span."""
        path, has_query, query = (loggable := loggable_target(target)).partition("?")
        own = _attribute("url.path", path) + (_attribute("url.query", query) if has_query else b"")
        attributes = own, _attribute("url.full", self._upstream + loggable)
        if len(target) <= _MOST_PATH_CHARS:
            _remember(self._targets, target, attributes)
        return attributes

    def _request(self, method: str, route: str, status: int, code: str, caller: str, scope: str) -> bytes:
        known, attributes = _method(method)
        if route != OTHER_ROUTE:
            attributes += _attribute("http.route", route)
        if status:
            attributes += _attribute("http.response.status_code", status)
        # A 4xx is no error of a server. A response that breaks off has an error's code beside its status.
        is_error = status >= _FIRST_SERVER_ERROR or (code != "" and status < _FIRST_CLIENT_ERROR)
        error = code or (str(status) if is_error else "")
        return b"".join(
            (
                text(5, known if route == OTHER_ROUTE else f"{known} {route}"),
                number(6, _SERVER),
                attributes,
                self._scheme,
                _attribute("nanonets_proxy.caller", caller),
                _attribute("nanonets_proxy.scope", scope),
                _attribute("error.type", error) if error else b"",
                _ERROR if is_error else b"",
            )
        )

    def _attempt(self, method: str, status: int, error: str, number_of_attempt: int) -> bytes:
        known, attributes = _method(method)
        if status:
            attributes += _attribute("http.response.status_code", status)
            error = str(status) if status >= _FIRST_CLIENT_ERROR else ""
        if number_of_attempt:
            attributes += _attribute("http.request.resend_count", number_of_attempt)
        if error:
            attributes += _attribute("error.type", error) + _ERROR
        return text(5, known) + number(6, _CLIENT) + self._of_upstream + attributes


_ERROR: Final = message(15, number(3, 2))


def _layout(constant: bytes, varying: str) -> _Layout:
    """Returns the layout of a span, as a field of `ScopeSpans`. `varying` is in the format of `struct`."""
    content = struct.Struct(f"<{len(constant)}s{varying}").size
    constant = tag(_SPAN) + varint(content) + constant
    return struct.Struct(f"<{len(constant)}s{varying}").pack, constant


def _parent(trace: TraceContext) -> bytes:
    """Returns the fields of a request's span that a caller's trace decides."""
    parent = _PARENT_ID + bytes.fromhex(trace.parent_id)
    return parent + text(3, trace.state.decode("latin-1")) if trace.state else parent


def _flags(flags: int) -> bytes:
    return tag(_FLAGS, FIXED32) + struct.pack("<I", flags)


def _attribute(key: str, value: str | int) -> bytes:
    return attribute(_ATTRIBUTE, key, value)


def _method(method: str) -> tuple[str, bytes]:
    """Returns the name of a span without a route, and its attributes: the conventions bound both."""
    if method in USUAL_METHODS:
        return method, _attribute("http.request.method", method)
    original = _attribute("http.request.method_original", method)
    return "HTTP", _attribute("http.request.method", "_OTHER") + original


def _remember(known: dict[Key, Value], key: Key, value: Value) -> None:
    """Adds a value to a bounded dictionary."""
    if len(known) >= _MOST_REMEMBERED:
        known.clear()
    known[key] = value
