"""`Expect: 100-continue`: the 100 follows the permit, when the upstream sends one or after a short wait."""

import pytest

from nanonets_proxy.upstream import client
from support.eventually import WAIT_S, until
from support.proxy_harness import running_proxy
from support.raw_caller import request
from support.scripted_upstream import OK, ScriptedUpstream

EXPECT = (b"Expect: 100-continue", b"Content-Length: 4")
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
TOO_MANY = b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n"


async def test_a_silent_upstream_is_sent_the_body_after_a_short_wait() -> None:
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        await caller.send(request(b"POST", b"/x", *EXPECT))
        exchange = await upstream.next_request()
        assert await caller.head() == CONTINUE
        await caller.send(b"body")
        await exchange.respond(OK)
        assert (await caller.response()).body == b"ok"


@pytest.mark.parametrize("status", [b"413 Content Too Large", b"417 Expectation Failed", b"200 OK"])
@pytest.mark.parametrize("in_pieces", [False, True], ids=["at_once", "in_pieces"])
async def test_an_early_response_reaches_the_caller_without_a_100(status: bytes, in_pieces: bool) -> None:
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        await caller.send(request(b"POST", b"/x", *EXPECT))
        exchange = await upstream.next_request()
        head = b"HTTP/1.1 " + status + b"\r\nContent-Length: 7\r\n\r\n"
        if in_pieces:
            await exchange.send(head)
            got = await caller.head()
            await exchange.send(b"ref")
            assert await caller.read(3) == b"ref"
            await exchange.send(b"used")
            assert await caller.read(4) == b"used"
        else:
            await exchange.send(head + b"refused")
            got = await caller.head()
            assert await caller.read(7) == b"refused"
        assert got.startswith(b"HTTP/1.1 " + status)
        # It is unknown whether the body still arrives, so neither connection can be used again.
        assert b"\r\nConnection: close\r\n" in got
        caller.writer.write_eof()
        assert await caller.read_to_end() == b""
        assert await exchange.read_to_end() == b""


@pytest.mark.parametrize("sent", [b"body", b"bo"], ids=["whole", "in_part"])
async def test_a_body_that_has_come_is_sent_again_without_a_wait_for_a_second_100(
    sent: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "_CONTINUE_WAIT_S", 10 * WAIT_S)
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        await caller.send(request(b"POST", b"/x", *EXPECT))
        exchange = await upstream.next_request()
        await exchange.send(CONTINUE)
        assert await caller.head() == CONTINUE
        await caller.send(sent)
        assert await exchange.read(len(sent)) == sent
        await exchange.send(TOO_MANY)
        exchange.close()
        again = await upstream.next_request()
        assert await again.read(len(sent)) == sent
        await caller.send(b"body"[len(sent) :])
        assert await again.read(4 - len(sent)) == b"body"[len(sent) :]
        await again.send(OK)
        assert (await caller.response()).body == b"ok"


async def test_no_100_is_sent_before_the_permit_is_granted() -> None:
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin, pool_size="1") as proxy,
        await proxy.caller() as first,
        await proxy.caller() as caller,
    ):
        await first.send(request(b"GET", b"/first"))
        before = await upstream.next_request()
        await caller.send(request(b"POST", b"/x", *EXPECT))
        await until(lambda: proxy.waiting == 1)
        await before.respond(OK)
        exchange = await upstream.next_request()
        await exchange.send(CONTINUE)
        assert await caller.head() == CONTINUE
        await caller.send(b"body")
        await exchange.respond(OK)
        assert (await caller.response()).body == b"ok"


async def test_the_proxys_own_429_replaces_the_100_and_closes_the_connection() -> None:
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as first,
        await proxy.caller() as caller,
    ):
        await first.send(request(b"GET", b"/first", b"Prefer: wait=0"))
        await (await upstream.next_request()).respond(TOO_MANY)
        assert (await first.response()).status == 429
        await caller.send(request(b"POST", b"/x", b"Prefer: wait=0", *EXPECT))
        response = await caller.response()
        assert response.status == 429
        assert response.values(b"Connection") == [b"close"]


async def test_an_http_1_0_caller_gets_no_100() -> None:
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        await caller.send(request(b"POST", b"/x", *EXPECT, version=b"HTTP/1.0") + b"b")
        exchange = await upstream.next_request()
        await exchange.send(CONTINUE)
        await caller.send(b"ody")
        await exchange.respond(OK)
        assert (await caller.response()).body == b"ok"
