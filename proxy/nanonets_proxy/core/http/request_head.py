"""A caller's header section: what the proxy wants to know of it, and what of it goes upstream."""

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
from nanonets_proxy.errors import BadRequest, NotImplementedHere

# RFC 9110 §7.2 and RFC 3986 §3.2: one host, an optional port; no user information, no list.
_HOST = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~%!$&'()*+;=-]+)(?::[0-9]{0,5})?")
_DIGITS = re.compile(rb"[0-9]{1,19}")


# Fields of a request that nearly all have, or that stand once: the plan of a section has their places.
_KNOWN = (b"host", b"connection", b"content-length", b"x-request-id")
# Others that the proxy looks at.
_LOOKED_AT = frozenset(
    {
        b"access-control-request-method",
        b"expect",
        b"origin",
        b"prefer",
        b"priority",
        b"sec-fetch-site",
        b"transfer-encoding",
        b"upgrade",
    }
)
_NOTHING: frozenset[bytes] = frozenset()
# So many are remembered as well formed.
_MOST_HOSTS = 64


@dataclass(init=False, slots=True)
class RequestHead:
    """What the proxy wants to know of a caller's header section, and what of it goes on.

    `body_length` is None for a chunked body and 0 for none. `fields` has the lines that pass, each with its CR LF.
    """

    # One is made for each request, and filled in where it is made: a constructor would double its cost.
    host: bytes
    origin: bytes | None
    sec_fetch_site: bytes | None
    request_id: bytes | None
    caller: bytes | None
    credentials: bytes | None
    is_preflight: bool
    prefer: tuple[bytes, ...]
    priority: tuple[bytes, ...]
    upgrade: bool
    expect_continue: bool
    body_length: int | None
    fields: bytes


class RequestHeads:
    """Sorts callers' fields; `caller_header` (lower case) names the field that names the caller, `token_header` the
    one that holds its credentials, which is dropped."""

    def __init__(self, *, caller_header: bytes = b"", token_header: bytes = b"authorization") -> None:
        known = (*_KNOWN, caller_header, token_header)
        self._plans = HeaderPlans(known, _LOOKED_AT, NOT_FORWARDED | {token_header}, FORWARDING_PREFIX)
        self._good_hosts = {b""}  # an HTTP/1.0 caller may send none

    def read(self, names: tuple[bytes, ...], values: tuple[bytes, ...]) -> RequestHead:
        """One value for each name. Raises BadRequest where Host or the framing is repeated or malformed, and
        NotImplementedHere for a transfer coding other than chunked."""
        plan = self._plans[names]
        head = RequestHead()
        nominated = self._fill(head, plan, values)
        template = plan.template
        if nominated:
            names, values = without_fields(nominated, names, values)
            template = self._plans[names].template
        head.fields = template % values
        return head

    def _fill(self, head: RequestHead, plan: HeaderPlan, values: tuple[bytes, ...]) -> frozenset[bytes]:
        """All but the fields that go on. Gives the names of those that Connection wants dropped."""
        host_at, connection_at, length_at, request_id_at, caller_at, credentials_at = plan.places
        head.host = host = b"" if host_at is None else values[host_at]
        head.request_id = None if request_id_at is None else values[request_id_at]
        head.caller = None if caller_at is None else values[caller_at]
        head.credentials = None if credentials_at is None else values[credentials_at]
        head.origin = head.sec_fetch_site = None
        head.is_preflight = head.upgrade = head.expect_continue = False
        head.prefer = head.priority = ()
        if host not in self._good_hosts:
            self._check(host)
        head.body_length = 0 if length_at is None else _length(values[length_at])
        nominated = _NOTHING
        if connection_at is not None and values[connection_at] not in PLAIN_CONNECTION_VALUES:
            nominated = connection_options(values[connection_at])
        if plan.special:
            fields = [(name, values[at]) for at, name in plan.special]
            nominated |= _read_special(head, fields, length_at is not None)
        return nominated

    def check_has_host(self, names: Iterable[bytes]) -> None:
        """RFC 9112 §3.2: an HTTP/1.1 request without Host is a 400. Raises BadRequest."""
        if all(name.lower() != b"host" for name in names):
            raise BadRequest("The request has no Host field.")

    def _check(self, host: bytes) -> None:
        """RFC 9112 §3.2: an invalid Host is a 400."""
        if not _HOST.fullmatch(host):
            raise BadRequest("The Host field is malformed.")
        if len(self._good_hosts) < _MOST_HOSTS:
            self._good_hosts.add(host)


def _read_special(head: RequestHead, fields: Iterable[tuple[bytes, bytes]], has_length: bool) -> frozenset[bytes]:
    """Takes over what few requests have, and refuses what none may have twice; gives what Connection nominates."""
    nominated = _NOTHING
    codings: tuple[bytes, ...] = ()
    for name, value in fields:
        match name:
            case b"host":  # RFC 9112 §3.2
                raise BadRequest("The request has more than one Host field.")
            case b"content-length":
                raise BadRequest("Content-Length must be given once, in digits.")
            case b"connection":
                nominated |= connection_options(value)
            case b"transfer-encoding":
                codings += (value,)
            case b"expect":
                head.expect_continue = value.strip().lower() == b"100-continue"
            case b"prefer":
                head.prefer += (value,)
            case b"priority":
                head.priority += (value,)
            case b"origin":
                head.origin = value
            case b"sec-fetch-site":
                head.sec_fetch_site = value
            case b"access-control-request-method":
                head.is_preflight = True
            case b"upgrade":
                head.upgrade = True
    if codings:
        _check_codings(codings, has_length)
        head.body_length = None
    return nominated


# RFC 9112 §6.3; ambiguous framing is refused rather than repaired, since that is what smuggling needs.
def _length(value: bytes) -> int:
    if not _DIGITS.fullmatch(value):
        raise BadRequest("Content-Length must be given once, in digits.")
    return int(value)


def _check_codings(codings: tuple[bytes, ...], has_length: bool) -> None:
    if has_length:
        raise BadRequest("Content-Length and Transfer-Encoding exclude each other.")
    if len(codings) > 1 or codings[0].strip().lower() != b"chunked":
        raise NotImplementedHere("Of transfer codings only a single `chunked` is understood.")


class UpstreamHeads:
    """Writes the header sections that go upstream.

    Host leads (RFC 9110 §7.2), Authorization is injected last, so that nothing of the caller's can
    remove or precede it. `via` is the pseudonym for a Via field, or empty for none.
    """

    __slots__ = ("_after_target", "_chunked_end", "_end")

    def __init__(self, *, host: bytes, authorization: bytes, via: bytes = b"") -> None:
        self._after_target = b" HTTP/1.1\r\nHost: %b\r\n" % host
        self._end = b"%bAuthorization: %b\r\n\r\n" % (via_field(via), authorization)
        self._chunked_end = b"Transfer-Encoding: chunked\r\n" + self._end

    def write(self, method: bytes, target: bytes, head: RequestHead) -> bytes:
        """A section, ending in the empty line."""
        end = self._chunked_end if head.body_length is None else self._end
        return b"".join((method, b" ", target, self._after_target, head.fields, end))
