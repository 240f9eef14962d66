"""Callers that speak HTTP/1.0."""

from typing import Final

from conformance.steps import (
    CHUNKED,
    GOT,
    OK,
    SEE_OK,
    Again,
    Case,
    Receive,
    Respond,
    SeeBroken,
    SeeEnd,
    Send,
    UpstreamCloses,
    get,
    post,
    raw_response,
    status,
)

_HTTP_1_0: Final = b"HTTP/1.0"


OLD_CALLERS: Final = [
    Case(
        "an HTTP/1.0 caller's connection ends after the response",
        "RFC 9112 §9.3",
        (
            Send(get(version=_HTTP_1_0)),
            GOT,
            Respond(OK),
            status(200, body=b"ok", line=b"HTTP/1.1 200 OK"),
            SeeEnd(),
        ),
    ),
    Case(
        "an HTTP/1.0 caller's body passes",
        "RFC 9112 §6.2",
        (
            Send(post(b"abc", version=_HTTP_1_0)),
            Receive(b"POST /x HTTP/1.1", body=b"abc"),
            Respond(OK),
            SEE_OK,
            SeeEnd(),
        ),
    ),
    Case(
        "an HTTP/1.0 caller needs no Host",
        "RFC 9112 §3.2",
        (
            Send(b"GET /x HTTP/1.0\r\n\r\n"),
            Receive(b"GET /x HTTP/1.1", fields=(b"Host: @UP@",)),
            Respond(OK),
            SEE_OK,
            SeeEnd(),
        ),
    ),
    Case(
        "an HTTP/1.0 caller can keep the connection open by Connection: keep-alive",
        "RFC 9112 §9.3",
        (
            Send(get(b"/x", b"Connection: keep-alive", version=_HTTP_1_0)),
            GOT,
            Respond(OK),
            status(200, body=b"ok", fields=(b"Connection: keep-alive",)),
            Again(),
        ),
        comparable=False,
    ),
    Case(
        "an HTTP/1.0 caller gets a chunked response without the chunked framing",
        "RFC 9112 §6.1",
        (
            Send(get(version=_HTTP_1_0)),
            GOT,
            Respond(raw_response(b"2\r\nab\r\n0\r\n\r\n", CHUNKED)),
            status(200, body=b"ab", without=(b"Transfer-Encoding",)),
        ),
    ),
    Case(
        "an HTTP/1.0 caller's keep-alive is ignored if the response has no length",
        "RFC 9112 §9.3",
        (
            Send(get(b"/x", b"Connection: keep-alive", version=_HTTP_1_0)),
            GOT,
            Respond(raw_response(b"2\r\nab\r\n0\r\n\r\n", CHUNKED)),
            status(200, body=b"ab", fields=(b"Connection: close",), without=(b"Transfer-Encoding",)),
        ),
    ),
    Case(
        "an HTTP/1.0 caller's keep-alive is ignored if the response ends with its connection",
        "RFC 9112 §9.3",
        (
            Send(get(b"/x", b"Connection: keep-alive", version=_HTTP_1_0)),
            GOT,
            Respond(raw_response(b"ab")),
            UpstreamCloses(),
            status(200, body=b"ab", fields=(b"Connection: close",), without=(b"Transfer-Encoding",)),
        ),
        comparable=False,
    ),
    Case(
        "the error response to an HTTP/1.0 request has the version HTTP/1.1",
        "RFC 9110 §2.5",
        (
            Send(get(version=_HTTP_1_0, method=b"TRACE")),
            status(405, line=b"HTTP/1.1 405 Method Not Allowed"),
            SeeEnd(),
        ),
        comparable=False,
    ),
    Case(
        "the error response to a malformed request has the version HTTP/1.1",
        "RFC 9110 §2.5",
        (Send(b"\x00\r\n\r\n"), status(400, line=b"HTTP/1.1 400 Bad Request"), SeeEnd()),
    ),
    Case(
        "a broken-off chunked response looks incomplete to an HTTP/1.0 caller, too",
        "RFC 9112 §8",
        (
            Send(get(version=_HTTP_1_0)),
            GOT,
            Respond(raw_response(b"2\r\nab\r\n", CHUNKED)),
            UpstreamCloses(),
            SeeBroken(),
        ),
        comparable=False,
    ),
    Case(
        "HTTP/1.2 is treated as HTTP/1.1, or rejected",
        "RFC 9110 §2.5",
        (Send(get(version=b"HTTP/1.2")), status(400, 505)),
    ),
]


GROUPS: Final = {
    "HTTP/1.0 callers": OLD_CALLERS,
}
