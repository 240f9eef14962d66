"""Request bodies by both kinds of framing, and `Expect: 100-continue`."""

from typing import Final

from conformance.steps import (
    CHUNKED,
    GOT,
    LARGE,
    OK,
    SEE_OK,
    Again,
    Case,
    Receive,
    ReceiveBody,
    Respond,
    SeeBytes,
    SeeEnd,
    Send,
    chunked_post,
    get,
    post,
    status,
)

_LARGE_CHUNK: Final = b"%x\r\n%b\r\n" % (len(LARGE), LARGE)


def _body_case(fact: str, source: str, data: bytes, body: bytes, *fields: bytes, comparable: bool = True) -> Case:
    return Case(
        fact,
        source,
        (Send(data), Receive(b"POST /x HTTP/1.1", body=body, fields=fields), Respond(OK), SEE_OK, Again()),
        comparable=comparable,
    )


BODIES: Final = [
    _body_case(
        "an empty request body with Content-Length 0 passes", "RFC 9110 §8.6", post(b""), b"", b"Content-Length: 0"
    ),
    _body_case("a request body of 1 byte passes", "RFC 9112 §6.2", post(b"a"), b"a", b"Content-Length: 1"),
    _body_case("a request body of 256 KiB passes", "RFC 9112 §6.2", post(LARGE), LARGE),
    _body_case(
        "leading zeros in a request's Content-Length are allowed",
        "RFC 9110 §8.6",
        get(b"/x", b"Content-Length: 0003", method=b"POST") + b"abc",
        b"abc",
    ),
    _body_case(
        "a request body that looks like a request stays a body",
        "RFC 9112 §6.3",
        post(get(b"/smuggled")),
        get(b"/smuggled"),
    ),
    _body_case("a chunked request body without data passes", "RFC 9112 §7.1", chunked_post(b"0\r\n\r\n"), b""),
    _body_case(
        "a chunked request body of 1 byte passes", "RFC 9112 §7.1", chunked_post(b"1\r\na\r\n0\r\n\r\n"), b"a"
    ),
    _body_case(
        "a request body of 500 chunks passes",
        "RFC 9112 §7.1",
        chunked_post(b"1\r\na\r\n" * 500 + b"0\r\n\r\n"),
        b"a" * 500,
    ),
    _body_case(
        "a chunked request body of 256 KiB passes",
        "RFC 9112 §7.1",
        chunked_post(_LARGE_CHUNK + b"0\r\n\r\n"),
        LARGE,
    ),
    _body_case(
        "chunk sizes may be in upper and lower case",
        "RFC 9112 §7.1",
        chunked_post(b"A\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n"),
        b"0123456789" * 2,
    ),
    _body_case(
        "chunk sizes may have leading zeros", "RFC 9112 §7.1", chunked_post(b"0003\r\nabc\r\n000\r\n\r\n"), b"abc"
    ),
    _body_case(
        "chunk extensions are not part of the body",
        "RFC 9112 §7.1.1",
        chunked_post(b'3;a=b;c="d e"\r\nabc\r\n0;x\r\n\r\n'),
        b"abc",
    ),
    *(
        _body_case(
            f"white space {where} a chunk extension is accepted",
            "RFC 9112 §7.1.1",
            chunked_post(b"3%b\r\nabc\r\n0\r\n\r\n" % extension),
            b"abc",
        )
        for where, extension in {
            "before": b" ;a=b",
            "at the beginning of": b"; a=b",
            "around the equals sign of": b";a = b",
        }.items()
    ),
    _body_case(
        "trailers are not part of the body",
        "RFC 9112 §7.1.2",
        chunked_post(b"3\r\nabc\r\n0\r\nX-Sum: 1\r\nX-Two: 2\r\n\r\n", b"Trailer: X-Sum"),
        b"abc",
    ),
    _body_case(
        "line ends within a chunk are part of the body",
        "RFC 9112 §7.1",
        chunked_post(b"4\r\n\r\n\r\n\r\n0\r\n\r\n"),
        b"\r\n\r\n",
    ),
    _body_case(
        "a chunked request body that looks like a request stays a body",
        "RFC 9112 §7.1",
        chunked_post(b"%x\r\n%b\r\n0\r\n\r\n" % (len(get()), get())),
        get(),
    ),
    _body_case(
        "the transfer coding may be in upper case",
        "RFC 9112 §7",
        get(b"/x", b"Transfer-Encoding: CHUNKED", method=b"POST") + b"1\r\na\r\n0\r\n\r\n",
        b"a",
    ),
    _body_case(
        "a compressed request body is not decompressed",
        "RFC 9110 §8.4",
        post(b"\x1f\x8b\x08junk", b"Content-Encoding: gzip"),
        b"\x1f\x8b\x08junk",
        b"Content-Encoding: gzip",
    ),
    _body_case(
        "a multipart request body passes unchanged",
        "RFC 9110 §8.3.3",
        post(b"--b\r\n\r\n\x00\xff\r\n--b--", b"Content-Type: multipart/form-data; boundary=b"),
        b"--b\r\n\r\n\x00\xff\r\n--b--",
        b"Content-Type: multipart/form-data; boundary=b",
    ),
    Case(
        "a request body that arrives in pieces passes whole",
        "RFC 9112 §6.2",
        (
            Send(post(b"abcdef")[:-4]),
            Receive(b"POST /x HTTP/1.1", body=None),
            Send(b"cd"),
            Send(b"ef"),
            ReceiveBody(b"abcdef"),
            Respond(OK),
            SEE_OK,
            Again(),
        ),
        comparable=False,  # other proxies read the whole body first
    ),
    Case(
        "a chunked request body is forwarded while it arrives",
        "RFC 9112 §7.1",
        (
            Send(chunked_post(b"3\r\nabc\r\n")),
            Receive(b"POST /x HTTP/1.1", fields=(CHUNKED,), body=None),
            Send(b"3\r\ndef\r\n0\r\n\r\n"),
            ReceiveBody(b"abcdef"),
            Respond(OK),
            SEE_OK,
            Again(),
        ),
        comparable=False,
    ),
    Case(
        "an empty line before a request is ignored",
        "RFC 9112 §2.2",
        (Send(b"\r\n" + get()), GOT, Respond(OK), SEE_OK),
    ),
    Case(
        "an empty line after a request body is ignored",
        "RFC 9112 §2.2",
        (Send(post(b"abc") + b"\r\n"), Receive(b"POST /x HTTP/1.1", body=b"abc"), Respond(OK), SEE_OK, Again()),
    ),
]


