"""Heads whose field names repeat are read by a pattern. Whatever arrives, the result is that of httptools."""

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nanonets_proxy.core.http.headers import passing_lines
from nanonets_proxy.upstream.head_parser import MAX_HEAD_BYTES
from nanonets_proxy.upstream.response_head import RepeatedHead
from nanonets_proxy.upstream.response_parser import ResponseParser, ResponseState
from upstream.parsed_response import ParsedResponse, parse_with, split_at

# More than a shape needs before it gets a pattern.
REPETITIONS = 120
USUAL = {
    b"Server": b"nginx",
    b"Date": b"Thu, 01 Jan 2026 00:00:00 GMT",
    b"Content-Type": b"application/json",
    b"Content-Length": b"2",
    b"Connection": b"keep-alive",
    b"X-Request-Id": b"3f1c9a52-5c1f-4e62-9d8f-0f7d1c2b3a44",
    b"vary": b"Accept-Encoding, Origin",
    b"RateLimit": b'"burst";r=50;t=30',
    b"Set-Cookie": b"a=b; Path=/",
}
LENGTH = (b"Content-Length", b"2")
TYPE = (b"Content-Type", b"text/plain")
Fields = list[tuple[bytes, bytes]]


def head_of(fields: Fields, status_line: bytes = b"HTTP/1.1 200 OK") -> bytes:
    return b"".join([status_line + b"\r\n", *(b"%b: %b\r\n" % field for field in fields), b"\r\n"])


def used_parser(names: list[bytes], *, is_head: bool = False) -> ResponseParser:
    """Returns a parser that has had enough responses with these names, and waits for the next one."""
    parser = ResponseParser(is_head=False)
    usual = head_of([(name, USUAL.get(name, b"x")) for name in names]) + b"{}"
    for _ in range(REPETITIONS):
        parser.feed(usual)
        parser.take_body()
        is_used = is_by_pattern(parser)
        assert parser.restart(is_head=False, on_interim=None)
        if is_used:
            break
    assert parser.restart(is_head=is_head, on_interim=None)
    return parser


def is_by_pattern(parser: ResponseParser) -> bool:
    return isinstance(parser.head, RepeatedHead)


@dataclass(frozen=True)
class Outcome:
    """Everything that later code can learn of a response and its connection."""

    parsed: ParsedResponse
    content_type: bytes | None
    has_advice: bool
    is_chunked: bool
    lines: bytes
    has_surplus: bool
    next: ParsedResponse | None


def outcome(parser: ResponseParser, pieces: list[bytes], *, ended: bool) -> Outcome:
    parsed = parse_with(parser, *pieces, ended=ended)
    head = parser.head
    lines = head.lines
    if lines is None:
        lines = passing_lines(head.status, head.names, head.values)
    following = None
    if parsed.error is None and parser.restart(is_head=False, on_interim=None):
        following = parse_with(parser, b"HTTP/1.1 201 Created\r\nContent-Length: 1\r\n\r\nx")
    return Outcome(
        parsed, head.content_type, head.has_advice, head.is_chunked, lines, parser.has_surplus, following
    )


def assert_same_outcome(
    names: list[bytes], data: bytes, cuts: list[int], *, ended: bool = False, is_head: bool = False
) -> None:
    pieces = split_at(data, cuts)
    repeated = outcome(used_parser(names, is_head=is_head), pieces, ended=ended)
    # The first response of a connection is read by httptools.
    first = outcome(ResponseParser(is_head=is_head), pieces, ended=ended)
    assert repeated == first


# --- what the pattern reads -----------------------------------------------------------------------


@pytest.mark.parametrize("names", [list(USUAL), [name for name in USUAL if name != b"Connection"]])
@pytest.mark.parametrize("status", [b"200 OK", b"201 Created", b"200 Fine", b"404 Not Found", b"503 No way"])
def test_a_head_with_known_names_is_read_by_the_pattern(names: list[bytes], status: bytes) -> None:
    fields = [(name, USUAL[name]) for name in names]
    data = head_of(fields, b"HTTP/1.1 " + status) + b"{}"
    parser = used_parser(names)
    parser.feed(data)
    assert is_by_pattern(parser)
    assert (parser.state, parser.head.headers, parser.take_body()) == (ResponseState.COMPLETE, fields, b"{}")
    assert_same_outcome(names, data, [])


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_the_pattern_reads_from_any_buffer_and_keeps_nothing_of_it(kind: type[memoryview]) -> None:
    buffer = bytearray(head_of([TYPE, LENGTH]) + b"{}")
    parser = used_parser([b"Content-Type", b"Content-Length"])
    parser.feed(kind(buffer))
    buffer[:] = b"?" * len(buffer)  # the next read goes to the same buffer
    assert is_by_pattern(parser)
    assert (parser.head.headers, parser.take_body()) == ([TYPE, LENGTH], b"{}")


