"""Draining: responses in progress complete, waiting callers get a 503, and the drain ends in time."""

import asyncio
import time

import pytest

from support.eventually import until
from support.proxy_harness import running_proxy
from support.raw_caller import RawCaller, request
from support.scripted_upstream import OK, ScriptedUpstream, responding

CLOSED = b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 9\r\nContent-Length: 0\r\n\r\n"


async def test_waiting_callers_get_503_with_retry_after() -> None:
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as refused,
        await proxy.caller() as queued,
    ):
        await refused.send(request(b"POST", b"/x", body=b"abc"))
        await (await upstream.next_request()).respond(CLOSED)
        await until(lambda: proxy.waiting == 1)
        await queued.send(request(b"GET", b"/y"))
        await until(lambda: proxy.waiting == 2)
        stopping = proxy.stop()
        for caller in (refused, queued):
            response = await caller.response()
            assert response.status == 503
            assert response.json()["code"] == "shutting_down"
            assert response.value(b"Retry-After") == b"1"
            assert response.values(b"Connection") == [b"close"]
            assert await caller.read_to_end() == b""
        await stopping


async def test_a_request_in_progress_completes_with_the_rest_of_its_upload() -> None:
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        await caller.send(request(b"POST", b"/x", b"Content-Length: 6") + b"abc")
        exchange = await upstream.next_request()
        stopping = proxy.stop()
        await _refuses_connections(proxy.address)
        await caller.send(b"def")
        await exchange.respond(OK)
        assert exchange.body == b"abcdef"
        response = await caller.response()
        assert response.body == b"ok"
        assert response.values(b"Connection") == [b"close"]
        assert await caller.read_to_end() == b""
        await stopping


async def test_a_connection_closes_after_a_response_that_began_before_draining() -> None:
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        await caller.send(request(b"GET", b"/x"))
        exchange = await upstream.next_request()
        await exchange.send(OK[:-1])
        await caller.head()
        stopping = proxy.stop()
        await _refuses_connections(proxy.address)
        await exchange.send(OK[-1:])
        assert await caller.read_to_end() == b"ok"
        await stopping


async def _refuses_connections(address: str) -> None:
    async with asyncio.timeout(5):
        while True:
            try:
                async with await RawCaller.connect(address):
                    await asyncio.sleep(0.002)
            except ConnectionRefusedError:
                return


async def test_idle_connections_close_at_once() -> None:
    async with (
        ScriptedUpstream(responding(OK)) as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as used,
        await proxy.caller() as unused,
    ):
        await used.get(b"/x")
        began_s = time.monotonic()
        await proxy.stop(60)
        assert time.monotonic() - began_s < 1
        assert [await used.read_to_end(), await unused.read_to_end()] == [b"", b""]


async def test_a_request_that_has_arrived_when_draining_begins_gets_its_response() -> None:
    async with (
        ScriptedUpstream(responding(OK)) as upstream,
        running_proxy(upstream.origin) as proxy,
        proxy.callers(20) as callers,
    ):
        for caller in callers:
            await caller.get(b"/x")
        for caller in callers:
            caller.writer.write(request(b"GET", b"/y"))
        stopping = proxy.stop()
        responses = [await caller.response() for caller in callers]
        assert {response.status for response in responses} <= {200, 503}
        assert all(response.values(b"Connection") == [b"close"] for response in responses)
        await stopping


@pytest.mark.parametrize("version", [b"HTTP/1.1", b"HTTP/1.0"])
async def test_a_response_that_outlasts_the_drain_timeout_is_reset(version: bytes) -> None:
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
        await proxy.caller() as headless,
    ):
        await caller.send(request(b"GET", b"/x", version=version))
        exchange = await upstream.next_request()
        await exchange.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        await caller.head()
        await headless.send(request(b"GET", b"/y"))
        other = await upstream.next_request()
        began_s = time.monotonic()
        await proxy.stop(0.2)
        assert 0.15 < time.monotonic() - began_s < 1.2
        for cut_off in (caller, headless):
            with pytest.raises(ConnectionResetError):
                await cut_off.read_to_end()
        await exchange.read_to_end(within_s=1)
        await other.read_to_end(within_s=1)


async def test_draining_ends_readiness_while_the_admin_listener_still_responds() -> None:
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
        await RawCaller.connect(proxy.admin_address) as admin,
    ):
        assert (await admin.get(b"/readyz")).status == 200
        await caller.send(request(b"GET", b"/x"))
        exchange = await upstream.next_request()
        stopping = proxy.stop()
        await _refuses_connections(proxy.address)
        response = await admin.get(b"/readyz")
        assert response.status == 503
        assert (response.json()["status"], response.json()["reason"]) == ("not ready", "draining")
        assert (await admin.get(b"/livez")).status == 200
        await exchange.respond(OK)
        assert (await caller.response()).status == 200
        await stopping
        assert await admin.read_to_end() == b""
