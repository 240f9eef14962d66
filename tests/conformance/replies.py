"""What of an answer passes, and how."""

from typing import Any, Final

from conformance.steps import (
    GOT,
    OK,
    SEE_OK,
    Again,
    Case,
    Receive,
    Reply,
    See,
    SeeBytes,
    SeeEnd,
    SeeInterim,
    SeeStart,
    Send,
    Step,
    UpstreamCloses,
    get,
    raw_reply,
    reply,
    status,
)

_CHUNKED: Final = b"Transfer-Encoding: chunked"
_LARGE: Final = bytes(range(256)) * 1024


def _passes(fact: str, source: str, said: bytes, seen: See, *then: Step, **more: Any) -> Case:
    return Case(fact, source, (Send(get()), GOT, Reply(said), seen, *(then or (Again(),))), **more)


def _seen(**more: Any) -> See:
    return status(200, **more)


BODIES: Final = [
    _passes(
        "an answer with Content-Length passes",
        "RFC 9112 §6.2",
        reply(b"abc"),
        _seen(body=b"abc", fields=(b"Content-Length: 3",)),
    ),
    _passes("an empty answer passes", "RFC 9110 §8.6", reply(b""), _seen(body=b"", fields=(b"Content-Length: 0",))),
    _passes("an answer of 1 byte passes", "RFC 9112 §6.2", reply(b"a"), _seen(body=b"a")),
    _passes("an answer of 256 KiB passes", "RFC 9112 §6.2", reply(_LARGE), _seen(body=_LARGE)),
    _passes(
        "a chunked answer passes",
        "RFC 9112 §7.1",
        raw_reply(b"1\r\na\r\n2\r\nbc\r\n0\r\n\r\n", _CHUNKED),
        _seen(body=b"abc"),
    ),
    _passes(
        "a chunked answer of no chunk passes", "RFC 9112 §7.1", raw_reply(b"0\r\n\r\n", _CHUNKED), _seen(body=b"")
    ),
    _passes(
        "a chunked answer of 256 KiB passes",
        "RFC 9112 §7.1",
        raw_reply(b"40000\r\n%b\r\n0\r\n\r\n" % _LARGE, _CHUNKED),
        _seen(body=_LARGE),
    ),
    _passes(
        "a chunked answer of 500 chunks passes",
        "RFC 9112 §7.1",
        raw_reply(b"1\r\na\r\n" * 500 + b"0\r\n\r\n", _CHUNKED),
        _seen(body=b"a" * 500),
    ),
    _passes(
        "chunk extensions of an answer are not content",
        "RFC 9112 §7.1.1",
        raw_reply(b'3;a=b;c="d"\r\nabc\r\n0;x\r\n\r\n', _CHUNKED),
        _seen(body=b"abc"),
    ),
    _passes(
        "trailers of an answer pass",
        "RFC 9112 §7.1.2",
        raw_reply(b"1\r\na\r\n0\r\nX-Sum: 1\r\nx-sum: 2\r\n\r\n", _CHUNKED, b"Trailer: X-Sum"),
        _seen(body=b"a", trailers=b"X-Sum: 1\r\nx-sum: 2\r\n"),
        comparable=False,
    ),
    Case(
        "an answer that ends with its connection passes whole",
        "RFC 9112 §6.3",
        (Send(get()), GOT, Reply(raw_reply(b"abc")), UpstreamCloses(), _seen(body=b"abc"), Again()),
    ),
    Case(
        "an HTTP/1.0 answer that ends with its connection passes whole",
        "RFC 9112 §6.3",
        (
            Send(get()),
            GOT,
            Reply(raw_reply(b"abc", status=b"HTTP/1.0 200 OK")),
            UpstreamCloses(),
            _seen(body=b"abc"),
            Again(),
        ),
    ),
    _passes(
        "an HTTP/1.0 answer with a length is told as HTTP/1.1",
        "RFC 9110 §2.5",
        raw_reply(b"abc", b"Content-Length: 3", status=b"HTTP/1.0 200 OK"),
        _seen(body=b"abc", line=b"HTTP/1.1 200 OK"),
    ),
    _passes("an answer that looks like an answer stays a body", "RFC 9112 §6.3", reply(OK), _seen(body=OK)),
    _passes(
        "a compressed answer keeps its coding, length and tag",
        "RFC 9110 §8.8.3",
        reply(b"\x1f\x8b\x08junk", b"Content-Encoding: gzip", b'ETag: "a"'),
        _seen(body=b"\x1f\x8b\x08junk", fields=(b"Content-Encoding: gzip", b'ETag: "a"', b"Content-Length: 7")),
    ),
    _passes(
        "leading zeros in an answer's Content-Length",
        "RFC 9110 §8.6",
        raw_reply(b"abc", b"Content-Length: 003"),
        _seen(body=b"abc"),
    ),
    Case(
        "a server-sent event passes before the next was sent",
        "HTML §9.2",
        (
            Send(get()),
            GOT,
            Reply(raw_reply(b"9\r\ndata: 1\n\n\r\n", b"Content-Type: text/event-stream", _CHUNKED)),
            SeeStart(b"9\r\ndata: 1\n\n\r\n"),
            Reply(b"9\r\ndata: 2\n\n\r\n"),
            SeeBytes(b"9\r\ndata: 2\n\n\r\n"),
            Reply(b"0\r\n\r\n"),
            SeeBytes(b"0\r\n\r\n"),
            Again(),
        ),
    ),
    Case(
        "the first bytes of an answer pass before its last was sent",
        "RFC 9112 §6.2",
        (
            Send(get()),
            GOT,
            Reply(raw_reply(b"a", b"Content-Length: 3")),
            SeeStart(b"a"),
            Reply(b"bc"),
            SeeBytes(b"bc"),
            Again(),
        ),
    ),
]

