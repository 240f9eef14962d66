"""What passes of header fields, and an answer's head on its way to the caller: strip, then rewrite, then inject.

Fields are bytes as they stood on the wire. What is not named here passes byte for byte: order, case, repetition,
empty values, octets beyond ASCII. Of requests: request_heads.py.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from nanonets_proxy.core.http.header_plans import HeaderPlans

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
FORWARDING_PREFIX = b"x-forwarded-"

# A Connection field must not remove what frames the message (RFC 9110 §7.6.1: options are not meant
# for fields that all recipients need).
_NEVER_NOMINATED = frozenset({b"content-length", b"host"})

_ANSWERS = HeaderPlans((b"connection", b"location", b"x-request-id"), frozenset(), HOP_BY_HOP)
# RFC 9110 §8.6: an answer without a body must not have it, even if the upstream sent one.
_NO_LENGTH = frozenset({b"content-length"})
_NOTHING: frozenset[bytes] = frozenset()
# Values of a Connection field that name no other field.
PLAIN_CONNECTION_VALUES = frozenset({b"close", b"keep-alive", b"Keep-Alive", b"Close"})


def without_fields(
    nominated: frozenset[bytes], names: tuple[bytes, ...], values: tuple[bytes, ...]
) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
    """The fields that are not nominated."""
    kept = [at for at, name in enumerate(names) if name.lower() not in nominated]
    return tuple(names[at] for at in kept), tuple(values[at] for at in kept)


def connection_options(value: bytes) -> frozenset[bytes]:
    """The fields that a Connection field names, in lower case."""
    return frozenset(token.strip().lower() for token in value.split(b",")) - _NEVER_NOMINATED


def via_field(pseudonym: bytes) -> bytes:
    """A Via field with its CR LF (RFC 9110 §7.6.3); nothing without a pseudonym."""
    return b"Via: 1.1 %b\r\n" % pseudonym if pseudonym else b""


@dataclass(frozen=True, slots=True)
class LocationRewrite:
    """Where a Location leads that starts with `upstream_origin`: to the address that the caller used, which is
    `proxy_scheme`, such as `https://`, and its Host."""

    upstream_origin: bytes
    proxy_scheme: bytes

    def of(self, location: bytes, host: bytes) -> bytes:
        length = len(self.upstream_origin)
        rest = location[length:]
        # `https://app.nanonets.com.example` begins with the origin too, and is somebody else's.
        is_there = location[:length].lower() == self.upstream_origin and rest[:1] in (b"", b"/", b"?", b"#")
        return self.proxy_scheme + host + rest if is_there else location


def caller_response_head(
    status: int,
    reason: bytes,
    names: tuple[bytes, ...],
    values: tuple[bytes, ...],
    added: bytes,
    request_id: str = "",
    host: bytes = b"",
    location_rewrite: LocationRewrite | None = None,
) -> bytes:
    """The header section of a relayed answer: `added` has the proxy's own lines, and its end in the empty line.

    X-Request-Id is added only where the upstream gave none. `host` is the caller's Host: without it, or without
    `location_rewrite`, a Location stays as it is.
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
    if connection_at is not None and values[connection_at] not in PLAIN_CONNECTION_VALUES:
        unwanted |= connection_options(values[connection_at])
    if plan.special:
        unwanted = unwanted.union(
            *(connection_options(values[at]) for at, name in plan.special if name == b"connection")
        )
    if location_at is not None and host and location_rewrite is not None:
        pairs = zip(names, values, strict=True)
        values = tuple(location_rewrite.of(v, host) if name.lower() == b"location" else v for name, v in pairs)
    if unwanted:
        names, values = without_fields(unwanted, names, values)
        template = _ANSWERS[names].template
    if request_id_at is None and request_id:
        added = b"X-Request-Id: %b\r\n%b" % (request_id.encode(), added)
    return status_line + template % values + added


def chunked_body_end(trailers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The end of a chunked body: the last chunk, the trailer fields, the empty line (RFC 9112 §7.1.2)."""
    return b"".join([b"0\r\n", *(b"%b: %b\r\n" % pair for pair in trailers), b"\r\n"])
