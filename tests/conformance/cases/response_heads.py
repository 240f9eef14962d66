"""Status lines, response fields and interim responses."""

from typing import Any, Final

from conformance.steps import (
    GOT,
    OK,
    SEE_OK,
    Again,
    Case,
    Receive,
    ReceiveBody,
    Respond,
    SeeBytes,
    SeeEnd,
    SeeInterim,
    Send,
    UpstreamEnded,
    get,
    passes,
    post,
    response,
    status,
)

_MARK: Final = b'Proxy-Status: nanonets-proxy; received-status=429; details="body_copy_discarded: replay_limit"'
_CHALLENGE: Final = b'WWW-Authenticate: Basic realm="upstream"'
_REJECTION: Final = Respond(response(b"", _CHALLENGE, status=b"401 Unauthorized"))
_REASONS_OF_401: Final = {
    b"key_rejected": b"key_rejected: the upstream rejects the API key of the proxy",
    b"unauthorized": b"unauthorized: the upstream rejects this request or the API key of the proxy",
}


def _mark_of_401(code: bytes) -> bytes:
    return b'Proxy-Status: nanonets-proxy; received-status=401; details="%s"' % _REASONS_OF_401[code]


STATUS_LINES: Final = [
    passes(
        f"the status line `{line.decode('latin-1')}` passes",
        "RFC 9112 §4",
        response(b"x", status=line),
        status(int(line[:3]), line=b"HTTP/1.1 " + line, body=b"x"),
        comparable=line[:3] in (b"200", b"404", b"418"),
    )
    for line in (
        b"200 OK",
        b"200 Fine",
        b"200 ",
        b"201 Created",
        b"203 Non-Authoritative Information",
        b"207 Multi-Status",
        b"299 Quite All Right",
        b"300 X",
        b"400 Bad",
        b"404 Not Found",
        b"402 Payment Required",
        b"418 I'm a teapot",
        b"451 Unavailable For Legal Reasons",
        b"499 Odd",
        b"500 Broken",
        b"503 Busy",
        b"599 \xe9\xff",
    )
] + [
    passes(
        "a status line without a reason phrase and its space is accepted",
        "RFC 9112 §4",
        response(b"x", status=b"200"),
        status(200, body=b"x"),
    ),
    passes(
        "a status code above 599 passes unchanged",
        "RFC 9110 §15",
        response(b"x", status=b"799 Odd"),
        status(799, 502),
        comparable=False,
    ),
]


def _field_case(
    fact: str,
    source: str,
    *lines: bytes,
    without: tuple[bytes, ...] = (),
    seen: tuple[bytes, ...] | None = None,
    **more: Any,
) -> Case:
    return passes(
        fact,
        source,
        response(b"ok", *lines),
        status(200, fields=lines if seen is None else seen, without=without, body=b"ok"),
        **more,
    )


