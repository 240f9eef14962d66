"""Requests whose head is malformed or too large: the proxy rejects them and closes the connection."""

from typing import Final

from conformance.steps import (
    Case,
    SeeEnd,
    Send,
    get,
    rejected,
    status,
)

_GET: Final = b"GET /x HTTP/1.1\r\nHost: localhost\r\n"


LINES: Final = [
    rejected("two equal Host fields", "RFC 9112 §3.2", _GET + b"Host: localhost\r\n\r\n"),
    rejected("two different Host fields", "RFC 9112 §3.2", _GET + b"Host: evil.example\r\n\r\n"),
    rejected("a list in Host", "RFC 9112 §3.2", b"GET /x HTTP/1.1\r\nHost: localhost, evil.example\r\n\r\n"),
    rejected("a user in Host", "RFC 9110 §7.2", b"GET /x HTTP/1.1\r\nHost: user@localhost\r\n\r\n"),
    rejected("a path in Host", "RFC 9110 §7.2", b"GET /x HTTP/1.1\r\nHost: localhost/x\r\n\r\n"),
    rejected("a space in Host", "RFC 9110 §7.2", b"GET /x HTTP/1.1\r\nHost: local host\r\n\r\n"),
    rejected("a non-numeric port in Host", "RFC 9110 §7.2", b"GET /x HTTP/1.1\r\nHost: localhost:abc\r\n\r\n"),
    rejected("an unclosed bracket in Host", "RFC 9110 §7.2", b"GET /x HTTP/1.1\r\nHost: [::1\r\n\r\n"),
    rejected("an empty Host", "RFC 9112 §3.2", b"GET /x HTTP/1.1\r\nHost: \r\n\r\n"),
    rejected(
        "a user in an absolute target",
        "RFC 9110 §4.2.4",
        b"GET http://user@localhost/x HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ),
    rejected("HTTP/1.1 but no Host", "RFC 9112 §3.2", b"GET /x HTTP/1.1\r\nAccept: x\r\n\r\n"),
    rejected("a NUL in a field value", "RFC 9110 §5.5", _GET + b"X-A: a\x00b\r\n\r\n"),
    rejected("a NUL in a field name", "RFC 9110 §5.1", _GET + b"X-\x00A: a\r\n\r\n"),
    rejected("a NUL in the target", "RFC 9112 §3", b"GET /a\x00b HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    rejected("a control character in a field value", "RFC 9110 §5.5", _GET + b"X-A: a\x01b\r\n\r\n"),
    rejected("DEL in a field value", "RFC 9110 §5.5", _GET + b"X-A: a\x7fb\r\n\r\n"),
    rejected("a bare carriage return in a field value", "RFC 9112 §2.2", _GET + b"X-A: a\rX-B: b\r\n\r\n"),
    rejected(
        "a bare carriage return in the request line",
        "RFC 9112 §2.2",
        b"GET /x\r HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ),
    rejected("a bare line feed between fields", "RFC 9112 §2.2", _GET + b"X-A: a\nX-B: b\r\n\r\n"),
    rejected("bare line feeds as its only line ends", "RFC 9112 §2.2", b"GET /x HTTP/1.1\nHost: localhost\n\n"),
    rejected("bare line feeds at the end of its head", "RFC 9112 §2.2", _GET[:-2] + b"\n\n"),
    rejected("a folded field", "RFC 9112 §5.2", _GET + b"X-A: a\r\n b\r\n\r\n"),
    rejected("a field folded with a tab", "RFC 9112 §5.2", _GET + b"X-A: a\r\n\tb\r\n\r\n"),
    rejected("a space before a field's colon", "RFC 9112 §5.1", _GET + b"X-A : a\r\n\r\n"),
    rejected("a tab before a field's colon", "RFC 9112 §5.1", _GET + b"X-A\t: a\r\n\r\n"),
    rejected("a space before the first field", "RFC 9112 §2.2", b"GET /x HTTP/1.1\r\n Host: localhost\r\n\r\n"),
    rejected("a field without a colon", "RFC 9112 §5", _GET + b"X-A\r\n\r\n"),
    rejected("a field without a name", "RFC 9110 §5.1", _GET + b": a\r\n\r\n"),
    rejected("a non-ASCII octet in a field name", "RFC 9110 §5.1", _GET + b"X-\xe9: a\r\n\r\n"),
    *(
        rejected(f"{char.decode()!r} in a field name", "RFC 9110 §5.6.2", _GET + b"X" + char + b"A: a\r\n\r\n")
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
    rejected("a space in the target", "RFC 9112 §3.2", b"GET /a b HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    rejected("a tab in the target", "RFC 9112 §3.2", b"GET /a\tb HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    rejected("a relative target", "RFC 9112 §3.2", b"GET x HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    rejected(
        "GET and an authority as the target",
        "RFC 9112 §3.2.3",
        b"GET localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ),
    rejected("GET and an asterisk as the target", "RFC 9112 §3.2.4", b"GET * HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    rejected(
        "an absolute target without a host", "RFC 9110 §4.2.1", b"GET http:///x HTTP/1.1\r\nHost: localhost\r\n\r\n"
    ),
    rejected(
        "the scheme ftp in its target",
        "RFC 9112 §3.2.2",
        b"GET ftp://localhost/x HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ),
    rejected("no version in the request line", "RFC 9112 §3", b"GET /x\r\n\r\n"),
    rejected("no target in the request line", "RFC 9112 §3", b"GET HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    rejected("an empty target", "RFC 9112 §3", b"GET  HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    rejected("a lower-case protocol name", "RFC 9112 §2.3", b"GET /x http/1.1\r\nHost: localhost\r\n\r\n"),
    rejected("a two-digit minor version", "RFC 9112 §2.3", b"GET /x HTTP/1.10\r\nHost: localhost\r\n\r\n"),
    rejected("a version without a dot", "RFC 9112 §2.3", b"GET /x HTTP/11\r\nHost: localhost\r\n\r\n"),
    rejected("the protocol name RTSP", "RFC 9112 §2.3", b"GET /x RTSP/1.0\r\nHost: localhost\r\n\r\n"),
    rejected("the HTTP/2 preface", "RFC 9113 §3.4", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", subject=""),
    rejected(
        "a TLS handshake on a plaintext port",
        "RFC 9112 §2.2",
        bytes.fromhex("16030100c8010000c40303") + b"\r\n\r\n",
        subject="",
    ),
    rejected("a head of arbitrary bytes", "RFC 9112 §2.2", b"\x00\xff\r\n\r\n", subject=""),
    rejected("a method that is not a token", "RFC 9110 §9.1", b"GE(T /x HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    Case(
        "a request with the version HTTP/2.0 is rejected",
        "RFC 9110 §15.6.6",
        (Send(get(version=b"HTTP/2.0")), status(505, 400, code="http_version_not_supported"), SeeEnd()),
    ),
    Case(
        "a request with the version HTTP/0.9 is rejected",
        "RFC 9110 §15.6.6",
        (Send(get(version=b"HTTP/0.9")), status(505, 400, code="http_version_not_supported"), SeeEnd()),
    ),
    rejected(
        "a target of 20 KiB",
        "RFC 9110 §15.5.15",
        get(b"/" + b"a" * 20_000),
        status(414, 400, 431, code="target_too_long"),
    ),
    rejected(
        "a field of 40 KiB",
        "RFC 6585 §5",
        get(b"/x", b"X-A: " + b"a" * 40_000),
        status(431, 400, 413, code="head_too_large"),
    ),
    rejected(
        "a field name of 40 KiB",
        "RFC 6585 §5",
        get(b"/x", b"X-" + b"a" * 40_000 + b": a"),
        status(431, 400, 413, code="head_too_large"),
    ),
    rejected(
        "2,000 fields",
        "RFC 6585 §5",
        _GET + b"X-A: a\r\n" * 2000 + b"\r\n",
        status(431, 400, 413, code="head_too_large"),
    ),
    rejected(
        "a head of 100 KiB",
        "RFC 6585 §5",
        get(b"/x", *(b"X-%d: " % n + b"a" * 1000 for n in range(100))),
        status(431, 400, 413, code="head_too_large"),
    ),
]


GROUPS: Final = {
    "Malformed request heads": LINES,
}
