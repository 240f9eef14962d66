"""Draining: no request that has arrived is lost, waiting callers get a 503, and the drain ends in time."""

import asyncio
import socket
import time

import pytest

from nanonets_proxy.server.connection import caller_connection
from support.eventually import WAIT_S, until
from support.proxy_harness import RunningProxy, running_proxy
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


@pytest.mark.parametrize("is_sent_before", [True, False])
async def test_a_body_whose_response_was_sent_holds_up_no_stop(
    is_sent_before: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(caller_connection, "SKIP_S", 10 * WAIT_S)
    monkeypatch.setattr(caller_connection, "LINGER_S", 0.05)
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        await caller.send(request(b"POST", b"/x", b"Content-Length: 6") + b"abc")
        exchange = await upstream.next_request()
        stopping = None if is_sent_before else proxy.stop(10 * WAIT_S)
        if stopping is not None:
            await _refuses_connections(proxy.address)
        await exchange.send(OK)
        assert (await caller.response()).status == 200
        async with asyncio.timeout(WAIT_S):
            await (stopping or proxy.stop(10 * WAIT_S))
        assert await caller.read_to_end() == b""


async def test_a_caller_that_still_uploads_keeps_its_response_in_a_drain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caller_connection, "LINGER_S", WAIT_S)
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        await caller.send(request(b"POST", b"/x", b"Content-Length: 12") + b"abc")
        await (await upstream.next_request()).send(OK)
        stopping = proxy.stop()
        await _refuses_connections(proxy.address)
        for _ in range(3):
            await caller.send(b"abc")
        assert (await caller.response()).status == 200
        assert await caller.read_to_end() == b""
        await stopping


async def _refuses_connections(address: str) -> None:
    async with asyncio.timeout(WAIT_S):
        while True:
            try:
                async with await RawCaller.connect(address):
                    await asyncio.sleep(0.002)
            except ConnectionRefusedError:
                return


async def test_an_idle_connection_closes_at_once() -> None:
    async with (
        ScriptedUpstream(responding(OK)) as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        await caller.get(b"/x")
        async with asyncio.timeout(WAIT_S):
            await proxy.stop(10 * WAIT_S)
        assert await caller.read_to_end() == b""


async def test_a_new_connection_may_send_its_first_request() -> None:
    async with (
        ScriptedUpstream(responding(OK)) as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
        await proxy.caller() as silent,
    ):
        stopping = proxy.stop()
        await _refuses_connections(proxy.address)
        response = await caller.get(b"/x")
        assert (response.status, response.values(b"Connection")) == (200, [b"close"])
        assert [await caller.read_to_end(), await silent.read_to_end()] == [b"", b""]
        await stopping


async def test_a_request_whose_head_arrives_gets_its_response() -> None:
    async with (
        ScriptedUpstream(responding(OK)) as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as first,
        await proxy.caller() as later,
    ):
        await later.get(b"/x")
        whole = request(b"GET", b"/y")
        for caller in (first, later):
            await caller.send(whole[:20])
        await until(lambda: _heads_in_part(proxy) == 2)
        stopping = proxy.stop()
        await _refuses_connections(proxy.address)
        for caller in (first, later):
            await caller.send(whole[20:])
            response = await caller.response()
            assert (response.status, response.values(b"Connection")) == (200, [b"close"])
        await stopping


def _heads_in_part(proxy: RunningProxy) -> int:
    return sum(bool(own._reader.kept) for own in proxy.proxy._server._caller_connections())


@pytest.mark.parametrize("is_closed", [False, True])
async def test_connections_in_the_listeners_queue_are_served(is_closed: bool) -> None:
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as other,
    ):
        if is_closed:
            await other.send(request(b"GET", b"/x"))
            await (await upstream.next_request()).respond(CLOSED)
            await until(lambda: proxy.waiting == 1)
        host, _, port = proxy.address.rpartition(":")
        queued = [socket.create_connection((host, int(port))) for _ in range(20)]  # the event loop does not run
        for sock in queued:
            sock.sendall(request(b"GET", b"/x"))
        stopping = proxy.stop()
        for _ in () if is_closed else queued:
            await (await upstream.next_request()).respond(OK)
        for sock in queued:
            sock.setblocking(False)  # noqa: FBT003 - the name says what it is
            async with RawCaller(*await asyncio.open_connection(sock=sock)) as caller:
                response = await caller.response()
                assert response.status == (503 if is_closed else 200), "only a request that must wait is rejected"
                assert response.values(b"Connection") == [b"close"]
        await stopping


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
        assert {response.status for response in responses} == {200}
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
        assert time.monotonic() - began_s > 0.15
        for cut_off in (caller, headless):
            with pytest.raises(ConnectionResetError):
                await cut_off.read_to_end()
        await exchange.read_to_end()
        await other.read_to_end()


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
