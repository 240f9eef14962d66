"""The key scrubber removes the API key from responses that contain it."""

import asyncio
from base64 import b64encode

import pytest

from support.log_capture import captured_log
from support.proxy_harness import KEY, running_proxy
from support.scripted_upstream import Exchange, ScriptedUpstream, responding

PLAIN, BASIC = KEY.encode(), b64encode(KEY.encode() + b":")
SHOWN_BASIC = b"*" * len(BASIC.rstrip(b"=")) + b"=" * BASIC.count(b"=")


async def test_the_key_is_blanked_in_a_head_and_an_error_body_and_logged() -> None:
    body = b"you sent " + BASIC + b", which is " + PLAIN
    echo = b"HTTP/1.1 400 " + PLAIN + b"\r\nX-Debug: Basic " + BASIC + b"\r\nContent-Length: %d\r\n\r\n" % len(body)
    with captured_log() as log:
        async with (
            ScriptedUpstream(responding(echo + body)) as upstream,
            running_proxy(upstream.origin) as proxy,
            await proxy.caller() as caller,
        ):
            response = await caller.get(b"/x")
            assert response.status_line == b"HTTP/1.1 400 " + b"*" * len(PLAIN)
            assert response.value(b"X-Debug") == b"Basic " + SHOWN_BASIC
            assert response.body == b"you sent " + SHOWN_BASIC + b", which is " + b"*" * len(PLAIN)
            assert proxy.proxy.metrics.key_echoes._value.get() == 1
        (alarm,) = log.events("key_echoed")
        assert (alarm["level"], alarm["status"]) == ("error", 400)
        assert KEY not in log.text()


async def test_a_key_that_arrives_in_pieces_is_blanked_too() -> None:
    async def in_pieces(exchange: Exchange) -> None:
        await exchange.read_body()
        await exchange.send(b"HTTP/1.1 500 Oops\r\nTransfer-Encoding: chunked\r\n\r\n")
        for piece in (b"a" + PLAIN[:5], PLAIN[5:], b"b"):
            await exchange.send(b"%x\r\n%b\r\n" % (len(piece), piece))
            await asyncio.sleep(0.01)  # the pieces must arrive separately
        await exchange.send(b"0\r\nX-Trailer: " + PLAIN + b"\r\n\r\n")

    async with (
        ScriptedUpstream(in_pieces) as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        response = await caller.get(b"/x")
        assert response.body == b"a" + b"*" * len(PLAIN) + b"b"
        assert PLAIN not in response.trailers


@pytest.mark.parametrize("coding", [b"", b"none", b"gzip", b"identity, identity"])
@pytest.mark.parametrize("status", [b"302 Found", b"418 Teapot", b"500 Oops"])
async def test_every_body_that_is_no_success_is_searched_to_its_end(status: bytes, coding: bytes) -> None:
    filler = b"x" * 300_000
    body = filler + PLAIN + filler
    lines = b"Content-Encoding: " + coding + b"\r\n" if coding else b""
    response = b"HTTP/1.1 %b\r\n%bContent-Length: %d\r\n\r\n%b" % (status, lines, len(body), body)
    async with (
        ScriptedUpstream(responding(response)) as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        assert (await caller.get(b"/x")).body == filler + b"*" * len(PLAIN) + filler
        assert proxy.proxy.metrics.key_echoes._value.get() == 1


async def test_a_successful_responses_body_passes_byte_for_byte() -> None:
    response = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(PLAIN), PLAIN)
    async with (
        ScriptedUpstream(responding(response)) as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        assert (await caller.get(b"/x")).body == PLAIN


async def test_the_key_is_blanked_in_an_interim_response_too() -> None:
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: " + PLAIN + b"\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    async with (
        ScriptedUpstream(responding(hints)) as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        await caller.send(b"GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"Link: " + b"*" * len(PLAIN) in await caller.head()
        assert (await caller.response()).status == 200
        assert proxy.proxy.metrics.key_echoes._value.get() == 1


async def test_an_upstream_that_speaks_out_of_turn_is_an_alert() -> None:
    ok = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    with captured_log() as log:
        async with (
            ScriptedUpstream(responding(ok + b"surplus")) as upstream,
            running_proxy(upstream.origin) as proxy,
            await proxy.caller() as caller,
        ):
            assert (await caller.get(b"/x")).body == b"ok"
            assert [alert["event"] for alert in proxy.proxy.alerts.to_json()] == ["upstream_spoke_out_of_turn"]
        (event,) = log.events("upstream_spoke_out_of_turn")
    assert "pool_per_caller" in event["advice"]


async def test_with_pool_per_caller_another_caller_gets_a_connection_of_its_own() -> None:
    async with (
        ScriptedUpstream(responding(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")) as upstream,
        running_proxy(upstream.origin, pool_per_caller=True, caller_header="X-Team") as proxy,
        await proxy.caller() as caller,
    ):
        for team, connections in ((b"a", 1), (b"b", 2), (b"a", 2), (b"b", 2)):
            assert (await caller.get(b"/x", b"X-Team: " + team)).status == 200
            assert upstream.connections == connections
