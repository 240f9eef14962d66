"""Uploads and readers that stall: they leave their places to others, and end if they are too slow."""

import asyncio
import math
import time
from contextlib import AsyncExitStack
from statistics import median

import pytest

from nanonets_proxy.request.response import relay
from nanonets_proxy.server import connection_limits
from nanonets_proxy.server.connection import caller_body, caller_connection
from support.eventually import until
from support.proxy_harness import RunningProxy, running_proxy
from support.raw_caller import RawCaller, request
from support.scripted_upstream import OK, ScriptedUpstream

_UPLOADS = 400
_PLACES = 256
_HEAD = b"POST /x HTTP/1.1\r\nHost: localhost\r\nX-Caller: slow\r\nContent-Length: 100000\r\n\r\n"


async def _median_s(proxy: RunningProxy, upstream: ScriptedUpstream) -> float:
    """Returns the median of the times of another caller's requests. Pauses of the machine do not change it."""
    times_s = []
    async with await proxy.caller() as other:
        for _ in range(300):
            began_s = time.perf_counter()
            await other.send(b"GET /other HTTP/1.1\r\nHost: localhost\r\nX-Caller: other\r\n\r\n")
            while (exchange := await upstream.next_request()).lines[0] != b"GET /other HTTP/1.1":
                pass
            await exchange.respond(OK)
            assert (await other.response()).status == 200
            times_s.append(time.perf_counter() - began_s)
    return median(times_s)


@pytest.mark.parametrize("first_byte", [b"", b"x"], ids=["nothing", "a byte a minute"])
async def test_uploads_that_stall_delay_no_other_caller(first_byte: bytes) -> None:
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(
            upstream.origin,
            caller_header="X-Caller",
            pool_size=_PLACES,
            limits=["account 1000000/s"],  # the test is about places, not about slow start
        ) as proxy,
        proxy.callers(_UPLOADS) as slow,
    ):
        for caller in slow:
            await caller.send(_HEAD + first_byte)
        if first_byte:
            await until(lambda: len(proxy.room._give_up) == _PLACES)
        assert await _median_s(proxy, upstream) < 1.0
        await until(lambda: proxy.in_flight == 0)


async def test_a_stalled_upload_goes_on_once_its_bytes_come() -> None:
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin, pool_size=1) as proxy,
        await proxy.caller() as slow,
        await proxy.caller() as other,
    ):
        await slow.send(b"POST /slow HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5000\r\n\r\n" + b"a" * 100)
        upload = await upstream.next_request()
        await until(lambda: proxy.in_flight == 0)
        await other.send(request(b"GET", b"/other"))
        exchange = await upstream.next_request()
        await slow.send(b"a" * 4900)
        await asyncio.sleep(0.1)
        assert proxy.in_flight == 1, "the upload waits for the place"
        await exchange.respond(OK)
        assert (await other.response()).status == 200
        await upload.respond(OK)
        assert (await slow.response()).status == 200


async def test_a_body_below_the_minimum_rate_ends_with_a_408(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caller_body, "RATE_PERIOD_S", 0.3)
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin, min_body_rate="1KiB") as proxy,
        await proxy.caller() as caller,
    ):
        await caller.send(_HEAD)
        response = asyncio.create_task(caller.response())
        while not response.done():
            caller.writer.write(b"x")
            await asyncio.sleep(0.02)
        assert (response.result().status, response.result().json()["code"]) == (408, "request_timeout")
        assert "1024 bytes per second" in response.result().json()["message"]
        await proxy.check_idle()


async def test_beyond_a_number_of_stalled_uploads_the_one_that_stalled_first_ends() -> None:
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin, pool_size=2) as proxy,
        AsyncExitStack() as stack,
    ):
        slow: list[RawCaller] = []
        for number in range(3):
            slow.append(await stack.enter_async_context(await proxy.caller()))
            await slow[-1].send(_HEAD + b"x")
            await until(lambda number=number: len(proxy.room._give_up) == min(number + 1, 2))
        response = await slow[0].response()
        assert (response.status, response.json()["code"]) == (408, "request_timeout")
        assert len(proxy.room._give_up) == 2


def _stalled(proxy: RunningProxy) -> int:
    """Returns how many connections could make room because their uploads have stalled."""
    before_s = asyncio.get_running_loop().time() - connection_limits.PATIENCE_S
    return sum(c.stalled_since_s <= before_s for c in proxy.proxy._server._caller_connections())


