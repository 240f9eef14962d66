"""Responses whose head is malformed: the caller gets a 502."""

from typing import Final

from conformance.steps import (
    CHUNKED,
    GOT,
    Again,
    Case,
    Respond,
    Send,
    UpstreamEnded,
    get,
    raw_response,
    response,
    status,
)

MALFORMED: Final = [
    Case(
        f"a response with {what} becomes a 502",
        source,
        (Send(get()), GOT, Respond(sent), status(502, code=code), UpstreamEnded(), Again()),
        comparable=comparable,
    )
    for what, source, sent, code, comparable in [
        (
            "two different Content-Lengths",
            "RFC 9112 §6.3",
            raw_response(b"abc", b"Content-Length: 3", b"Content-Length: 2"),
            "upstream_bad_reply",
            True,
        ),
        (
            "a list of different Content-Lengths",
            "RFC 9110 §8.6",
            raw_response(b"abc", b"Content-Length: 3, 2"),
            "upstream_bad_reply",
            True,
        ),
        (
            "a signed Content-Length",
            "RFC 9110 §8.6",
            raw_response(b"abc", b"Content-Length: +3"),
            "upstream_bad_reply",
            True,
        ),
        (
            "a negative Content-Length",
            "RFC 9110 §8.6",
            raw_response(b"abc", b"Content-Length: -3"),
            "upstream_bad_reply",
            True,
        ),
        (
            "a non-numeric Content-Length",
            "RFC 9110 §8.6",
            raw_response(b"abc", b"Content-Length: abc"),
            "upstream_bad_reply",
            True,
        ),
        (
            "a Content-Length of 30 digits",
            "RFC 9110 §8.6",
            raw_response(b"abc", b"Content-Length: " + b"9" * 30),
            "upstream_bad_reply",
            True,
        ),
        (
            "both Content-Length and chunked",
            "RFC 9112 §6.1",
            raw_response(b"1\r\na\r\n0\r\n\r\n", b"Content-Length: 3", CHUNKED),
            "upstream_bad_reply",
            False,
        ),
        (
            "an unknown transfer coding",
            "RFC 9112 §6.1",
            raw_response(b"abc", b"Transfer-Encoding: gzip"),
            "upstream_bad_reply",
            False,
        ),
        (
            "chunked before another coding",
            "RFC 9112 §6.1",
            raw_response(b"0\r\n\r\n", b"Transfer-Encoding: chunked, gzip"),
            "upstream_bad_reply",
            False,
        ),
        (
            "chunked twice",
            "RFC 9112 §6.1",
            raw_response(b"0\r\n\r\n", CHUNKED, CHUNKED),
            "upstream_bad_reply",
            False,
        ),
        (
            "a space before a colon",
            "RFC 9112 §5.1",
            raw_response(b"ok", b"X-A : 1", b"Content-Length: 2"),
            "upstream_bad_reply",
            False,
        ),
        (
            "a folded field",
            "RFC 9112 §5.2",
            raw_response(b"ok", b"X-A: 1\r\n 2", b"Content-Length: 2"),
            "upstream_bad_reply",
            False,
        ),
        (
            "a bare line feed between fields",
            "RFC 9112 §2.2",
            raw_response(b"ok", b"X-A: 1\nX-B: 2", b"Content-Length: 2"),
            "upstream_bad_reply",
            False,
        ),
        (
            "a bare carriage return in a field",
            "RFC 9112 §2.2",
            raw_response(b"ok", b"X-A: 1\rX-B: 2", b"Content-Length: 2"),
            "upstream_bad_reply",
            False,
        ),
        (
            "a NUL in a field",
            "RFC 9110 §5.5",
            raw_response(b"ok", b"X-A: 1\x002", b"Content-Length: 2"),
            "upstream_bad_reply",
            True,
        ),
        (
            "a NUL in its reason phrase",
            "RFC 9112 §4",
            response(b"ok", status=b"200 O\x00K"),
            "upstream_bad_reply",
            False,
        ),
        (
            "a field without a colon",
            "RFC 9112 §5",
            raw_response(b"ok", b"X-A", b"Content-Length: 2"),
            "upstream_bad_reply",
            False,
        ),
        (
            "a field without a name",
            "RFC 9110 §5.1",
            raw_response(b"ok", b": a", b"Content-Length: 2"),
            "upstream_bad_reply",
            False,
        ),
        (
            "a space in a field name",
            "RFC 9110 §5.1",
            raw_response(b"ok", b"X A: a", b"Content-Length: 2"),
            "upstream_bad_reply",
            False,
        ),
        (
            "a status code of two digits",
            "RFC 9112 §4",
            response(b"ok", status=b"20 OK"),
            "upstream_bad_reply",
            False,
        ),
        (
            "a status code of four digits",
            "RFC 9112 §4",
            response(b"ok", status=b"2000 OK"),
            "upstream_bad_reply",
            True,
        ),
        ("a non-numeric status code", "RFC 9112 §4", response(b"ok", status=b"abc OK"), "upstream_bad_reply", True),
        ("the status code 099", "RFC 9110 §15", response(b"ok", status=b"099 Odd"), "upstream_bad_reply", False),
        (
            "the version HTTP/2.0",
            "RFC 9112 §2.3",
            raw_response(b"ok", b"Content-Length: 2", status=b"HTTP/2.0 200 OK"),
            "upstream_bad_reply",
            False,
        ),
        (
            "the version HTTP/0.9",
            "RFC 9112 §2.3",
            raw_response(b"ok", b"Content-Length: 2", status=b"HTTP/0.9 200 OK"),
            "upstream_bad_reply",
            False,
        ),
        (
            "the protocol name ICY",
            "RFC 9112 §2.3",
            raw_response(b"ok", b"Content-Length: 2", status=b"ICY 200 OK"),
            "upstream_bad_reply",
            False,
        ),
        *(
            (
                f"the protocol {protocol.decode()}",
                "RFC 9112 §2.3",
                raw_response(b"ok", b"Content-Length: 2", status=protocol + b" 200 OK"),
                "upstream_bad_reply",
                False,
            )
            for protocol in (b"RTSP/1.0", b"ICE/1.0")
        ),
        ("no status line", "RFC 9112 §4", b"<html>hello</html>\r\n\r\n", "upstream_bad_reply", False),
        (
            "the bytes of a TLS record",
            "RFC 9112 §4",
            bytes.fromhex("15030300020246") + b"\r\n\r\n",
            "upstream_bad_reply",
            True,
        ),
        (
            "a head of 100 KiB",
            "RFC 9110 §5.4",
            raw_response(b"ok", *(b"X-%d: " % n + b"a" * 1000 for n in range(100)), b"Content-Length: 2"),
            "upstream_head_too_large",
            True,
        ),
        (
            "a field of 100 KiB",
            "RFC 9110 §5.4",
            raw_response(b"ok", b"X-A: " + b"a" * 100_000, b"Content-Length: 2"),
            "upstream_head_too_large",
            True,
        ),
    ]
]


GROUPS: Final = {
    "Malformed responses": MALFORMED,
}