_NO_BODY: Final = {
    "with Content-Length": (b"Content-Length: 1234",),
    "with chunked coding": (_CHUNKED,),
    "without either": (),
}
NO_BODIES: Final = (
    [
        Case(
            f"an answer to HEAD {how} has no body",
            "RFC 9110 §9.3.2",
            (
                Send(get(method=b"HEAD")),
                Receive(b"HEAD /x HTTP/1.1"),
                Reply(raw_reply(b"", *fields)),
                _seen(to_head=True, fields=fields[:1] if how == "with Content-Length" else ()),
                Again(),
            ),
        )
        for how, fields in _NO_BODY.items()
    ]
    + [
        _passes(
            f"a {code} {how} has no body",
            f"RFC 9110 §{section}",
            raw_reply(b"", *fields, status=b"HTTP/1.1 %d X" % code),
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
        _passes(
            "a 304 keeps the length that a 200 would have",
            "RFC 9110 §8.6",
            raw_reply(b"", b"Content-Length: 1234", b'ETag: "a"', status=b"HTTP/1.1 304 Not Modified"),
            status(304, to_head=True, fields=(b'ETag: "a"',)),
        ),
        _passes(
            "a 205 with Content-Length 0 passes",
            "RFC 9110 §15.3.6",
            reply(b"", status=b"205 Reset Content"),
            status(205, body=b""),
        ),
        _passes(
            "a chunked 205 of no chunk passes",
            "RFC 9110 §15.3.6",
            raw_reply(b"0\r\n\r\n", _CHUNKED, status=b"HTTP/1.1 205 Reset Content"),
            status(205, body=b""),
        ),
        Case(
            "a 502 to HEAD has no body",
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

STATUS_LINES: Final = [
    _passes(
        f"the status line `{line.decode('latin-1')}` passes",
        "RFC 9112 §4",
        reply(b"x", status=line),
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
    _passes(
        "a status line without reason and space is understood",
        "RFC 9112 §4",
        reply(b"x", status=b"200"),
        _seen(body=b"x"),
    ),
    _passes(
        "a status of 6xx and more passes as it came",
        "RFC 9110 §15",
        reply(b"x", status=b"799 Odd"),
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
    return _passes(
        fact,
        source,
        reply(b"ok", *lines),
        _seen(fields=lines if seen is None else seen, without=without, body=b"ok"),
        **more,
    )


FIELDS: Final = (
    [
        _field_case("the order of answer fields is kept", "RFC 9110 §5.3", b"X-B: 1", b"X-A: 2", b"X-C: 3"),
        _field_case(
            "each Set-Cookie stays a field of its own",
            "RFC 6265 §3",
            b"Set-Cookie: a=1; Path=/",
            b"Set-Cookie: b=2",
            b"set-cookie: a=3",
            comparable=False,
        ),
        _field_case(
            "the case of answer field names is kept", "RFC 9110 §5.1", b"x-UPPER-lower: 1", comparable=False
        ),
        _field_case("an empty answer field passes", "RFC 9110 §5.5", b"X-Empty: "),
        _field_case("octets beyond ASCII pass in an answer field", "RFC 9110 §5.5", b"X-Latin: caf\xe9 \xff"),
        _field_case(
            "Date of the upstream is kept",
            "RFC 9110 §6.6.1",
            b"Date: Thu, 01 Jan 1970 00:00:00 GMT",
            comparable=False,
        ),
        _field_case("Server of the upstream is kept", "RFC 9110 §10.2.4", b"Server: theirs", comparable=False),
        _field_case(
            "no Date, Server or Content-Type is made up",
            "RFC 9110 §8.3",
            without=(b"Date", b"Server", b"Content-Type"),
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
        _field_case("Via of the upstream's side passes", "RFC 9110 §7.6.3", b"Via: 1.0 before", comparable=False),
        _field_case("WWW-Authenticate of a 200 passes", "RFC 9110 §11.6.1", b"WWW-Authenticate: Basic realm=x"),
        _field_case("60 answer fields pass", "RFC 9110 §5.4", *(b"X-%d: %d" % (n, n) for n in range(60))),
        _field_case("an answer field of 3,000 octets passes", "RFC 9110 §5.4", b"X-Long: " + b"v" * 3000),
        _field_case(
            "a Location of another host is not touched",
            "RFC 9110 §10.2.2",
            b"Location: https://bucket.example/x?u=a%2Fb",
        ),
        _field_case("a relative Location is not touched", "RFC 9110 §10.2.2", b"Location: /next"),
        _field_case(
            "a Location of the upstream points to the caller's address",
            "RFC 9110 §10.2.2",
            b"Location: http://@UP@/next",
            seen=(b"Location: http://localhost/next",),
            comparable=False,
        ),
    ]
    + [
        _field_case(
            f"`{line.decode()}` of an answer ends here",
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
            "what an answer's Connection names ends here",
            "RFC 9110 §7.6.1",
            b"Connection: X-Hop, close",
            b"X-Hop: 1",
            b"X-End: 2",
            without=(b"X-Hop",),
            seen=(b"X-End: 2",),
        ),
        _field_case(
            "an answer's Connection cannot remove its length",
            "RFC 9110 §7.6.1",
            b"Connection: content-length",
            seen=(b"Content-Length: 2",),
        ),
    ]
)

_HINTS: Final = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
INTERIM: Final = [
    Case(
        "a 103 passes before its answer",
        "RFC 8297 §2",
        (Send(get()), GOT, Reply(_HINTS), SeeInterim(103, (b"Link: </x>",)), Reply(OK), SEE_OK, Again()),
    ),
    Case(
        "a 102 passes before its answer",
        "RFC 9110 §15.2",
        (Send(get()), GOT, Reply(b"HTTP/1.1 102 Processing\r\n\r\n"), SeeInterim(102), Reply(OK), SEE_OK, Again()),
    ),
    Case(
        "several 1xx pass in their order",
        "RFC 9110 §15.2",
        (
            Send(get()),
            GOT,
            Reply(_HINTS + b"HTTP/1.1 199 \r\nx-odd: 1\r\n\r\n" + OK),
            SeeInterim(103, (b"Link: </x>",)),
            SeeInterim(199, (b"x-odd: 1",)),
            SEE_OK,
            Again(),
        ),
    ),
    Case(
        "fields that a 1xx's Connection names end here",
        "RFC 9110 §7.6.1",
        (
            Send(get()),
            GOT,
            Reply(b"HTTP/1.1 103 X\r\nConnection: X-Hop\r\nX-Hop: 1\r\nLink: </y>\r\n\r\n" + OK),
            SeeInterim(103, (b"Link: </y>",)),
            SEE_OK,
        ),
    ),
    Case(
        "a 100 that nobody asked for is not passed on",
        "RFC 9110 §15.2.1",
        (Send(get()), GOT, Reply(b"HTTP/1.1 100 Continue\r\n\r\n" + OK), SEE_OK, Again()),
    ),
    Case(
        "an HTTP/1.0 caller gets no 1xx",
        "RFC 9110 §15.2",
        (Send(get(version=b"HTTP/1.0")), GOT, Reply(_HINTS + OK), SEE_OK, SeeEnd()),
    ),
    _passes(
        "a 101 that nobody asked for is a 502",
        "RFC 9110 §15.2.2",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\nabc",
        status(502, code="upstream_upgraded"),
    ),
]

GROUPS: Final = {
    "Answers with a body": BODIES,
    "Answers without a body": NO_BODIES,
    "Status lines": STATUS_LINES,
    "Answer fields": FIELDS,
    "Interim answers": INTERIM,
}
