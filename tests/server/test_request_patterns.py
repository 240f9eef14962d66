"""Requests that an expression reads instead of the parser: never one that the parser would read otherwise."""

import asyncio
from typing import Any, Final

import pytest
from aiohttp import EMPTY_PAYLOAD, HttpVersion11
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import HttpRequestParser, RawRequestMessage
from hypothesis import example, given
from hypothesis import strategies as st

from nanonets_proxy.core.http.request_head import RequestHead, RequestHeads, unzipped
from nanonets_proxy.core.http.request_patterns import RequestPattern
from nanonets_proxy.errors import BadRequest
from nanonets_proxy.server.parser_feed import MAX_FIELD_BYTES, MAX_TARGET_BYTES
from support.proxy_harness import running_proxy
from support.raw_caller import request
from support.scripted_upstream import OK, ScriptedUpstream

GET: Final = (
    b"GET /api/v2/OCR/Model/1a2b/Inferences?start=1&end=%20 HTTP/1.1\r\nHost: localhost:8080\r\n"
    b"User-Agent: python-requests/2.32.3\r\nAccept-Encoding: gzip, deflate\r\nConnection: keep-alive\r\n\r\n"
)
POST: Final = (
    b"POST /api/v4/workflows HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Content-Length: 12\r\n\r\n"
)
FULL: Final = (
    b"PUT /x HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\nX-Request-Id: mine\r\nPrefer: wait=1\r\n"
    b"Authorization: Bearer token\r\nX-Forwarded-For: 10.0.0.1\r\nX-Team: billing\r\nContent-Length: 0\r\n"
    b"Origin: https://a.example\r\nX-Last: 1\r\n\r\n"
)
USUAL: Final = (GET, POST, FULL)
MOST_BODY_BYTES: Final = 1000


def heads() -> RequestHeads:
    return RequestHeads(caller_header=b"x-team", token_header=b"authorization")


def learned(method: str, *names: bytes) -> RequestPattern | None:
    shapes = heads().shapes()
    assert shapes.find(method, names) is None
    return shapes.find(method, names)


def shape_of(head: bytes) -> RequestPattern:
    lines = head.split(b"\r\n")
    shape = learned(lines[0].split()[0].decode(), *(line.partition(b":")[0] for line in lines[1:-2]))
    assert shape is not None
    return shape


def facts(head: RequestHead) -> dict[str, Any]:
    return {name: getattr(head, name) for name in RequestHead.__slots__}


@pytest.mark.parametrize("head", USUAL)
def test_the_usual_is_taken_to_its_end(head: bytes) -> None:
    found = shape_of(head).match(head)
    assert found is not None
    assert found.end() == len(head)
    assert b" %b HTTP" % found[1] in head


def test_only_what_is_looked_at_is_captured_and_what_passes_in_one_piece() -> None:
    found = shape_of(FULL).match(FULL)
    assert found is not None
    assert found.groups() == (
        b"/x",
        b"localhost",
        b"Accept: */*\r\nX-Request-Id: mine\r\nPrefer: wait=1\r\n",
        b"mine",
        b"wait=1",
        b"Bearer token",
        b"X-Team: billing\r\nContent-Length: 0\r\nOrigin: https://a.example\r\nX-Last: 1\r\n",
        b"billing",
        b"0",
        b"https://a.example",
    )


