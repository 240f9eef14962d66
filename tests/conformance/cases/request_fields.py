"""Request fields: those that pass unchanged, and those that the proxy removes."""

from typing import Final

from conformance.steps import (
    OK,
    SEE_OK,
    Again,
    Case,
    Receive,
    Respond,
    SeeEnd,
    Send,
    get,
    post,
    response,
    status,
)


def _field_case(fact: str, source: str, *lines: bytes, as_sent: tuple[bytes, ...] = ()) -> Case:
    return Case(
        fact,
        source,
        (
            Send(get(b"/x", *lines)),
            Receive(b"GET /x HTTP/1.1", fields=as_sent or lines),
            Respond(OK),
            SEE_OK,
            Again(),
        ),
    )


FIELDS: Final = [
    _field_case("the order of request fields is kept", "RFC 9110 §5.3", b"X-B: 1", b"X-A: 2", b"X-C: 3"),
    _field_case(
        "repeated request fields are not merged", "RFC 9110 §5.3", b"Accept: a", b"Accept: b", b"Accept: a"
    ),
    _field_case("the case of request field names is kept", "RFC 9110 §5.1", b"x-UPPER-lower: 1"),
    _field_case("an empty request field passes", "RFC 9110 §5.5", b"X-Empty: "),
    _field_case("non-ASCII octets pass in a request field", "RFC 9110 §5.5", b"X-Latin: caf\xe9 \xff"),
    _field_case("tabs and spaces within a request field's value are kept", "RFC 9110 §5.5", b"X-Tab: a\tb  c"),
    _field_case(
        "whitespace around a request field's value is removed",
        "RFC 9112 §5.1",
        b"X-A:  \t b \t",
        as_sent=(b"X-A: b",),
    ),
    _field_case("a request field needs no space after its colon", "RFC 9112 §5.1", b"X-A:b", as_sent=(b"X-A: b",)),
    _field_case("colons in a request field's value pass", "RFC 9110 §5.5", b"X-Colon: a: b: c"),
    _field_case("all token characters pass in a request field's name", "RFC 9110 §5.6.2", b"X-!#$%&'*+.^`|~9: 1"),
    _field_case("an unknown Expect value passes", "RFC 9110 §10.1.1", b"Expect: the-impossible"),
    _field_case("a request field of 4,000 octets passes", "RFC 9110 §5.4", b"X-Long: " + b"v" * 4000),
    _field_case("60 request fields pass", "RFC 9110 §5.4", *(b"X-%d: %d" % (n, n) for n in range(60))),
    _field_case("quoted commas in a request field pass", "RFC 9110 §5.6.4", b'X-Q: "a,b", c;d="e\\"f"'),
    _field_case("Max-Forwards passes unchanged with GET", "RFC 9110 §7.6.2", b"Max-Forwards: 0"),
    _field_case(
        "Accept-Encoding passes", "RFC 9110 §12.5.3", b"Accept-Encoding: gzip;q=1.0, identity; q=0.5, *;q=0"
    ),
    _field_case("conditional request fields pass", "RFC 9110 §13.1", b'If-None-Match: W/"a", "b"', b"If-Match: *"),
    _field_case("Range passes", "RFC 9110 §14.2", b"Range: bytes=0-0,-1"),
    _field_case("cookies pass", "RFC 6265 §4.2", b"Cookie: a=1; b=2"),
    *(
        _field_case(f"a repeated {line.partition(b':')[0].decode()} passes", "RFC 9110 §5.3", line, line)
        for line in (b"User-Agent: a/1", b"Content-Type: a/b", b'ETag: "x"', b"Server: a")
    ),
    Case(
        "leading zeros of Content-Length are removed",
        "RFC 9112 §6.2",
        (
            Send(get(b"/x", b"Content-Length: 0003", method=b"POST") + b"abc"),
            Receive(b"POST /x HTTP/1.1", fields=(b"Content-Length: 3",), body=b"abc"),
            Respond(OK),
            SEE_OK,
            Again(),
        ),
    ),
]


_OUR_KEY: Final = b"Authorization: Basic c2stdGVzdC0wMTIzNDU2Nzg5Og=="


_HOP_BY_HOP: Final = (
    b"Keep-Alive: timeout=5",
    b"Proxy-Connection: keep-alive",
    b"TE: trailers",
    b"TE: gzip;q=0.5",
    b"Proxy-Authorization: Basic eDp5",
    b"Connection: keep-alive",
    b"Connection: close, X-Gone",
)


