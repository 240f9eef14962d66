"""Requests that the proxy rejects by policy, by a time limit, or because of the bytes before them."""

from typing import Final

from conformance.steps import (
    OK,
    SEE_OK,
    Case,
    HalfClose,
    Receive,
    Respond,
    SeeEnd,
    Send,
    chunked_post,
    get,
    post,
    status,
)

_GET: Final = b"GET /x HTTP/1.1\r\nHost: localhost\r\n"


REJECTIONS: Final = [
    Case(
        "CONNECT is rejected",
        "RFC 9110 §9.3.6",
        (Send(get(b"localhost:1", method=b"CONNECT")), status(405, 400, 501, code="method_not_allowed"), SeeEnd()),
        comparable=False,
    ),
    *(
        Case(
            f"the method {method.decode()}, a known one in another case, is rejected",
            "RFC 9110 §9.1",
            (Send(get(method=method)), status(400, code="bad_request"), SeeEnd()),
            comparable=False,
        )
        for method in (b"get", b"Delete", b"Trace")
    ),
    Case(
        "a request field with an underscore in its name does not pass",
        "RFC 3875 §4.1.18",
        (
            Send(get(b"/x", b"X_Under_Score: 1", b"Content_Length: 5")),
            Receive(b"GET /x HTTP/1.1", without=(b"X_Under_Score", b"Content_Length")),
            Respond(OK),
            SEE_OK,
        ),
        comparable=False,
    ),
    Case(
        "TRACK, which some servers treat as TRACE, is rejected",
        "RFC 9110 §9.3.8",
        (Send(get(method=b"TRACK")), status(405), SeeEnd()),
        comparable=False,
    ),
    Case(
        "TRACE, which would reveal the API key, is rejected",
        "RFC 9110 §9.3.8",
        (
            Send(get(method=b"TRACE")),
            status(405, 501, fields=(b"Allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS",)),
            SeeEnd(),
        ),
        comparable=False,
    ),
    *(
        Case(
            f"{what} is rejected",
            "RFC 9110 §17.1",
            (
                Send(b"GET %b HTTP/1.1\r\nHost: %b\r\n\r\n" % (target, host)),
                status(403, code="forbidden_host"),
                SeeEnd(),
            ),
            comparable=False,
        )
        for what, target, host in [
            ("a foreign Host", b"/x", b"evil.example"),
            ("a foreign host in an absolute target", b"http://evil.example/x", b"localhost"),
            ("a foreign Host that contains `localhost`", b"/x", b"evil-localhost.example"),
            ("a Host of a private network, on a listener on loopback,", b"/x", b"nanonets-proxy.default"),
        ]
    ),
    *(
        Case(
            f"a request from a foreign web page with `{line.decode()}` is rejected",
            "RFC 6454 §7",
            (Send(get(b"/x", line)), status(403, code="forbidden_origin"), SeeEnd()),
            comparable=False,
        )
        for line in (
            b"Origin: http://evil.example",
            b"Origin: null",
            b"Sec-Fetch-Site: cross-site",
            b"Sec-Fetch-Site: same-site",
        )
    ),
    Case(
        "an incomplete head gets a 408 after `head_timeout`",
        "RFC 9110 §15.5.9",
        (Send(_GET), status(408, code="request_timeout"), SeeEnd()),
        comparable=False,
        settings={"head_timeout": "50ms"},
    ),
    Case(
        "an incomplete request body gets a 408 after `idle_timeout`",
        "RFC 9110 §15.5.9",
        (
            Send(post(b"abcdef")[:-3]),
            Receive(b"POST /x HTTP/1.1", body=None),
            status(408, code="request_timeout", fields=(b"Connection: close",)),
        ),
        comparable=False,
        settings={"idle_timeout": "50ms"},
    ),
    Case(
        "an incomplete chunked request body gets a 408 after `idle_timeout`",
        "RFC 9110 §15.5.9",
        (
            Send(chunked_post(b"3\r\nab")),
            Receive(b"POST /x HTTP/1.1", body=None),
            status(408, code="request_timeout", fields=(b"Connection: close",)),
        ),
        comparable=False,
        settings={"idle_timeout": "50ms"},
    ),
    Case(
        "a head that the caller breaks off does not reach the upstream",
        "RFC 9112 §8",
        (Send(_GET + b"X-A: b"), HalfClose(), SeeEnd()),
        comparable=False,  # a 400 is allowed, too
    ),
    Case(
        "the protocol name RTSP is rejected when it arrives in pieces, too",
        "RFC 9112 §2.3",
        (Send(b"GET /x RT"), Send(b"SP/1.0\r\nHost: localhost\r\n\r\n"), status(400, 505), SeeEnd()),
    ),
    Case(
        "arbitrary bytes after a request in the same packet get a 400 after its response",
        "RFC 9112 §9.3.2",
        (
            Send(get() + b"\x00rubbish\r\n\r\n"),
            Receive(b"GET /x HTTP/1.1"),
            Respond(OK),
            SEE_OK,
            status(400),
            SeeEnd(),
        ),
    ),
    Case(
        "arbitrary bytes after a body in the same packet get a 400 after its response",
        "RFC 9112 §9.3.2",
        (
            Send(post(b"abc") + b"\x00rubbish\r\n\r\n"),
            Receive(b"POST /x HTTP/1.1", body=b"abc"),
            Respond(OK),
            SEE_OK,
            status(400),
            SeeEnd(),
        ),
    ),
    Case(
        "bytes beyond Content-Length are the next request",
        "RFC 9112 §6.3",
        (
            Send(post(b"abc") + get(b"/next")),
            Receive(b"POST /x HTTP/1.1", body=b"abc"),
            Respond(OK),
            SEE_OK,
            Receive(b"GET /next HTTP/1.1"),
            Respond(OK),
            SEE_OK,
        ),
    ),
    Case(
        "arbitrary bytes after a body get a 400 after its response",
        "RFC 9112 §6.3",
        (
            Send(post(b"abc")),
            Receive(b"POST /x HTTP/1.1", body=b"abc"),
            Send(b"\x00rubbish\r\n\r\n"),
            Respond(OK),
            SEE_OK,
            status(400),
            SeeEnd(),
        ),
    ),
]


GROUPS: Final = {
    "Rejected by policy, time limit or position": REJECTIONS,
}
