"""Responses with and without a body."""

from typing import Final

from conformance.steps import (
    CHUNKED,
    GOT,
    LARGE,
    OK,
    Again,
    Case,
    Receive,
    Respond,
    SeeBytes,
    SeeStart,
    Send,
    UpstreamCloses,
    UpstreamEnded,
    get,
    passes,
    raw_response,
    response,
    status,
)

BODIES: Final = [
    passes(
        "a response with Content-Length passes",
        "RFC 9112 §6.2",
        response(b"abc"),
        status(200, body=b"abc", fields=(b"Content-Length: 3",)),
    ),
    passes(
        "an empty response passes",
        "RFC 9110 §8.6",
        response(b""),
        status(200, body=b"", fields=(b"Content-Length: 0",)),
    ),
    passes("a response of 1 byte passes", "RFC 9112 §6.2", response(b"a"), status(200, body=b"a")),
    passes("a response of 256 KiB passes", "RFC 9112 §6.2", response(LARGE), status(200, body=LARGE)),
    passes(
        "a chunked response passes",
        "RFC 9112 §7.1",
        raw_response(b"1\r\na\r\n2\r\nbc\r\n0\r\n\r\n", CHUNKED),
        status(200, body=b"abc"),
    ),
    passes(
        "a chunked response without data passes",
        "RFC 9112 §7.1",
        raw_response(b"0\r\n\r\n", CHUNKED),
        status(200, body=b""),
    ),
    passes(
        "a chunked response of 256 KiB passes",
        "RFC 9112 §7.1",
        raw_response(b"40000\r\n%b\r\n0\r\n\r\n" % LARGE, CHUNKED),
        status(200, body=LARGE),
    ),
    passes(
        "a response of 500 chunks passes",
        "RFC 9112 §7.1",
        raw_response(b"1\r\na\r\n" * 500 + b"0\r\n\r\n", CHUNKED),
        status(200, body=b"a" * 500),
    ),
    passes(
        "chunk extensions of a response are not part of its body",
        "RFC 9112 §7.1.1",
        raw_response(b'3;a=b;c="d"\r\nabc\r\n0;x\r\n\r\n', CHUNKED),
        status(200, body=b"abc"),
    ),
    *(
        passes(
            f"white space in a chunk extension of a response is accepted: {extension!r}",
            "RFC 9112 §7.1.1",
            raw_response(b"3%b\r\nabc\r\n0\r\n\r\n" % extension.encode(), CHUNKED),
            status(200, body=b"abc"),
        )
        for extension in ("; a=b", " ;a", "\t;\ta = b ; c")
    ),
    passes(
        "trailers of a response pass",
        "RFC 9112 §7.1.2",
        raw_response(b"1\r\na\r\n0\r\nX-Sum: 1\r\nx-sum: 2\r\n\r\n", CHUNKED, b"Trailer: X-Sum"),
        status(200, body=b"a", trailers=b"X-Sum: 1\r\nx-sum: 2\r\n"),
        comparable=False,
    ),
    Case(
        "a response that ends with its connection passes whole",
        "RFC 9112 §6.3",
        (Send(get()), GOT, Respond(raw_response(b"abc")), UpstreamCloses(), status(200, body=b"abc"), Again()),
    ),
    Case(
        "an HTTP/1.0 response that ends with its connection passes whole",
        "RFC 9112 §6.3",
        (
            Send(get()),
            GOT,
            Respond(raw_response(b"abc", status=b"HTTP/1.0 200 OK")),
            UpstreamCloses(),
            status(200, body=b"abc"),
            Again(),
        ),
    ),
    Case(
        "an HTTP/1.0 response with Transfer-Encoding passes, and ends the upstream connection",
        "RFC 9112 §6.1",
        (
            Send(get()),
            GOT,
            Respond(
                raw_response(
                    b"3\r\nabc\r\n0\r\n\r\n", b"Connection: keep-alive", CHUNKED, status=b"HTTP/1.0 200 OK"
                )
            ),
            status(200, body=b"abc"),
            UpstreamEnded(),
            Again(),
        ),
        comparable=False,
    ),
    passes(
        "an HTTP/1.0 response with a length becomes HTTP/1.1",
        "RFC 9110 §2.5",
        raw_response(b"abc", b"Content-Length: 3", status=b"HTTP/1.0 200 OK"),
        status(200, body=b"abc", line=b"HTTP/1.1 200 OK"),
    ),
    passes(
        "a response body that looks like a response stays a body",
        "RFC 9112 §6.3",
        response(OK),
        status(200, body=OK),
    ),
    passes(
        "a compressed response keeps its content coding, length and entity tag",
        "RFC 9110 §8.8.3",
        response(b"\x1f\x8b\x08junk", b"Content-Encoding: gzip", b'ETag: "a"'),
        status(
            200, body=b"\x1f\x8b\x08junk", fields=(b"Content-Encoding: gzip", b'ETag: "a"', b"Content-Length: 7")
        ),
    ),
    passes(
        "leading zeros in a response's Content-Length are allowed",
        "RFC 9110 §8.6",
        raw_response(b"abc", b"Content-Length: 003"),
        status(200, body=b"abc"),
    ),
    Case(
        "a server-sent event passes before the upstream sends the next one",
        "HTML §9.2",
        (
            Send(get()),
            GOT,
            Respond(raw_response(b"9\r\ndata: 1\n\n\r\n", b"Content-Type: text/event-stream", CHUNKED)),
            SeeStart(b"9\r\ndata: 1\n\n\r\n"),
            Respond(b"9\r\ndata: 2\n\n\r\n"),
            SeeBytes(b"9\r\ndata: 2\n\n\r\n"),
            Respond(b"0\r\n\r\n"),
            SeeBytes(b"0\r\n\r\n"),
            Again(),
        ),
    ),
    Case(
        "a response's first bytes pass before the upstream sends its last",
        "RFC 9112 §6.2",
        (
            Send(get()),
            GOT,
            Respond(raw_response(b"a", b"Content-Length: 3")),
            SeeStart(b"a"),
            Respond(b"bc"),
            SeeBytes(b"bc"),
            Again(),
        ),
    ),
]


