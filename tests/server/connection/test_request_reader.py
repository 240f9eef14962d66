"""Any split of a connection's bytes gives the same requests, or the same error."""

import asyncio
from itertools import pairwise
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanonets_proxy.errors import ProxyError
from nanonets_proxy.server.connection.flow_control import FlowControl, ReadAhead
from nanonets_proxy.server.connection.head_reader import HeadReader
from nanonets_proxy.server.connection.request_reader import RequestReader

HOST: Final = b"Host: localhost\r\n"
GET: Final = b"GET /x HTTP/1.1\r\n" + HOST
POST: Final = b"POST /x?y=1 HTTP/1.1\r\n" + HOST
CHUNKED: Final = POST + b"Transfer-Encoding: chunked\r\n\r\n"

# What each stream of bytes holds: method, target and body of each request, or the code of an error.
GOT_X: Final = ("GET", "/x", b"")
STREAMS: Final[dict[str, tuple[bytes, list[Any]]]] = {
    "nothing": (b"", []),
    "get": (GET + b"\r\n", [GOT_X]),
    "three_gets": (
        GET + b"\r\nHEAD /y HTTP/1.1\r\n" + HOST + b"\r\nOPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n",
        [GOT_X, ("HEAD", "/y", b""), ("OPTIONS", "*", b"")],
    ),
    "no_fields": (b"GET / HTTP/1.1\r\n\r\n", [("GET", "/", b"")]),
    "body": (POST + b"Content-Length: 3\r\n\r\nabc" + GET + b"\r\n", [("POST", "/x?y=1", b"abc"), GOT_X]),
    "body_that_looks_like_a_head": (
        POST + b"Content-Length: 20\r\n\r\nGET / HTTP/1.1\r\n\r\n.." + GET + b"\r\n",
        [("POST", "/x?y=1", b"GET / HTTP/1.1\r\n\r\n.."), GOT_X],
    ),
    "body_ends_like_a_head": (
        POST + b"Content-Length: 4\r\n\r\n\r\n\r\n" + GET + b"\r\n",
        [("POST", "/x?y=1", b"\r\n\r\n"), GOT_X],
    ),
    "length_0": (POST + b"Content-Length: 0\r\n\r\n" + GET + b"\r\n", [("POST", "/x?y=1", b""), GOT_X]),
    "chunked": (CHUNKED + b"3\r\nabc\r\n0\r\n\r\n" + GET + b"\r\n", [("POST", "/x?y=1", b"abc"), GOT_X]),
    "trailers": (CHUNKED + b"3\r\nabc\r\n0\r\nX: y\r\n\r\n" + GET + b"\r\n", [("POST", "/x?y=1", b"abc"), GOT_X]),
    "upgrade_with_body": (
        POST + b"Connection: upgrade\r\nUpgrade: h2c\r\nContent-Length: 3\r\n\r\nabc" + GET + b"\r\n",
        [("POST", "/x?y=1", b"abc"), GOT_X],
    ),
    "empty_lines": (b"\r\n\r\n" + GET + b"\r\n\r\n" + GET + b"\r\n\r\n\r\n", [GOT_X, GOT_X]),
    "many_empty_lines": (b"\r\n" * 6 + GET + b"\r\n", [GOT_X]),
    "unknown_method": (b"PURGE /x HTTP/1.1\r\n\r\n" + GET + b"\r\n", [("PURGE", "/x", b""), GOT_X]),
    "lower_case_method": (b"get /x HTTP/1.1\r\n\r\n", [("get", "/x", b"")]),
    "connect": (b"CONNECT a:1 HTTP/1.1\r\n\r\n" + GET + b"\r\n", [("CONNECT", "a:1", b""), GOT_X]),
    "incomplete": (GET, []),
    "http_1_2": (b"GET /x HTTP/1.2\r\n\r\n", ["bad_request"]),
    "no_protocol": (b"GET /abc\r\n\r\n" + GET + b"\r\n", ["bad_request"]),
    "no_protocol_but_later": (b"GET /\r\nX: / HTTP/1.1\r\n\r\n", ["bad_request"]),
    "other_protocol": (b"GET /x RTSP/1.0\r\n\r\n", ["bad_request"]),
    "no_method": (b" /x HTTP/1.1\r\n\r\n", ["bad_request"]),
    "http_2_preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", ["bad_request"]),
    "bare_lf": (b"GET /x HTTP/1.1\nHost: localhost\n\n", ["bad_request"]),
    "bare_lf_behind_an_end": (b"GET /x HTTP/1.1\r\n\nGET /y HTTP/1.1\r\n\r\n", ["bad_request"]),
    "bare_cr": (b"GET /x\r HTTP/1.1\r\n" + HOST + b"\r\n", ["bad_request"]),
    "folded": (GET + b"X: a\r\n b\r\n\r\n", ["bad_request"]),
    "space_in_target": (b"GET /a b HTTP/1.1\r\n\r\n", ["bad_request"]),
    "length_and_coding": (POST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", ["bad_request"]),
    "two_lengths": (POST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\n", ["bad_request"]),
    "bad_behind_good": (GET + b"\r\n" + GET + b"X : a\r\n\r\n" + GET + b"\r\n", [GOT_X, "bad_request"]),
    "long_target": (b"GET /" + b"a" * 13_000 + b" HTTP/1.1\r\n\r\n", ["target_too_long"]),
    "endless_target": (b"GET /" + b"a" * 13_000, ["target_too_long"]),
    "long_field": (GET + b"X: " + b"a" * 17_000 + b"\r\n\r\n", ["head_too_large"]),
    "many_fields": (GET + b"X: a\r\n" * 200 + b"\r\n", ["head_too_large"]),
    "large_head": (GET + (b"X: " + b"a" * 8000 + b"\r\n") * 9 + b"\r\n", ["head_too_large"]),
}


def reader() -> RequestReader:
    return RequestReader(HeadReader(), FlowControl(ReadAhead()))


def read(pieces: list[bytes], *, large: bool = False) -> list[Any]:
    """Reads as a connection does that sends each response as soon as the body has arrived."""
    found: list[Any] = []
    bodies: list[Any] = []
    subject = reader()
    for piece in pieces:
        data: bytes | memoryview = memoryview(piece) if large else piece
        if subject.body is not None:
            subject.receive(piece)
            data = b""
        try:
            while subject.body is None and (request := subject.next_request(data)) is not None:
                data = b""
                found.append((request.method, request.target))
                bodies.append(request.body)
        except ProxyError as error:
            found.append(error.code)
            break
    return [(*one, bodies[at].read_nowait()) if isinstance(one, tuple) else one for at, one in enumerate(found)]


@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.parametrize("piece_bytes", [1, 2, 16, 10**6])
def test_any_split_of_a_stream_reads_the_same(name: str, piece_bytes: int) -> None:
    sent, wanted = STREAMS[name]
    if piece_bytes < 16 and len(sent) > 20_000:
        piece_bytes = 977  # for time's sake
    pieces = [sent[start : start + piece_bytes] for start in range(0, len(sent), piece_bytes)]
    assert read(pieces) == wanted
    assert read(pieces, large=True) == wanted


@given(st.lists(st.sampled_from([name for name in STREAMS if len(STREAMS[name][0]) < 1000]), max_size=4), st.data())
def test_concatenated_streams_stay_separate(names: list[str], data: st.DataObject) -> None:
    sent = b"".join(STREAMS[name][0] for name in names)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(sent)), max_size=6)))
    pieces = [sent[start:end] for start, end in zip([0, *cuts], [*cuts, len(sent)], strict=True)]
    assert read(pieces) == read([sent]) == read(pieces, large=True)


