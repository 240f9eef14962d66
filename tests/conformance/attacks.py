"""Requests whose framing or form is an attack, or a mistake: an error, the connection's end, nothing upstream."""

from typing import Final

from conformance.steps import (
    OK,
    SEE_OK,
    SMUGGLED,
    Case,
    HalfClose,
    Receive,
    Reply,
    See,
    SeeEnd,
    Send,
    chunked_post,
    get,
    post,
    status,
)

_G: Final = b"GET /x HTTP/1.1\r\nHost: localhost\r\n"
_P: Final = b"POST /x HTTP/1.1\r\nHost: localhost\r\n"
_TE: Final = b"Transfer-Encoding: chunked\r\n"
_END: Final = b"\r\n0\r\n\r\n"
_BAD: Final = status(400, 405, 411, 413, 414, 431, 500, 501, 505, code="bad_request")


def _refused(fact: str, source: str, data: bytes, see: See = _BAD) -> Case:
    """A request follows that must not be taken for one of the connection's."""
    return Case(f"{fact} is refused", source, (Send(data + SMUGGLED), see, SeeEnd()))


LENGTHS: Final = [
    _refused("Content-Length with Transfer-Encoding", "RFC 9112 §6.1", _P + b"Content-Length: 3\r\n" + _TE + _END),
    _refused("Transfer-Encoding with Content-Length", "RFC 9112 §6.1", _P + _TE + b"Content-Length: 3\r\n" + _END),
    _refused(
        "Content-Length 0 with Transfer-Encoding", "RFC 9112 §6.1", _P + b"Content-Length: 0\r\n" + _TE + _END
    ),
    _refused(
        "two Content-Lengths that differ",
        "RFC 9112 §6.3",
        _P + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    ),
    _refused(
        "two Content-Lengths, the second 0,",
        "RFC 9112 §6.3",
        _P + b"Content-Length: 3\r\nContent-Length: 0\r\n\r\nabc",
    ),
    _refused("a list of Content-Lengths that differ", "RFC 9110 §8.6", _P + b"Content-Length: 3, 4\r\n\r\nabcd"),
    *(
        _refused(
            f"Content-Length {value!r}", "RFC 9110 §8.6", _P + b"Content-Length: " + value.encode() + b"\r\n\r\nabc"
        )
        for value in (
            "+3",
            "-3",
            "0x3",
            "3abc",
            "3.0",
            "3 3",
            "3;a",
            "3e0",
            "³",
            '"3"',
            "99999999999999999999999",
            "18446744073709551619",
            ",3",
            "3,",
            "a",
        )
    ),
    _refused("an empty Content-Length", "RFC 9110 §8.6", _P + b"Content-Length:\r\n\r\nabc"),
    _refused("a Content-Length with a vertical tab", "RFC 9110 §5.5", _P + b"Content-Length: \x0b3\r\n\r\nabc"),
]

CODINGS: Final = [
    _refused(
        f"Transfer-Encoding {value.decode('latin-1')!r}",
        "RFC 9112 §6.1",
        _P + b"Transfer-Encoding: " + value + b"\r\n" + _END,
        see,
    )
    for value, see in {
        b"chunked, gzip": _BAD,
        b"chunked, chunked": _BAD,
        b"chunked, identity": _BAD,
        b"xchunked": _BAD,
        b"chunkedx": _BAD,
        b"identity": _BAD,
        b"chunked;q=1": _BAD,
        b'"chunked"': _BAD,
        b"'chunked'": _BAD,
        b"\x0bchunked": _BAD,
        b"chunked\x0c": _BAD,
        b"chun ked": _BAD,
        b"nothing": _BAD,
        b"gzip, chunked": status(501, 400, code="not_implemented"),
        b"gzip": _BAD,
    }.items()
] + [
    _refused("Transfer-Encoding twice", "RFC 9112 §6.1", _P + _TE + _TE + _END),
    _refused(
        "Transfer-Encoding, then one that is unknown,",
        "RFC 9112 §6.1",
        _P + _TE + b"Transfer-Encoding: x\r\n" + _END,
    ),
    _refused(
        "Transfer-Encoding with a space before its colon",
        "RFC 9112 §5.1",
        _P + b"Transfer-Encoding : chunked\r\n" + _END,
    ),
    _refused(
        "Transfer-Encoding on a folded line", "RFC 9112 §5.2", _P + b"Transfer-Encoding:\r\n chunked\r\n" + _END
    ),
    _refused(
        "Transfer-Encoding behind a bare line feed",
        "RFC 9112 §2.2",
        _P + b"X-A: a\nTransfer-Encoding: chunked\r\n" + _END,
    ),
    _refused(
        "Transfer-Encoding behind a bare carriage return",
        "RFC 9112 §2.2",
        _P + b"X-A: a\rTransfer-Encoding: chunked\r\n" + _END,
    ),
    _refused(
        "Transfer-Encoding of an HTTP/1.0 caller",
        "RFC 9112 §6.1",
        b"POST /x HTTP/1.0\r\nHost: localhost\r\nContent-Length: 5\r\n" + _TE + _END,
    ),
]

