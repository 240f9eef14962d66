"""A caller hangs up, at each stage of its request: the upstream request ends soon."""

import asyncio
from typing import cast

import pytest

from support.eventually import until
from support.log_capture import captured_log
from support.proxy_harness import RunningProxy, running_proxy
from support.raw_caller import RawCaller, request
from support.scripted_upstream import OK, ScriptedUpstream

LARGE = 8 * 2**20
CLOSED = b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 600\r\nContent-Length: 0\r\n\r\n"
WITHIN_S = 20.0  # far more than the proxy needs, and far less than any of its time limits


async def _close_the_gate(upstream: ScriptedUpstream, proxy: RunningProxy) -> None:
    async with await proxy.caller() as caller:
        await caller.send(request(b"GET", b"/closes-the-gate", b"Prefer: wait=0"))
        await (await upstream.next_request()).respond(CLOSED)
        assert (await caller.response()).status == 429


def _hang_up(caller: RawCaller, how: str) -> None:
    if how == "reset":
        caller.reset()
    else:
        caller.close()


HOW = pytest.mark.parametrize("how", ["close", "reset"])


@HOW
async def test_a_hang_up_while_waiting_withdraws_the_ticket(how: str) -> None:
    async with ScriptedUpstream() as upstream, running_proxy(upstream.origin, max_wait="1h") as proxy:
        await _close_the_gate(upstream, proxy)
        async with await proxy.caller() as caller:
            await caller.send(request(b"POST", b"/x", body=b"abc"))
            await until(lambda: proxy.waiting == 1)
            _hang_up(caller, how)
            await until(lambda: proxy.waiting == 0, WITHIN_S)
            await proxy.check_idle()
        assert [exchange.lines[0] for exchange in upstream.requests] == [b"GET /closes-the-gate HTTP/1.1"]


@HOW
async def test_a_hang_up_behind_an_unread_upload_withdraws_the_ticket(how: str) -> None:
    async with ScriptedUpstream() as upstream, running_proxy(upstream.origin, max_wait="1h") as proxy:
        await _close_the_gate(upstream, proxy)
        async with await proxy.caller() as caller:
            # More than the proxy reads while the request waits, less than the kernel buffers.
            await caller.send(request(b"POST", b"/x", b"Content-Length: 100000000") + bytes(48_000))
            await until(lambda: proxy.waiting == 1)
            _hang_up(caller, how)
            await until(lambda: proxy.waiting == 0, WITHIN_S)
        assert len(upstream.requests) == 1


async def test_a_grant_before_the_hang_up_is_noticed_sends_nothing_and_logs_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("nanonets_proxy.server.server._HANG_UP_POLL_S", 60.0)
    monkeypatch.setattr("nanonets_proxy.request.attempts._NOTICEABLE_WAIT_S", 0.0)
    with captured_log() as log:
        await _hang_up_behind_a_queue()
        logged = [(event["path"], event["status"], event.get("code")) for event in log.events("request")]
    assert sorted(logged) == [("/first", 200, None), ("/x", 0, "caller_gone")]


async def _hang_up_behind_a_queue() -> None:
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin, pool_size="1") as proxy,
        await proxy.caller() as first,
        await proxy.caller() as caller,
    ):
        await first.send(request(b"GET", b"/first"))
        exchange = await upstream.next_request()
        await caller.send(request(b"POST", b"/x", b"Content-Length: 100000000") + bytes(48_000))
        await until(lambda: proxy.waiting == 1)
        caller.close()
        await caller.writer.wait_closed()  # else some of the body may be unsent, and the hang-up comes later
        await exchange.respond(OK)
        assert (await first.response()).status == 200
        await proxy.check_idle()
        assert all(exchange.lines[0] == b"GET /first HTTP/1.1" for exchange in upstream.requests)


@HOW
async def test_a_hang_up_during_the_upload_closes_the_upstream_connection(how: str) -> None:
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        await caller.send(request(b"POST", b"/x", b"Content-Length: 1000") + bytes(10))
        exchange = await upstream.next_request()
        assert await exchange.read(10) == bytes(10)
        _hang_up(caller, how)
        await exchange.read_to_end(WITHIN_S)
        await proxy.check_idle()


@HOW
async def test_a_hang_up_during_a_stalled_upload_closes_the_upstream_connection(how: str) -> None:
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        await caller.send(request(b"POST", b"/x", b"Content-Length: 100000000") + b"a")
        exchange = await upstream.next_request()
        exchange.connection.stop_reading()
        while not await _stays_paused(proxy):
            await caller.send(bytes(64_000))
        _hang_up(caller, how)
        await until(lambda: proxy.in_flight == 0, WITHIN_S)
        await proxy.check_idle()


async def _stays_paused(proxy: RunningProxy) -> bool:
    """Returns whether the proxy has stopped reading from its only caller."""
    (connection,) = proxy.connections
    for _ in range(20):
        await asyncio.sleep(0.001)
        if connection.transport is None or connection.transport.is_reading():
            return False
    return True


def _stop_reading(writer: asyncio.StreamWriter) -> None:
    cast("asyncio.Transport", writer.transport).pause_reading()


@HOW
async def test_a_hang_up_before_the_response_closes_the_upstream_connection(how: str) -> None:
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        await caller.send(request(b"POST", b"/x", body=b"abc"))
        exchange = await upstream.next_request()
        await exchange.read_body()
        _hang_up(caller, how)
        await exchange.read_to_end(WITHIN_S)
        await proxy.check_idle()


@HOW
async def test_a_hang_up_during_the_response_closes_the_upstream_connection(how: str) -> None:
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        await caller.send(request(b"GET", b"/x"))
        exchange = await upstream.next_request()
        await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nabc")
        await caller.head()
        assert await caller.read(3) == b"abc"
        _hang_up(caller, how)
        await exchange.read_to_end(WITHIN_S)
        await proxy.check_idle()


@HOW
async def test_a_hang_up_with_an_unread_response_closes_the_upstream_connection(how: str) -> None:
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        await caller.send(request(b"GET", b"/x"))
        exchange = await upstream.next_request()
        _stop_reading(caller.writer)
        exchange.connection.send_nowait(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n" + bytes(50_000_000))
        await until(lambda: _is_stuck(proxy))
        _hang_up(caller, how)
        await exchange.read_to_end(WITHIN_S)
        await proxy.check_idle()


def _is_stuck(proxy: RunningProxy) -> bool:
    return any(connection.writing.is_full for connection in proxy.connections)


async def test_an_unread_response_is_reset_after_the_idle_timeout() -> None:
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin, idle_timeout="300ms") as proxy,
        await proxy.caller() as caller,
    ):
        await caller.send(request(b"GET", b"/x"))
        exchange = await upstream.next_request()
        _stop_reading(caller.writer)
        exchange.connection.send_nowait(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n" + bytes(50_000_000))
        await exchange.read_to_end()
        await until(lambda: not proxy.connections)
        await proxy.check_idle()


async def test_backpressure_pauses_the_upstream_and_loses_nothing() -> None:
    body = bytes(range(256)) * (LARGE // 256)
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        await caller.send(request(b"GET", b"/x"))
        exchange = await upstream.next_request()
        _stop_reading(caller.writer)
        head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (4 * LARGE)
        exchange.connection.send_nowait(head + 4 * body)
        await until(lambda: _is_stuck(proxy))
        caller.transport.resume_reading()
        assert (await caller.response()).body == 4 * body
