"""Many requests in one segment: each gets its own response, and nothing of one reaches the next."""

import pytest

from support.proxy_harness import running_proxy
from support.raw_caller import request
from support.scripted_upstream import OK, Exchange, ScriptedUpstream

CHUNKED_HEAD = request(b"POST", b"/first", b"Transfer-Encoding: chunked")
COUNT = 34  # more than a parser queues


async def echo_target(exchange: Exchange) -> None:
    await exchange.read_body()
    target = exchange.lines[0].split()[1]
    await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(target), target))


async def test_requests_behind_a_chunked_body_each_get_their_own_response() -> None:
    async with (
        ScriptedUpstream(echo_target) as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        await caller.send(CHUNKED_HEAD + b"3\r\nab")
        await upstream.next_request()
        await caller.send(b"c\r\n0\r\n\r\n" + b"".join(request(b"GET", b"/%d" % at) for at in range(COUNT)))
        bodies = [(await caller.response()).body for _ in range(COUNT + 1)]
        assert bodies == [b"/first", *(b"/%d" % at for at in range(COUNT))]


async def test_an_unusual_method_belongs_to_its_own_request() -> None:
    async with (
        ScriptedUpstream(echo_target) as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        gets = b"".join(request(b"GET", b"/%d" % at) for at in range(COUNT))
        await caller.send(CHUNKED_HEAD + b"0\r\n\r\n" + gets + request(b"PURGE", b"/purged") + gets)
        for _ in range(2 * COUNT + 2):
            assert (await caller.response()).status == 200
        methods = {exchange.lines[0].split()[1]: exchange.lines[0].split()[0] for exchange in upstream.requests}
        assert methods == {b"/first": b"POST", b"/purged": b"PURGE"} | {b"/%d" % at: b"GET" for at in range(COUNT)}


async def test_a_trailer_is_no_field_of_the_next_request() -> None:
    async with (
        ScriptedUpstream(echo_target) as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        trailers = b"0\r\nX-First: 1\r\nX-Last: 2\r\n\r\n"
        await caller.send(CHUNKED_HEAD + trailers + request(b"GET", b"/next"))
        assert [(await caller.response()).body for _ in range(2)] == [b"/first", b"/next"]
        assert not [line for exchange in upstream.requests for line in exchange.lines if line.startswith(b"X-")]


async def test_an_unusual_method_behind_a_chunked_body_is_served() -> None:
    async with (
        ScriptedUpstream(echo_target) as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        await caller.send(CHUNKED_HEAD + b"1\r\na\r\n0\r\n\r\n" + request(b"PURGE", b"/x"))
        assert [(await caller.response()).body for _ in range(2)] == [b"/first", b"/x"]
        assert upstream.requests[1].lines[0] == b"PURGE /x HTTP/1.1"


@pytest.mark.parametrize(
    "bad", [b"GET /third HTTP/1.1\r\nX : a\r\n\r\n", b"rubbish\r\n\r\n", b"GET / RTSP/1.0\r\n\r\n"]
)
async def test_valid_requests_before_a_malformed_one_are_served(bad: bytes) -> None:
    async with (
        ScriptedUpstream(echo_target) as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        await caller.send(request(b"GET", b"/first") + request(b"GET", b"/second") + bad + request(b"GET", b"/x"))
        assert [(await caller.response()).body for _ in range(2)] == [b"/first", b"/second"]
        rejected = await caller.response()
        assert (rejected.status, rejected.value(b"Connection")) == (400, b"close")
        assert await caller.read_to_end() == b""
        assert len(upstream.requests) == 2


async def test_bytes_after_a_request_that_closes_its_connection_are_not_read() -> None:
    async with (
        ScriptedUpstream(echo_target) as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        await caller.send(request(b"GET", b"/last", b"Connection: close") + b"\x00garbage\r\n\r\n")
        assert (await caller.response()).body == b"/last"
        assert await caller.read_to_end() == b""


async def test_a_pipeline_longer_than_the_kept_bytes_is_read_while_it_is_served() -> None:
    padding = b"X-Padding: " + b"p" * 4000
    async with (
        ScriptedUpstream(echo_target) as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        caller.writer.write(b"".join(request(b"GET", b"/%d" % at, padding) for at in range(200)))
        assert [(await caller.response()).body for _ in range(200)] == [b"/%d" % at for at in range(200)]


async def test_a_request_behind_an_early_response_is_served_once_the_body_has_arrived() -> None:
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        await caller.send(request(b"POST", b"/x", b"Content-Length: 6") + b"abc")
        await (await upstream.next_request()).send(OK)
        assert (await caller.response()).status == 200
        await caller.send(b"def" + request(b"GET", b"/1") + request(b"GET", b"/2"))
        for path in (b"/1", b"/2"):
            exchange = await upstream.next_request()
            assert exchange.lines[0] == b"GET %b HTTP/1.1" % path
            await exchange.respond(OK)
            assert (await caller.response()).status == 200