_NO_BODY: Final = {
    "with Content-Length": (b"Content-Length: 1234",),
    "with the chunked coding": (CHUNKED,),
    "without Content-Length and chunked coding": (),
}


NO_BODIES: Final = (
    [
        Case(
            f"a response to HEAD {how} has no body",
            "RFC 9110 §9.3.2",
            (
                Send(get(method=b"HEAD")),
                Receive(b"HEAD /x HTTP/1.1"),
                Respond(raw_response(b"", *fields)),
                status(200, to_head=True, fields=fields[:1] if how == "with Content-Length" else ()),
                Again(),
            ),
        )
        for how, fields in _NO_BODY.items()
    ]
    + [
        passes(
            f"a {code} {how} has no body",
            f"RFC 9110 §{section}",
            raw_response(b"", *fields, status=b"HTTP/1.1 %d X" % code),
            status(code, to_head=True, without=without),
        )
        for code, section, without in [
            (204, "15.3.5", (b"Content-Length", b"Transfer-Encoding")),
            (304, "15.4.5", (b"Transfer-Encoding",)),
        ]
        for how, fields in {
            "with Content-Length": (b"Content-Length: 0",) if code == 204 else (b"Content-Length: 1234",),
            "without a length": (),
        }.items()
    ]
    + [
        passes(
            "a 304 with a 200's Content-Length and entity tag passes",
            "RFC 9110 §8.6",
            raw_response(b"", b"Content-Length: 1234", b'ETag: "a"', status=b"HTTP/1.1 304 Not Modified"),
            status(304, to_head=True, fields=(b'ETag: "a"',)),
        ),
        passes(
            "a 205 with Content-Length 0 passes",
            "RFC 9110 §15.3.6",
            response(b"", status=b"205 Reset Content"),
            status(205, body=b""),
        ),
        passes(
            "a chunked 205 without data passes",
            "RFC 9110 §15.3.6",
            raw_response(b"0\r\n\r\n", CHUNKED, status=b"HTTP/1.1 205 Reset Content"),
            status(205, body=b""),
        ),
        Case(
            "the proxy's 502 for HEAD has no body",
            "RFC 9110 §9.3.2",
            (
                Send(get(method=b"HEAD")),
                Receive(b"HEAD /x HTTP/1.1"),
                UpstreamCloses(),
                status(502, to_head=True),
                Again(),
            ),
            comparable=False,
        ),
    ]
)


GROUPS: Final = {
    "Responses with a body": BODIES,
    "Responses without a body": NO_BODIES,
}
