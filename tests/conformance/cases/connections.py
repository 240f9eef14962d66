"""Reuse and end of connections on both sides."""

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
    SeeEnd,
    Send,
    UpstreamCloses,
    UpstreamEnded,
    UpstreamResets,
    get,
    post,
    raw_response,
    response,
    status,
)

CONNECTIONS: Final = [
    Case(
        "a connection carries several requests, one after another",
        "RFC 9112 §9.3",
        (
            Send(get()),
            GOT,
            Respond(OK),
            status(200, body=b"ok", without=(b"Connection",)),
            Again(),
            Again(),
            Again(),
        ),
        comparable=False,
    ),
    Case(
        "Connection: close ends the connection after the response",
        "RFC 9112 §9.6",
        (
            Send(get(b"/x", b"Connection: close")),
            GOT,
            Respond(OK),
            status(200, body=b"ok", fields=(b"Connection: close",)),
            SeeEnd(),
        ),
    ),
    Case(
        "Connection: close is recognized in any case and in a list",
        "RFC 9110 §7.6.1",
        (Send(get(b"/x", b"Connection: a, CLOSE")), GOT, Respond(OK), SEE_OK, SeeEnd()),
        comparable=False,
    ),
    Case(
        "responses to pipelined requests come in the order of the requests",
        "RFC 9112 §9.3.2",
        (
            Send(get(b"/1") + post(b"b2") + get(b"/3")),
            Receive(b"GET /1 HTTP/1.1"),
            Respond(response(b"1")),
            status(200, body=b"1"),
            Receive(b"POST /x HTTP/1.1", body=b"b2"),
            Respond(response(b"2")),
            status(200, body=b"2"),
            Receive(b"GET /3 HTTP/1.1"),
            Respond(response(b"3")),
            status(200, body=b"3"),
        ),
    ),
    Case(
        "no request after Connection: close is served",
        "RFC 9112 §9.6",
        (Send(get(b"/x", b"Connection: close") + get(b"/never")), GOT, Respond(OK), SEE_OK, SeeEnd()),
    ),
    Case(
        "the upstream's Connection: close does not end the caller's connection",
        "RFC 9110 §7.6.1",
        (
            Send(get()),
            GOT,
            Respond(response(b"ok", b"Connection: close")),
            status(200, body=b"ok"),
            UpstreamEnded(),
            Again(),
        ),
    ),
    Case(
        "a request may arrive byte by byte",
        "RFC 9112 §2.1",
        (*(Send(bytes([byte])) for byte in get()), GOT, Respond(OK), SEE_OK, Again()),
    ),
    Case(
        "a response may arrive byte by byte",
        "RFC 9112 §2.1",
        (
            Send(get()),
            GOT,
            *(Respond(bytes([byte])) for byte in response(b"abc")),
            status(200, body=b"abc"),
            Again(),
        ),
    ),
    Case(
        "a chunked response may arrive byte by byte",
        "RFC 9112 §7.1",
        (
            Send(get()),
            GOT,
            *(Respond(bytes([byte])) for byte in raw_response(b"2\r\nab\r\n0\r\n\r\n", CHUNKED)),
            status(200, body=b"ab"),
            Again(),
        ),
    ),
    Case(
        "a GET on a stale upstream connection is sent again on another connection",
        "RFC 9112 §9.3.1",
        (Send(get()), GOT, Respond(OK), SEE_OK, UpstreamCloses(), Again()),
    ),
    Case(
        "a GET is retried after the upstream closes a fresh connection",
        "RFC 9110 §9.2.2",
        (Send(get()), GOT, UpstreamCloses(), GOT, Respond(OK), SEE_OK, Again()),
        comparable=False,
        settings={"retries": 1, "retry_backoff": "1ms"},
    ),
    Case(
        "a GET is retried after a 503",
        "RFC 9110 §9.2.2",
        (Send(get()), GOT, Respond(response(b"", status=b"503 Busy")), GOT, Respond(OK), SEE_OK, Again()),
        comparable=False,
        settings={"retries": 1, "retry_backoff": "1ms"},
    ),
    Case(
        "a delivered POST is not sent again",
        "RFC 9110 §9.2.2",
        (
            Send(post(b"abc")),
            Receive(b"POST /x HTTP/1.1", body=b"abc"),
            UpstreamCloses(),
            status(502, 504, code="upstream_closed"),
            Again(),
        ),
        settings={"retries": 3, "retry_backoff": "1ms"},
    ),
    Case(
        "a POST that a reused connection lost is not sent again",
        "RFC 9110 §9.2.2",
        (
            Send(get()),
            GOT,
            Respond(OK),
            SEE_OK,
            Send(post(b"abc")),
            Receive(b"POST /x HTTP/1.1", body=b"abc"),
            UpstreamResets(),
            status(502, 504, code="upstream_closed"),
            Again(),
        ),
        settings={"retries": 3, "retry_backoff": "1ms"},
    ),
    Case(
        "a 503 for a POST passes",
        "RFC 9110 §9.2.2",
        (
            Send(post(b"abc")),
            Receive(b"POST /x HTTP/1.1", body=b"abc"),
            Respond(response(b"", status=b"503 Busy")),
            status(503, line=b"HTTP/1.1 503 Busy"),
            Again(),
        ),
        comparable=False,
        settings={"retries": 3, "retry_backoff": "1ms"},
    ),
    Case(
        "a second response on an upstream connection reaches no caller",
        "RFC 9112 §9.2",
        (Send(get()), GOT, Respond(OK + response(b"poison")), SEE_OK, Again(), Again()),
    ),
    Case(
        "bytes on an idle upstream connection reach no caller",
        "RFC 9112 §9.2",
        (Send(get()), GOT, Respond(OK), SEE_OK, Respond(response(b"poison")), Again(), Again()),
    ),
    Case(
        "bytes after a chunked response reach no caller",
        "RFC 9112 §9.2",
        (
            Send(get()),
            GOT,
            Respond(raw_response(b"1\r\na\r\n0\r\n\r\n" + response(b"poison"), CHUNKED)),
            status(200, body=b"a"),
            Again(),
        ),
    ),
    Case(
        "a body after a response to HEAD reaches no caller",
        "RFC 9112 §6.3",
        (
            Send(get(method=b"HEAD")),
            Receive(b"HEAD /x HTTP/1.1"),
            Respond(response(b"poison")),
            status(200, to_head=True),
            Again(),
        ),
    ),
    Case(
        "a body after a 304 reaches no caller",
        "RFC 9112 §6.3",
        (
            Send(get()),
            GOT,
            Respond(raw_response(b"poison", b"Content-Length: 6", status=b"HTTP/1.1 304 X")),
            status(304, to_head=True),
            Again(),
        ),
    ),
    Case(
        "a body after a 204 reaches no caller",
        "RFC 9112 §6.3",
        (
            Send(get()),
            GOT,
            Respond(raw_response(b"poison", b"Content-Length: 6", status=b"HTTP/1.1 204 X")),
            status(204, 502, to_head=True),
            Again(),
        ),
    ),
]


GROUPS: Final = {
    "Connections on both sides": CONNECTIONS,
}
