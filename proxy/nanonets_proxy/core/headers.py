"""Header fields of both directions: strip, then rewrite, then inject.

Fields are `(name, value)` pairs of bytes as they stood on the wire. What is not named here passes
byte for byte: order, case, repetition, empty values, octets beyond ASCII.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

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


@dataclass(slots=True)
class RequestHead:
    """What the proxy wants to know of a caller's header section, and what of it goes on.

    `body_length` is None for a chunked body and 0 for none. `lines` are the fields that pass, each
    already `name: value`, without CR LF.
    """

    host: bytes = b""
    origin: bytes | None = None
    sec_fetch_site: bytes | None = None
    request_id: bytes | None = None
    caller: bytes | None = None
    credentials: bytes | None = None
    is_preflight: bool = False
    prefer: list[bytes] = field(default_factory=list)
    priority: list[bytes] = field(default_factory=list)
    upgrade: bool = False
    expect_continue: bool = False
    body_length: int | None = 0
    lines: list[bytes] = field(default_factory=list)


def read_request_head(
    headers: RawHeaders,
    *,
    caller_header: bytes = b"",
    token_header: bytes = b"authorization",
    not_forwarded: frozenset[bytes] = NOT_FORWARDED,
) -> RequestHead:
    """Sorts a caller's fields; `caller_header` (lower case) names the field that names the caller, `token_header`
    the one that holds its credentials: it is one of `not_forwarded`, which are dropped.

    Raises BadRequest where Host or the framing is missing, repeated or malformed, and
    NotImplementedHere for a transfer coding other than chunked.
    """
    head = RequestHead()
    lines = head.lines
    names: list[bytes] = []
    nominated: set[bytes] = set()
    hosts: list[bytes] = []
    codings: list[bytes] = []
    lengths: list[bytes] = []
    for name, value in headers:
        lower = name.lower()
        if lower == caller_header:
            head.caller = value
        if lower in not_forwarded:
            match lower:
                case b"host":
                    hosts.append(value)
                case b"connection":
                    nominated |= _options(value)
                case b"transfer-encoding":
                    codings.append(value)
                case b"upgrade":
                    head.upgrade = True
                case _ if lower == token_header:
                    head.credentials = value
            continue
        if lower.startswith(_FORWARDING_PREFIX):
            continue
        match lower:
            case b"access-control-request-method":
                head.is_preflight = True
            case b"content-length":
                lengths.append(value)
            case b"expect":
                head.expect_continue = value.strip().lower() == b"100-continue"
            case b"origin":
                head.origin = value
            case b"prefer":
                head.prefer.append(value)
            case b"priority":
                head.priority.append(value)
            case b"sec-fetch-site":
                head.sec_fetch_site = value
            case b"x-request-id":
                head.request_id = value
        names.append(lower)
        lines.append(b"%b: %b" % (name, value))
    if nominated:
        nominated -= _NEVER_NOMINATED
        head.lines = [line for name, line in zip(names, lines, strict=True) if name not in nominated]
    head.host = _one_host(hosts)
    head.body_length = _body_length(lengths, codings)
    return head


def _options(value: bytes) -> set[bytes]:
    """The lower-case tokens of a Connection field."""
    return {token.strip().lower() for token in value.split(b",")}


def _one_host(hosts: list[bytes]) -> bytes:
    """The Host, b"" where an HTTP/1.0 caller sent none. RFC 9112 §3.2: a repeated or invalid one is a 400."""
    if not hosts:
        return b""
    if len(hosts) > 1:
        raise BadRequest("The request has more than one Host field.")
    if hosts[0] and not _HOST.fullmatch(hosts[0]):
        raise BadRequest("The Host field is malformed.")
    return hosts[0]


def _body_length(lengths: list[bytes], codings: list[bytes]) -> int | None:
    """RFC 9112 §6.3; ambiguous framing is refused rather than repaired, since that is what smuggling needs."""
    if codings:
        if lengths:
            raise BadRequest("Content-Length and Transfer-Encoding exclude each other.")
        if len(codings) > 1 or codings[0].strip().lower() != b"chunked":
            raise NotImplementedHere("Of transfer codings only a single `chunked` is understood.")
        return None
    if not lengths:
        return 0
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
    lines = [b"%b %b HTTP/1.1" % (method, target), b"Host: " + host, *head.lines]
    if head.body_length is None:
        lines.append(b"Transfer-Encoding: chunked")
    if via:
        lines.append(b"Via: 1.1 " + via)
    lines.append(b"Authorization: " + authorization)
    lines.append(b"\r\n")
    return b"\r\n".join(lines)


@dataclass(frozen=True, slots=True)
class Extras:
    """What the proxy adds to a relayed answer: complete `name: value` lines, and Location's rewriting.

    A Location that starts with `upstream_origin` is pointed to `own_origin`, the address that the caller used.
    """

    lines: Sequence[bytes]
    request_id: bytes | None
    upstream_origin: bytes
    own_origin: bytes


def downstream_head(
    status: int, reason: bytes, headers: Iterable[tuple[bytes, bytes]], *, extras: Extras, framing: bytes
) -> bytes:
    """The header section of a relayed answer, ending in the empty line.

    `framing` holds the proxy's own Transfer-Encoding and Connection lines, each with CR LF.
    X-Request-Id is added only where the upstream gave none.
    """
    has_no_length = status < 200 or status == 204  # RFC 9110 §8.6, even if the upstream sent one
    lines = [b"HTTP/1.1 %d %b" % (status, reason)]
    names: list[bytes] = []
    nominated: set[bytes] = set()
    request_id = extras.request_id
    for name, value in headers:
        lower = name.lower()
        if lower in HOP_BY_HOP:
            if lower == b"connection":
                nominated |= _options(value)
            continue
        if has_no_length and lower == b"content-length":
            continue
        if lower == b"location":
            value = _own_location(value, extras)
        elif lower == b"x-request-id":
            request_id = None
        names.append(lower)
        lines.append(b"%b: %b" % (name, value))
    if nominated:
        nominated -= _NEVER_NOMINATED
        kept = [line for name, line in zip(names, lines[1:], strict=True) if name not in nominated]
        lines[1:] = kept
    if request_id is not None:
        lines.append(b"X-Request-Id: " + request_id)
    lines.extend(extras.lines)
    lines.append(framing + b"\r\n")
    return b"\r\n".join(lines)


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
