"""A head that arrives too slowly or is too large gets an error response, and its connection is closed."""

import asyncio

import pytest

from nanonets_proxy.server.connection import caller_connection
from support.eventually import until
from support.proxy_harness import running_proxy
from support.raw_caller import chunked, request
from support.scripted_upstream import OK, ScriptedUpstream, responding


@pytest.mark.parametrize("before", [b"", request(b"GET", b"/before"), request(b"POST", b"/before", body=b"abc")])
async def test_an_incomplete_head_gets_408_after_the_head_timeout(before: bytes) -> None:
    async with (
        ScriptedUpstream(responding(OK)) as upstream,
        running_proxy(upstream.origin, head_timeout="50ms") as proxy,
        await proxy.caller() as caller,
    ):
        if before:
            await caller.send(before)
            assert (await caller.response()).status == 200
        await caller.send(b"GET /x HTTP/1.1\r\nHost: lo")
        response = await caller.response()
        assert response.status_line == b"HTTP/1.1 408 Request Timeout"
        assert response.json()["code"] == "request_timeout"
        assert response.value(b"Connection") == b"close"
        assert await caller.read_to_end() == b""
        assert upstream.connections == bool(before)


async def test_a_head_in_pieces_is_served_and_stops_its_timer() -> None:
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin, head_timeout="60s") as proxy,
        await proxy.caller() as caller,
    ):
        for path in (b"/1", b"/2"):
            whole = request(b"POST", path, body=b"abc")
            for start in range(0, len(whole), 7):
                await caller.send(whole[start : start + 7])
            exchange = await upstream.next_request()
            (connection,) = proxy.connections
            assert connection._timer is None
            await exchange.respond(OK)
            assert (await caller.response()).status == 200
            assert connection._timer is None


async def test_the_rest_of_a_discarded_body_is_not_parsed_as_a_head() -> None:
    async with (
        ScriptedUpstream(responding(OK)) as upstream,
        running_proxy(upstream.origin, head_timeout="50ms") as proxy,
        await proxy.caller() as caller,
    ):
        await caller.send(request(b"POST", b"/x", b"Content-Length: 6", b"Origin: http://evil.example") + b"abc")
        assert (await caller.response()).status == 403
        await caller.send(b"def")
        assert await caller.read_to_end() == b""


@pytest.mark.parametrize("split", [False, True])
async def test_fields_that_are_too_large_together_get_431(split: bool) -> None:
    fields = [b"X-%d: " % number + b"a" * 1000 for number in range(80)]
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        whole = request(b"GET", b"/x", *fields)
        if split:
            await caller.send(whole[:70_000])
        else:
            await caller.send(whole)
        response = await caller.response()
        assert response.status_line == b"HTTP/1.1 431 Request Header Fields Too Large"
        assert response.json()["code"] == "head_too_large"
        assert upstream.connections == 0


async def test_a_rejected_caller_gets_its_response_although_it_keeps_sending() -> None:
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        await caller.send(request(b"GET", b"/x", b"X: " + bytes(2_000_000).replace(b"\0", b"a")))
        assert (await caller.response()).status == 431
        assert await caller.read_to_end() == b""
        assert upstream.connections == 0


async def test_a_rejected_connection_closes_soon_if_the_caller_does_not_close_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(caller_connection, "LINGER_S", 0.02)
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        await caller.send(b"\0\r\n\r\n")
        assert (await caller.response()).status == 400
        await until(lambda: proxy.proxy._server.open_connections == 0)


async def test_a_body_does_not_count_towards_the_head_limit() -> None:
    async with (
        ScriptedUpstream(responding(OK)) as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        assert (await caller.post(b"/x", bytes(100_000))).status == 200


async def test_an_unusual_method_after_an_upload_is_served() -> None:
    async with (
        ScriptedUpstream(responding(OK)) as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        for body in (b"at once", bytes(100_000)):
            assert (await caller.post(b"/x", body)).status == 200
            await caller.send(request(b"FROB", b"/x"))
            assert (await caller.response()).status == 200
        assert [exchange.lines[0][:4] for exchange in upstream.requests] == [b"POST", b"FROB"] * 2


async def test_a_caller_that_pipelines_without_reading_is_paused_and_then_reset() -> None:
    response = b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n" + bytes(200_000)
    async with (
        ScriptedUpstream(responding(response)) as upstream,
        running_proxy(upstream.origin, idle_timeout="200ms") as proxy,
        await proxy.caller() as caller,
    ):
        caller.transport.pause_reading()
        await caller.send(request(b"GET", b"/x") * 500)
        (connection,) = proxy.connections
        transport = connection.transport
        assert transport is not None
        while not transport.is_closing():
            assert transport.get_write_buffer_size() < 2**20
            await asyncio.sleep(0.005)
        assert len(upstream.requests) < 100


@pytest.mark.parametrize("piece_bytes", [7, 97, 5_000, 10**6])
async def test_any_split_of_a_long_pipeline_keeps_requests_and_bodies_together(piece_bytes: int) -> None:
    count = 80
    async with (
        ScriptedUpstream(responding(OK)) as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        sent = b"".join(map(_post, range(count)))
        for start in range(0, len(sent), piece_bytes):
            caller.writer.write(sent[start : start + piece_bytes])
            await asyncio.sleep(0)
        for _ in range(count):
            assert (await caller.response()).status == 200
        for number, exchange in enumerate(upstream.requests):
            assert exchange.lines[0] == b"POST /%d HTTP/1.1" % number
            assert exchange.body == _BODY % number * number


_BODY = b"%d\r\n\r\n"


def _post(number: int) -> bytes:
    """Returns a POST with a length or chunks, whose body looks like the end of a head."""
    body = _BODY % number * number
    if number % 3:
        return request(b"POST", b"/%d" % number, body=body)
    return request(b"POST", b"/%d" % number, b"Transfer-Encoding: chunked") + chunked(*([body] if body else []))