def test_a_body_goes_on_in_later_segments() -> None:
    parser = used_parser([b"Content-Type", b"Content-Length"])
    parser.feed(head_of([TYPE, (b"Content-Length", b"6")]) + b"ab")
    assert is_by_pattern(parser)
    assert (parser.state, parser.take_body()) == (ResponseState.BODY, b"ab")
    parser.feed(b"cd")
    parser.feed(b"e")
    assert (parser.state, parser.buffered_bytes) == (ResponseState.BODY, 3)
    parser.feed(b"f")
    assert (parser.state, parser.take_body(), parser.keep_alive) == (ResponseState.COMPLETE, b"cdef", True)


def test_a_connection_that_repeats_nothing_builds_no_pattern() -> None:
    names = [b"Content-Type", b"Content-Length", b"X-Seldom"]
    parser = ResponseParser(is_head=False)
    for _ in range(3):
        parser.feed(head_of([(name, USUAL.get(name, b"x")) for name in names]) + b"{}")
        assert not is_by_pattern(parser)
        parser.take_body()
        assert parser.restart(is_head=False, on_interim=None)


@pytest.mark.parametrize(
    "name",
    [
        b"Transfer-Encoding",
        b"Upgrade",
        b"Proxy-Connection",
        b"Keep-Alive",
        b"TE",
        b"Location",
        b"content-length",
        b"content-type",
    ],
)
def test_a_head_with_a_field_that_frames_or_does_not_pass_is_left_to_httptools(name: bytes) -> None:
    parser = ResponseParser(is_head=False)
    for _ in range(REPETITIONS):
        parsed = parse_with(parser, head_of([TYPE, LENGTH, (name, b"2")]) + b"{}")
        assert not is_by_pattern(parser)
        if parsed.error is not None or not parser.restart(is_head=False, on_interim=None):
            parser = ResponseParser(is_head=False)


def test_two_connection_fields_are_left_to_httptools() -> None:
    parser = ResponseParser(is_head=False)
    keep_alive = (b"Connection", b"keep-alive")
    for _ in range(REPETITIONS):
        parsed = parse_with(parser, head_of([TYPE, keep_alive, keep_alive, LENGTH]) + b"{}")
        assert (parsed.body, is_by_pattern(parser)) == (b"{}", False)
        assert parser.restart(is_head=False, on_interim=None)