def test_a_shape_is_of_one_method_and_spelling() -> None:
    shapes = heads().shapes()
    for method, names in [("GET", (b"Host",)), ("POST", (b"Host",)), ("GET", (b"host",))]:
        assert shapes.find(method, names) is None
    shape = shapes.find("GET", (b"Host",))
    assert shape is not None
    assert shapes.find("GET", (b"Host",)) is shape
    assert shape.match(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert not shape.match(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
    assert not shape.match(b"POST / HTTP/1.1\r\nHost: a\r\n\r\n")


@pytest.mark.parametrize(
    ("method", "names"),
    [
        ("PURGE", (b"Host",)),
        ("CONNECT", (b"Host",)),
        ("GET", ()),
        ("GET", (b"Accept",)),
        ("GET", (b"Host", b"host")),
        ("GET", (b"Host", b"X", b"x")),
        ("GET", (b"Host", b"Upgrade")),
        ("GET", (b"Host", b"Sec-WebSocket-Key1")),
        ("POST", (b"Host", b"Transfer-Encoding")),
        ("POST", (b"Host", b"Content-Length", b"content-length")),
        ("GET", (b"Host", b"Proxy-Connection")),
        ("GET", (b"Host", *(b"X-%d" % number for number in range(64)))),
    ],
)
def test_the_unusual_has_no_shape(method: str, names: tuple[bytes, ...]) -> None:
    assert learned(method, *names) is None


@pytest.mark.parametrize(
    "head",
    [
        GET.replace(b"/api", b"http://localhost:8080/api"),
        GET.replace(b"%20", b"a b"),
        GET.replace(b"%20", b"\xc3\xa4"),
        GET.replace(b"%20", b"#x"),
        GET.replace(b"HTTP/1.1", b"HTTP/1.0"),
        GET.replace(b"GET", b"get"),
        GET.replace(b"GET ", b"GET  "),
        GET.replace(b"keep-alive", b"close"),
        GET.replace(b"keep-alive", b"keep-alive, Upgrade"),
        GET.replace(b": localhost", b":localhost"),
        GET.replace(b": localhost", b":  localhost"),
        GET.replace(b": localhost", b" : localhost"),
        GET.replace(b"8080", b"8080 "),
        GET.replace(b"8080", b"8080\t"),
        GET.replace(b"localhost:8080", b""),
        GET.replace(b"2.32.3", b"\x00"),
        GET.replace(b"2.32.3", b"a\rb"),
        GET.replace(b"2.32.3", b"a\nb: c"),
        GET.replace(b"2.32.3", b"a\r\n b"),
        GET.replace(b"\r\n", b"\n"),
        GET.replace(b"User-Agent", b"User-agent"),
        GET[:-2],
        b"\r\n" + GET,
        POST.replace(b"12", b"+12"),
        POST.replace(b"12", b"1 2"),
        POST.replace(b"12", b"0x12"),
        POST.replace(b"12", b"1" * 16),
    ],
)
def test_whatever_else_it_is_it_is_the_parsers(head: bytes) -> None:
    assert shape_of(GET if b"POST" not in head else POST).match(head) is None


def parsed(data: bytes) -> tuple[RawRequestMessage, Any] | None:
    """What the parser makes of this, set up as for a caller's connection; None where it refuses it."""
    loop = asyncio.new_event_loop()
    try:
        parser = HttpRequestParser(
            BaseProtocol(loop),
            loop,
            2**16,
            max_line_size=MAX_TARGET_BYTES,
            max_field_size=MAX_FIELD_BYTES,
            auto_decompress=False,
        )
        messages, is_upgraded, tail = parser.feed_data(data)
    except HttpProcessingError:
        return None
    finally:
        loop.close()
    assert not is_upgraded
    assert not tail
    (message,) = messages
    return message


ANY: Final = st.text(st.sampled_from('aZ09/?%@:;,.-_~ \t\r\n\0[]#"\\\x7f\x80\xff'), max_size=12).map(
    lambda text: text.encode("latin-1")
)
VISIBLE: Final = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=12).map(str.encode)


@given(st.sampled_from(USUAL), st.lists(st.tuples(st.integers(0, 9), VISIBLE | ANY), max_size=3))
@example(GET, [])
@example(POST, [])
@example(FULL, [])
@example(FULL, [(1, b"not a host/")])
@example(GET, [(0, b"GET //host/x HTTP/1.1")])
@example(GET, [(0, b"GET /x?http://a@b/ HTTP/1.1")])
def test_what_a_shape_takes_the_parser_takes_and_reads_alike(head: bytes, changes: list[tuple[int, bytes]]) -> None:
    lines = head.split(b"\r\n")
    for at, text in changes:
        line = lines[at % len(lines)]
        name, separator, _ = line.partition(b" ")
        lines[at % len(lines)] = text if line == b"" or b"HTTP/" in text else name + separator + text
    data = b"\r\n".join(lines)
    shape = shape_of(head)
    found = shape.match(data)
    length = 0 if shape.length_at is None or found is None else int(found.groups()[shape.length_at])
    if found is None or length > MOST_BODY_BYTES:
        return
    result = parsed(data[: found.end()] + bytes(length))
    assert result is not None
    message, payload = result
    assert (message.method, message.path) == (shape.method, found[1].decode())
    assert message.version == HttpVersion11
    assert (message.should_close, message.upgrade, message.chunked) == (False, False, False)
    assert (payload is EMPTY_PAYLOAD) == (length == 0)
    assert payload.is_eof()
    names, values = unzipped(message.raw_headers)
    assert names == shape.names
    try:
        expected = heads().read(names, values)
    except BadRequest:
        with pytest.raises(BadRequest):
            heads().read_known(shape, found.groups())
    else:
        assert facts(heads().read_known(shape, found.groups())) == facts(expected)


async def test_the_third_request_of_a_shape_is_read_without_the_parser(monkeypatch: pytest.MonkeyPatch) -> None:
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        for number in range(1, 5):
            await caller.send(request(b"POST", b"/x?n=%d" % number, b"X-N: %d" % number, body=b"abc" * number))
            exchange = await upstream.next_request()
            assert exchange.lines[0] == b"POST /x?n=%d HTTP/1.1" % number
            assert b"X-N: %d" % number in exchange.lines
            await exchange.respond(OK)
            assert exchange.body == b"abc" * number
            assert (await caller.response()).status == 200
            (connection,) = proxy.proxy._server.connections
            if number == 2:
                monkeypatch.setattr(connection, "_parser", None)
