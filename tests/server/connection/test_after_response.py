"""A connection after its response, if the request's body is incomplete or the handler has failed."""

import asyncio

import pytest

from nanonets_proxy.request.handler import Handler
from nanonets_proxy.server.connection import caller_connection
from support.eventually import WAIT_S
from support.log_capture import captured_log
from support.proxy_harness import running_proxy
from support.raw_caller import RawCaller, request
from support.scripted_upstream import OK, ScriptedUpstream

TOO_LARGE = b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n"
HALF_SENT = request(b"POST", b"/x", b"Content-Length: 6") + b"abc"


async def respond_early(upstream: ScriptedUpstream, caller: RawCaller) -> None:
    """Has the upstream respond during the upload, so that the rest of the body is not needed."""
    await caller.send(HALF_SENT)
    await (await upstream.next_request()).send(OK)
    assert (await caller.response()).status == 200


async def send_slowly(caller: RawCaller) -> None:
    while True:
        await asyncio.sleep(0.02)
        await caller.send(b"abc")


async def test_the_rest_of_a_body_after_an_early_response_is_skipped() -> None:
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        await respond_early(upstream, caller)
        await caller.send(b"def" + request(b"GET", b"/next"))
        exchange = await upstream.next_request()
        assert exchange.lines[0] == b"GET /next HTTP/1.1"
        await exchange.respond(OK)
        assert (await caller.response()).status == 200


async def test_a_connection_closes_if_the_rest_of_the_body_does_not_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caller_connection, "SKIP_S", 0.02)
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        await respond_early(upstream, caller)
        assert await caller.read_to_end() == b""


async def test_a_caller_that_keeps_sending_its_body_can_read_its_response_afterwards() -> None:
    """Many clients read nothing before they have sent everything."""
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        await caller.send(request(b"POST", b"/x", b"Content-Length: 15") + b"abc")
        await (await upstream.next_request()).send(TOO_LARGE)
        for _ in range(4):
            await asyncio.sleep(0.01)
            await caller.send(b"abc")
        assert (await caller.response()).status == 413
        assert await caller.read_to_end() == b""


async def test_a_body_is_skipped_for_a_limited_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caller_connection, "SKIP_S", 0.1)
    monkeypatch.setattr(caller_connection, "SKIP_TOTAL_S", 0.2)
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        await caller.send(request(b"POST", b"/x", b"Content-Length: 3000") + b"abc")
        await (await upstream.next_request()).send(TOO_LARGE)
        with pytest.raises(ConnectionError):
            await asyncio.wait_for(send_slowly(caller), WAIT_S)


@pytest.mark.parametrize("line", [b"GET /x HTTP/1.1", b"TRACE /x HTTP/1.1", b"GET /x HTTP/2.0"])
async def test_a_malformed_chunk_after_an_error_response_closes_the_connection_quietly(line: bytes) -> None:
    with captured_log() as log:
        async with (
            ScriptedUpstream() as upstream,
            running_proxy(upstream.origin) as proxy,
            await proxy.caller() as caller,
        ):
            fields = b"Host: localhost\r\nOrigin: http://evil.example\r\nTransfer-Encoding: chunked\r\n\r\n"
            await caller.send(line + b"\r\n" + fields)
            assert (await caller.response()).status in (403, 405, 505)
            await caller.send(b"zz\r\n" + request(b"GET", b"/smuggled"))
            assert await caller.read_to_end() == b""
            assert upstream.connections == 0
    assert not log.events("connection_failed")
    assert not log.events("request_failed")


async def test_an_unexpected_error_of_the_handler_resets_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fails(*_: object) -> None:
        raise ValueError

    monkeypatch.setattr(Handler, "__call__", fails)
    with captured_log() as log:
        async with (
            ScriptedUpstream() as upstream,
            running_proxy(upstream.origin) as proxy,
            await proxy.caller() as caller,
        ):
            await caller.send(request(b"GET", b"/x"))
            with pytest.raises(ConnectionResetError):
                await caller.read_to_end()
    (event,) = log.events("connection_failed")
    assert "ValueError" in event["exception"]
