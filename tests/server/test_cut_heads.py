"""However a request is cut, and whether the parser reads it or a shape does: the outcome is the same."""

import asyncio
from typing import Any

import pytest
from aiohttp.web_protocol import _ErrInfo

from nanonets_proxy.core.http.request_head import RequestHead, RequestHeads, unzipped
from nanonets_proxy.errors import ProxyError
from nanonets_proxy.server.parser_errors import refusal_for
from nanonets_proxy.server.parser_feed import MAX_TARGET_BYTES
from nanonets_proxy.server.request_loop import CallerRequest
from support.proxy_harness import RunningProxy, running_proxy
from support.scripted_upstream import ScriptedUpstream

HOST = b"Host: localhost\r\n"
GET = b"GET /x HTTP/1.1\r\n" + HOST
POST = b"POST /x?y=1 HTTP/1.1\r\n" + HOST

READS: dict[str, list[bytes]] = {
    "get": [GET + b"\r\n"],
    "three_gets": [
        GET + b"\r\n",
        b"HEAD /y HTTP/1.1\r\n" + HOST + b"\r\n",
        b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n",
    ],
    "close": [GET + b"Connection: close\r\n\r\n"],
    "no_fields": [b"GET / HTTP/1.1\r\n\r\n"],
    "body_behind": [POST + b"Content-Length: 3\r\n\r\n", b"abc", GET + b"\r\n"],
    "body_that_looks_like_a_head": [
        POST + b"Content-Length: 20\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n..",
        GET + b"\r\n",
    ],
    "no_body": [POST + b"Content-Length: 0\r\n\r\n", GET + b"\r\n"],
    "body_with_it": [POST + b"Content-Length: 3\r\n\r\nabc", GET + b"\r\n"],
    "body_ends_like_a_head": [POST + b"Content-Length: 4\r\n\r\n\r\n\r\n", GET + b"\r\n"],
    "chunked": [POST + b"Transfer-Encoding: chunked\r\n\r\n", b"3\r\nabc\r\n0\r\n\r\n", GET + b"\r\n"],
    "two_at_once": [GET + b"\r\n" + GET + b"\r\n", GET + b"\r\n"],
    "empty_line_first": [b"\r\n" + GET + b"\r\n", b"\r\n", GET + b"\r\n"],
    "http_1_0": [b"GET /x HTTP/1.0\r\n\r\n"],
    "http_1_2": [b"GET /x HTTP/1.2\r\n\r\n"],
    "no_protocol": [b"GET /abc\r\n\r\n", GET + b"\r\n"],
    "no_protocol_but_later": [b"GET /\r\nX: / HTTP/1.1\r\n\r\n"],
    "other_protocol": [b"GET /x RTSP/1.0\r\n\r\n", GET + b"\r\n"],
    "unknown_method": [b"PURGE /x HTTP/1.1\r\n" + HOST + b"\r\n", GET + b"\r\n"],
    "lower_case_method": [b"get /x HTTP/1.1\r\n" + HOST + b"\r\n"],
    "no_method": [b" /x HTTP/1.1\r\n\r\n"],
    "upgrade": [GET + b"Connection: upgrade\r\nUpgrade: x\r\n\r\n"],
    "nothing_but_an_end": [b"\r\n\r\n", GET + b"\r\n"],
    "bare_lf": [b"GET /x HTTP/1.1\nHost: localhost\n\n"],
    "bare_lf_behind_an_end": [b"GET /x HTTP/1.1\r\n\nGET /y HTTP/1.1\r\n\r\n"],
    "bare_cr": [b"GET /x\r HTTP/1.1\r\n" + HOST + b"\r\n", GET + b"\r\n"],
    "folded": [GET + b"X: a\r\n b\r\n\r\n", GET + b"\r\n"],
    "space_in_target": [b"GET /a b HTTP/1.1\r\n" + HOST + b"\r\n"],
    "length_and_coding": [POST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n"],
    "two_lengths": [POST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\n"],
    "bad_behind_good": [GET + b"\r\n", GET + b"X : a\r\n\r\n", GET + b"\r\n"],
    "long_target": [b"GET /" + b"a" * 13_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n"],
    "long_field": [GET + b"X: " + b"a" * 17_000 + b"\r\n\r\n"],
    "many_fields": [GET + b"X: a\r\n" * 200 + b"\r\n"],
    "large_head": [GET + (b"X: " + b"a" * 8000 + b"\r\n") * 9 + b"\r\n"],
}


@pytest.mark.parametrize("name", READS)
async def test_however_a_head_comes_its_verdict_is_the_same(name: str) -> None:
    reads = READS[name]
    sent = b"".join(reads)
    async with ScriptedUpstream() as upstream, running_proxy(upstream.origin) as proxy:
        outcome, state = _fed(proxy, reads)
        for piece_bytes in (1, 2, 16, len(sent)):
            pieces = [sent[start : start + piece_bytes] for start in range(0, len(sent), piece_bytes)]
            assert _fed(proxy, pieces)[0] == outcome
        for _ in range(2):  # by now what need not go through the parser does not
            assert _fed(proxy, reads) == (outcome, state)


async def test_what_comes_again_is_read_without_the_parser_if_it_is_whole_and_usual() -> None:
    without = set()
    async with ScriptedUpstream() as upstream, running_proxy(upstream.origin) as proxy:
        for name, reads in READS.items():
            for _ in range(3):
                connection = _connection_fed(proxy, reads)
            if any(isinstance(message, CallerRequest) for message, _ in connection._messages):
                without.add(name)
    assert without == {
        *("get", "three_gets", "body_behind", "body_that_looks_like_a_head", "no_body", "body_with_it"),
        *("body_ends_like_a_head", "chunked", "two_at_once", "empty_line_first", "nothing_but_an_end"),
        *("unknown_method", "bad_behind_good"),
    }


def _connection_fed(proxy: RunningProxy, reads: list[bytes]) -> Any:
    connection = proxy.proxy._server()._connection
    for read in reads:
        connection._waiter = asyncio.get_running_loop().create_future()  # as if what came before were answered
        connection.data_received(read)
    return connection


def _fed(proxy: RunningProxy, reads: list[bytes]) -> tuple[Any, Any]:
    """What came of it, and what the connection expects next, which may depend on the cuts."""
    connection = _connection_fed(proxy, reads)
    messages = [_told(message, payload) for message, payload in connection._messages]
    has_timer = connection._head_timer is not None
    connection._end_head()
    return (messages, connection._refused, connection._upgraded), (
        None if connection._refused else (connection._is_at_line, connection._body_left or None, connection._held),
        has_timer,
    )


def _told(message: Any, payload: Any) -> Any:
    if isinstance(message, _ErrInfo):
        return refusal_for(message.exc, max_target_bytes=MAX_TARGET_BYTES).code
    body = payload.read_nowait() if payload.is_eof() else b"".join(payload._buffer)
    heads = RequestHeads()
    if isinstance(message, CallerRequest):
        path, names, should_close = message.raw_path, message.field_names, not message.keep_alive
        head = heads.read_known(message.shape, message.parts)
    else:
        names, values = unzipped(message.raw_headers)
        path, should_close = message.path, message.should_close
        try:
            head = heads.read(names, values)
        except ProxyError as error:
            return error.code
    facts = {name: getattr(head, name) for name in RequestHead.__slots__}
    return message.method, path, message.version, names, facts, should_close, body
