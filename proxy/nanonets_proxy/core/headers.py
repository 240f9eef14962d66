"""Header fields of both directions: strip, then rewrite, then inject.

Fields are `(name, value)` pairs of bytes as they stood on the wire. What is not named here passes
byte for byte: order, case, repetition, empty values, octets beyond ASCII.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

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


# Fields that the proxy looks at; of a request, those of NOT_FORWARDED go no further.
_LOOKED_AT = frozenset(
    {
        b"access-control-request-method",
        b"connection",
        b"content-length",
        b"expect",
        b"host",
        b"origin",
        b"prefer",
        b"priority",
        b"sec-fetch-site",
        b"transfer-encoding",
        b"upgrade",
        b"x-request-id",
    }
)
_ANSWERS = Plans(frozenset({b"connection", b"location", b"x-request-id"}), HOP_BY_HOP)
# RFC 9110 §8.6: an answer without a body must not have it, even if the upstream sent one.
_NO_LENGTH = frozenset({b"content-length"})
_NOTHING: frozenset[bytes] = frozenset()
# So many are remembered as well formed.
_MOST_HOSTS = 64
# Values of a Connection field that name no other field.
_USUAL_OPTIONS = frozenset({b"close", b"keep-alive", b"Keep-Alive", b"Close"})


@dataclass(slots=True)
class RequestHead:
    """What the proxy wants to know of a caller's header section, and what of it goes on.

    `body_length` is None for a chunked body and 0 for none. `fields` has the lines that pass, each with its CR LF.
    """

    host: bytes = b""
    origin: bytes | None = None
    sec_fetch_site: bytes | None = None
    request_id: bytes | None = None
    caller: bytes | None = None
    credentials: bytes | None = None
    is_preflight: bool = False
    prefer: tuple[bytes, ...] = ()
    priority: tuple[bytes, ...] = ()
    upgrade: bool = False
    expect_continue: bool = False
    body_length: int | None = 0
    fields: bytes = b""


class RequestHeads:
    """Sorts callers' fields; `caller_header` (lower case) names the field that names the caller, `token_header` the
    one that holds its credentials, which is dropped."""

    def __init__(self, *, caller_header: bytes = b"", token_header: bytes = b"authorization") -> None:
        self._caller_header = caller_header
        self._token_header = token_header
        looked_at = _LOOKED_AT | {caller_header, token_header}
        self._plans = Plans(looked_at, NOT_FORWARDED | {token_header}, _FORWARDING_PREFIX)
        self._good_hosts: set[bytes] = set()

    def read(self, headers: RawHeaders) -> RequestHead:
        """Raises BadRequest where Host or the framing is missing, repeated or malformed, and NotImplementedHere for
        a transfer coding other than chunked."""
        head = RequestHead()
        if not headers:
            return head
        names: tuple[bytes, ...]
        values: tuple[bytes, ...]
        names, values = zip(*headers, strict=True)
        special, template = self._plans[names]
        nominated: frozenset[bytes] = frozenset()
        hosts: tuple[bytes, ...] = ()
        codings: tuple[bytes, ...] = ()
        lengths: tuple[bytes, ...] = ()
        for at, name in special:
            value = values[at]
            if name == self._caller_header:
                head.caller = value
            if name == self._token_header:
                head.credentials = value
            match name:
                case b"host":
                    hosts += (value,)
                case b"connection":
                    if value not in _USUAL_OPTIONS:
                        nominated |= _options(value)
                case b"content-length":
                    lengths += (value,)
                case b"x-request-id":
                    head.request_id = value
                case b"transfer-encoding":
                    codings += (value,)
                case b"expect":
                    head.expect_continue = value.strip().lower() == b"100-continue"
                case b"prefer":
                    head.prefer = (*head.prefer, value)
                case b"priority":
                    head.priority = (*head.priority, value)
                case b"origin":
                    head.origin = value
                case b"sec-fetch-site":
                    head.sec_fetch_site = value
                case b"access-control-request-method":
                    head.is_preflight = True
                case b"upgrade":
                    head.upgrade = True
        if hosts:
            head.host = hosts[0]
            if len(hosts) > 1 or hosts[0] not in self._good_hosts:
                self._check(hosts)
        if lengths or codings:
            head.body_length = _body_length(lengths, codings)
        if nominated:
            names, values = _without(nominated, names, values)
            template = self._plans[names].template
        head.fields = template % values
        return head

    def _check(self, hosts: tuple[bytes, ...]) -> None:
        """RFC 9112 §3.2: a repeated or invalid Host is a 400; an HTTP/1.0 caller may send none."""
        if len(hosts) > 1:
            raise BadRequest("The request has more than one Host field.")
        if hosts[0] and not _HOST.fullmatch(hosts[0]):
            raise BadRequest("The Host field is malformed.")
        if len(self._good_hosts) < _MOST_HOSTS:
            self._good_hosts.add(hosts[0])


def _without(
    nominated: frozenset[bytes], names: tuple[bytes, ...], values: tuple[bytes, ...]
) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
    """The fields that are not nominated."""
    kept = [at for at, name in enumerate(names) if name.lower() not in nominated]
    return tuple(names[at] for at in kept), tuple(values[at] for at in kept)


def _options(value: bytes) -> frozenset[bytes]:
    """The fields that a Connection field names, in lower case."""
    return frozenset(token.strip().lower() for token in value.split(b",")) - _NEVER_NOMINATED


def _body_length(lengths: tuple[bytes, ...], codings: tuple[bytes, ...]) -> int | None:
    """RFC 9112 §6.3; ambiguous framing is refused rather than repaired, since that is what smuggling needs."""
    if codings:
        if lengths:
            raise BadRequest("Content-Length and Transfer-Encoding exclude each other.")
        if len(codings) > 1 or codings[0].strip().lower() != b"chunked":
            raise NotImplementedHere("Of transfer codings only a single `chunked` is understood.")
        return None
    if len(lengths) > 1 or not _DIGITS.fullmatch(lengths[0]):
        raise BadRequest("Content-Length must be given once, in digits.")
    return int(lengths[0])


def upstream_head(
    method: bytes, target: bytes, head: RequestHead, *, host: bytes, authorization: bytes, via: bytes = b""
) -> bytes:
    """The header section that goes upstream, ending in the empty line.

    Host leads (RFC 9110 §7.2), Authorization is injected last, so that nothing of the caller's can
    remove or precede it. `via` is the pseudonym for a Via field, or empty for none.
    """
    added = b"" if head.body_length is not None else b"Transfer-Encoding: chunked\r\n"
    if via:
        added += b"Via: 1.1 %b\r\n" % via
    return b"%b %b HTTP/1.1\r\nHost: %b\r\n%b%bAuthorization: %b\r\n\r\n" % (
        method,
        target,
        host,
        head.fields,
        added,
        authorization,
    )


class Extras(NamedTuple):
    """What the proxy adds to a relayed answer: `lines`, each with its CR LF, and Location's rewriting.

    A Location that starts with `upstream_origin` is pointed to `own_origin`, the address that the caller used.
    """

    lines: bytes
    request_id: bytes | None
    upstream_origin: bytes
    own_origin: bytes


def downstream_head(
    status: int,
    reason: bytes,
    names: tuple[bytes, ...],
    values: tuple[bytes, ...],
    *,
    extras: Extras,
    framing: bytes,
) -> bytes:
    """The header section of a relayed answer, ending in the empty line.

    `framing` holds the proxy's own Transfer-Encoding and Connection lines, each with CR LF.
    X-Request-Id is added only where the upstream gave none.
    """
    special, template = _ANSWERS[names]
    request_id = extras.request_id
    unwanted = _NO_LENGTH if status < 200 or status == 204 else _NOTHING
    for at, name in special:
        match name:
            case b"connection":
                if values[at] not in _USUAL_OPTIONS:
                    unwanted |= _options(values[at])
            case b"location":
                values = (*values[:at], _own_location(values[at], extras), *values[at + 1 :])
            case _:  # X-Request-Id: the upstream's stays
                request_id = None
    if unwanted:
        names, values = _without(unwanted, names, values)
        template = _ANSWERS[names].template
    return b"HTTP/1.1 %d %b\r\n%b%b%b%b\r\n" % (
        status,
        reason,
        template % values,
        b"" if request_id is None else b"X-Request-Id: %b\r\n" % request_id,
        extras.lines,
        framing,
    )


def _own_location(value: bytes, extras: Extras) -> bytes:
    origin = extras.upstream_origin
    if value[: len(origin)].lower() != origin or not extras.own_origin:
        return value
    rest = value[len(origin) :]
    # `https://app.nanonets.com.example` begins with the origin too, and is somebody else's.
    return extras.own_origin + rest if rest[:1] in (b"", b"/", b"?", b"#") else value


def trailer_section(trailers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The end of a chunked body: the last chunk, the trailer fields, the empty line (RFC 9112 §7.1.2)."""
    return b"".join([b"0\r\n", *(b"%b: %b\r\n" % pair for pair in trailers), b"\r\n"])