LINES: Final = [
    _refused("two Host fields", "RFC 9112 §3.2", _G + b"Host: localhost\r\n\r\n"),
    _refused("two Host fields that differ", "RFC 9112 §3.2", _G + b"Host: evil.example\r\n\r\n"),
    _refused("a list in Host", "RFC 9112 §3.2", b"GET /x HTTP/1.1\r\nHost: localhost, evil.example\r\n\r\n"),
    _refused("a user in Host", "RFC 9110 §7.2", b"GET /x HTTP/1.1\r\nHost: user@localhost\r\n\r\n"),
    _refused("a path in Host", "RFC 9110 §7.2", b"GET /x HTTP/1.1\r\nHost: localhost/x\r\n\r\n"),
    _refused("a space in Host", "RFC 9110 §7.2", b"GET /x HTTP/1.1\r\nHost: local host\r\n\r\n"),
    _refused(
        "a port in Host that is no number", "RFC 9110 §7.2", b"GET /x HTTP/1.1\r\nHost: localhost:abc\r\n\r\n"
    ),
    _refused("a Host with an open bracket", "RFC 9110 §7.2", b"GET /x HTTP/1.1\r\nHost: [::1\r\n\r\n"),
    _refused("HTTP/1.1 without Host", "RFC 9112 §3.2", b"GET /x HTTP/1.1\r\nAccept: x\r\n\r\n"),
    _refused("a NUL in a field value", "RFC 9110 §5.5", _G + b"X-A: a\x00b\r\n\r\n"),
    _refused("a NUL in a field name", "RFC 9110 §5.1", _G + b"X-\x00A: a\r\n\r\n"),
    _refused("a NUL in the target", "RFC 9112 §3", b"GET /a\x00b HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    _refused("a control character in a field value", "RFC 9110 §5.5", _G + b"X-A: a\x01b\r\n\r\n"),
    _refused("DEL in a field value", "RFC 9110 §5.5", _G + b"X-A: a\x7fb\r\n\r\n"),
    _refused("a bare carriage return in a field value", "RFC 9112 §2.2", _G + b"X-A: a\rX-B: b\r\n\r\n"),
    _refused(
        "a bare carriage return in the request line",
        "RFC 9112 §2.2",
        b"GET /x\r HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ),
    _refused("a bare line feed between fields", "RFC 9112 §2.2", _G + b"X-A: a\nX-B: b\r\n\r\n"),
    _refused("a request of bare line feeds", "RFC 9112 §2.2", b"GET /x HTTP/1.1\nHost: localhost\n\n"),
    _refused("a head that ends in bare line feeds", "RFC 9112 §2.2", _G[:-2] + b"\n\n"),
    _refused("a folded field", "RFC 9112 §5.2", _G + b"X-A: a\r\n b\r\n\r\n"),
    _refused("a field folded with a tab", "RFC 9112 §5.2", _G + b"X-A: a\r\n\tb\r\n\r\n"),
    _refused("a space before a field's colon", "RFC 9112 §5.1", _G + b"X-A : a\r\n\r\n"),
    _refused("a tab before a field's colon", "RFC 9112 §5.1", _G + b"X-A\t: a\r\n\r\n"),
    _refused("a space before the first field", "RFC 9112 §2.2", b"GET /x HTTP/1.1\r\n Host: localhost\r\n\r\n"),
    _refused("a field without a colon", "RFC 9112 §5", _G + b"X-A\r\n\r\n"),
    _refused("a field without a name", "RFC 9110 §5.1", _G + b": a\r\n\r\n"),
    _refused("a field name beyond ASCII", "RFC 9110 §5.1", _G + b"X-\xe9: a\r\n\r\n"),
    *(
        _refused(f"{char.decode()!r} in a field name", "RFC 9110 §5.6.2", _G + b"X" + char + b"A: a\r\n\r\n")
        for char in (
            b"(",
            b")",
            b",",
            b"/",
            b";",
            b"<",
            b"=",
            b">",
            b"?",
            b"@",
            b"[",
            b"\\",
            b"]",
            b"{",
            b"}",
            b'"',
        )
    ),
    _refused(
        "an octet beyond ASCII in the target",
        "RFC 9112 §3.2",
        b"GET /caf\xc3\xa9 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ),
    _refused("a space in the target", "RFC 9112 §3.2", b"GET /a b HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    _refused("a tab in the target", "RFC 9112 §3.2", b"GET /a\tb HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    _refused("a relative target", "RFC 9112 §3.2", b"GET x HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    _refused(
        "an authority as target of GET", "RFC 9112 §3.2.3", b"GET localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n"
    ),
    _refused("an asterisk as target of GET", "RFC 9112 §3.2.4", b"GET * HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    _refused(
        "an absolute target without a host", "RFC 9110 §4.2.1", b"GET http:///x HTTP/1.1\r\nHost: localhost\r\n\r\n"
    ),
    _refused(
        "an absolute target of another scheme",
        "RFC 9112 §3.2.2",
        b"GET ftp://localhost/x HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ),
    _refused("a request line without a version", "RFC 9112 §3", b"GET /x\r\n\r\n"),
    _refused("a request line without a target", "RFC 9112 §3", b"GET HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    _refused("an empty target", "RFC 9112 §3", b"GET  HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    _refused("a lower-case protocol name", "RFC 9112 §2.3", b"GET /x http/1.1\r\nHost: localhost\r\n\r\n"),
    _refused("a version of two digits", "RFC 9112 §2.3", b"GET /x HTTP/1.10\r\nHost: localhost\r\n\r\n"),
    _refused("a version without a dot", "RFC 9112 §2.3", b"GET /x HTTP/11\r\nHost: localhost\r\n\r\n"),
    _refused("another protocol", "RFC 9112 §2.3", b"GET /x RTSP/1.0\r\nHost: localhost\r\n\r\n"),
    _refused("HTTP/2's preface", "RFC 9113 §3.4", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    _refused("TLS on a plain port", "RFC 9112 §2.2", bytes.fromhex("16030100c8010000c40303") + b"\r\n\r\n"),
    _refused("rubbish", "RFC 9112 §2.2", b"\x00\xff\r\n\r\n"),
    _refused("a method that is no token", "RFC 9110 §9.1", b"GE(T /x HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    Case(
        "HTTP/2.0 in the request line is refused",
        "RFC 9110 §15.6.6",
        (Send(get(version=b"HTTP/2.0")), status(505, 400, code="http_version_not_supported"), SeeEnd()),
    ),
    Case(
        "HTTP/0.9 in the request line is refused",
        "RFC 9110 §15.6.6",
        (Send(get(version=b"HTTP/0.9")), status(505, 400, code="http_version_not_supported"), SeeEnd()),
    ),
    _refused(
        "a target of 20 KiB",
        "RFC 9110 §15.5.15",
        get(b"/" + b"a" * 20_000),
        status(414, 400, 431, code="target_too_long"),
    ),
    _refused(
        "a field of 40 KiB",
        "RFC 6585 §5",
        get(b"/x", b"X-A: " + b"a" * 40_000),
        status(431, 400, 413, code="head_too_large"),
    ),
    _refused(
        "a field name of 40 KiB",
        "RFC 6585 §5",
        get(b"/x", b"X-" + b"a" * 40_000 + b": a"),
        status(431, 400, 413, code="head_too_large"),
    ),
    _refused(
        "a flood of 2,000 fields",
        "RFC 6585 §5",
        _G + b"X-A: a\r\n" * 2000 + b"\r\n",
        status(431, 400, 413, code="head_too_large"),
    ),
    _refused(
        "a head of 100 KiB",
        "RFC 6585 §5",
        get(b"/x", *(b"X-%d: " % n + b"a" * 1000 for n in range(100))),
        status(431, 400, 413, code="head_too_large"),
    ),
]

CHUNKS: Final = [
    Case(
        f"a chunk with {what} never looks like a body's end",
        "RFC 9112 §7.1",
        (
            Send(get(b"/x", b"Transfer-Encoding: chunked", method=b"POST") + chunk + SMUGGLED),
            status(400, 411, 413, 500, 501, 502, code="bad_request"),
            SeeEnd(),
        ),
    )
    for what, chunk in {
        "a size that is no number": b"zz\r\nabc\r\n0\r\n\r\n",
        "no size": b"\r\nabc\r\n0\r\n\r\n",
        "a sign": b"+3\r\nabc\r\n0\r\n\r\n",
        "a negative size": b"-3\r\nabc\r\n0\r\n\r\n",
        "a size with 0x": b"0x3\r\nabc\r\n0\r\n\r\n",
        "an underscore in its size": b"0_3\r\nabc\r\n0\r\n\r\n",
        "a size of 65 bits": b"10000000000000003\r\nabc\r\n0\r\n\r\n",
        "an endless size": b"f" * 40 + b"\r\nabc\r\n0\r\n\r\n",
        "a space before its size": b" 3\r\nabc\r\n0\r\n\r\n",
        "more bytes than its size": b"3\r\nabcdef\r\n0\r\n\r\n",
        "bytes in place of its line end": b"3\r\nabcXX0\r\n\r\n",
        "a bare line feed behind its size": b"3\nabc\r\n0\r\n\r\n",
        "a bare line feed behind its data": b"3\r\nabc\n0\r\n\r\n",
        "a bare carriage return behind its size": b"3\rabc\r\n0\r\n\r\n",
        "a bare carriage return in its extension": b"3;a\rb\r\nabc\r\n0\r\n\r\n",
        "a NUL in its extension": b"3;a\x00b\r\nabc\r\n0\r\n\r\n",
    }.items()
]

REFUSED_BY_RULE: Final = [
    Case(
        "CONNECT makes no tunnel",
        "RFC 9110 §9.3.6",
        (Send(get(b"localhost:1", method=b"CONNECT")), status(405, 400, 501, code="method_not_allowed"), SeeEnd()),
        comparable=False,
    ),
    Case(
        "TRACE shows nobody our credential",
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
            f"an upgrade to {protocol.decode()} is refused",
            "RFC 9110 §7.8",
            (
                Send(get(b"/x", b"Connection: Upgrade", b"Upgrade: " + protocol)),
                status(501, code="not_implemented"),
                SeeEnd(),
            ),
            comparable=False,
        )
        for protocol in (b"websocket", b"h2c", b"TLS/1.0, HTTP/1.1")
    ),
    *(
        Case(
            f"a Host that is {what} is refused",
            "RFC 9110 §17.1",
            (
                Send(b"GET %b HTTP/1.1\r\nHost: %b\r\n\r\n" % (target, host)),
                status(403, code="forbidden_host"),
                SeeEnd(),
            ),
            comparable=False,
        )
        for what, target, host in [
            ("a stranger's", b"/x", b"evil.example"),
            ("a stranger's in an absolute target", b"http://evil.example/x", b"localhost"),
            ("a name that ends like ours", b"/x", b"evil-localhost.example"),
        ]
    ),
    *(
        Case(
            f"a page with `{line.decode()}` may not call",
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
        "a head that stops coming is a 408 within the time limit",
        "RFC 9110 §15.5.9",
        (Send(_G), status(408, code="request_timeout"), SeeEnd()),
        comparable=False,
        settings={"head_timeout": "50ms"},
    ),
    Case(
        "a body that stops coming is a 408 within the time limit",
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
        "a chunked body that stops coming is a 408 within the time limit",
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
        "a request cut off in its head reaches no upstream",
        "RFC 9112 §8",
        (Send(_G + b"X-A: b"), HalfClose(), SeeEnd()),
        comparable=False,  # a 400 is as good
    ),
    Case(
        "another protocol that comes in pieces is refused",
        "RFC 9112 §2.3",
        (Send(b"GET /x RT"), Send(b"SP/1.0\r\nHost: localhost\r\n\r\n"), status(400, 505), SeeEnd()),
    ),
    Case(
        "rubbish behind a request in the same packet is refused behind its answer",
        "RFC 9112 §9.3.2",
        (
            Send(get() + b"\x00rubbish\r\n\r\n"),
            Receive(b"GET /x HTTP/1.1"),
            Reply(OK),
            SEE_OK,
            status(400),
            SeeEnd(),
        ),
    ),
    Case(
        "rubbish behind a body in the same packet is refused behind its answer",
        "RFC 9112 §9.3.2",
        (
            Send(post(b"abc") + b"\x00rubbish\r\n\r\n"),
            Receive(b"POST /x HTTP/1.1", body=b"abc"),
            Reply(OK),
            SEE_OK,
            status(400),
            SeeEnd(),
        ),
    ),
    Case(
        "more bytes than Content-Length are the next request, and no part of this one",
        "RFC 9112 §6.3",
        (
            Send(post(b"abc") + get(b"/next")),
            Receive(b"POST /x HTTP/1.1", body=b"abc"),
            Reply(OK),
            SEE_OK,
            Receive(b"GET /next HTTP/1.1"),
            Reply(OK),
            SEE_OK,
        ),
    ),
    Case(
        "rubbish behind a body is refused behind the body's answer",
        "RFC 9112 §6.3",
        (
            Send(post(b"abc")),
            Receive(b"POST /x HTTP/1.1", body=b"abc"),
            Send(b"\x00rubbish\r\n\r\n"),
            Reply(OK),
            SEE_OK,
            status(400),
            SeeEnd(),
        ),
    ),
]

GROUPS: Final = {
    "Content-Length attacks": LENGTHS,
    "Transfer-Encoding attacks": CODINGS,
    "Malformed heads": LINES,
    "Malformed chunks of a request": CHUNKS,
    "Refused by rule or time limit": REFUSED_BY_RULE,
}