def test_a_partial_head_that_cannot_become_a_request_is_rejected_at_once() -> None:
    for beginning in (b"\x16\x03\x01\x02\x00", b"\0", b"\n", b"\rG", b"GET /x\r\n", b"GET /x HTTP/1.1\r\nA: b\nC"):
        assert read([beginning]) == ["bad_request"], beginning
        assert read([beginning[at : at + 1] for at in range(len(beginning))]) == ["bad_request"], beginning


@pytest.mark.parametrize(
    ("head", "keeps_alive"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", True),
        (b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n", False),
        (b"POST / HTTP/1.1\r\nContent-Length: 1\r\nConnection: x, Close\r\n\r\na", False),
        (b"GET / HTTP/1.0\r\n\r\n", False),
        (b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", True),
        (b"POST / HTTP/1.0\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n", False),
    ],
)
def test_a_head_says_whether_its_connection_stays_open(head: bytes, keeps_alive: bool) -> None:
    subject = reader()
    request = subject.next_request(head)
    assert request is not None
    assert request.keep_alive is keeps_alive


LINES: Final = [HOST, b"A: 1\r\n", b"a: 1\r\n", b"Connection: close\r\n", b"Content-Length: 1\r\n", b"A : 1\r\n"]


@given(
    st.lists(st.tuples(st.sampled_from(["1.1", "1.0"]), st.lists(st.sampled_from(LINES), max_size=3)), max_size=4)
)
def test_an_earlier_head_does_not_change_what_a_head_says(heads: list[tuple[str, list[bytes]]]) -> None:
    subject = reader()
    for version, lines in heads:
        sent = b"GET /x HTTP/%b\r\n%b\r\n" % (version.encode(), b"".join(lines))
        body = b"a" * (b"Content-Length: 1\r\n" in lines)
        said = what_it_says(subject, sent + body)
        assert said == what_it_says(reader(), sent + body)
        if isinstance(said, str):
            break  # nothing more can be read


def what_it_says(subject: RequestReader, sent: bytes) -> tuple[Any, ...] | str:
    try:
        request = subject.next_request(sent)
    except ProxyError as error:
        return error.code
    assert request is not None
    section = request.section
    return request.names, request.values, request.version, request.keep_alive, section.body_length


def test_an_equal_header_section_is_parsed_once() -> None:
    subject = reader()
    targets, sections = [], []
    for head in (GET, GET.replace(b"/x", b"/y"), GET + b"A: 1\r\n", GET):
        request = subject.next_request(head + b"\r\n")
        assert request is not None
        targets.append(request.target)
        sections.append(request.section)
    assert targets == ["/x", "/y", "/x", "/x"]
    assert [one is other for one, other in pairwise(sections)] == [True, False, False]


@pytest.mark.parametrize("behind", [b"", b"P"])
def test_bytes_behind_a_repeated_head_belong_to_the_next_request(behind: bytes) -> None:
    subject = reader()
    poll = GET + b"\r\n"
    methods = []
    for sent in (poll, poll, poll + behind, poll):
        request = subject.next_request(sent)
        assert request is not None
        methods.append(request.method)
    assert methods == ["GET", "GET", "GET", behind.decode() + "GET"]


def test_a_large_header_section_is_not_kept() -> None:
    subject = reader()
    sent = GET + b"A: %b\r\n\r\n" % (b"a" * 5000)
    sections = {request.section for _ in range(2) if (request := subject.next_request(sent)) is not None}
    assert len(sections) == 2


def test_nothing_of_one_head_is_in_the_next() -> None:
    heads = HeadReader()
    first = heads.read(b"POST /1 HTTP/1.1\r\nA: 1\r\nContent-Length: 5\r\nConnection: close\r\n\r\n")
    second = heads.read(b"GET /2 HTTP/1.1\r\nB: 2\r\n\r\n", first).section
    assert (first.section.names, first.section.body_length, first.section.keep_alive) == (
        (b"A", b"Content-Length", b"Connection"),
        5,
        False,
    )
    assert (second.names, second.values, second.body_length, second.keep_alive) == (
        (b"B",),
        (b"2",),
        0,
        True,
    )


async def test_a_body_that_comes_in_pieces_is_waited_for_and_ends() -> None:
    subject = reader()
    request = subject.next_request(CHUNKED)
    assert request is not None
    read_next = asyncio.ensure_future(request.body.readany())
    await asyncio.sleep(0)
    subject.receive(b"3\r\nab")
    assert await read_next == b"ab"
    subject.receive(b"c\r\n0\r\n\r\nGET")
    assert [await request.body.readany(), await request.body.readany()] == [b"c", b""]
    assert subject.kept


def test_a_malformed_chunk_fails_the_body_and_later_bytes_are_discarded() -> None:
    subject = reader()
    request = subject.next_request(CHUNKED)
    assert request is not None
    subject.receive(b"zz\r\n" + GET + b"\r\n")
    subject.receive(GET + b"\r\n")
    assert subject.is_malformed
    assert not subject.kept
    with pytest.raises(ProxyError, match="chunk"):
        request.body.read_nowait()