@pytest.mark.parametrize("size", [MAX_HEAD_BYTES // 2, MAX_HEAD_BYTES - 100, MAX_HEAD_BYTES + 1])
@pytest.mark.parametrize("body", [b"", b"{", b"{}"])
def test_a_large_head_is_left_to_httptools(size: int, body: bytes) -> None:
    names = [b"Content-Type", b"Content-Length", b"X"]
    large = b"x" * size
    for head in (
        head_of([TYPE, LENGTH, (b"X", large)]),
        head_of([TYPE, LENGTH, (b"X", b"x")], b"HTTP/1.1 404 " + large),
    ):
        parser = used_parser(names)
        parse_with(parser, head + body)
        assert not is_by_pattern(parser)
        assert_same_outcome(names, head + body, [])


# --- whatever arrives -----------------------------------------------------------------------------

STATUS_LINES = [
    *(b"HTTP/1.1 " + status for status in (b"201 Created", b"404 Not Found", b"204 No Content", b"304 Same")),
    *(b"HTTP/1.1 " + status for status in (b"200", b"200 ", b"200  OK", b"200 OK ", b"200 caf\xe9", b"200 a\tb")),
    *(b"HTTP/1.1 " + status for status in (b"404 ", b"404  No", b"404 No ", b"404 N\xf6", b"404 N\x00")),
    *(b"HTTP/1.1 " + status for status in (b"100 Continue", b"101 Switching", b"103 Hints", b"600 X", b"020 OK")),
    *(b"HTTP/1.0 200 OK", b"HTTP/2.0 200 OK", b"http/1.1 200 OK", b"RTSP/1.0 200 OK", b"HTTP/1.1 200 O\x00K"),
    *(b" HTTP/1.1 200 OK", b"\r\nHTTP/1.1 200 OK", b"HTTP/1.1\t200 OK", b"HTTP/1.1 200 OK\r"),
    b"HTTP/1.1 103 Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 200 OK",
]
ODD_VALUES = {
    b"Server": [
        *(b"", b" ", b" x", b"x ", b"\tx", b"x\t", b"a\tb", b"caf\xe9", b"a\x00b", b"a\x7fb", b"a\x01b"),
        *(b"a\r\n b", b"a\nb", b"a\rb", b"a\r\nX: y", b": x", b"x" * 5000),
    ],
    b"Content-Length": [
        *(b"0", b"002", b"1", b"3", b"+2", b"-2", b"2 ", b" 2", b"2, 2", b"0x2", b"", b"2\t", b"2;", b"2_0"),
        *(b"9" * count for count in (18, 19, 20, 30)),
    ],
    b"Connection": [
        *(b"close", b"Keep-Alive", b"KEEP-ALIVE", b"keep-alive, x", b"x", b"vary", b"upgrade", b"", b"keep-alive "),
    ],
}
ODD_SEPARATORS = [b":", b":  ", b":\t", b" : ", b" ", b""]
ODD_ENDS = [b"\n", b"\r", b"\r\r\n", b"\r\n ", b" \r\n", b"", b"\r\n\r\n"]
EXTRA_FIELDS = [
    *(b"Transfer-Encoding: chunked\r\n", b"transfer-encoding: gzip\r\n", b"Content-Length: 2\r\n"),
    *(b"content-length: 5\r\n", b"Connection: close\r\n", b"Upgrade: h2c\r\n", b"X: y\r\n", b" folded\r\n"),
]
BODIES = [
    *(b"", b"{", b"0\r\n\r\n", b"{}HTTP/1.1 200 OK\r\n\r\n", b"{}x", b"{}\r\n", b"{}\r", b"{}\nx", b"{}H"),
    b"2\r\n{}\r\n0\r\n\r\n",
]


@dataclass(frozen=True)
class Parts:
    """A response. The defaults are its usual parts."""

    names: tuple[bytes, ...] = tuple(USUAL)
    status_line: bytes = b"HTTP/1.1 200 OK"
    odd_name: bytes = b"Server"
    value: bytes | None = None
    separator: bytes = b": "
    end: bytes = b"\r\n"
    extra: bytes = b""
    extra_at: int = 0
    body: bytes = b"{}"

    def __bytes__(self) -> bytes:
        lines = [
            name + self.separator + (USUAL[name] if self.value is None else self.value) + self.end
            if name == self.odd_name
            else name + b": " + USUAL[name] + b"\r\n"
            for name in self.names
        ]
        lines.insert(self.extra_at, self.extra)
        return b"".join([self.status_line, b"\r\n", *lines, b"\r\n", self.body])


ODD_PARTS = [
    *(Parts(status_line=line) for line in STATUS_LINES),
    *(Parts(odd_name=name, value=value) for name, values in ODD_VALUES.items() for value in values),
    *(Parts(odd_name=name, separator=separator) for name in ODD_VALUES for separator in ODD_SEPARATORS),
    *(Parts(odd_name=name, end=end) for name in (*ODD_VALUES, b"Set-Cookie") for end in ODD_ENDS),
    *(Parts(extra=extra, extra_at=at) for extra in EXTRA_FIELDS for at in (0, 4, 9)),
    *(Parts(body=body) for body in BODIES),
]


@pytest.mark.parametrize("is_head", [False, True], ids=["GET", "HEAD"])
def test_one_odd_part_has_the_result_of_httptools(is_head: bool) -> None:
    for parts in ODD_PARTS:
        for ended in (False, True):
            assert_same_outcome(list(parts.names), bytes(parts), [], ended=ended, is_head=is_head)


@pytest.mark.parametrize(
    "parts", [Parts(), Parts(body=b"{}x"), Parts(body=b"{}\r\n"), Parts(status_line=STATUS_LINES[-1])], ids=repr
)
def test_a_cut_at_any_byte_has_the_result_of_httptools(parts: Parts) -> None:
    data = bytes(parts)
    for cut in range(len(data)):
        assert_same_outcome(list(parts.names), data, [cut])
        assert_same_outcome(list(parts.names), data, [cut, cut + 1], ended=True)


@st.composite
def responses(draw: st.DrawFn) -> tuple[list[bytes], bytes]:
    """Returns the names of usual fields, and the bytes of a response with several odd parts or changed bytes."""
    names = draw(st.permutations(list(USUAL)))[: draw(st.integers(2, len(USUAL)))]
    names = list(dict.fromkeys([*names, b"Content-Type", b"Content-Length"]))
    odd_name = draw(st.sampled_from(list(ODD_VALUES)))
    several = st.builds(
        Parts,
        names=st.just(tuple(names)),
        status_line=st.just(Parts.status_line) | st.sampled_from(STATUS_LINES),
        odd_name=st.just(odd_name),
        value=st.none() | st.sampled_from(ODD_VALUES[odd_name]),
        separator=st.just(Parts.separator) | st.sampled_from(ODD_SEPARATORS),
        end=st.just(Parts.end) | st.sampled_from(ODD_ENDS),
        extra=st.just(Parts.extra) | st.sampled_from(EXTRA_FIELDS),
        extra_at=st.integers(0, len(names)),
        body=st.just(Parts.body) | st.sampled_from(BODIES),
    )
    data = bytes(draw(st.just(Parts(names=tuple(names))) | several))
    if draw(st.booleans()):
        at = draw(st.integers(0, len(data) - 1))
        data = data[:at] + draw(st.binary(max_size=2)) + data[at + draw(st.integers(0, 1)) :]
    return names, data


@given(responses(), st.lists(st.integers(0, 500), max_size=2), st.booleans(), st.booleans())
@settings(max_examples=400)
def test_any_response_has_the_result_of_httptools(
    response: tuple[list[bytes], bytes], cuts: list[int], ended: bool, is_head: bool
) -> None:
    names, data = response
    assert_same_outcome(names, data, cuts, ended=ended, is_head=is_head)
