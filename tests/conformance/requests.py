"""What of a request passes, and how: target, method, fields, body."""

from typing import Final

from conformance.steps import (
    GOT,
    OK,
    SEE_OK,
    Again,
    Case,
    Receive,
    ReceiveBody,
    Reply,
    SeeBytes,
    SeeEnd,
    Send,
    chunked_post,
    get,
    post,
    status,
)

_TARGETS: Final = {
    "an encoded slash in upper case": b"/a%2Fb",
    "an encoded slash in lower case": b"/a%2fb",
    "double slashes": b"//double//slashes",
    "a trailing slash": b"/dir/",
    "dot segments": b"/a/../b/./c",
    "encoded dot segments": b"/a/%2e%2e/b",
    "dot segments above the root": b"/../../x",
    "parameters": b"/;params;x=1/y;z",
    "an empty query": b"/empty?",
    "two question marks": b"/q??double?marks",
    "repeated query names": b"/q?a=1&a=2&a=",
    "a plus and an encoded space": b"/q?b=%20+%20",
    "an encoded tilde": b"/%7Etilde/~tilde",
    "square brackets": b"/x[0]?x[]=1",
    "sub-delimiters": b"/!$&'()*+,;=:@",
    "an encoded NUL": b"/a%00b",
    "an encoded line end": b"/a%0D%0Ab",
    "an encoded percent sign": b"/a%25b",
    "encoded UTF-8": b"/caf%C3%A9",
    "a percent sign that encodes nothing": b"/100%",
    "an encoding that is none": b"/a%zzb",
    "a colon in the first segment": b"/a:b/c",
    "a URL in the path": b"/http://example.com/x",
    "a URL in the query": b"/x?u=http://example.com/?a=b",
    "backslashes": b"/a\\b",
    "braces, bars and carets": b"/{a}|b^c`d",
    "8 KiB of path": b"/" + b"p" * 8191,
    "8 KiB of query": b"/?" + b"q" * 8190,
}

_OTHER_PROXIES_REFUSE: Final = ("an encoded NUL", "8 KiB of path", "8 KiB of query")

TARGETS: Final = [
    Case(
        f"a target with {what} passes byte for byte",
        "RFC 9110 §7.1",
        (Send(get(target)), Receive(b"GET " + target + b" HTTP/1.1"), Reply(OK), SEE_OK),
    )
    for what, target in _TARGETS.items()
] + [
    Case(
        f"an absolute target of {what} becomes the path",
        "RFC 9112 §3.2.2",
        (
            Send(b"GET %b HTTP/1.1\r\nHost: %b\r\n\r\n" % (target, host)),
            Receive(b"GET %b HTTP/1.1" % path),
            Reply(OK),
            SEE_OK,
        ),
        comparable=comparable,
    )
    for what, target, host, path, comparable in [
        ("the proxy", b"http://localhost/a%2Fb?x=", b"localhost", b"/a%2Fb?x=", True),
        ("the proxy, with a port", b"http://localhost:8080/x", b"localhost:8080", b"/x", True),
        ("the proxy, in upper case", b"HTTP://LOCALHOST/x", b"localhost", b"/x", False),
        ("the upstream", b"http://@UP@/x?y", b"@UP@", b"/x?y", False),
        ("the proxy, without a path", b"http://localhost", b"localhost", b"/", True),
        ("the proxy, with a query alone", b"http://localhost?q", b"localhost", b"/?q", False),
        ("the proxy, whatever Host says", b"http://localhost/x", b"other.example", b"/x", False),
    ]
]

_METHODS: Final = (
    b"GET",
    b"POST",
    b"PUT",
    b"PATCH",
    b"DELETE",
    b"OPTIONS",
    b"PROPFIND",
    b"PROPPATCH",
    b"MKCOL",
    b"COPY",
    b"MOVE",
    b"LOCK",
    b"UNLOCK",
    b"SEARCH",
    b"REPORT",
    b"MERGE",
    b"NOTIFY",
    b"SUBSCRIBE",
    b"PURGE",
    b"LINK",
    b"M-SEARCH",
    b"QUERY",
    b"FROB",
    b"X-VENDOR_1",
    b"GETS",
    b"get",
    b"A" * 64,
)

