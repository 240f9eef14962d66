"""Callers that wait in vain get the upstream's own 429: a quota is used up, or their request is refused alone."""

import asyncio
import gzip
import json

import pytest

from support.eventually import until
from support.log_capture import captured_log
from support.proxy_harness import KEY, running_proxy
from support.raw_caller import RawResponse, request
from support.scripted_upstream import OK, Exchange, ScriptedUpstream

DAILY = b'{"detail":"Daily rate limit exceeded. Please try again tomorrow."}'


def refusal(body: bytes, *lines: bytes) -> bytes:
    return b"\r\n".join([b"HTTP/1.1 429 Too Many", *lines, b"Content-Length: %d" % len(body), b"", body])


def mark(response: RawResponse) -> bytes:
    (value,) = response.values(b"Proxy-Status")
    return value


async def test_a_quota_that_is_used_up_for_long_gets_the_upstreams_429_at_once() -> None:
    quota = refusal(DAILY, b"X-Plan: free", b"Set-Cookie: a=b", b"Content-Type: application/json")
    with captured_log() as log:
        async with (
            ScriptedUpstream() as upstream,
            running_proxy(upstream.origin) as proxy,
            proxy.callers(4) as callers,
        ):
            for caller in callers[:2]:
                await caller.send(request(b"POST", b"/x", body=b"a"))
            for exchange in [await upstream.next_request() for _ in range(2)]:
                await exchange.respond(quota)
            for caller in callers[:2]:
                response = await caller.response()
                assert (response.status, response.body) == (429, DAILY)
                assert response.values(b"X-Plan") == [b"free"]
                assert response.values(b"Set-Cookie") == [b"a=b"]
                assert mark(response).startswith(b"nanonets-proxy; received-status=429")
                assert int(response.value(b"Retry-After")) == 60
            await callers[2].send(request(b"GET", b"/y"))
            await (await upstream.next_request()).respond(quota)
            await callers[2].response()
            await callers[3].send(request(b"GET", b"/z"))
            response = await callers[3].response()
            assert (response.status, response.body) == (429, DAILY)
            assert response.values(b"Content-Type") == [b"application/json"]
            assert response.values(b"Set-Cookie") == []
            assert b"upstream" not in response.value(b"Server-Timing")  # nothing was sent
            assert 50 <= int(response.value(b"Retry-After")) <= 60
            assert mark(response) == (
                b'nanonets-proxy; error=http_request_error; details="rate_limit_exceeded: quota_used_up"'
            )
            await callers[3].send(request(b"HEAD", b"/z"))
            head = await callers[3].head()
            assert b" 429 " in head
            assert len(upstream.requests) == 3
            await proxy.check_idle()
        (used_up,) = log.events("quota_used_up")
        assert (used_up["level"], used_up["scope"], used_up["retry_after_s"]) == ("warning", "account", None)
        assert log.events("limit_closed") == []  # the closure is not over
        assert [event["code"] for event in log.events("request")][-1] == "rate_limit_exceeded"


async def test_the_refusal_of_another_request_has_no_compression_and_no_key() -> None:
    body = gzip.compress(b"not today, " + KEY.encode())
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin) as proxy,
        proxy.callers(3) as callers,
    ):
        for caller in callers[:2]:
            await caller.send(request(b"GET", b"/x"))
            await (await upstream.next_request()).respond(refusal(body, b"Content-Encoding: gzip"))
            await caller.response()
        await callers[2].send(request(b"GET", b"/x"))
        response = await callers[2].response()
        assert response.body == b"not today, " + b"*" * len(KEY)
        assert not response.values(b"Content-Encoding")


async def test_a_body_in_an_unknown_coding_is_not_kept() -> None:
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        await caller.send(request(b"GET", b"/x", b"Prefer: wait=1"))
        coded = refusal(b"?", b"Content-Encoding: br", b"Retry-After: 5")
        await (await upstream.next_request()).respond(coded)
        assert (await caller.response()).json()["details"]["reason"] == "cannot_be_in_time"


async def test_a_request_that_is_always_refused_holds_up_no_other() -> None:
    hint = json.dumps({"details": {"retry_after": 2.5}, "message": "too large"}).encode()
    served = 0

    async def respond(exchange: Exchange) -> None:
        nonlocal served
        refused = b"/large" in exchange.lines[0]
        await exchange.respond(refusal(hint) if refused else OK)
        served += not refused

    async with (
        ScriptedUpstream(respond) as upstream,
        running_proxy(upstream.origin, max_wait="30s") as proxy,
        await proxy.caller() as large,
        await proxy.caller() as caller,
    ):
        await large.send(request(b"POST", b"/large", body=b"x"))
        await until(lambda: proxy.waiting == 1)
        await caller.get(b"/small")
        task = asyncio.create_task(large.response())
        while not task.done():
            assert (await caller.get(b"/small")).status == 200
            await asyncio.sleep(0.02)
        response = await task
        assert (response.status, response.body) == (429, hint)
        assert mark(response) == (
            b'nanonets-proxy; received-status=429; details="rate_limit_exceeded: refused_alone"'
        )
        assert served > 20


@pytest.mark.parametrize("field", [b'RateLimit: "p";r=0;t=1', b'RateLimit-Policy: "p";q=1;w=1'])
async def test_an_announced_limit_needs_no_refusal(field: bytes) -> None:
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        await caller.send(request(b"GET", b"/x"))
        await (await upstream.next_request()).respond(OK.replace(b"\r\n", b"\r\n" + field + b"\r\n", 1))
        await caller.response()
        await caller.send(request(b"GET", b"/x"))
        await until(lambda: proxy.waiting == 1)
        await (await upstream.next_request()).respond(OK)
        assert float((await caller.response()).value(b"Server-Timing").split(b"dur=")[1].split(b",")[0]) > 500
