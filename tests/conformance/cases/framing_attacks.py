"""Requests whose framing is ambiguous or malformed: the proxy rejects them and closes the connection."""

from typing import Final

from conformance.steps import (
    BAD_REQUEST,
    SMUGGLED,
    Case,
    SeeEnd,
    Send,
    get,
    rejected,
    status,
)

_POST: Final = b"POST /x HTTP/1.1\r\nHost: localhost\r\n"


_CHUNKED_LINE: Final = b"Transfer-Encoding: chunked\r\n"


_END: Final = b"\r\n0\r\n\r\n"


LENGTHS: Final = [
    rejected(
        "Content-Length before Transfer-Encoding",
        "RFC 9112 §6.1",
        _POST + b"Content-Length: 3\r\n" + _CHUNKED_LINE + _END,
    ),
    rejected(
        "Transfer-Encoding before Content-Length",
        "RFC 9112 §6.1",
        _POST + _CHUNKED_LINE + b"Content-Length: 3\r\n" + _END,
    ),
    rejected(
        "Content-Length 0 and Transfer-Encoding",
        "RFC 9112 §6.1",
        _POST + b"Content-Length: 0\r\n" + _CHUNKED_LINE + _END,
    ),
    rejected(
        "two different Content-Lengths",
        "RFC 9112 §6.3",
        _POST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    ),
    rejected(
        "two Content-Lengths, the second of them 0,",
        "RFC 9112 §6.3",
        _POST + b"Content-Length: 3\r\nContent-Length: 0\r\n\r\nabc",
    ),
    # RFC 9110 §8.6 leaves it to the recipient whether it accepts equal values.
    rejected(
        "two equal Content-Lengths",
        "RFC 9110 §8.6",
        _POST + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
        comparable=False,
    ),
    rejected(
        "a list of equal Content-Lengths",
        "RFC 9110 §8.6",
        _POST + b"Content-Length: 3, 3\r\n\r\nabc",
        comparable=False,
    ),
    rejected("a list of different Content-Lengths", "RFC 9110 §8.6", _POST + b"Content-Length: 3, 4\r\n\r\nabcd"),
    *(
        rejected(
            f"Content-Length {value!r}",
            "RFC 9110 §8.6",
            _POST + b"Content-Length: " + value.encode() + b"\r\n\r\nabc",
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
    rejected("an empty Content-Length", "RFC 9110 §8.6", _POST + b"Content-Length:\r\n\r\nabc"),
    rejected("a vertical tab in Content-Length", "RFC 9110 §5.5", _POST + b"Content-Length: \x0b3\r\n\r\nabc"),
]


CODINGS: Final = [
    rejected(
        f"Transfer-Encoding {value.decode('latin-1')!r}",
        "RFC 9112 §6.1",
        _POST + b"Transfer-Encoding: " + value + b"\r\n" + _END,
        see,
    )
    for value, see in {
        b"chunked, gzip": BAD_REQUEST,
        b"chunked, chunked": BAD_REQUEST,
        b"chunked, identity": BAD_REQUEST,
        b"xchunked": BAD_REQUEST,
        b"chunkedx": BAD_REQUEST,
        b"identity": BAD_REQUEST,
        b"chunked;q=1": BAD_REQUEST,
        b'"chunked"': BAD_REQUEST,
        b"'chunked'": BAD_REQUEST,
        b"\x0bchunked": BAD_REQUEST,
        b"chunked\x0c": BAD_REQUEST,
        b"chun ked": BAD_REQUEST,
        b"nothing": BAD_REQUEST,
        b"gzip, chunked": status(501, 400, code="not_implemented"),
        b"gzip": BAD_REQUEST,
    }.items()
] + [
    rejected("two Transfer-Encoding fields", "RFC 9112 §6.1", _POST + _CHUNKED_LINE + _CHUNKED_LINE + _END),
    rejected(
        "a second, unknown Transfer-Encoding",
        "RFC 9112 §6.1",
        _POST + _CHUNKED_LINE + b"Transfer-Encoding: x\r\n" + _END,
    ),
    rejected(
        "a space before Transfer-Encoding's colon",
        "RFC 9112 §5.1",
        _POST + b"Transfer-Encoding : chunked\r\n" + _END,
    ),
    rejected("a folded Transfer-Encoding", "RFC 9112 §5.2", _POST + b"Transfer-Encoding:\r\n chunked\r\n" + _END),
    rejected(
        "Transfer-Encoding after a bare line feed",
        "RFC 9112 §2.2",
        _POST + b"X-A: a\nTransfer-Encoding: chunked\r\n" + _END,
    ),
    rejected(
        "Transfer-Encoding after a bare carriage return",
        "RFC 9112 §2.2",
        _POST + b"X-A: a\rTransfer-Encoding: chunked\r\n" + _END,
    ),
    rejected(
        "HTTP/1.0 and Transfer-Encoding",
        "RFC 9112 §6.1",
        b"POST /x HTTP/1.0\r\nHost: localhost\r\nContent-Length: 5\r\n" + _CHUNKED_LINE + _END,
    ),
]


CHUNKS: Final = [
    Case(
        f"a request chunk with {what} is rejected",
        "RFC 9112 §7.1",
        (
            Send(get(b"/x", b"Transfer-Encoding: chunked", method=b"POST") + chunk + SMUGGLED),
            status(400, 411, 413, 500, 501, 502, code="bad_request"),
            SeeEnd(),
        ),
    )
    for what, chunk in {
        "a non-numeric size": b"zz\r\nabc\r\n0\r\n\r\n",
        "no size": b"\r\nabc\r\n0\r\n\r\n",
        "a plus sign before its size": b"+3\r\nabc\r\n0\r\n\r\n",
        "a negative size": b"-3\r\nabc\r\n0\r\n\r\n",
        "the prefix 0x before its size": b"0x3\r\nabc\r\n0\r\n\r\n",
        "an underscore in its size": b"0_3\r\nabc\r\n0\r\n\r\n",
        "a size of 65 bits": b"10000000000000003\r\nabc\r\n0\r\n\r\n",
        "a size of 40 digits": b"f" * 40 + b"\r\nabc\r\n0\r\n\r\n",
        "a space before its size": b" 3\r\nabc\r\n0\r\n\r\n",
        "more bytes than its size": b"3\r\nabcdef\r\n0\r\n\r\n",
        "other bytes in place of its line end": b"3\r\nabcXX0\r\n\r\n",
        "a bare line feed after its size": b"3\nabc\r\n0\r\n\r\n",
        "a bare line feed after its data": b"3\r\nabc\n0\r\n\r\n",
        "a bare carriage return after its size": b"3\rabc\r\n0\r\n\r\n",
        "a bare carriage return in its extension": b"3;a\rb\r\nabc\r\n0\r\n\r\n",
        "a NUL in its extension": b"3;a\x00b\r\nabc\r\n0\r\n\r\n",
    }.items()
]


GROUPS: Final = {
    "Content-Length attacks": LENGTHS,
    "Transfer-Encoding attacks": CODINGS,
    "Malformed request chunks": CHUNKS,
}
