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
from nanonets_proxy.core.http.trace_context import TraceContext
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

# The fields that differ in each span: trace id (1), span id (2), parent (4), start (7), end (8). A message may have
# its fields in any order.
_TRACE_ID, _SPAN_ID, _PARENT_ID = "0a10", "1208", "2208"
_START, _END = b"\x39", b"\x41"
_TIMES: Final = "cqcq"
_IDS_BYTES, _PARENT_BYTES = 28, 10
_FLAGS: Final = 16
_ATTRIBUTE, _SPAN = 9, 2  # in `Span`, and in `ScopeSpans`


_Kind = tuple[str, str, int, str, str, str]
"""Method, route, status, code, caller, scope of a request."""
_Attempt = tuple[str, int, str, int]
"""Method, status, error and number of an attempt."""
_Layout = tuple[Callable[..., bytes], bytes]
"""Packs the constant bytes and those that differ; the constant bytes."""
_from_hex: Final = bytes.fromhex
Key = TypeVar("Key")
Value = TypeVar("Value")


class TracedRequest(Protocol):
    """The facts of a finished request that its spans show."""

    trace: TraceContext | None
    span_id: str
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

    def __init__(self, upstream: Origin, scheme: str, new_id: Callable[[], str]) -> None:
        """`scheme` is that of callers. `new_id` returns a span id: 16 hex digits."""
        self._new_id = new_id
        self._upstream = str(upstream)
        self._of_upstream = _attribute("server.address", upstream.host) + _attribute("server.port", upstream.port)
        self._scheme = _attribute("url.scheme", scheme)
        self._targets: dict[str, tuple[bytes, bytes]] = {}
        self._request_ids = attribute_prefixes(_ATTRIBUTE, "nanonets_proxy.request_id")
        self._roots: dict[tuple[_Kind, int, int, int, int, int], _Layout] = {}
        self._children: dict[tuple[_Attempt | None, int, int], _Layout] = {}

    def encode(self, request: TracedRequest, epoch_ns: int) -> bytes:
        """Returns the spans of a sampled request, as fields of `ScopeSpans`.

        `epoch_ns` converts an instant of `perf_counter` to nanoseconds since 1970.
        """
        trace, spans, method = request.trace, request.spans, request.method
        assert trace is not None
        assert spans is not None
        path, url = self._targets.get(request.path) or self._target(request.path)
        kind = (method, request.route, request.status, request.code, request.caller, request.scope)
        trace_id, parent_id, flags, state = trace
        if state:
            state = text(3, state.decode("latin-1"))
        own_id, request_id = request.span_id, request.request_id.encode()
        parent = f"{_PARENT_ID}{parent_id}" if parent_id else ""
        ids = _from_hex(f"{_TRACE_ID}{trace_id}{_SPAN_ID}{own_id}{parent}")
        root = (kind, flags, len(request_id), len(path), len(ids), len(state))
        pack, constant = self._roots.get(root) or self._root(root)
        began_s = request.started_s
        began_ns, ended_ns = int(began_s * _NS_PER_S), int((began_s + request.total_s) * _NS_PER_S)
        began_ns, ended_ns = began_ns + epoch_ns, ended_ns + epoch_ns
        encoded = pack(constant, request_id, path, ids, _START, began_ns, _END, ended_ns, state)
        number_of_attempt = 0
        for span_id, began_s, ended_s, status, error in spans:
            if span_id:
                child = (method, status, error, number_of_attempt), flags, len(url)
                pack, constant = self._children.get(child) or self._child(child)
                number_of_attempt += 1
                its_url = url
            else:
                wait = None, flags, 0
                pack, constant = self._children.get(wait) or self._child(wait)
                span_id, its_url = self._new_id(), b""  # a wait has none yet
            began_ns, ended_ns = int(began_s * _NS_PER_S), int(ended_s * _NS_PER_S)
            ids = _from_hex(f"{_TRACE_ID}{trace_id}{_SPAN_ID}{span_id}{_PARENT_ID}{own_id}")
            began_ns, ended_ns = began_ns + epoch_ns, ended_ns + epoch_ns
            encoded += pack(constant, its_url, ids, _START, began_ns, _END, ended_ns)
        return encoded

    def _root(self, key: tuple[_Kind, int, int, int, int, int]) -> _Layout:
        """Returns the layout of a request's span. Its constant bytes end with the prefix of the request's id."""
        kind, flags, *lengths = key
        request_id_bytes, path_bytes, ids_bytes, state_bytes = lengths
        constant = self._request(kind) + _flags(flags) + self._request_ids[request_id_bytes]
        layout = _layout(constant, f"{request_id_bytes}s{path_bytes}s{ids_bytes}s{_TIMES}{state_bytes}s")
        _remember(self._roots, key, layout)
        return layout

    def _child(self, key: tuple[_Attempt | None, int, int]) -> _Layout:
        """Returns the layout of an attempt's span, or of a wait's."""
        attempt, flags, url_bytes = key
        constant = text(5, "queue") + number(6, _INTERNAL) if attempt is None else self._attempt(attempt)
        layout = _layout(constant + _flags(flags), f"{url_bytes}s{_IDS_BYTES + _PARENT_BYTES}s{_TIMES}")
        _remember(self._children, key, layout)
        return layout

    def _target(self, target: str) -> tuple[bytes, bytes]:
        """Returns the attributes of a target: those of the request's span, and those of an attempt's span."""
        path, has_query, query = (loggable := loggable_target(target)).partition("?")
        own = _attribute("url.path", path) + (_attribute("url.query", query) if has_query else b"")
        attributes = own, _attribute("url.full", self._upstream + loggable)
        if len(target) <= _MOST_PATH_CHARS:
            _remember(self._targets, target, attributes)
        return attributes

    def _request(self, kind: _Kind) -> bytes:
        method, route, status, code, caller, scope = kind
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

    def _attempt(self, attempt: _Attempt) -> bytes:
        method, status, error, number_of_attempt = attempt
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
