"""Header fields that an intermediary drops, and the response head for the caller: strip, rewrite, inject.

Fields are bytes as received. Every field that is not named here passes byte for byte: order, case, repetition,
empty values and octets beyond ASCII. `request_head.py` handles requests.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from nanonets_proxy.core.http.header_plans import HeaderPlans

# RFC 9110 §7.6.1: an intermediary removes these whether or not Connection names them.
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

# The proxy cannot vouch for a caller's claims about itself, and replaces the caller's credentials and trace. It
# forwards no request trailers, so it drops `Trailer`.
NOT_FORWARDED = HOP_BY_HOP | {
    b"authorization",
    b"forwarded",
    b"host",
    b"http2-settings",
    b"traceparent",
    b"tracestate",
    b"trailer",
    b"x-real-ip",
}
FORWARDING_PREFIX = b"x-forwarded-"

# RFC 9110 §7.6.1: Connection must not name fields that are for all recipients, such as Cache-Control. These frame,
# describe or date the content, so without them a recipient would misread it. X-Request-Id leads to the log.
_NEVER_HOP_BY_HOP = frozenset(
    {
        *(b"cache-control", b"content-disposition", b"content-encoding", b"content-language", b"content-length"),
        *(b"content-location", b"content-range", b"content-type", b"date", b"host", b"x-request-id"),
    }
)

# RFC 9110 §6.5.1: fields that frame, route or authenticate, or that say how the content is to be read. A recipient
# may merge trailers into the header section.
_NOT_IN_TRAILERS = HOP_BY_HOP | {
    *(b"authorization", b"content-encoding", b"content-length", b"content-range", b"content-type", b"host"),
    *(b"set-cookie", b"trailer", b"www-authenticate"),
}

_RESPONSE_PLANS = HeaderPlans((b"connection", b"location", b"x-request-id", b"date"), frozenset(), HOP_BY_HOP)
# RFC 9110 §8.6: a 1xx or 204 response must not have it, even if the upstream sent it.
_NO_LENGTH = frozenset({b"content-length"})
_NOTHING: frozenset[bytes] = frozenset()
# The usual Connection values that name no other field.
PLAIN_CONNECTION_VALUES = frozenset({b"close", b"keep-alive", b"Keep-Alive", b"Close"})


def without_fields(
    removed: frozenset[bytes], names: tuple[bytes, ...], values: tuple[bytes, ...]
) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
    """Returns the fields whose lower-case names are not in `removed`."""
    kept = [at for at, name in enumerate(names) if name.lower() not in removed]
    return tuple(names[at] for at in kept), tuple(values[at] for at in kept)


def values_of(name: bytes, names: tuple[bytes, ...], values: tuple[bytes, ...]) -> list[bytes]:
    """Returns the values of the fields with a name, which is in lower case."""
    return [values[at] for at, own in enumerate(names) if own.lower() == name]


def nominated_fields(names: tuple[bytes, ...], values: tuple[bytes, ...]) -> frozenset[bytes]:
    """Returns the names that the Connection fields of a header section list, in lower case."""
    return frozenset().union(*map(connection_options, values_of(b"connection", names, values)))


def connection_options(value: bytes) -> frozenset[bytes]:
    """Returns the names that a Connection field's value lists, in lower case."""
    # Each name counts, and no Python code runs for each one: a head has room for 48,000.
    return frozenset(map(bytes.strip, set(value.lower().split(b",")))) - _NEVER_HOP_BY_HOP


def via_field(pseudonym: bytes) -> bytes:
    """Returns a Via field with its CR LF (RFC 9110 §7.6.3), or nothing if the pseudonym is empty."""
    return b"Via: 1.1 %b\r\n" % pseudonym if pseudonym else b""


@dataclass(frozen=True, slots=True)
class LocationRewrite:
    """Rewrites a Location that starts with `upstream_origin`, so that it leads to the proxy.

    `proxy_scheme`: the scheme that callers use, such as `https://`.
    """

    upstream_origin: bytes
    proxy_scheme: bytes

    def apply(self, location: bytes, host: bytes) -> bytes:
        """Returns the Location for a caller that used `host`, or the same Location if it leads elsewhere."""
        length = len(self.upstream_origin)
        path = location[length:]
        # `https://app.nanonets.com.example` starts with the origin too, and belongs to somebody else.
        is_upstream = location[:length].lower() == self.upstream_origin and path[:1] in (b"", b"/", b"?", b"#")
        return self.proxy_scheme + host + path if is_upstream else location


def passing_lines(
    status: int,
    names: tuple[bytes, ...],
    values: tuple[bytes, ...],
    host: bytes = b"",
    location_rewrite: LocationRewrite | None = None,
) -> bytes:
    """Returns the lines of a response's fields that pass to the caller.

    `host`: the caller's Host. Without it, or without `location_rewrite`, a Location stays as it is.
    """
    plan = _RESPONSE_PLANS[names]
    connection_at, location_at, _, _ = plan.places
    template, removed = plan.template, _NOTHING
    if status < 200 or status == 204:
        removed = _NO_LENGTH
    if connection_at is not None and values[connection_at] not in PLAIN_CONNECTION_VALUES:
        removed |= connection_options(values[connection_at])
    if plan.special:
        removed = removed.union(
            *(connection_options(values[at]) for at, name in plan.special if name == b"connection")
        )
    if location_at is not None and host and location_rewrite is not None:
        pairs = zip(names, values, strict=True)
        values = tuple(location_rewrite.apply(v, host) if name.lower() == b"location" else v for name, v in pairs)
    if removed:
        names, values = without_fields(removed, names, values)
        template = _RESPONSE_PLANS[names].template
    return template % values


def caller_response_head(
    status: int,
    reason: bytes,
    names: tuple[bytes, ...],
    lines: bytes,
    added: bytes,
    request_id: str = "",
    date_line: bytes = b"",
) -> bytes:
    """Returns the head of a relayed response, for the caller.

    `names`: of the upstream's fields. `lines`: the result of `passing_lines`. `added`: the proxy's own field lines
    and the empty line. `request_id`: added as X-Request-Id unless the upstream sent one. `date_line`: added unless
    the upstream sent a Date.
    """
    _, _, request_id_at, date_at = _RESPONSE_PLANS[names].places
    if status == 200 and reason == b"OK":
        status_line = b"HTTP/1.1 200 OK\r\n"
    else:
        status_line = b"HTTP/1.1 %d %b\r\n" % (status, reason)
    if date_at is None:
        lines += date_line
    if request_id_at is None and request_id:
        return b"".join((status_line, lines, b"X-Request-Id: ", request_id.encode(), b"\r\n", added))
    return status_line + lines + added


def chunked_body_end(trailers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Returns the last chunk, the trailer section and the empty line (RFC 9112 §7.1).

    Drops trailers that must be fields of a header section.
    """
    lines = [b"%b: %b\r\n" % pair for pair in trailers if pair[0].lower() not in _NOT_IN_TRAILERS]
    return b"".join([b"0\r\n", *lines, b"\r\n"])