METHODS: Final = (
    [
        Case(
            f"the method {method.decode()[:20]} passes",
            "RFC 9110 §9.1",
            (Send(get(method=method)), Receive(method + b" /x HTTP/1.1"), Reply(OK), SEE_OK, Again()),
        )
        for method in _METHODS
    ]
    + [
        Case(
            f"a body with {method.decode()} passes",
            "RFC 9110 §9.3",
            (
                Send(post(b"abc", method=method)),
                Receive(method + b" /x HTTP/1.1", body=b"abc"),
                Reply(OK),
                SEE_OK,
                Again(),
            ),
        )
        for method in (b"GET", b"DELETE", b"OPTIONS", b"PATCH", b"PUT", b"FROB")
    ]
    + [
        Case(
            "OPTIONS * asks the server as a whole",
            "RFC 9112 §3.2.4",
            (Send(get(b"*", method=b"OPTIONS")), Receive(b"OPTIONS * HTTP/1.1"), Reply(OK), SEE_OK),
        ),
        Case(
            "an absolute target without a path asks OPTIONS *",
            "RFC 9112 §3.2.4",
            (Send(get(b"http://localhost", method=b"OPTIONS")), Receive(b"OPTIONS * HTTP/1.1"), Reply(OK), SEE_OK),
        ),
    ]
)


def _field_case(fact: str, source: str, *lines: bytes, as_sent: tuple[bytes, ...] = ()) -> Case:
    return Case(
        fact,
        source,
        (
            Send(get(b"/x", *lines)),
            Receive(b"GET /x HTTP/1.1", fields=as_sent or lines),
            Reply(OK),
            SEE_OK,
            Again(),
        ),
    )


FIELDS: Final = [
    _field_case("the order of request fields is kept", "RFC 9110 §5.3", b"X-B: 1", b"X-A: 2", b"X-C: 3"),
    _field_case("repeated request fields stay apart", "RFC 9110 §5.3", b"Accept: a", b"Accept: b", b"Accept: a"),
    _field_case("the case of request field names is kept", "RFC 9110 §5.1", b"x-UPPER-lower: 1"),
    _field_case("an empty request field passes", "RFC 9110 §5.5", b"X-Empty: "),
    _field_case("octets beyond ASCII pass in a request field", "RFC 9110 §5.5", b"X-Latin: caf\xe9 \xff"),
    _field_case("tabs and spaces within a request field are kept", "RFC 9110 §5.5", b"X-Tab: a\tb  c"),
    _field_case(
        "space around a request field's value is no part of it",
        "RFC 9112 §5.1",
        b"X-A:  \t b \t",
        as_sent=(b"X-A: b",),
    ),
    _field_case(
        "no space before a request field's value is needed", "RFC 9112 §5.1", b"X-A:b", as_sent=(b"X-A: b",)
    ),
    _field_case("colons in a request field's value pass", "RFC 9110 §5.5", b"X-Colon: a: b: c"),
    _field_case("odd characters of a token pass in a field name", "RFC 9110 §5.6.2", b"X-!#$%&'*+.^`|~9: 1"),
    _field_case("underscores in a field name pass", "RFC 9110 §5.6.2", b"X_Under_Score: 1"),
    _field_case("an unknown expectation is the upstream's affair", "RFC 9110 §10.1.1", b"Expect: the-impossible"),
    _field_case("a request field of 4,000 octets passes", "RFC 9110 §5.4", b"X-Long: " + b"v" * 4000),
    _field_case("60 request fields pass", "RFC 9110 §5.4", *(b"X-%d: %d" % (n, n) for n in range(60))),
    _field_case("quoted commas in a request field pass", "RFC 9110 §5.6.4", b'X-Q: "a,b", c;d="e\\"f"'),
    _field_case(
        "a trace context passes", "RFC 9110 §5.1", b"traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b71-01"
    ),
    _field_case("Max-Forwards is the business of TRACE and OPTIONS alone", "RFC 9110 §7.6.2", b"Max-Forwards: 0"),
    _field_case(
        "Accept-Encoding passes", "RFC 9110 §12.5.3", b"Accept-Encoding: gzip;q=1.0, identity; q=0.5, *;q=0"
    ),
    _field_case("conditions pass", "RFC 9110 §13.1", b'If-None-Match: W/"a", "b"', b"If-Match: *"),
    _field_case("Range passes", "RFC 9110 §14.2", b"Range: bytes=0-0,-1"),
    _field_case("cookies pass", "RFC 6265 §4.2", b"Cookie: a=1; b=2"),
]

