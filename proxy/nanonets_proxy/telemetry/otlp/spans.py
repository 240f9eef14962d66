"""The spans of one request: its own, one for each wait in the queue, and one for each attempt.

Names and attributes follow OpenTelemetry's HTTP semantic conventions
(https://opentelemetry.io/docs/specs/semconv/http/http-spans/). Most of a span is the same in other spans too, so it
is encoded once and remembered.
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
from nanonets_proxy.telemetry.otlp.protobuf import Prefixes, attribute, attribute_prefixes, message, number, text

_NS_PER_S: Final = 1e9
_FIRST_SERVER_ERROR, _FIRST_CLIENT_ERROR = 500, 400
_INTERNAL, _SERVER, _CLIENT = 1, 2, 3
_MOST_REMEMBERED: Final = 256
_MOST_PATH_CHARS: Final = 512

# The fields that differ in each span: trace id (1), span id (2), start (7), end (8), flags (16), parent (4).
_ROOT: Final = struct.Struct("<2s16s2s8scqcq2sI")
_CHILD: Final = struct.Struct("<2s16s2s8scqcq2sI2s8s")
_TRACE_ID, _SPAN_ID, _PARENT_ID = b"\x0a\x10", b"\x12\x08", b"\x22\x08"
_START, _END, _FLAGS = b"\x39", b"\x41", b"\x85\x01"
_ATTRIBUTE, _SPAN = 9, 2  # in `Span`, and in `ScopeSpans`


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
        self._wait = text(5, "queue") + number(6, _INTERNAL)
        self._requests: dict[tuple[str, str, int, str, str, str], bytes] = {}
        self._attempts: dict[tuple[str, int, str, int], bytes] = {}
        self._targets: dict[str, tuple[bytes, bytes]] = {}
        self._request_ids = attribute_prefixes(_ATTRIBUTE, "nanonets_proxy.request_id")
        self._spans = Prefixes(_SPAN)

    def encode(self, request: TracedRequest, epoch_ns: int) -> bytes:
        """Returns the spans of a sampled request, as fields of `ScopeSpans`.

        `epoch_ns` converts an instant of `perf_counter` to nanoseconds since 1970.
        """
        trace, spans, method, status = request.trace, request.spans, request.method, request.status
        assert trace is not None
        assert spans is not None
        path, url = self._targets.get(request.path) or self._target(request.path)
        kind = (method, request.route, status, request.code, request.caller, request.scope)
        constant = self._requests.get(kind) or self._request(kind)
        trace_id, flags, parent_id = bytes.fromhex(trace.trace_id), trace.flags, trace.parent_id
        own_id = bytes.fromhex(request.span_id)
        started_s = request.started_s
        began_ns = epoch_ns + int(started_s * _NS_PER_S)
        ended_ns = epoch_ns + int((started_s + request.total_s) * _NS_PER_S)
        # fmt: off
        varying = _ROOT.pack(
            _TRACE_ID, trace_id, _SPAN_ID, own_id, _START, began_ns, _END, ended_ns, _FLAGS, flags
        )
        # fmt: on
        if parent_id:
            varying += _PARENT_ID + bytes.fromhex(parent_id)
        if trace.state:
            varying += text(3, trace.state.decode("latin-1"))
        request_id = request.request_id.encode()
        prefix, prefixes = self._request_ids[len(request_id)], self._spans
        length = len(varying) + len(constant) + len(path) + len(prefix) + len(request_id)
        parts = [prefixes[length], varying, constant, path, prefix, request_id]
        number_of_attempt = 0
        for span_id, began_s, ended_s, attempt_status, error in spans:
            if span_id:
                attempt = (method, attempt_status, error, number_of_attempt)
                number_of_attempt += 1
                constant, its_url = self._attempts.get(attempt) or self._attempt(attempt), url
            else:
                span_id, constant, its_url = self._new_id(), self._wait, b""  # a wait has none yet
            began_ns, ended_ns = epoch_ns + int(began_s * _NS_PER_S), epoch_ns + int(ended_s * _NS_PER_S)
            # fmt: off
            varying = _CHILD.pack(
                _TRACE_ID, trace_id, _SPAN_ID, bytes.fromhex(span_id), _START, began_ns, _END, ended_ns,
                _FLAGS, flags, _PARENT_ID, own_id,
            )
            # fmt: on
            length = len(varying) + len(constant) + len(its_url)
            parts += (prefixes[length], varying, constant, its_url)
        return b"".join(parts)

    def _target(self, target: str) -> tuple[bytes, bytes]:
        """Returns the attributes of a target: those of the request's span, and those of an attempt's span."""
        path, has_query, query = (loggable := loggable_target(target)).partition("?")
        own = _attribute("url.path", path) + (_attribute("url.query", query) if has_query else b"")
        attributes = own, _attribute("url.full", self._upstream + loggable)
        if len(target) <= _MOST_PATH_CHARS:
            _remember(self._targets, target, attributes)
        return attributes

    def _request(self, kind: tuple[str, str, int, str, str, str]) -> bytes:
        method, route, status, code, caller, scope = kind
        known, attributes = _method(method)
        if route != OTHER_ROUTE:
            attributes += _attribute("http.route", route)
        if status:
            attributes += _attribute("http.response.status_code", status)
        # A 4xx is no error of a server. A response that breaks off has an error's code beside its status.
        is_error = status >= _FIRST_SERVER_ERROR or (code != "" and status < _FIRST_CLIENT_ERROR)
        error = code or (str(status) if is_error else "")
        constant = b"".join(
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
        _remember(self._requests, kind, constant)
        return constant

    def _attempt(self, attempt: tuple[str, int, str, int]) -> bytes:
        method, status, error, number_of_attempt = attempt
        known, attributes = _method(method)
        if status:
            attributes += _attribute("http.response.status_code", status)
            error = str(status) if status >= _FIRST_CLIENT_ERROR else ""
        if number_of_attempt:
            attributes += _attribute("http.request.resend_count", number_of_attempt)
        if error:
            attributes += _attribute("error.type", error) + _ERROR
        constant = text(5, known) + number(6, _CLIENT) + self._of_upstream + attributes
        _remember(self._attempts, attempt, constant)
        return constant


_ERROR: Final = message(15, number(3, 2))


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
