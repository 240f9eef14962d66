"""The spans of one request: its own, one for each wait in the queue, and one for each attempt.

Names and attributes follow OpenTelemetry's HTTP semantic conventions. The encoding is OTLP's JSON (OTLP
specification, "JSON Protobuf Encoding"): ids in hex, 64-bit integers as strings, enums as numbers.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from json.encoder import encode_basestring_ascii as _text
from time import perf_counter
from typing import Final, Protocol

from nanonets_proxy.core.http.target import loggable_target
from nanonets_proxy.core.http.trace_context import TraceContext
from nanonets_proxy.core.net.addresses import Origin

_NS_PER_S: Final = 1_000_000_000
_FIRST_SERVER_ERROR, _FIRST_CLIENT_ERROR = 500, 400


@dataclass(slots=True)
class Attempt:
    """One sending of a request upstream. Instants are of `perf_counter`."""

    span_id: str
    began_s: float
    ended_s: float = 0.0
    status: int = 0
    """0: no response came; then `error` is the error's code."""
    error: str = ""


@dataclass(slots=True)
class RequestSpans:
    """The waits and attempts of a sampled request, in order. A wait is its beginning and its end."""

    waits: list[tuple[float, float]] = field(default_factory=list)
    attempts: list[Attempt] = field(default_factory=list)

    def begin_attempt(self, span_id: str) -> None:
        self.attempts.append(Attempt(span_id, perf_counter()))

    def end_attempt(self, status: int, error: str = "") -> None:
        """Ends the latest attempt: with the response's head, or with an error's code."""
        attempt = self.attempts[-1]
        attempt.ended_s, attempt.status, attempt.error = perf_counter(), status, error


class TracedRequest(Protocol):
    """The facts of a finished request that its spans show."""

    trace: TraceContext | None
    span_id: str
    spans: RequestSpans | None
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
    scheme: str
    """`http` or `https`, as callers use it."""


_SPAN: Final = (
    '{"traceId":"%s","spanId":"%s","parentSpanId":"%s","flags":%d,"startTimeUnixNano":"%d","endTimeUnixNano":"%d",'
)
_REQUEST: Final = (
    _SPAN + '"name":"%s %s","kind":2,"attributes":['
    '{"key":"http.request.method","value":{"stringValue":"%s"}},'
    '{"key":"http.route","value":{"stringValue":"%s"}},'
    '{"key":"http.response.status_code","value":{"intValue":"%d"}},'
    '{"key":"url.scheme","value":{"stringValue":"%s"}},'
    '{"key":"url.path","value":{"stringValue":%s}},'
    '{"key":"nanonets_proxy.caller","value":{"stringValue":%s}},'
    '{"key":"nanonets_proxy.scope","value":{"stringValue":%s}},'
    '{"key":"nanonets_proxy.request_id","value":{"stringValue":%s}}%s}'
)
_WAIT: Final = _SPAN + '"name":"queue","kind":1}'
_ERROR: Final = ',{"key":"error.type","value":{"stringValue":"%s"}}],"status":{"code":2}'


class SpanEncoder:
    """Encodes the spans of requests to one upstream."""

    def __init__(self, upstream: Origin, new_id: Callable[[], str]) -> None:
        """`new_id` returns a span id."""
        self._new_id = new_id
        self._upstream = str(upstream)
        self._attempt = (
            _SPAN + '"name":"%s","kind":3,"attributes":['
            f'{{"key":"server.address","value":{{"stringValue":"{upstream.host}"}}}},'
            f'{{"key":"server.port","value":{{"intValue":"{upstream.port}"}}}},'
            '{"key":"http.request.method","value":{"stringValue":"%s"}},'
            '{"key":"url.full","value":{"stringValue":%s}}%s}'
        )

    def encode(self, request: TracedRequest, wall_offset_s: float) -> bytes:
        """Returns the spans of a sampled request as JSON, separated by commas.

        `wall_offset_s` converts an instant of `perf_counter` to seconds since 1970.
        """
        trace, spans, method = request.trace, request.spans, request.method
        assert trace is not None
        assert spans is not None
        trace_id, flags, own_id = trace.trace_id, trace.flags, request.span_id
        target, status = loggable_target(request.path), request.status
        path, query = target, ""
        if "?" in target:
            path, _, query = target.partition("?")
            query = f',{{"key":"url.query","value":{{"stringValue":{_text(query)}}}}}'
        error = request.code or (str(status) if status >= _FIRST_SERVER_ERROR else "")
        state = f',"traceState":{_text(trace.state.decode("latin-1"))}' if trace.state else ""
        began_s = request.started_s + wall_offset_s
        encoded = _REQUEST % (
            *(trace_id, own_id, trace.parent_id, flags),
            *(began_s * _NS_PER_S, (began_s + request.total_s) * _NS_PER_S),
            *(method, request.route, method, request.route, status, request.scheme, _text(path)),
            *(_text(request.caller), _text(request.scope), _text(request.request_id)),
            query + (_ERROR % error if error else "]") + state,
        )
        for began_s, ended_s in spans.waits:
            began_ns, ended_ns = (began_s + wall_offset_s) * _NS_PER_S, (ended_s + wall_offset_s) * _NS_PER_S
            encoded += "," + _WAIT % (trace_id, self._new_id(), own_id, flags, began_ns, ended_ns)
        url = _text(self._upstream + target)
        for number, attempt in enumerate(spans.attempts):
            status, error, more = attempt.status, attempt.error, ""
            if status:
                more = f',{{"key":"http.response.status_code","value":{{"intValue":"{status}"}}}}'
                error = str(status) if status >= _FIRST_CLIENT_ERROR else ""
            if number:
                more += f',{{"key":"http.request.resend_count","value":{{"intValue":"{number}"}}}}'
            encoded += "," + self._attempt % (
                *(trace_id, attempt.span_id, own_id, flags),
                (attempt.began_s + wall_offset_s) * _NS_PER_S,
                (max(attempt.began_s, attempt.ended_s) + wall_offset_s) * _NS_PER_S,
                *(method, method, url, more + (_ERROR % error if error else "]")),
            )
        return encoded.encode()