_LARGE: Final = bytes(range(256)) * 1024
_PUT_LARGE: Final = b"%x\r\n%b\r\n" % (len(_LARGE), _LARGE)


def _body_case(fact: str, source: str, data: bytes, body: bytes, *fields: bytes, comparable: bool = True) -> Case:
    return Case(
        fact,
        source,
        (Send(data), Receive(b"POST /x HTTP/1.1", body=body, fields=fields), Reply(OK), SEE_OK, Again()),
        comparable=comparable,
    )


_TE: Final = b"Transfer-Encoding: chunked"
BODIES: Final = [
    _body_case("an empty body with Content-Length 0", "RFC 9110 §8.6", post(b""), b"", b"Content-Length: 0"),
    _body_case("a body of 1 byte", "RFC 9112 §6.2", post(b"a"), b"a", b"Content-Length: 1"),
    _body_case("a body of 256 KiB", "RFC 9112 §6.2", post(_LARGE), _LARGE),
    _body_case(
        "leading zeros in Content-Length",
        "RFC 9110 §8.6",
        get(b"/x", b"Content-Length: 0003", method=b"POST") + b"abc",
        b"abc",
    ),
    _body_case(
        "a body that looks like a request stays a body", "RFC 9112 §6.3", post(get(b"/smuggled")), get(b"/smuggled")
    ),
    _body_case("a chunked body of no chunk", "RFC 9112 §7.1", chunked_post(b"0\r\n\r\n"), b""),
    _body_case("a chunked body of one byte", "RFC 9112 §7.1", chunked_post(b"1\r\na\r\n0\r\n\r\n"), b"a"),
    _body_case(
        "a chunked body of many chunks",
        "RFC 9112 §7.1",
        chunked_post(b"1\r\na\r\n" * 500 + b"0\r\n\r\n"),
        b"a" * 500,
    ),
    _body_case("a chunked body of 256 KiB", "RFC 9112 §7.1", chunked_post(_PUT_LARGE + b"0\r\n\r\n"), _LARGE),
    _body_case(
        "chunk sizes in either case",
        "RFC 9112 §7.1",
        chunked_post(b"A\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n"),
        b"0123456789" * 2,
    ),
    _body_case(
        "chunk sizes with leading zeros", "RFC 9112 §7.1", chunked_post(b"0003\r\nabc\r\n000\r\n\r\n"), b"abc"
    ),
    _body_case(
        "chunk extensions are not content",
        "RFC 9112 §7.1.1",
        chunked_post(b'3;a=b;c="d e"\r\nabc\r\n0;x\r\n\r\n'),
        b"abc",
    ),
    _body_case(
        "trailers are not content",
        "RFC 9112 §7.1.2",
        chunked_post(b"3\r\nabc\r\n0\r\nX-Sum: 1\r\nX-Two: 2\r\n\r\n", b"Trailer: X-Sum"),
        b"abc",
    ),
    _body_case(
        "line ends within a chunk are content",
        "RFC 9112 §7.1",
        chunked_post(b"4\r\n\r\n\r\n\r\n0\r\n\r\n"),
        b"\r\n\r\n",
    ),
    _body_case(
        "a chunked body that looks like a request stays a body",
        "RFC 9112 §7.1",
        chunked_post(b"%x\r\n%b\r\n0\r\n\r\n" % (len(get()), get())),
        get(),
    ),
    _body_case(
        "CHUNKED in upper case",
        "RFC 9112 §7",
        get(b"/x", b"Transfer-Encoding: CHUNKED", method=b"POST") + b"1\r\na\r\n0\r\n\r\n",
        b"a",
    ),
    _body_case(
        "a compressed body is not unpacked",
        "RFC 9110 §8.4",
        post(b"\x1f\x8b\x08junk", b"Content-Encoding: gzip"),
        b"\x1f\x8b\x08junk",
        b"Content-Encoding: gzip",
    ),
    _body_case(
        "a multipart body passes untouched",
        "RFC 9110 §8.3.3",
        post(b"--b\r\n\r\n\x00\xff\r\n--b--", b"Content-Type: multipart/form-data; boundary=b"),
        b"--b\r\n\r\n\x00\xff\r\n--b--",
        b"Content-Type: multipart/form-data; boundary=b",
    ),
    Case(
        "a body that comes in pieces arrives whole",
        "RFC 9112 §6.2",
        (
            Send(post(b"abcdef")[:-4]),
            Receive(b"POST /x HTTP/1.1", body=None),
            Send(b"cd"),
            Send(b"ef"),
            ReceiveBody(b"abcdef"),
            Reply(OK),
            SEE_OK,
            Again(),
        ),
        comparable=False,  # others read the whole body first
    ),
    Case(
        "a chunked body goes on as it comes",
        "RFC 9112 §7.1",
        (
            Send(chunked_post(b"3\r\nabc\r\n")),
            Receive(b"POST /x HTTP/1.1", fields=(_TE,), body=None),
            Send(b"3\r\ndef\r\n0\r\n\r\n"),
            ReceiveBody(b"abcdef"),
            Reply(OK),
            SEE_OK,
            Again(),
        ),
        comparable=False,
    ),
    Case(
        "an empty line before a request is passed over",
        "RFC 9112 §2.2",
        (Send(b"\r\n" + get()), GOT, Reply(OK), SEE_OK),
    ),
    Case(
        "an empty line behind a body is passed over",
        "RFC 9112 §2.2",
        (Send(post(b"abc") + b"\r\n"), Receive(b"POST /x HTTP/1.1", body=b"abc"), Reply(OK), SEE_OK, Again()),
    ),
]

