"""From one request to the next on a caller's connection, where something is left over or goes wrong."""

import asyncio

import pytest

from nanonets_proxy.request.handler import Handler
from support.eventually import until
from support.proxy_harness import running_proxy
from support.raw_caller import RawCaller, request
from support.scripted_upstream import OK, ScriptedUpstream

HALF_SENT = request(b"POST", b"/x", b"Content-Length: 6") + b"abc"


async def answered_early(upstream: ScriptedUpstream, caller: RawCaller) -> None:
    """The upstream answers while the upload is under way, so that nobody wants the rest."""
    await caller.send(HALF_SENT)
    await (await upstream.next_request()).send(OK)
    assert (await caller.response()).status == 200


async def test_what_nobody_wants_of_a_body_is_passed_over() -> None:
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        await answered_early(upstream, caller)
        await caller.send(b"def" + request(b"GET", b"/next"))
        exchange = await upstream.next_request()
        assert exchange.lines[0] == b"GET /next HTTP/1.1"
        await exchange.respond(OK)
        assert (await caller.response()).status == 200


async def test_a_body_without_an_end_ends_its_connection() -> None:
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        await until(lambda: bool(proxy.proxy._server.connections))
        (connection,) = proxy.proxy._server.connections
        connection._lingering_time = 0.02
        await answered_early(upstream, caller)
        assert await caller.read_to_end() == b""


async def test_an_error_that_leaves_the_handler_ends_the_connection(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fails(*_: object) -> None:
        raise ValueError

    monkeypatch.setattr(Handler, "__call__", fails)
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        await caller.send(request(b"GET", b"/x"))
        assert await caller.read_to_end() == b""
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [ValueError]


async def test_the_librarys_shutdown_waits_for_the_answer() -> None:
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        await caller.send(request(b"GET", b"/x"))
        exchange = await upstream.next_request()
        (connection,) = proxy.proxy._server.connections
        shutdown = asyncio.create_task(connection.shutdown(5.0))
        await until(lambda: connection._handler_waiter is not None)
        await exchange.respond(OK)
        assert (await caller.response()).status == 200
        await shutdown
        assert await caller.read_to_end() == b""