FIELDS: Final = (
    [
        _field_case("the order of response fields is kept", "RFC 9110 §5.3", b"X-B: 1", b"X-A: 2", b"X-C: 3"),
        _field_case(
            "Set-Cookie fields are not merged",
            "RFC 6265 §3",
            b"Set-Cookie: a=1; Path=/",
            b"Set-Cookie: b=2",
            b"set-cookie: a=3",
            comparable=False,
        ),
        _field_case(
            "the case of response field names is kept", "RFC 9110 §5.1", b"x-UPPER-lower: 1", comparable=False
        ),
        _field_case("an empty response field passes", "RFC 9110 §5.5", b"X-Empty: "),
        _field_case("non-ASCII octets pass in a response field", "RFC 9110 §5.5", b"X-Latin: caf\xe9 \xff"),
        _field_case(
            "the upstream's Date is kept",
            "RFC 9110 §6.6.1",
            b"Date: Thu, 01 Jan 1970 00:00:00 GMT",
            comparable=False,
        ),
        passes(
            "a response without Date gets the time of its receipt",
            "RFC 9110 §6.6.1",
            OK,
            status(200, has=(b"Date",), body=b"ok"),
        ),
        _field_case("the upstream's Server is kept", "RFC 9110 §10.2.4", b"Server: theirs", comparable=False),
        _field_case(
            "no Server or Content-Type is added to a response",
            "RFC 9110 §8.3",
            without=(b"Server", b"Content-Type"),
            comparable=False,
        ),
        _field_case(
            "caching fields pass",
            "RFC 9111 §5",
            b"Cache-Control: no-store",
            b"Age: 0",
            b"Expires: 0",
            b"Vary: *",
            comparable=False,
        ),
        _field_case("the upstream's Via passes", "RFC 9110 §7.6.3", b"Via: 1.0 before", comparable=False),
        _field_case("a 200's WWW-Authenticate passes", "RFC 9110 §11.6.1", b"WWW-Authenticate: Basic realm=x"),
        _field_case("60 response fields pass", "RFC 9110 §5.4", *(b"X-%d: %d" % (n, n) for n in range(60))),
        _field_case("a response field of 3,000 octets passes", "RFC 9110 §5.4", b"X-Long: " + b"v" * 3000),
        _field_case(
            "a Location on another host passes unchanged",
            "RFC 9110 §10.2.2",
            b"Location: https://bucket.example/x?u=a%2Fb",
        ),
        _field_case("a relative Location passes unchanged", "RFC 9110 §10.2.2", b"Location: /next"),
        _field_case(
            "a Location on the upstream is rewritten to the address that the caller used",
            "RFC 9110 §10.2.2",
            b"Location: http://@UP@/next",
            seen=(b"Location: http://localhost/next",),
            comparable=False,
        ),
    ]
    + [
        _field_case(
            f"`{line.decode()}` is removed from a response",
            "RFC 9110 §7.6.1",
            b"X-Before: 1",
            line,
            b"X-After: 2",
            without=(line.partition(b":")[0],),
            seen=(b"X-Before: 1", b"X-After: 2"),
            comparable=comparable,
        )
        for line, comparable in {
            b"Keep-Alive: timeout=5": True,
            b"Proxy-Connection: close": False,
            b"Proxy-Authenticate: Basic": False,
            b"Upgrade: h2c": True,
            b"TE: x": False,
            b"Connection: keep-alive": False,
        }.items()
    ]
    + [
        _field_case(
            "a response field that Connection names is removed",
            "RFC 9110 §7.6.1",
            b"Connection: X-Hop, close",
            b"X-Hop: 1",
            b"X-End: 2",
            without=(b"X-Hop",),
            seen=(b"X-End: 2",),
        ),
        _field_case(
            "a response's Connection cannot remove Content-Length",
            "RFC 9110 §7.6.1",
            b"Connection: content-length",
            seen=(b"Content-Length: 2",),
        ),
        Case(
            "a 429 for a request whose body could not be kept is marked by Proxy-Status",
            "RFC 9209 §2.1.4",
            (
                Send(post(b"x" * 2000)),
                Receive(b"POST /x HTTP/1.1", body=b"x" * 2000),
                Respond(response(b"", b"Retry-After: 1", status=b"429 Too Many Requests")),
                status(
                    429,
                    fields=(b"Retry-After: 1", _MARK),
                ),
            ),
            comparable=False,
            settings={"body_memory": "1000", "replay_limit": "1000"},
        ),
        Case(
            "a 401 is marked by Proxy-Status: the upstream rejects the proxy's key",
            "RFC 9209 §2.1.4",
            (Send(get()), GOT, _REJECTION, status(401, fields=(_CHALLENGE, _mark_of_401(b"key_rejected")))),
            comparable=False,
        ),
        Case(
            "a 401 is marked by Proxy-Status: the key has worked, and it is unknown whether it still does",
            "RFC 9209 §2.1.4",
            (
                Send(get()),
                GOT,
                Respond(OK),
                SEE_OK,
                Send(get()),
                GOT,
                _REJECTION,
                status(401, fields=(_CHALLENGE, _mark_of_401(b"unauthorized"))),
            ),
            comparable=False,
            repeatable=False,
        ),
    ]
)


