"""Header fields of both directions: strip, then rewrite, then inject.

Fields are `(name, value)` pairs of bytes as they stood on the wire. What is not named here passes
byte for byte: order, case, repetition, empty values, octets beyond ASCII.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

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


# Fields of a request that the proxy looks at; those of NOT_FORWARDED go no further.
_LOOKED_AT = frozenset(
    {
        b"access-control-request-method",
        b"content-length",
        b"expect",
        b"origin",
        b"prefer",
        b"priority",
        b"sec-fetch-site",
        b"x-request-id",
    }
)
_LOOKED_AT_IN_ANSWERS = HOP_BY_HOP | {b"content-length", b"location", b"x-request-id"}
# Of a Connection field; these nominate no field.
_USUAL_OPTIONS = frozenset({b"close", b"keep-alive", b"Keep-Alive", b"Close"})


_MOST_NAMES = 1024
_LONGEST_NAME_BYTES = 64


class _Names(dict[bytes, bytes | None]):
    """Field names that matter, in lower case; None for all others. Remembers spellings: few make up all traffic,
    and finding one costs less than looking at its letters."""

    def __init__(self, special: frozenset[bytes], prefix: bytes | None = None) -> None:
        super().__init__()
        self._special = special
        self._prefix = prefix

    def __missing__(self, name: bytes) -> bytes | None:
        lower = name.lower()
        is_special = lower in self._special or (self._prefix is not None and lower.startswith(self._prefix))
        found = lower if is_special else None
        if len(self) < _MOST_NAMES and len(name) <= _LONGEST_NAME_BYTES:
            self[name] = found
        return found


_ANSWER_NAMES = _Names(_LOOKED_AT_IN_ANSWERS)


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
    prefer: tuple[bytes, ...] = ()
    priority: tuple[bytes, ...] = ()
    upgrade: bool = False
    expect_continue: bool = False
    body_length: int | None = 0
    lines: list[bytes] = field(default_factory=list)


class RequestHeads:
    """Sorts callers' fields; `caller_header` (lower case) names the field that names the caller, `token_header` the
    one that holds its credentials, which is dropped."""

    def __init__(self, *, caller_header: bytes = b"", token_header: bytes = b"authorization") -> None:
        self._caller_header = caller_header
        self._token_header = token_header
        self._not_forwarded = NOT_FORWARDED | {token_header}
        special = self._not_forwarded | _LOOKED_AT | {caller_header}
        self._names = _Names(special, _FORWARDING_PREFIX)

    def read(self, headers: RawHeaders) -> RequestHead:
        """Raises BadRequest where Host or the framing is missing, repeated or malformed, and NotImplementedHere for
        a transfer coding other than chunked."""
        head = RequestHead()
        lines = head.lines
        names = self._names
        nominated: set[bytes] = set()
        hosts: list[bytes] = []
        codings: list[bytes] = []
        lengths: list[bytes] = []
        for name, value in headers:
            special = names[name]
            if special is not None:
                if special == self._caller_header:
                    head.caller = value
                if special == self._token_header:
                    head.credentials = value
                match special:
                    case b"host":
                        hosts.append(value)
                    case b"connection":
                        if value not in _USUAL_OPTIONS:
                            nominated |= _options(value)
                    case b"content-length":
                        lengths.append(value)
                    case b"x-request-id":
                        head.request_id = value
                    case b"transfer-encoding":
                        codings.append(value)
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
                if special in self._not_forwarded or special.startswith(_FORWARDING_PREFIX):
                    continue
            lines.append(b"%b: %b" % (name, value))
        if nominated:
            head.lines = _without(lines, nominated)
        head.host = _one_host(hosts)
        if lengths or codings:
            head.body_length = _body_length(lengths, codings)
        return head


def _without(lines: list[bytes], nominated: set[bytes]) -> list[bytes]:
    """The `lines` whose field no Connection field names."""
    nominated -= _NEVER_NOMINATED
    return [line for line in lines if line.partition(b":")[0].lower() not in nominated]


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
    lines = [b"%b %b HTTP/1.1\r\nHost: %b" % (method, target, host), *head.lines]
    if head.body_length is None:
        lines.append(b"Transfer-Encoding: chunked")
    if via:
        lines.append(b"Via: 1.1 " + via)
    lines.append(b"Authorization: %b\r\n\r\n" % authorization)
    return b"\r\n".join(lines)


class Extras(NamedTuple):
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
    lines: list[bytes] = []
    nominated: set[bytes] = set()
    request_id = extras.request_id
    names = _ANSWER_NAMES
    for name, value in headers:
        special = names[name]
        if special is not None:
            if special == b"connection":
                if value not in _USUAL_OPTIONS:
                    nominated |= _options(value)
            elif special == b"location":
                value = _own_location(value, extras)
            elif special == b"x-request-id":
                request_id = None
            elif special == b"content-length" and (status < 200 or status == 204):
                continue  # RFC 9110 §8.6: no length here, even if the upstream sent one
            if special in HOP_BY_HOP:
                continue
        lines.append(b"%b: %b" % (name, value))
    if nominated:
        lines = _without(lines, nominated)
    if request_id is not None:
        lines.append(b"X-Request-Id: " + request_id)
    return b"\r\n".join((b"HTTP/1.1 %d %b" % (status, reason), *lines, *extras.lines, framing + b"\r\n"))


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
