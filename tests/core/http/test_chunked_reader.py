"""Chunked bodies: their bytes, their end, and malformed framing."""

from typing import Any

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanonets_proxy.core.http.chunked_reader import (
    MAX_SIZE_LINE_BYTES,
    MAX_TRAILER_BYTES,
    ChunkedReader,
    MalformedChunks,
)


def decoded(*pieces: bytes) -> tuple[bytes, bytes | None]:
    """Returns the body and the bytes after it, or None for these if the body is incomplete."""
    subject = ChunkedReader()
    body, behind = b"", b""
    for piece in pieces:
        if subject.is_complete:
            behind += piece
        else:
            data, behind = subject.feed(piece)
            body += data
    return body, behind if subject.is_complete else None


def bytewise(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


@pytest.mark.parametrize(
    ("sent", "body"),
    [
        (b"0\r\n\r\n", b""),
        (b"000\r\n\r\n", b""),
        (b"3\r\nabc\r\n0\r\n\r\n", b"abc"),
        (b"1\r\na\r\n" * 9 + b"0\r\n\r\n", b"a" * 9),
        (b"3\r\nabc\r\n02\r\nde\r\nA\r\n0123456789\r\n1;x\r\nf\r\n1\r\ng\r\n0\r\n\r\n", b"abcde0123456789fg"),
        (b"A\r\n0123456789\r\n00b\r\nhello world\r\n0\r\n\r\n", b"0123456789hello world"),
        (b"3;a\r\nabc\r\n0;b=c\r\n\r\n", b"abc"),
        (b'3;a="q;\\"\r"\r\nabc\r\n0\r\n\r\n'.replace(b'\r"', b'"'), b"abc"),
        # RFC 9112 §7.1.1 and RFC 9110 §5.6.3: white space around ";" and "=" must be parsed.
        (b"3 ;a=b\r\nabc\r\n0\r\n\r\n", b"abc"),
        (b"3;a = b ; c\r\nabc\r\n0\r\n\r\n", b"abc"),
        (b"4\t; x\r\n\r\n\r\n\r\n0\r\n\r\n", b"\r\n\r\n"),
        (b"1\r\na\r\n0\r\nX-Trailer: y\r\nB:\r\n\r\n", b"a"),
    ],
)
def test_any_split_of_a_body_gives_the_same_bytes_and_the_same_end(sent: bytes, body: bytes) -> None:
    following = b"GET / HTTP/1.1\r\n\r\n"
    assert decoded(sent + following) == (body, following)
    assert decoded(*bytewise(sent + following)) == (body, following)
    assert decoded(sent[:-1])[1] is None


@pytest.mark.parametrize(
    ("sent", "trailers"),
    [
        (b"0\r\n\r\n", []),
        (b"0\r\nX-Check:  a b \t\r\nx:\r\n\r\n", [(b"X-Check", b"a b"), (b"x", b"")]),
    ],
)
def test_trailers_are_kept_with_their_case(sent: bytes, trailers: list[tuple[bytes, bytes]]) -> None:
    for pieces in ([sent], bytewise(sent)):
        subject = ChunkedReader()
        for piece in pieces:
            subject.feed(piece)
        assert subject.trailers == trailers


@pytest.mark.parametrize(
    "sent",
    [
        *(b"zz\r\n", b"-3\r\nabc", b"+3\r\nabc", b"0x3\r\nabc", b"\r\n", b" 3\r\nabc", b"3 \r\nabc", b"3\nabc\n"),
        *(b"3\rabc\r\n", b"fffffffffffffffffff\r\nabc", b"3;\r\nabc", b"3;a=\r\nabc", b"3;a\x00\r\nabc"),
        *(b'3;a="\r\n"\r\nabc', b"3\r\nabcdef\r\n", b"3\r\nabc\n0\r\n\r\n", b"3\r\nabc\r0", b"3\r\nabcX"),
        *(b"0\r\nX\r\n\r\n", b"0\r\nX : y\r\n\r\n", b"0\r\n X: y\r\n\r\n", b"0\r\nX: a\nb\r\n\r\n"),
        *(b"0\r\nX: \x00\r\n\r\n", b"0\r\n: y\r\n\r\n"),
    ],
)
def test_malformed_framing_is_rejected_for_any_split(sent: bytes) -> None:
    with pytest.raises(MalformedChunks):
        decoded(sent)
    with pytest.raises(MalformedChunks):
        decoded(*bytewise(sent))
    with pytest.raises(MalformedChunks) as caught:
        decoded(b"1\r\na\r\n" + sent)
    assert caught.value.body.startswith(b"a")


def test_size_lines_and_trailers_are_bounded() -> None:
    with pytest.raises(MalformedChunks, match="too long"):
        decoded(b"3;" + b"a" * MAX_SIZE_LINE_BYTES)
    with pytest.raises(MalformedChunks, match="too large"):
        decoded(b"0\r\n", b"X: y\r\n" * (MAX_TRAILER_BYTES // 6 + 1))


class _Parsed:
    """The result of httptools for the same body, as a second opinion."""

    def __init__(self) -> None:
        self.body = b""
        self.is_complete = False

    def on_body(self, data: bytes) -> None:
        if not self.is_complete:
            self.body += data

    def on_message_complete(self) -> None:
        self.is_complete = True


def parsed(sent: bytes) -> Any:
    seen = _Parsed()
    parser = httptools.HttpRequestParser(seen)
    parser.feed_data(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n")
    try:
        parser.feed_data(sent)
    except httptools.HttpParserError:
        if not seen.is_complete:
            return None
    return seen.body, seen.is_complete


PIECES = st.sampled_from(
    [b"0\r\n", b"\r\n", b"1\r\n", b"a", b"2;x=y\r\n", b"ab\r\n", b"X: y\r\n", b"\n", b"\r", b" ", b"3", b"F"]
)


@given(st.lists(PIECES, max_size=12))
def test_each_complete_body_is_the_same_for_httptools_or_rejected_by_it(pieces: list[bytes]) -> None:
    sent = b"".join(pieces)
    try:
        body, behind = decoded(sent)
    except MalformedChunks:
        return
    if behind is not None:
        assert parsed(sent[: len(sent) - len(behind)]) in ((body, True), None)