_UPGRADES: Final = {
    "h2c": (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAEAAEAAAAIAAAAB"),
    "WebSocket": (b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Version: 13"),
    "TLS": (b"Connection: Upgrade", b"Upgrade: TLS/1.0, HTTP/1.1"),
    "another protocol without Connection": (b"Upgrade: foo/2",),
}

STRIPPING: Final = (
    [
        Case(
            f"an upgrade to {what} is ignored, and the request is forwarded without it",
            "RFC 9110 §7.8",
            (
                Send(get(b"/x", *lines)),
                Receive(b"GET /x HTTP/1.1", without=(b"Upgrade", b"HTTP2-Settings")),
                Respond(OK),
                SEE_OK,
                Again(),
            ),
            comparable=False,
        )
        for what, lines in _UPGRADES.items()
    ]
    + [
        Case(
            "an upgrade to h2c with a body is ignored, and the body passes",
            "RFC 9110 §7.8",
            (
                Send(post(b"abc", *_UPGRADES["h2c"])),
                Receive(b"POST /x HTTP/1.1", without=(b"Upgrade", b"HTTP2-Settings"), body=b"abc"),
                Respond(OK),
                SEE_OK,
                Again(),
            ),
            comparable=False,
        ),
        Case(
            "an upgrade of an HTTP/1.0 caller is ignored",
            "RFC 9110 §7.8",
            (
                Send(get(b"/x", *_UPGRADES["h2c"], version=b"HTTP/1.0")),
                Receive(b"GET /x HTTP/1.1", without=(b"Upgrade", b"HTTP2-Settings")),
                Respond(OK),
                SEE_OK,
                SeeEnd(),
            ),
            comparable=False,
        ),
    ]
    + [
        Case(
            f"`{line.decode()}` is removed from a request",
            "RFC 9110 §7.6.1",
            (
                Send(get(b"/x", b"X-Before: 1", line, b"X-After: 2")),
                Receive(
                    b"GET /x HTTP/1.1", fields=(b"X-Before: 1", b"X-After: 2"), without=(line.partition(b":")[0],)
                ),
                Respond(OK),
                SEE_OK,
            ),
            comparable=not line.startswith(
                (b"Connection: keep", b"TE: trailers")
            ),  # other proxies may send their own
        )
        for line in _HOP_BY_HOP
    ]
    + [
        Case(
            f"a request field that Connection names {how} is removed",
            "RFC 9110 §7.6.1",
            (
                Send(get(b"/x", b"X-Hop: 1", *lines, b"X-End: 2")),
                Receive(b"GET /x HTTP/1.1", fields=(b"X-End: 2",), without=(b"X-Hop",)),
                Respond(OK),
                SEE_OK,
            ),
        )
        for how, lines in {
            "alone": (b"Connection: X-Hop",),
            "in another case": (b"Connection: x-hOP",),
            "in a list": (b"Connection: a,X-Hop ,b",),
            "in a list with empty members": (b"Connection: ,, X-Hop,",),
            "in a second Connection field": (b"Connection: keep-alive", b"Connection: X-Hop"),
            "between two occurrences of it": (b"Connection: X-Hop", b"X-Hop: 3"),
        }.items()
    ]
    + [
        Case(
            f"Connection cannot remove {name.decode()}",
            "RFC 9110 §7.6.1",
            (
                Send(post(b"abc", b"Connection: " + name)),
                Receive(b"POST /x HTTP/1.1", fields=(b"Host: @UP@", b"Content-Length: 3", _OUR_KEY), body=b"abc"),
                Respond(OK),
                SEE_OK,
            ),
            comparable=False,
        )
        for name in (b"Host", b"Content-Length", b"Authorization", b"authorization, host, content-length")
    ]
    + [
        Case(
            f"`{line.decode()[:40]}` of a caller is not forwarded",
            "RFC 9110 §11.6.2" if line.lower().startswith(b"auth") else "RFC 7239 §8.1",
            (
                Send(get(b"/x", line)),
                Receive(b"GET /x HTTP/1.1", fields=(_OUR_KEY,), without=without),
                Respond(OK),
                SEE_OK,
            ),
            comparable=False,
        )
        for line, without in {
            b"Authorization: Basic eDp5": (),
            b"authorization: Bearer x": (),
            b"Authorization: ": (),
            b"Forwarded: for=1.2.3.4": (b"Forwarded",),
            b"X-Forwarded-For: 1.2.3.4": (b"X-Forwarded-For",),
            b"X-Forwarded-Host: evil.example": (b"X-Forwarded-Host",),
            b"X-Real-IP: 1.2.3.4": (b"X-Real-IP",),
            b"HTTP2-Settings: AAMAAABk": (b"HTTP2-Settings",),
        }.items()
    ]
)


OWN_FIELDS: Final = [
    Case(
        "Max-Forwards of OPTIONS is counted down",
        "RFC 9110 §7.6.2",
        (
            Send(get(b"/x", b"Max-Forwards: 3", method=b"OPTIONS")),
            Receive(b"OPTIONS /x HTTP/1.1", fields=(b"Max-Forwards: 2",)),
            Respond(OK),
            SEE_OK,
        ),
    ),
    Case(
        "OPTIONS with Max-Forwards 0 goes no further than the proxy",
        "RFC 9110 §7.6.2",
        (
            Send(get(b"/x", b"Max-Forwards: 0", method=b"OPTIONS")),
            status(200, 204, body=b"", has=(b"Allow",)),
            Again(),
        ),
    ),
    Case(
        "Via names the proxy in both directions, after the names of earlier recipients",
        "RFC 9110 §7.6.3",
        (
            Send(get(b"/x", b"Via: 1.0 before")),
            Receive(b"GET /x HTTP/1.1", fields=(b"Via: 1.0 before", b"Via: 1.1 nanonets-proxy")),
            Respond(response(b"ok", b"Via: 1.0 behind")),
            status(200, body=b"ok", fields=(b"Via: 1.0 behind", b"Via: 1.1 nanonets-proxy")),
        ),
        comparable=False,
    ),
    Case(
        "with an empty `via` there is no Via",
        "RFC 9110 §7.6.3",
        (
            Send(get()),
            Receive(b"GET /x HTTP/1.1", without=(b"Via",)),
            Respond(OK),
            status(200, body=b"ok", without=(b"Via",)),
        ),
        comparable=False,
        settings={"via": ""},
    ),
]


GROUPS: Final = {
    "Request fields": FIELDS,
    "Max-Forwards and Via": OWN_FIELDS,
    "Fields that the proxy removes from requests": STRIPPING,
}