_HINTS: Final = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
_SEE_NO_HINTS: Final = status(200, body=b"ok", without=(b"Link",))


INTERIM: Final = [
    Case(
        "a 103 passes before the final response",
        "RFC 8297 §2",
        (Send(get()), GOT, Respond(_HINTS), SeeInterim(103, (b"Link: </x>",)), Respond(OK), _SEE_NO_HINTS, Again()),
    ),
    Case(
        "a 102 passes before the final response",
        "RFC 9110 §15.2",
        (
            Send(get()),
            GOT,
            Respond(b"HTTP/1.1 102 Processing\r\n\r\n"),
            SeeInterim(102),
            Respond(OK),
            SEE_OK,
            Again(),
        ),
    ),
    Case(
        "several 1xx pass in their order",
        "RFC 9110 §15.2",
        (
            Send(get()),
            GOT,
            Respond(_HINTS + b"HTTP/1.1 199 \r\nx-odd: 1\r\n\r\n" + OK),
            SeeInterim(103, (b"Link: </x>",)),
            SeeInterim(199, (b"x-odd: 1",)),
            SEE_OK,
            Again(),
        ),
    ),
    Case(
        "an interim response's field that Connection names is removed",
        "RFC 9110 §7.6.1",
        (
            Send(get()),
            GOT,
            Respond(b"HTTP/1.1 103 X\r\nConnection: X-Hop\r\nX-Hop: 1\r\nLink: </y>\r\n\r\n" + OK),
            SeeInterim(103, (b"Link: </y>",)),
            SEE_OK,
        ),
    ),
    Case(
        "a 100 that the caller did not expect is not forwarded",
        "RFC 9110 §15.2.1",
        (Send(get()), GOT, Respond(b"HTTP/1.1 100 Continue\r\n\r\n" + OK), SEE_OK, Again()),
    ),
    *(
        Case(
            f"a 103 {what} precedes the final response",
            "RFC 9110 §15.2",
            (Send(get()), GOT, Respond(head + OK), SeeInterim(103, (b"Link: </x>",)), SEE_OK, Again()),
            comparable=False,
        )
        for what, head in {
            "with Connection: close": b"HTTP/1.1 103 Early Hints\r\nConnection: close\r\nLink: </x>\r\n\r\n",
            "of HTTP/1.0": b"HTTP/1.0 103 Early Hints\r\nLink: </x>\r\n\r\n",
        }.items()
    ),
    Case(
        "a 100 with Connection: close precedes the final response to an upload",
        "RFC 9110 §15.2",
        (
            Send(get(b"/x", b"Expect: 100-continue", b"Content-Length: 3", method=b"POST")),
            Receive(b"POST /x HTTP/1.1", body=None),
            Respond(b"HTTP/1.1 100 Continue\r\nConnection: close\r\n\r\n"),
            SeeBytes(b"HTTP/1.1 100 Continue\r\n\r\n"),
            Send(b"abc"),
            ReceiveBody(b"abc"),
            Respond(response(b"ok", b"Connection: close")),
            SEE_OK,
            UpstreamEnded(),
            Again(),
        ),
        comparable=False,
    ),
    Case(
        "an HTTP/1.0 caller gets no 1xx",
        "RFC 9110 §15.2",
        (Send(get(version=b"HTTP/1.0")), GOT, Respond(_HINTS + OK), SEE_OK, SeeEnd()),
    ),
    passes(
        "a 101 that the caller did not request becomes a 502",
        "RFC 9110 §15.2.2",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\nabc",
        status(502, code="upstream_upgraded"),
    ),
]


GROUPS: Final = {
    "Status lines": STATUS_LINES,
    "Response fields": FIELDS,
    "Interim responses": INTERIM,
}
