"""Connections on both sides, answers that are broken, upstreams that fail."""

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
    SeeBroken,
    SeeEnd,
    Send,
    UpstreamCloses,
    UpstreamEnded,
    UpstreamResets,
    get,
    post,
    raw_reply,
    reply,
    status,
)

_CHUNKED: Final = b"Transfer-Encoding: chunked"


def _seen(**more: Any) -> See:
    return status(200, **more)


_OLD: Final = b"HTTP/1.0"
OLD_CALLERS: Final = [
    Case(
        "an HTTP/1.0 caller is answered and the connection ends",
        "RFC 9112 §9.3",
        (Send(get(version=_OLD)), GOT, Reply(OK), _seen(body=b"ok", line=b"HTTP/1.1 200 OK"), SeeEnd()),
    ),
    Case(
        "an HTTP/1.0 caller's body passes",
        "RFC 9112 §6.2",
        (Send(post(b"abc", version=_OLD)), Receive(b"POST /x HTTP/1.1", body=b"abc"), Reply(OK), SEE_OK, SeeEnd()),
    ),
    Case(
        "an HTTP/1.0 caller needs no Host",
        "RFC 9112 §3.2",
        (
            Send(b"GET /x HTTP/1.0\r\n\r\n"),
            Receive(b"GET /x HTTP/1.1", fields=(b"Host: @UP@",)),
            Reply(OK),
            SEE_OK,
            SeeEnd(),
        ),
    ),
    Case(
        "an HTTP/1.0 caller may ask to keep the connection",
        "RFC 9112 §9.3",
        (
            Send(get(b"/x", b"Connection: keep-alive", version=_OLD)),
            GOT,
            Reply(OK),
            _seen(body=b"ok", fields=(b"Connection: keep-alive",)),
            Again(),
        ),
        comparable=False,
    ),
    Case(
        "an HTTP/1.0 caller gets a chunked answer without its chunks",
        "RFC 9112 §6.1",
        (
            Send(get(version=_OLD)),
            GOT,
            Reply(raw_reply(b"2\r\nab\r\n0\r\n\r\n", _CHUNKED)),
            _seen(body=b"ab", without=(b"Transfer-Encoding",)),
        ),
    ),
    Case(
        "keep-alive is no promise where the connection's end is the framing",
        "RFC 9112 §9.3",
        (
            Send(get(b"/x", b"Connection: keep-alive", version=_OLD)),
            GOT,
            Reply(raw_reply(b"2\r\nab\r\n0\r\n\r\n", _CHUNKED)),
            _seen(body=b"ab", fields=(b"Connection: close",), without=(b"Transfer-Encoding",)),
        ),
    ),
    Case(
        "an HTTP/1.0 caller's refusal is told in HTTP/1.1",
        "RFC 9110 §2.5",
        (Send(get(version=_OLD, method=b"TRACE")), status(405, line=b"HTTP/1.1 405 Method Not Allowed"), SeeEnd()),
        comparable=False,
    ),
    Case(
        "an unparsable request is told in HTTP/1.1",
        "RFC 9110 §2.5",
        (Send(b"\x00\r\n\r\n"), status(400, line=b"HTTP/1.1 400 Bad Request"), SeeEnd()),
    ),
    Case(
        "a chunked answer that breaks off is broken for an HTTP/1.0 caller too",
        "RFC 9112 §8",
        (Send(get(version=_OLD)), GOT, Reply(raw_reply(b"2\r\nab\r\n", _CHUNKED)), UpstreamCloses(), SeeBroken()),
        comparable=False,
    ),
    Case(
        "HTTP/1.2 is read as HTTP/1.1, or refused",
        "RFC 9110 §2.5",
        (Send(get(version=b"HTTP/1.2")), status(400, 505)),
    ),
]

