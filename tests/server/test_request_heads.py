"""Header sections that are slow, or too large: an answer that says so, and the end of the connection."""

import asyncio

import pytest

from nanonets_proxy.server import caller_connection
from support.eventually import until
from support.proxy_harness import running_proxy
from support.raw_caller import chunked, request
from support.scripted_upstream import OK, ScriptedUpstream, responding


@pytest.mark.parametrize("before", [b"", request(b"GET", b"/before"), request(b"POST", b"/before", body=b"abc")])
async def test_a_head_that_stops_coming_is_a_408(before: bytes) -> None:
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


async def test_a_head_that_comes_in_pieces_in_time_is_served_and_its_clock_stops() -> None:
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin, head_timeout="300ms") as proxy,
        await proxy.caller() as caller,
    ):
        for path in (b"/1", b"/2"):
            whole = request(b"POST", path, body=b"abc")
            for start in range(0, len(whole), 7):
                await caller.send(whole[start : start + 7])
            exchange = await upstream.next_request()
            (connection,) = proxy.proxy._server.connections
            assert connection._timer is None
            await exchange.respond(OK)
            assert (await caller.response()).status == 200
            assert connection._timer is None


async def test_a_body_that_nobody_waits_for_any_more_is_not_taken_for_a_head() -> None:
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
async def test_fields_that_are_too_large_together_are_a_431(split: bool) -> None:
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


async def test_what_a_refused_caller_still_sends_does_not_cost_it_its_answer() -> None:
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        await caller.send(request(b"GET", b"/x", b"X: " + bytes(2_000_000).replace(b"\0", b"a")))
        assert (await caller.response()).status == 431
        assert await caller.read_to_end() == b""
        assert upstream.connections == 0


async def test_a_refused_caller_that_does_not_end_its_side_is_left_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caller_connection, "LINGER_S", 0.02)
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        await caller.send(b"\0\r\n\r\n")
        assert (await caller.response()).status == 400
        await until(lambda: proxy.proxy._server.open_connections == 0)


async def test_a_body_behind_its_head_does_not_count_as_head() -> None:
    async with (
        ScriptedUpstream(responding(OK)) as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        assert (await caller.post(b"/x", bytes(100_000))).status == 200


async def test_behind_a_body_that_was_sent_on_a_head_is_judged_like_any_other() -> None:
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


async def test_who_pipelines_without_reading_is_not_served_on_and_reset_in_the_end() -> None:
    response = b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n" + bytes(200_000)
    async with (
        ScriptedUpstream(responding(response)) as upstream,
        running_proxy(upstream.origin, idle_timeout="200ms") as proxy,
        await proxy.caller() as caller,
    ):
        caller.writer.transport.pause_reading()
        await caller.send(request(b"GET", b"/x") * 500)
        (connection,) = proxy.proxy._server.connections
        transport = connection.transport
        assert transport is not None
        while not transport.is_closing():
            assert transport.get_write_buffer_size() < 2**20
            await asyncio.sleep(0.005)
        assert len(upstream.requests) < 100


@pytest.mark.parametrize("piece_bytes", [7, 97, 5_000, 10**6])
async def test_a_long_pipeline_of_bodies_stays_in_step_however_it_is_cut(piece_bytes: int) -> None:
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
    """With a length, or chunked; the body looks like the end of a head."""
    body = _BODY % number * number
    if number % 3:
        return request(b"POST", b"/%d" % number, body=body)
    return request(b"POST", b"/%d" % number, b"Transfer-Encoding: chunked") + chunked(*([body] if body else []))