_EXPECT: Final = b"Expect: 100-continue"
EXPECTATIONS: Final = [
    Case(
        "who expects 100-continue is told to go on, and sends the body",
        "RFC 9110 §10.1.1",
        (
            Send(post(b"abc", _EXPECT)[:-3]),
            Receive(b"POST /x HTTP/1.1", body=None),
            Reply(b"HTTP/1.1 100 Continue\r\n\r\n"),
            SeeBytes(b"HTTP/1.1 100 Continue\r\n\r\n"),
            Send(b"abc"),
            ReceiveBody(b"abc"),
            Reply(OK),
            SEE_OK,
            Again(),
        ),
        comparable=False,  # others answer 100 themselves, before the upstream has said a word
    ),
    Case(
        "a refusal of the upstream comes instead of the 100",
        "RFC 9110 §10.1.1",
        (
            Send(post(b"abc", _EXPECT)[:-3]),
            Receive(b"POST /x HTTP/1.1", body=None),
            Reply(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n"),
            status(413, fields=(b"Connection: close",)),
        ),
        comparable=False,
    ),
    Case(
        "a refusal of the expectation comes instead of the 100",
        "RFC 9110 §15.5.18",
        (
            Send(post(b"abc", _EXPECT)[:-3]),
            Receive(b"POST /x HTTP/1.1", body=None),
            Reply(b"HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\n\r\n"),
            status(417, fields=(b"Connection: close",)),
        ),
        comparable=False,
    ),
    Case(
        "who sends the body without waiting gets no 100",
        "RFC 9110 §10.1.1",
        (
            Send(post(b"abc", _EXPECT)),
            Receive(b"POST /x HTTP/1.1", body=b"abc"),
            Reply(OK),
            SEE_OK,
            Again(),
        ),
        comparable=False,  # they may send one all the same
    ),
    Case(
        "an HTTP/1.0 caller gets no 100",
        "RFC 9110 §10.1.1",
        (
            Send(post(b"abc", _EXPECT, version=b"HTTP/1.0")),
            Receive(b"POST /x HTTP/1.1", body=b"abc"),
            Reply(OK),
            SEE_OK,
            SeeEnd(),
        ),
    ),
    Case(
        "an expectation without a body is answered at once",
        "RFC 9110 §10.1.1",
        (Send(get(b"/x", _EXPECT)), Receive(b"GET /x HTTP/1.1"), Reply(OK), SEE_OK),
        comparable=False,
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

STRIPPING: Final = (
    [
        Case(
            f"`{line.decode()}` of a request ends here",
            "RFC 9110 §7.6.1",
            (
                Send(get(b"/x", b"X-Before: 1", line, b"X-After: 2")),
                Receive(
                    b"GET /x HTTP/1.1", fields=(b"X-Before: 1", b"X-After: 2"), without=(line.partition(b":")[0],)
                ),
                Reply(OK),
                SEE_OK,
            ),
            comparable=not line.startswith((b"Connection: keep", b"TE: trailers")),  # they may name their own
        )
        for line in _HOP_BY_HOP
    ]
    + [
        Case(
            f"a field that Connection names {how} ends here",
            "RFC 9110 §7.6.1",
            (
                Send(get(b"/x", b"X-Hop: 1", *lines, b"X-End: 2")),
                Receive(b"GET /x HTTP/1.1", fields=(b"X-End: 2",), without=(b"X-Hop",)),
                Reply(OK),
                SEE_OK,
            ),
        )
        for how, lines in {
            "alone": (b"Connection: X-Hop",),
            "in another case": (b"Connection: x-hOP",),
            "in a list": (b"Connection: a,X-Hop ,b",),
            "in a list with empty members": (b"Connection: ,, X-Hop,",),
            "in a second Connection field": (b"Connection: keep-alive", b"Connection: X-Hop"),
            "before and behind its line": (b"Connection: X-Hop", b"X-Hop: 3"),
        }.items()
    ]
    + [
        Case(
            f"Connection cannot remove {name.decode()}",
            "RFC 9110 §7.6.1",
            (
                Send(post(b"abc", b"Connection: " + name)),
                Receive(b"POST /x HTTP/1.1", fields=(b"Host: @UP@", b"Content-Length: 3", _OUR_KEY), body=b"abc"),
                Reply(OK),
                SEE_OK,
            ),
            comparable=False,
        )
        for name in (b"Host", b"Content-Length", b"Authorization", b"authorization, host, content-length")
    ]
    + [
        Case(
            f"`{line.decode()[:40]}` of a caller is not passed on",
            "RFC 9110 §11.6.2" if line.lower().startswith(b"auth") else "RFC 7239 §8.1",
            (
                Send(get(b"/x", line)),
                Receive(b"GET /x HTTP/1.1", fields=(_OUR_KEY,), without=without),
                Reply(OK),
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

GROUPS: Final = {
    "Targets": TARGETS,
    "Methods": METHODS,
    "Request fields": FIELDS,
    "Request bodies": BODIES,
    "Expect: 100-continue": EXPECTATIONS,
    "What ends at the proxy": STRIPPING,
}