_EXPECT: Final = b"Expect: 100-continue"


EXPECTATIONS: Final = [
    Case(
        "the upstream's 100 reaches a caller that expects it, and the body follows",
        "RFC 9110 §10.1.1",
        (
            Send(post(b"abc", _EXPECT)[:-3]),
            Receive(b"POST /x HTTP/1.1", body=None),
            Respond(b"HTTP/1.1 100 Continue\r\n\r\n"),
            SeeBytes(b"HTTP/1.1 100 Continue\r\n\r\n"),
            Send(b"abc"),
            ReceiveBody(b"abc"),
            Respond(OK),
            SEE_OK,
            Again(),
        ),
        comparable=False,  # other proxies send a 100 themselves, before the upstream does
    ),
    Case(
        "the upstream's 413 reaches a caller that expects a 100",
        "RFC 9110 §10.1.1",
        (
            Send(post(b"abc", _EXPECT)[:-3]),
            Receive(b"POST /x HTTP/1.1", body=None),
            Respond(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n"),
            status(413, fields=(b"Connection: close",)),
        ),
        comparable=False,
    ),
    Case(
        "the upstream's 417 reaches a caller that expects a 100",
        "RFC 9110 §15.5.18",
        (
            Send(post(b"abc", _EXPECT)[:-3]),
            Receive(b"POST /x HTTP/1.1", body=None),
            Respond(b"HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\n\r\n"),
            status(417, fields=(b"Connection: close",)),
        ),
        comparable=False,
    ),
    Case(
        "a caller that sends its body without waiting gets no 100",
        "RFC 9110 §10.1.1",
        (
            Send(post(b"abc", _EXPECT)),
            Receive(b"POST /x HTTP/1.1", body=b"abc"),
            Respond(OK),
            SEE_OK,
            Again(),
        ),
        comparable=False,  # other proxies may send a 100 nevertheless
    ),
    Case(
        "an HTTP/1.0 caller gets no 100",
        "RFC 9110 §10.1.1",
        (
            Send(post(b"abc", _EXPECT, version=b"HTTP/1.0")),
            Receive(b"POST /x HTTP/1.1", body=b"abc"),
            Respond(OK),
            SEE_OK,
            SeeEnd(),
        ),
    ),
    Case(
        "an expectation without a body causes no wait",
        "RFC 9110 §10.1.1",
        (Send(get(b"/x", _EXPECT)), Receive(b"GET /x HTTP/1.1"), Respond(OK), SEE_OK),
        comparable=False,
    ),
]


GROUPS: Final = {
    "Request bodies": BODIES,
    "Expect: 100-continue": EXPECTATIONS,
}
