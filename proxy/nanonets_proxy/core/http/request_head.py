"""Reads the fields of a request's head that the proxy uses, and writes the head that goes upstream."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from nanonets_proxy.core.http.header_plans import HeaderPlan, HeaderPlans
from nanonets_proxy.core.http.headers import (
    FORWARDING_PREFIX,
    NOT_FORWARDED,
    PLAIN_CONNECTION_VALUES,
    connection_options,
    via_field,
    without_fields,
)
from nanonets_proxy.core.http.trace_context import TraceContext, read_trace_context
from nanonets_proxy.errors import BadRequest, NotImplementedHere

# RFC 9110 §7.2 and RFC 3986 §3.2: one host and an optional port, without user information.
_HOST = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~%!$&'()*+;=-]+)(?::[0-9]{0,5})?")
_DIGITS = re.compile(rb"[0-9]{1,19}")

# Fields that most requests have, or that occur once. A header plan has their places.
_KNOWN = (b"host", b"connection", b"content-length", b"x-request-id")
# Other fields that the proxy inspects.
_INSPECTED = frozenset(
    {
        b"access-control-request-method",
        b"expect",
        b"origin",
        b"prefer",
        b"priority",
        b"referer",
        b"sec-fetch-site",
        b"traceparent",
        b"tracestate",
        b"transfer-encoding",
    }
)
# If the proxy judged by one of two such fields, another program could judge by the other.
_DECIDING = frozenset({b"host", b"origin", b"referer", b"sec-fetch-site"})
_LENGTH_AT = _KNOWN.index(b"content-length")
_ZERO = ord("0")
_NOTHING: frozenset[bytes] = frozenset()
_MAX_VALID_HOSTS = 64


@dataclass(init=False, slots=True)
class RequestHead:
    """The fields that the proxy uses, and those that it forwards.

    `body_length` is in bytes: None for a chunked body, 0 without a body. `fields` has the forwarded lines, each
    with its CR LF.
    """

    # Filled in by its maker: a constructor would double the cost.
    host: bytes
    origin: bytes | None
    referer: bytes | None
    sec_fetch_site: bytes | None
    request_id: bytes | None
    caller: bytes | None
    credentials: bytes | None
    cost: bytes | None
    is_preflight: bool
    prefer: tuple[bytes, ...]
    priority: tuple[bytes, ...]
    expect_continue: bool
    trace: TraceContext | None
    body_length: int | None
    fields: bytes


class RequestHeads:
    """Reads heads. `caller_header` is the lower-case name of the field in which a caller states its name.

    `token_header` is the name of the field with the caller's credentials, `cost_header` that of the field with the
    request's pages. Both are dropped.
    """

    def __init__(
        self, *, caller_header: bytes = b"", token_header: bytes = b"authorization", cost_header: bytes = b""
    ) -> None:
        known = (*_KNOWN, caller_header, token_header, cost_header)
        # RFC 3875 §4.1.18: servers behind CGI read `X_Name` as `X-Name`, and some `X.Name` too, so it could replace
        # a dropped field.
        self._plans = HeaderPlans(
            known,
            _INSPECTED,
            NOT_FORWARDED | {token_header, cost_header},
            FORWARDING_PREFIX,
            drops_lookalikes=True,
        )
        self._token_header = token_header
        self._single = _DECIDING | {caller_header, cost_header}
        self._valid_hosts = {b""}  # HTTP/1.0 needs none

    def read(self, names: tuple[bytes, ...], values: tuple[bytes, ...]) -> RequestHead:
        """Reads fields, given as names and one value for each name.

        Raises BadRequest if the framing, Host or another field that decides is repeated or malformed, and
        NotImplementedHere for a transfer coding other than chunked.
        """
        plan = self._plans[names]
        head = RequestHead()
        nominated = self._fill(head, plan, values)
        template = plan.template
        length_at = plan.places[_LENGTH_AT]
        if length_at is not None and values[length_at][0] == _ZERO and len(values[length_at]) > 1:
            # A caller's number may have leading zeros; the upstream gets none.
            values = (*values[:length_at], b"%d" % int(values[length_at]), *values[length_at + 1 :])
        if nominated:
            names, values = without_fields(nominated, names, values)
            template = self._plans[names].template
        head.fields = template % values
        return head

    def _fill(self, head: RequestHead, plan: HeaderPlan, values: tuple[bytes, ...]) -> frozenset[bytes]:
        """Fills all but `fields`. Returns the field names that Connection nominates to be dropped."""
        host_at, connection_at, length_at, request_id_at, caller_at, credentials_at, cost_at = plan.places
        head.host = host = b"" if host_at is None else values[host_at]
        head.request_id = None if request_id_at is None else values[request_id_at]
        head.caller = None if caller_at is None else values[caller_at]
        head.credentials = None if credentials_at is None else values[credentials_at]
        head.cost = None if cost_at is None else values[cost_at]
        head.origin = head.referer = head.sec_fetch_site = None
        head.is_preflight = head.expect_continue = False
        head.prefer = head.priority = ()
        head.trace = None
        if host not in self._valid_hosts:
            self._check(host)
        head.body_length = 0 if length_at is None else _length(values[length_at])
        nominated = _NOTHING
        if connection_at is not None and values[connection_at] not in PLAIN_CONNECTION_VALUES:
            nominated = connection_options(values[connection_at])
        if plan.special:
            fields = [(name, values[at]) for at, name in plan.special]
            nominated |= self._read_special(head, fields, length_at is not None)
        return nominated

    def _read_special(
        self, head: RequestHead, fields: Iterable[tuple[bytes, bytes]], has_length: bool
    ) -> frozenset[bytes]:
        """Reads rare and repeated fields; returns the names that Connection nominates. Raises as `read` does."""
        nominated = _NOTHING
        codings: tuple[bytes, ...] = ()
        parents: tuple[bytes, ...] = ()
        states: tuple[bytes, ...] = ()
        for name, value in fields:
            match name:
                case b"content-length":
                    raise BadRequest("Content-Length must be given once, in digits.")
                case b"connection":
                    nominated |= connection_options(value)
                case b"transfer-encoding":
                    codings += (value,)
                case b"expect":
                    head.expect_continue |= value.strip().lower() == b"100-continue"
                case b"traceparent":
                    parents += (value,)
                case b"tracestate":
                    states += (value,)
                case b"prefer":
                    head.prefer += (value,)
                case b"priority":
                    head.priority += (value,)
                case b"origin" if head.origin is None:
                    head.origin = value
                case b"referer" if head.referer is None:
                    head.referer = value
                case b"sec-fetch-site" if head.sec_fetch_site is None:
                    head.sec_fetch_site = value
                case b"access-control-request-method":
                    head.is_preflight = True
                case self._token_header:
                    head.credentials = None  # two proofs are none
                case _ if name in self._single:
                    raise BadRequest(f"The request has more than one {name.decode().title()} field.")
        if len(parents) == 1:  # W3C Trace Context §3.2: with two, neither counts
            head.trace = read_trace_context(parents[0], states)
        if codings:
            _check_codings(codings, has_length)
            head.body_length = None
        return nominated

    def _check(self, host: bytes) -> None:
        """Raises BadRequest for an invalid Host (RFC 9112 §3.2)."""
        if not _HOST.fullmatch(host):
            raise BadRequest("The Host field is malformed.")
        if len(self._valid_hosts) < _MAX_VALID_HOSTS:
            self._valid_hosts.add(host)


# RFC 9112 §6.3. Ambiguous framing is rejected, not repaired: request smuggling depends on it.
def _length(value: bytes) -> int:
    if not _DIGITS.fullmatch(value):
        raise BadRequest("Content-Length must be given once, in digits.")
    return int(value)


def _check_codings(codings: tuple[bytes, ...], has_length: bool) -> None:
    if has_length:
        raise BadRequest("Content-Length and Transfer-Encoding exclude each other.")
    if len(codings) > 1 or codings[0].strip().lower() != b"chunked":
        raise NotImplementedHere("The only supported transfer coding is a single `chunked`.")


class UpstreamHeads:
    """Writes the heads that go upstream.

    Host comes first (RFC 9110 §7.2). Authorization is injected last, so that no field of the caller can remove or
    precede it. `via` is the pseudonym for a Via field, or empty for none.
    """

    __slots__ = ("_after_target", "_chunked_end", "_end")

    def __init__(self, *, host: bytes, authorization: bytes, via: bytes = b"") -> None:
        self._after_target = b" HTTP/1.1\r\nHost: %b\r\n" % host
        self._end = b"%bAuthorization: %b\r\n\r\n" % (via_field(via), authorization)
        self._chunked_end = b"Transfer-Encoding: chunked\r\n" + self._end

    def write(self, start: bytes, head: RequestHead, trace: bytes = b"") -> bytes:
        """Returns a head, ending in the empty line.

        `start` is method, space and target. `trace` has the trace's fields, each with its CR LF.
        """
        end = self._chunked_end if head.body_length is None else self._end
        return b"".join((start, self._after_target, head.fields, trace, end))


class CallersHostHeads(UpstreamHeads):
    """Writes heads with the caller's own Host, for an upstream that shows callers their address of the proxy."""

    __slots__ = ()

    def write(self, start: bytes, head: RequestHead, trace: bytes = b"") -> bytes:
        """Returns a head, as `UpstreamHeads.write` does."""
        if not head.host:  # HTTP/1.0 requires none
            return super().write(start, head, trace)
        end = self._chunked_end if head.body_length is None else self._end
        after_target = b" HTTP/1.1\r\nHost: %b\r\n" % head.host
        return b"".join((start, after_target, head.fields, trace, end))
