"""Responses that end too early, and upstreams that fail."""

from typing import Final

from conformance.steps import (
    CHUNKED,
    GOT,
    Again,
    Case,
    Receive,
    Respond,
    SeeBroken,
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

INCOMPLETE: Final = [
    Case(
        f"a response {what} never looks complete",
        source,
        (Send(get()), GOT, Respond(sent), end, SeeBroken()),
        comparable=comparable,
    )
    for what, source, sent, end, comparable in [
        (
            "that ends before its Content-Length",
            "RFC 9112 §8",
            raw_response(b"ab", b"Content-Length: 3"),
            UpstreamCloses(),
            True,
        ),
        (
            "that ends before the first byte of its body",
            "RFC 9112 §8",
            raw_response(b"", b"Content-Length: 3"),
            UpstreamCloses(),
            True,
        ),
        (
            "that is reset before its Content-Length",
            "RFC 9112 §8",
            raw_response(b"ab", b"Content-Length: 3"),
            UpstreamResets(),
            True,
        ),
        ("that ends within a chunk", "RFC 9112 §8", raw_response(b"3\r\nab", CHUNKED), UpstreamCloses(), True),
        ("that ends after a chunk", "RFC 9112 §8", raw_response(b"3\r\nabc\r\n", CHUNKED), UpstreamCloses(), True),
        (
            "that ends within a chunk's size",
            "RFC 9112 §8",
            raw_response(b"3\r\nabc\r\n1", CHUNKED),
            UpstreamCloses(),
            True,
        ),
        (
            "that ends after its last chunk's size",
            "RFC 9112 §8",
            raw_response(b"3\r\nabc\r\n0\r\n", CHUNKED),
            UpstreamCloses(),
            False,
        ),
        (
            "that ends within its trailers",
            "RFC 9112 §8",
            raw_response(b"3\r\nabc\r\n0\r\nX-A: 1\r\n", CHUNKED),
            UpstreamCloses(),
            False,
        ),
        ("that ends before its first chunk", "RFC 9112 §8", raw_response(b"", CHUNKED), UpstreamCloses(), True),
        ("that is reset within a chunk", "RFC 9112 §8", raw_response(b"3\r\nab", CHUNKED), UpstreamResets(), True),
        (
            "with a non-numeric chunk size",
            "RFC 9112 §7.1",
            raw_response(b"zz\r\nabc\r\n0\r\n\r\n", CHUNKED),
            UpstreamEnded(),
            True,
        ),
        (
            "with a negative chunk size",
            "RFC 9112 §7.1",
            raw_response(b"-3\r\nabc\r\n0\r\n\r\n", CHUNKED),
            UpstreamEnded(),
            True,
        ),
        (
            "with a chunk size of 30 digits",
            "RFC 9112 §7.1",
            raw_response(b"f" * 30 + b"\r\nabc\r\n0\r\n\r\n", CHUNKED),
            UpstreamEnded(),
            True,
        ),
        (
            "with more bytes than a chunk's size",
            "RFC 9112 §7.1",
            raw_response(b"3\r\nabcdef\r\n0\r\n\r\n", CHUNKED),
            UpstreamEnded(),
            True,
        ),
        (
            "with a bare line feed after a chunk's size",
            "RFC 9112 §7.1",
            raw_response(b"3\nabc\r\n0\r\n\r\n", CHUNKED),
            UpstreamEnded(),
            False,
        ),
        (
            "with a bare line feed after a chunk's data",
            "RFC 9112 §7.1",
            raw_response(b"3\r\nabc\n0\r\n\r\n", CHUNKED),
            UpstreamEnded(),
            False,
        ),
        (
            "with 100 KiB of trailers",
            "RFC 9112 §7.1.2",
            raw_response(b"1\r\na\r\n0\r\n" + b"X-A: " + b"a" * 100_000 + b"\r\n\r\n", CHUNKED),
            UpstreamEnded(),
            False,
        ),
        (
            "with a chunk extension of 600 KB",
            "RFC 9112 §7.1.1",
            raw_response(b"1;" + b"a" * 600_000 + b"\r\na\r\n0\r\n\r\n", CHUNKED),
            UpstreamEnded(),
            False,
        ),
    ]
]


FAULTS: Final = [
    Case(
        f"an upstream that {what} causes a {response.ours}, and the caller's connection stays usable",
        "RFC 9110 §15.6",
        (Send(get()), GOT, *steps, response, Again()),
        comparable=comparable,
        settings=settings,
    )
    for what, steps, response, comparable, settings in [
        ("closes before its head", (UpstreamCloses(),), status(502, 504, code="upstream_closed"), False, {}),
        ("resets before its head", (UpstreamResets(),), status(502, 504, code="upstream_closed"), False, {}),
        (
            "closes within its head",
            (Respond(b"HTTP/1.1 200 OK\r\nContent-"), UpstreamCloses()),
            status(502, 504, code="upstream_closed"),
            False,
            {},
        ),
        (
            "resets within its head",
            (Respond(b"HTTP/1.1 200 OK\r\nContent-"), UpstreamResets()),
            status(502, 504, code="upstream_closed"),
            False,
            {},
        ),
        (
            "closes after a 1xx",
            (Respond(b"HTTP/1.1 100 Continue\r\n\r\n"), UpstreamCloses()),
            status(502, 504, code="upstream_closed"),
            False,
            {},
        ),
        ("sends nothing", (), status(504, code="upstream_timeout"), False, {"first_byte_timeout": "50ms"}),
        (
            "stops within its head",
            (Respond(b"HTTP/1.1 200 OK\r\nContent-"),),
            status(504, code="upstream_timeout"),
            False,
            {"first_byte_timeout": "50ms"},
        ),
    ]
] + [
    Case(
        "a response that arrives before the end of the upload reaches the caller",
        "RFC 9112 §9.5",
        (
            Send(post(b"abcdef")[:-3]),
            Receive(b"POST /x HTTP/1.1", body=None),
            Respond(response(b"", status=b"413 Too Large")),
            status(413, fields=(b"Connection: close",)),
        ),
        comparable=False,
    ),
    Case(
        "a response that arrives before the end of the upload reaches the caller if the upstream then resets",
        "RFC 9112 §9.6",
        (
            Send(post(b"abcdef")[:-3]),
            Receive(b"POST /x HTTP/1.1", body=None),
            Respond(response(b"why", b"Connection: close", status=b"413 Too Large")),
            UpstreamResets(),
            status(413, body=b"why", fields=(b"Connection: close",)),
        ),
        comparable=False,
    ),
    Case(
        "an error response during the upload ends the upstream connection",
        "RFC 9112 §9.5",
        (
            Send(post(b"abcdef")[:-3]),
            Receive(b"POST /x HTTP/1.1", body=None),
            Respond(response(b"", status=b"400 Bad")),
            status(400),
            UpstreamEnded(),
        ),
        comparable=False,
    ),
    Case(
        "a response that stops within its body is broken off after `idle_timeout`",
        "RFC 9112 §8",
        (Send(get()), GOT, Respond(raw_response(b"ab", b"Content-Length: 3")), SeeBroken()),
        comparable=False,
        settings={"idle_timeout": "50ms"},
    ),
]


GROUPS: Final = {
    "Incomplete responses": INCOMPLETE,
    "Failing upstreams": FAULTS,
}
