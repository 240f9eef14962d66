"""Header fields of both directions: strip, then rewrite, then inject.

Fields are `(name, value)` pairs of bytes as they stood on the wire. What is not named here passes
byte for byte: order, case, repetition, empty values, octets beyond ASCII.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from nanonets_proxy.core.sections import Plans
from nanonets_proxy.errors import BadRequest, NotImplementedHere

RawHeaders = Sequence[tuple[bytes, bytes]]

# RFC 9110 §7.6.1: an intermediary removes these whether or not Connection names them. `Trailer` goes
# from requests since the server that we stand on does not hand request trailers on.
HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authentication-info",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"transfer-encoding",
        b"upgrade",
    }
)

# Whatever a caller says of itself here is not ours to vouch for, and its credentials are replaced.
NOT_FORWARDED = HOP_BY_HOP | {
    b"authorization",
    b"forwarded",
    b"host",
    b"http2-settings",
    b"trailer",
    b"x-real-ip",
}
_FORWARDING_PREFIX = b"x-forwarded-"

# A Connection field must not remove what frames the message (RFC 9110 §7.6.1: options are not meant
# for fields that all recipients need).
_NEVER_NOMINATED = frozenset({b"content-length", b"host"})

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
_ANSWERS = Plans((b"connection", b"location", b"x-request-id"), frozenset(), HOP_BY_HOP)
# RFC 9110 §8.6: an answer without a body must not have it, even if the upstream sent one.
_NO_LENGTH = frozenset({b"content-length"})
_NOTHING: frozenset[bytes] = frozenset()
# So many are remembered as well formed.
_MOST_HOSTS = 64
# Values of a Connection field that name no other field.
_USUAL_OPTIONS = frozenset({b"close", b"keep-alive", b"Keep-Alive", b"Close"})


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


def unzipped(headers: RawHeaders) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
    """The names, and the value of each."""
    return tuple(name for name, _ in headers), tuple(value for _, value in headers)


class RequestHeads:
    """Sorts callers' fields; `caller_header` (lower case) names the field that names the caller, `token_header` the
    one that holds its credentials, which is dropped."""

    def __init__(self, *, caller_header: bytes = b"", token_header: bytes = b"authorization") -> None:
        known = (*_KNOWN, caller_header, token_header)
        self._plans = Plans(known, _LOOKED_AT, NOT_FORWARDED | {token_header}, _FORWARDING_PREFIX)
        self._good_hosts = {b""}  # an HTTP/1.0 caller may send none

    def read(self, names: tuple[bytes, ...], values: tuple[bytes, ...]) -> RequestHead:
        """One value for each name. Raises BadRequest where Host or the framing is repeated or malformed, and
        NotImplementedHere for a transfer coding other than chunked."""
        plan = self._plans[names]
        host_at, connection_at, length_at, request_id_at, caller_at, credentials_at = plan.places
        head = RequestHead()
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
        template, nominated = plan.template, _NOTHING
        if connection_at is not None and values[connection_at] not in _USUAL_OPTIONS:
            nominated = _options(values[connection_at])
        if plan.special:
            nominated |= _read_special(
                head, [(name, values[at]) for at, name in plan.special], length_at is not None
            )
        if nominated:
            names, values = _without(nominated, names, values)
            template = self._plans[names].template
        head.fields = template % values
        return head

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
                nominated |= _options(value)
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


def _without(
    nominated: frozenset[bytes], names: tuple[bytes, ...], values: tuple[bytes, ...]
) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
    """The fields that are not nominated."""
    kept = [at for at, name in enumerate(names) if name.lower() not in nominated]
    return tuple(names[at] for at in kept), tuple(values[at] for at in kept)


def _options(value: bytes) -> frozenset[bytes]:
    """The fields that a Connection field names, in lower case."""
    return frozenset(token.strip().lower() for token in value.split(b",")) - _NEVER_NOMINATED


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
        self._end = b"%bAuthorization: %b\r\n\r\n" % (via_line(via), authorization)
        self._chunked_end = b"Transfer-Encoding: chunked\r\n" + self._end

    def write(self, method: bytes, target: bytes, head: RequestHead) -> bytes:
        """A section, ending in the empty line."""
        end = self._chunked_end if head.body_length is None else self._end
        return b"".join((method, b" ", target, self._after_target, head.fields, end))


def via_line(pseudonym: bytes) -> bytes:
    """A Via field with its CR LF (RFC 9110 §7.6.3); nothing without a pseudonym."""
    return b"Via: 1.1 %b\r\n" % pseudonym if pseudonym else b""


@dataclass(frozen=True, slots=True)
class Relocation:
    """Where a Location leads that starts with `upstream_origin`: to the address that the caller used, which is
    `own_scheme`, such as `https://`, and its Host."""

    upstream_origin: bytes
    own_scheme: bytes

    def of(self, location: bytes, host: bytes) -> bytes:
        length = len(self.upstream_origin)
        rest = location[length:]
        # `https://app.nanonets.com.example` begins with the origin too, and is somebody else's.
        is_there = location[:length].lower() == self.upstream_origin and rest[:1] in (b"", b"/", b"?", b"#")
        return self.own_scheme + host + rest if is_there else location


def downstream_head(
    status: int,
    reason: bytes,
    names: tuple[bytes, ...],
    values: tuple[bytes, ...],
    added: bytes,
    request_id: str = "",
    host: bytes = b"",
    relocation: Relocation | None = None,
) -> bytes:
    """The header section of a relayed answer: `added` has the proxy's own lines, and its end in the empty line.

    X-Request-Id is added only where the upstream gave none. `host` is the caller's Host: without it, or without
    `relocation`, a Location stays as it is.
    """
    plan = _ANSWERS[names]
    connection_at, location_at, request_id_at = plan.places
    template, unwanted = plan.template, _NOTHING
    if status == 200 and reason == b"OK":
        status_line = b"HTTP/1.1 200 OK\r\n"
    else:
        status_line = b"HTTP/1.1 %d %b\r\n" % (status, reason)
        if status < 200 or status == 204:
            unwanted = _NO_LENGTH
    if connection_at is not None and values[connection_at] not in _USUAL_OPTIONS:
        unwanted |= _options(values[connection_at])
    if plan.special:
        unwanted = unwanted.union(*(_options(values[at]) for at, name in plan.special if name == b"connection"))
    if location_at is not None and host and relocation is not None:
        pairs = zip(names, values, strict=True)
        values = tuple(relocation.of(v, host) if name.lower() == b"location" else v for name, v in pairs)
    if unwanted:
        names, values = _without(unwanted, names, values)
        template = _ANSWERS[names].template
    if request_id_at is None and request_id:
        added = b"X-Request-Id: %b\r\n%b" % (request_id.encode(), added)
    return status_line + template % values + added


def trailer_section(trailers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The end of a chunked body: the last chunk, the trailer fields, the empty line (RFC 9112 §7.1.2)."""
    return b"".join([b"0\r\n", *(b"%b: %b\r\n" % pair for pair in trailers), b"\r\n"])