@pytest.mark.parametrize("first_byte", [b"", b"x"], ids=["nothing", "a byte"])
async def test_stalled_uploads_that_fill_all_connections_make_room_for_others(
    monkeypatch: pytest.MonkeyPatch, first_byte: bytes
) -> None:
    monkeypatch.setattr(connection_limits, "PATIENCE_S", 0.2)
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin, max_connections=50, connect_timeout="10s") as proxy,
        proxy.callers(50) as slow,
    ):
        server = proxy.proxy._server
        for caller in slow:
            await caller.send(_HEAD + first_byte)
        await until(lambda: _stalled(proxy) == 50)
        # One connects after the other: a connection that waits for its first request makes room for the next one.
        async with AsyncExitStack() as more:
            for _ in range(10):
                caller = await more.enter_async_context(await proxy.caller())
                await caller.send(_HEAD + first_byte)
            for _ in range(10):
                async with await proxy.caller() as other:
                    await other.send(request(b"GET", b"/other"))
                    while (exchange := await upstream.next_request()).lines[0] != b"GET /other HTTP/1.1":
                        pass
                    await exchange.respond(OK)
                    assert (await other.response()).status == 200
        response = await slow[0].response()
        assert (response.status, response.json()["code"]) == (408, "request_timeout")
        assert "too many connections are open" in response.json()["message"]
        assert await slow[0].read_to_end() == b""
        await until(lambda: server.open_connections <= 50)


async def test_an_unread_response_makes_room_if_all_connections_are_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_limits, "PATIENCE_S", 0.1)
    monkeypatch.setattr(caller_connection, "READER_PATIENCE_S", 0.1)
    large = b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n" + bytes(20_000_000)
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin, max_connections=16) as proxy,
        proxy.callers(16) as callers,
    ):
        for caller in callers:
            await caller.send(request(b"GET", b"/slow"))
        exchanges = [await upstream.next_request() for _ in callers]
        sending = asyncio.create_task(exchanges[0].send(large))
        await until(lambda: _stalled(proxy) == 1)
        async with await proxy.caller() as other:
            await other.send(request(b"GET", b"/other"))
            await (await upstream.next_request()).respond(OK)
            assert (await other.response()).status == 200
        assert not _stalled(proxy)
        await asyncio.gather(sending, return_exceptions=True)
        assert proxy.in_flight == 15


async def test_an_unread_response_leaves_its_place_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "STALL_S", 0.1)
    large = b"HTTP/1.1 200 OK\r\nContent-Length: 20000000\r\n\r\n" + bytes(20_000_000)
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin, pool_size=1) as proxy,
        await proxy.caller() as first,
        await proxy.caller() as second,
        await proxy.caller() as other,
    ):
        sending = []
        for slow in (first, second):
            await slow.send(request(b"GET", b"/large"))
            sending.append(asyncio.create_task((await upstream.next_request()).respond(large)))
            await until(lambda: proxy.in_flight == 0 and len(proxy.room._give_up) == 1)
            await other.send(request(b"GET", b"/other"))
            await (await upstream.next_request()).respond(OK)
            assert (await other.response()).status == 200
        assert len((await second.response()).body) == 20_000_000, "it is complete once its caller reads"
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await first.response()  # only as many may stall as there are places
        await asyncio.gather(*sending, return_exceptions=True)


@pytest.mark.parametrize(("first_byte", "status"), [(b"", 200), (b"x", 503)], ids=["nothing", "a byte"])
async def test_before_a_stall_only_an_upload_that_has_not_begun_makes_room(
    monkeypatch: pytest.MonkeyPatch, first_byte: bytes, status: int
) -> None:
    monkeypatch.setattr(connection_limits, "PATIENCE_S", 60.0)
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin, max_connections=16) as proxy,
        proxy.callers(16) as callers,
    ):
        for caller in callers:
            await caller.send(_HEAD + first_byte)
        connections = proxy.proxy._server._caller_connections
        await until(lambda: sum(c.stalled_since_s < math.inf for c in connections()) == 16)
        async with await proxy.caller() as newcomer:
            if status == 200:
                await newcomer.send(request(b"GET", b"/other"))
                await (await upstream.next_request()).respond(OK)
            assert (await newcomer.response()).status == status


async def test_the_wait_for_a_permit_does_not_count_against_body_timeout() -> None:
    soon = b"HTTP/1.1 429 No\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n"
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin, body_timeout="0.9s") as proxy,
        await proxy.caller() as first,
        await proxy.caller() as second,
    ):
        await first.send(request(b"GET", b"/1"))
        await (await upstream.next_request()).respond(soon)
        await until(lambda: proxy.waiting == 1)
        await second.send(request(b"POST", b"/2", b"Content-Length: 300000") + bytes(300_000))
        await (await upstream.next_request()).respond(OK)
        await (await upstream.next_request()).respond(OK)
        assert (await second.response()).status == 200