CONNECTIONS: Final = [
    Case(
        "a connection carries one request after the other",
        "RFC 9112 §9.3",
        (Send(get()), GOT, Reply(OK), _seen(body=b"ok", without=(b"Connection",)), Again(), Again(), Again()),
        comparable=False,
    ),
    Case(
        "Connection: close ends the connection behind the answer",
        "RFC 9112 §9.6",
        (
            Send(get(b"/x", b"Connection: close")),
            GOT,
            Reply(OK),
            _seen(body=b"ok", fields=(b"Connection: close",)),
            SeeEnd(),
        ),
    ),
    Case(
        "Connection: Close counts in any case and list",
        "RFC 9110 §7.6.1",
        (Send(get(b"/x", b"Connection: a, CLOSE")), GOT, Reply(OK), SEE_OK, SeeEnd()),
        comparable=False,
    ),
    Case(
        "pipelined requests are answered in their order",
        "RFC 9112 §9.3.2",
        (
            Send(get(b"/1") + post(b"b2") + get(b"/3")),
            Receive(b"GET /1 HTTP/1.1"),
            Reply(reply(b"1")),
            _seen(body=b"1"),
            Receive(b"POST /x HTTP/1.1", body=b"b2"),
            Reply(reply(b"2")),
            _seen(body=b"2"),
            Receive(b"GET /3 HTTP/1.1"),
            Reply(reply(b"3")),
            _seen(body=b"3"),
        ),
    ),
    Case(
        "nothing behind Connection: close is served",
        "RFC 9112 §9.6",
        (Send(get(b"/x", b"Connection: close") + get(b"/never")), GOT, Reply(OK), SEE_OK, SeeEnd()),
    ),
    Case(
        "the upstream's Connection: close is not the caller's affair",
        "RFC 9110 §7.6.1",
        (Send(get()), GOT, Reply(reply(b"ok", b"Connection: close")), _seen(body=b"ok"), UpstreamEnded(), Again()),
    ),
    Case(
        "a request may come byte by byte",
        "RFC 9112 §2.1",
        (*(Send(bytes([byte])) for byte in get()), GOT, Reply(OK), SEE_OK, Again()),
    ),
    Case(
        "an answer may come byte by byte",
        "RFC 9112 §2.1",
        (Send(get()), GOT, *(Reply(bytes([byte])) for byte in reply(b"abc")), _seen(body=b"abc"), Again()),
    ),
    Case(
        "a chunked answer may come byte by byte",
        "RFC 9112 §7.1",
        (
            Send(get()),
            GOT,
            *(Reply(bytes([byte])) for byte in raw_reply(b"2\r\nab\r\n0\r\n\r\n", _CHUNKED)),
            _seen(body=b"ab"),
            Again(),
        ),
    ),
    Case(
        "a stale upstream connection is not the caller's affair with GET",
        "RFC 9112 §9.3.1",
        (Send(get()), GOT, Reply(OK), SEE_OK, UpstreamCloses(), Again()),
    ),
    Case(
        "a lost upstream connection is one more try for a fresh GET",
        "RFC 9110 §9.2.2",
        (Send(get()), GOT, UpstreamCloses(), GOT, Reply(OK), SEE_OK, Again()),
        comparable=False,
        settings={"retries": 1, "retry_backoff": "1ms"},
    ),
    Case(
        "a 503 is one more try for a GET",
        "RFC 9110 §9.2.2",
        (Send(get()), GOT, Reply(reply(b"", status=b"503 Busy")), GOT, Reply(OK), SEE_OK, Again()),
        comparable=False,
        settings={"retries": 1, "retry_backoff": "1ms"},
    ),
    Case(
        "a POST that was delivered is not sent twice",
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
        "a POST that a kept connection lost is not sent twice",
        "RFC 9110 §9.2.2",
        (
            Send(get()),
            GOT,
            Reply(OK),
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
        "a 503 to a POST is the caller's affair",
        "RFC 9110 §9.2.2",
        (
            Send(post(b"abc")),
            Receive(b"POST /x HTTP/1.1", body=b"abc"),
            Reply(reply(b"", status=b"503 Busy")),
            status(503, line=b"HTTP/1.1 503 Busy"),
            Again(),
        ),
        comparable=False,
        settings={"retries": 3, "retry_backoff": "1ms"},
    ),
    Case(
        "a second answer on an upstream connection goes to nobody",
        "RFC 9112 §9.2",
        (Send(get()), GOT, Reply(OK + reply(b"poison")), SEE_OK, Again(), Again()),
    ),
    Case(
        "bytes on an idle upstream connection go to nobody",
        "RFC 9112 §9.2",
        (Send(get()), GOT, Reply(OK), SEE_OK, Reply(reply(b"poison")), Again(), Again()),
    ),
    Case(
        "bytes behind a chunked answer go to nobody",
        "RFC 9112 §9.2",
        (
            Send(get()),
            GOT,
            Reply(raw_reply(b"1\r\na\r\n0\r\n\r\n" + reply(b"poison"), _CHUNKED)),
            _seen(body=b"a"),
            Again(),
        ),
    ),
    Case(
        "a body behind an answer to HEAD goes to nobody",
        "RFC 9112 §6.3",
        (
            Send(get(method=b"HEAD")),
            Receive(b"HEAD /x HTTP/1.1"),
            Reply(reply(b"poison")),
            _seen(to_head=True),
            Again(),
        ),
    ),
    Case(
        "a body behind a 304 goes to nobody",
        "RFC 9112 §6.3",
        (
            Send(get()),
            GOT,
            Reply(raw_reply(b"poison", b"Content-Length: 6", status=b"HTTP/1.1 304 X")),
            status(304, to_head=True),
            Again(),
        ),
    ),
    Case(
        "a body behind a 204 goes to nobody",
        "RFC 9112 §6.3",
        (
            Send(get()),
            GOT,
            Reply(raw_reply(b"poison", b"Content-Length: 6", status=b"HTTP/1.1 204 X")),
            status(204, 502, to_head=True),
            Again(),
        ),
    ),
]

BROKEN_HEADS: Final = [
    Case(
        f"an answer with {what} is a 502",
        source,
        (Send(get()), GOT, Reply(said), status(502, code=code), UpstreamEnded(), Again()),
        comparable=comparable,
    )
    for what, source, said, code, comparable in [
        (
            "two Content-Lengths that differ",
            "RFC 9112 §6.3",
            raw_reply(b"abc", b"Content-Length: 3", b"Content-Length: 2"),
            "upstream_bad_reply",
            True,
        ),
        (
            "a list of Content-Lengths that differ",
            "RFC 9110 §8.6",
            raw_reply(b"abc", b"Content-Length: 3, 2"),
            "upstream_bad_reply",
            True,
        ),
        (
            "a signed Content-Length",
            "RFC 9110 §8.6",
            raw_reply(b"abc", b"Content-Length: +3"),
            "upstream_bad_reply",
            True,
        ),
        (
            "a negative Content-Length",
            "RFC 9110 §8.6",
            raw_reply(b"abc", b"Content-Length: -3"),
            "upstream_bad_reply",
            True,
        ),
        (
            "a Content-Length that is no number",
            "RFC 9110 §8.6",
            raw_reply(b"abc", b"Content-Length: abc"),
            "upstream_bad_reply",
            True,
        ),
        (
            "an endless Content-Length",
            "RFC 9110 §8.6",
            raw_reply(b"abc", b"Content-Length: " + b"9" * 30),
            "upstream_bad_reply",
            True,
        ),
        (
            "both Content-Length and chunked",
            "RFC 9112 §6.1",
            raw_reply(b"1\r\na\r\n0\r\n\r\n", b"Content-Length: 3", _CHUNKED),
            "upstream_bad_reply",
            False,
        ),
        (
            "an unknown transfer coding",
            "RFC 9112 §6.1",
            raw_reply(b"abc", b"Transfer-Encoding: gzip"),
            "upstream_bad_reply",
            False,
        ),
        (
            "chunked before another coding",
            "RFC 9112 §6.1",
            raw_reply(b"0\r\n\r\n", b"Transfer-Encoding: chunked, gzip"),
            "upstream_bad_reply",
            False,
        ),
        (
            "chunked twice",
            "RFC 9112 §6.1",
            raw_reply(b"0\r\n\r\n", _CHUNKED, _CHUNKED),
            "upstream_bad_reply",
            False,
        ),
        (
            "a space before a colon",
            "RFC 9112 §5.1",
            raw_reply(b"ok", b"X-A : 1", b"Content-Length: 2"),
            "upstream_bad_reply",
            False,
        ),
        (
            "a folded field",
            "RFC 9112 §5.2",
            raw_reply(b"ok", b"X-A: 1\r\n 2", b"Content-Length: 2"),
            "upstream_bad_reply",
            False,
        ),
        (
            "a bare line feed between fields",
            "RFC 9112 §2.2",
            raw_reply(b"ok", b"X-A: 1\nX-B: 2", b"Content-Length: 2"),
            "upstream_bad_reply",
            False,
        ),
        (
            "a bare carriage return in a field",
            "RFC 9112 §2.2",
            raw_reply(b"ok", b"X-A: 1\rX-B: 2", b"Content-Length: 2"),
            "upstream_bad_reply",
            False,
        ),
        (
            "a NUL in a field",
            "RFC 9110 §5.5",
            raw_reply(b"ok", b"X-A: 1\x002", b"Content-Length: 2"),
            "upstream_bad_reply",
            True,
        ),
        (
            "a NUL in its reason phrase",
            "RFC 9112 §4",
            reply(b"ok", status=b"200 O\x00K"),
            "upstream_bad_reply",
            False,
        ),
        (
            "a field without a colon",
            "RFC 9112 §5",
            raw_reply(b"ok", b"X-A", b"Content-Length: 2"),
            "upstream_bad_reply",
            False,
        ),
        (
            "a field without a name",
            "RFC 9110 §5.1",
            raw_reply(b"ok", b": a", b"Content-Length: 2"),
            "upstream_bad_reply",
            False,
        ),
        (
            "a space in a field name",
            "RFC 9110 §5.1",
            raw_reply(b"ok", b"X A: a", b"Content-Length: 2"),
            "upstream_bad_reply",
            False,
        ),
        ("a status of two digits", "RFC 9112 §4", reply(b"ok", status=b"20 OK"), "upstream_bad_reply", False),
        ("a status of four digits", "RFC 9112 §4", reply(b"ok", status=b"2000 OK"), "upstream_bad_reply", True),
        ("a status that is no number", "RFC 9112 §4", reply(b"ok", status=b"abc OK"), "upstream_bad_reply", True),
        ("status 099", "RFC 9110 §15", reply(b"ok", status=b"099 Odd"), "upstream_bad_reply", False),
        (
            "the version HTTP/2.0",
            "RFC 9112 §2.3",
            raw_reply(b"ok", b"Content-Length: 2", status=b"HTTP/2.0 200 OK"),
            "upstream_bad_reply",
            False,
        ),
        (
            "the version HTTP/0.9",
            "RFC 9112 §2.3",
            raw_reply(b"ok", b"Content-Length: 2", status=b"HTTP/0.9 200 OK"),
            "upstream_bad_reply",
            False,
        ),
        (
            "another protocol",
            "RFC 9112 §2.3",
            raw_reply(b"ok", b"Content-Length: 2", status=b"ICY 200 OK"),
            "upstream_bad_reply",
            False,
        ),
        ("no status line at all", "RFC 9112 §4", b"<html>hello</html>\r\n\r\n", "upstream_bad_reply", False),
        ("bytes of TLS", "RFC 9112 §4", bytes.fromhex("15030300020246") + b"\r\n\r\n", "upstream_bad_reply", True),
        (
            "a head of 100 KiB",
            "RFC 9110 §5.4",
            raw_reply(b"ok", *(b"X-%d: " % n + b"a" * 1000 for n in range(100)), b"Content-Length: 2"),
            "upstream_head_too_large",
            True,
        ),
        (
            "a field of 100 KiB",
            "RFC 9110 §5.4",
            raw_reply(b"ok", b"X-A: " + b"a" * 100_000, b"Content-Length: 2"),
            "upstream_head_too_large",
            True,
        ),
    ]
]

BROKEN_BODIES: Final = [
    Case(
        f"an answer {what} breaks off and never looks whole",
        source,
        (Send(get()), GOT, Reply(said), end, SeeBroken()),
        comparable=comparable,
    )
    for what, source, said, end, comparable in [
        (
            "that closes short of its Content-Length",
            "RFC 9112 §8",
            raw_reply(b"ab", b"Content-Length: 3"),
            UpstreamCloses(),
            True,
        ),
        (
            "that closes before the first byte of its Content-Length",
            "RFC 9112 §8",
            raw_reply(b"", b"Content-Length: 3"),
            UpstreamCloses(),
            True,
        ),
        (
            "that is reset short of its Content-Length",
            "RFC 9112 §8",
            raw_reply(b"ab", b"Content-Length: 3"),
            UpstreamResets(),
            True,
        ),
        ("that closes within a chunk", "RFC 9112 §8", raw_reply(b"3\r\nab", _CHUNKED), UpstreamCloses(), True),
        ("that closes behind a chunk", "RFC 9112 §8", raw_reply(b"3\r\nabc\r\n", _CHUNKED), UpstreamCloses(), True),
        (
            "that closes within a chunk's size",
            "RFC 9112 §8",
            raw_reply(b"3\r\nabc\r\n1", _CHUNKED),
            UpstreamCloses(),
            True,
        ),
        (
            "that closes behind its last chunk's size",
            "RFC 9112 §8",
            raw_reply(b"3\r\nabc\r\n0\r\n", _CHUNKED),
            UpstreamCloses(),
            False,
        ),
        (
            "that closes within its trailers",
            "RFC 9112 §8",
            raw_reply(b"3\r\nabc\r\n0\r\nX-A: 1\r\n", _CHUNKED),
            UpstreamCloses(),
            False,
        ),
        ("that closes before its first chunk", "RFC 9112 §8", raw_reply(b"", _CHUNKED), UpstreamCloses(), True),
        ("that is reset within a chunk", "RFC 9112 §8", raw_reply(b"3\r\nab", _CHUNKED), UpstreamResets(), True),
        (
            "with a chunk size that is no number",
            "RFC 9112 §7.1",
            raw_reply(b"zz\r\nabc\r\n0\r\n\r\n", _CHUNKED),
            UpstreamEnded(),
            True,
        ),
        (
            "with a chunk size that is negative",
            "RFC 9112 §7.1",
            raw_reply(b"-3\r\nabc\r\n0\r\n\r\n", _CHUNKED),
            UpstreamEnded(),
            True,
        ),
        (
            "with an endless chunk size",
            "RFC 9112 §7.1",
            raw_reply(b"f" * 30 + b"\r\nabc\r\n0\r\n\r\n", _CHUNKED),
            UpstreamEnded(),
            True,
        ),
        (
            "with more bytes than its chunk's size",
            "RFC 9112 §7.1",
            raw_reply(b"3\r\nabcdef\r\n0\r\n\r\n", _CHUNKED),
            UpstreamEnded(),
            True,
        ),
        (
            "with a bare line feed behind its chunk's size",
            "RFC 9112 §7.1",
            raw_reply(b"3\nabc\r\n0\r\n\r\n", _CHUNKED),
            UpstreamEnded(),
            False,
        ),
        (
            "with a bare line feed behind its chunk's data",
            "RFC 9112 §7.1",
            raw_reply(b"3\r\nabc\n0\r\n\r\n", _CHUNKED),
            UpstreamEnded(),
            False,
        ),
        (
            "with 100 KiB of trailers",
            "RFC 9112 §7.1.2",
            raw_reply(b"1\r\na\r\n0\r\n" + b"X-A: " + b"a" * 100_000 + b"\r\n\r\n", _CHUNKED),
            UpstreamEnded(),
            False,
        ),
        (
            "with a chunk extension of 600 KB",
            "RFC 9112 §7.1.1",
            raw_reply(b"1;" + b"a" * 600_000 + b"\r\na\r\n0\r\n\r\n", _CHUNKED),
            UpstreamEnded(),
            False,
        ),
    ]
]

FAULTS: Final = [
    Case(
        f"an upstream that {what} is a {response.ours} and the caller goes on",
        "RFC 9110 §15.6",
        (Send(get()), GOT, *steps, response, Again()),
        comparable=comparable,
        settings=settings,
    )
    for what, steps, response, comparable, settings in [
        ("closes before its head", (UpstreamCloses(),), status(502, 504, code="upstream_closed"), False, {}),
        ("resets before its head", (UpstreamResets(),), status(502, 504, code="upstream_closed"), False, {}),
        (
            "closes in mid-head",
            (Reply(b"HTTP/1.1 200 OK\r\nContent-"), UpstreamCloses()),
            status(502, 504, code="upstream_closed"),
            False,
            {},
        ),
        (
            "resets in mid-head",
            (Reply(b"HTTP/1.1 200 OK\r\nContent-"), UpstreamResets()),
            status(502, 504, code="upstream_closed"),
            False,
            {},
        ),
        (
            "closes behind a 1xx",
            (Reply(b"HTTP/1.1 100 Continue\r\n\r\n"), UpstreamCloses()),
            status(502, 504, code="upstream_closed"),
            False,
            {},
        ),
        ("says nothing", (), status(504, code="upstream_timeout"), False, {"first_byte_timeout": "50ms"}),
        (
            "stops in mid-head",
            (Reply(b"HTTP/1.1 200 OK\r\nContent-"),),
            status(504, code="upstream_timeout"),
            False,
            {"first_byte_timeout": "50ms"},
        ),
    ]
] + [
    Case(
        "an answer that comes before the upload's end reaches the caller",
        "RFC 9112 §9.5",
        (
            Send(post(b"abcdef")[:-3]),
            Receive(b"POST /x HTTP/1.1", body=None),
            Reply(reply(b"", status=b"413 Too Large")),
            status(413, fields=(b"Connection: close",)),
        ),
        comparable=False,
    ),
    Case(
        "a refusal while the upload goes on ends the upstream's connection",
        "RFC 9112 §9.5",
        (
            Send(post(b"abcdef")[:-3]),
            Receive(b"POST /x HTTP/1.1", body=None),
            Reply(reply(b"", status=b"400 Bad")),
            status(400),
            UpstreamEnded(),
        ),
        comparable=False,
    ),
    Case(
        "an answer that stops in mid-body breaks off within the time limit",
        "RFC 9112 §8",
        (Send(get()), GOT, Reply(raw_reply(b"ab", b"Content-Length: 3")), SeeBroken()),
        comparable=False,
        settings={"idle_timeout": "50ms"},
    ),
]

GROUPS: Final = {
    "HTTP/1.0 callers": OLD_CALLERS,
    "Connections on both sides": CONNECTIONS,
    "Malformed answers": BROKEN_HEADS,
    "Answers that break off": BROKEN_BODIES,
    "Faults of the upstream": FAULTS,
}
