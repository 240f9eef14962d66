"""What happens on a connection behind a response, if the body is incomplete or something has failed."""

import pytest

from nanonets_proxy.request.handler import Handler
from nanonets_proxy.server import caller_connection
from support.log_capture import captured_log
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


async def test_a_body_without_an_end_ends_its_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caller_connection, "SKIP_S", 0.02)
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        await answered_early(upstream, caller)
        assert await caller.read_to_end() == b""


async def test_an_error_that_leaves_the_handler_ends_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
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
