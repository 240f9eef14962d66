"""A 429 of the upstream: the request is held, and sent again when its scope opens."""

import asyncio
import gzip
import json
import time
import zlib

import pytest

from nanonets_proxy.core.status.document import State
from support.eventually import until
from support.proxy_harness import running_proxy
from support.raw_caller import RawResponse, chunked, request
from support.scripted_upstream import OK, ScriptedUpstream

HINT = json.dumps({"code": "rate_limit_exceeded", "details": {"retry_after": 0.2}}).encode()


def too_many(body: bytes = b"", *lines: bytes) -> bytes:
    head = [b"HTTP/1.1 429 Too Many Requests", *lines, b"Content-Length: %d" % len(body), b"", body]
    return b"\r\n".join(head)


SOON = too_many(HINT)
LATER = too_many(b"", b"Retry-After: 30")


@pytest.mark.parametrize(
    ("refusal", "least_s"),
    [
        (SOON, 0.2),
        (too_many(gzip.compress(HINT), b"Content-Encoding: gzip"), 0.2),
        (too_many(zlib.compress(HINT), b"Content-Encoding: deflate"), 0.2),
        (too_many(HINT, b"Retry-After: 1"), 1.0),
        (too_many(b"", b"Retry-After: 1"), 1.0),
        (b"HTTP/1.1 429 No\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(HINT[:9], HINT[9:]), 0.2),
        (too_many(b"slow down"), 1.0),
    ],
    ids=["body", "gzip", "deflate", "the_larger_of_both", "header", "chunked", "no_hint"],
)
async def test_a_refused_request_is_held_as_long_as_the_hint_says_and_sent_again(
    refusal: bytes, least_s: float
) -> None:
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        await caller.send(request(b"POST", b"/api/v4/x", b"X-Request-Id: one", body=b"abc"))
        first = await upstream.next_request()
        await first.respond(refusal)
        refused_s = time.monotonic()
        second = await upstream.next_request()
        assert time.monotonic() - refused_s >= least_s - 0.01
        await second.respond(OK)
        assert (await caller.response()).body == b"ok"
        assert (first.head, first.body) == (second.head, second.body)
        await proxy.check_idle()


@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize(("body_memory", "is_spooled"), [("1MiB", False), ("64KiB", True)])
async def test_the_body_is_sent_again_from_memory_or_disk(framing: str, body_memory: str, is_spooled: bool) -> None:
    body = bytes(range(256)) * 2000
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin, body_memory=body_memory) as proxy,
        await proxy.caller() as caller,
    ):
        if framing == "length":
            await caller.send(request(b"POST", b"/x", body=body))
        else:
            await caller.send(request(b"POST", b"/x", b"Transfer-Encoding: chunked") + chunked(body))
        first = await upstream.next_request()
        await first.respond(SOON)
        assert first.body == body
        await until(lambda: proxy.waiting == 1)
        assert proxy.kept_bytes == len(body)
        assert (proxy.spool_bytes > 0) is is_spooled
        second = await upstream.next_request()
        await second.respond(OK)
        assert second.body == body
        assert (await caller.response()).body == b"ok"
        await proxy.check_idle()


async def test_an_upload_refused_half_way_is_sent_again_whole() -> None:
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        await caller.send(request(b"POST", b"/x", b"Content-Length: 6") + b"abc")
        first = await upstream.next_request()
        await first.read(3)
        await first.send(SOON)
        await first.read_to_end()
        await caller.send(b"def")
        second = await upstream.next_request()
        await second.respond(OK)
        assert second.body == b"abcdef"
        assert (await caller.response()).body == b"ok"


@pytest.mark.parametrize("pool_size", [256, 1])
async def test_one_probe_reopens_the_scope_and_requests_leave_in_order_of_arrival(pool_size: int) -> None:
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin, pool_size=pool_size, max_wait="10m") as proxy,
        proxy.callers(4) as callers,
    ):
        await callers[0].send(request(b"POST", b"/0", body=b"body 0"))
        await (await upstream.next_request()).respond(LATER)
        await until(lambda: proxy.waiting == 1)
        for number, caller in enumerate(callers[1:], 1):
            await caller.send(request(b"POST", b"/%d" % number, body=b"body %d" % number))
            await until(lambda number=number: proxy.waiting == number + 1)
        proxy.proxy._gate.note_sleep(30.0)  # the scope opens only now that all of them wait
        proxy.room.poll()
        responses = [asyncio.create_task(caller.response()) for caller in callers]
        probe = await upstream.next_request()
        assert (proxy.in_flight, proxy.waiting) == (1, 3)
        await probe.respond(OK)
        served = [probe.body]
        for _ in range(3):
            exchange = await upstream.next_request()
            await exchange.respond(OK)
            served.append(exchange.body)
        # Requests that are in flight at the same time may overtake each other on their connections.
        assert (served if pool_size == 1 else sorted(served)) == [b"body 0", b"body 1", b"body 2", b"body 3"]
        assert [response.status for response in await asyncio.gather(*responses)] == [200] * 4


async def test_a_refused_probe_closes_the_scope_again() -> None:
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        await caller.send(request(b"GET", b"/x"))
        for _ in range(3):
            await (await upstream.next_request()).respond(SOON)
        await (await upstream.next_request()).respond(OK)
        assert (await caller.response()).body == b"ok"
        assert len(upstream.requests) == 4


async def test_a_429_to_a_body_too_large_to_keep_is_relayed_with_its_hint_as_a_field() -> None:
    body = bytes(100_000)
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin, replay_limit="64KiB") as proxy,
        await proxy.caller() as caller,
    ):
        await caller.send(request(b"POST", b"/x", body=body))
        await (await upstream.next_request()).respond(SOON)
        response = await caller.response()
        assert response.status == 429
        assert response.body == HINT
        assert response.values(b"Retry-After") == [b"1"]
        (mark,) = response.values(b"Proxy-Status")
        assert mark == b'nanonets-proxy; received-status=429; details="body_copy_discarded: replay_limit"'
        await proxy.check_idle()


@pytest.mark.parametrize(
    "body", [b"not gzip", gzip.compress(HINT, mtime=0)[:20], b""], ids=["not gzip", "cut off", "empty"]
)
async def test_a_429_whose_compression_is_broken_has_no_hint(body: bytes) -> None:
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin, replay_limit="64KiB") as proxy,
        await proxy.caller() as caller,
    ):
        await caller.send(request(b"POST", b"/x", body=bytes(100_000)))
        await (await upstream.next_request()).respond(too_many(body, b"Content-Encoding: gzip"))
        response = await caller.response()
        assert (response.status, response.body) == (429, body)
        assert not response.values(b"Retry-After")


async def test_the_upstreams_own_retry_after_is_not_repeated() -> None:
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin, replay_limit="64KiB") as proxy,
        await proxy.caller() as caller,
    ):
        await caller.send(request(b"POST", b"/x", body=bytes(100_000)))
        await (await upstream.next_request()).respond(too_many(HINT, b"Retry-After: 7"))
        assert (await caller.response()).values(b"Retry-After") == [b"7"]


async def test_a_large_429_is_relayed_whole() -> None:
    page = HINT + b" " * 200_000
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin, replay_limit="64KiB") as proxy,
        await proxy.caller() as caller,
    ):
        await caller.send(request(b"POST", b"/x", body=bytes(100_000)))
        await (await upstream.next_request()).respond(too_many(page))
        response = await caller.response()
        assert response.body == page


async def test_a_429_whose_body_breaks_off_still_counts_as_a_429() -> None:
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        await caller.send(request(b"POST", b"/x", body=b"abc"))
        exchange = await upstream.next_request()
        await exchange.send(b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\nContent-Length: 100\r\n\r\n{")
        exchange.close()
        second = await upstream.next_request()
        await second.respond(OK)
        assert second.body == b"abc"
        assert (await caller.response()).body == b"ok"


def _assert_relayed(
    response: RawResponse, reason: str, retry_after: range, *, own: bool, body: bytes = b""
) -> None:
    """Checks that a caller that waited in vain got the upstream's 429, with our mark and our forecast."""
    assert (response.status, response.body) == (429, body)
    (seconds,) = response.values(b"Retry-After")
    assert int(seconds) in retry_after
    how = b"received-status=429" if own else b"error=http_request_error"
    mark = b'nanonets-proxy; %b; details="rate_limit_exceeded: %b"' % (how, reason.encode())
    assert response.values(b"Proxy-Status") == [mark]


def _assert_rate_limited(response: RawResponse, reason: str, retry_after: range) -> None:
    assert response.status == 429
    assert response.json()["code"] == "rate_limit_exceeded"
    details = response.json()["details"]
    assert details["reason"] == reason
    assert details["retry_after"] in retry_after
    assert response.value(b"Retry-After") == b"%d" % details["retry_after"]
    assert response.value(b"Proxy-Status") == (
        b'nanonets-proxy; error=connection_limit_reached; details="rate_limit_exceeded: %b"' % reason.encode()
    )


@pytest.mark.parametrize("prefer", [b"Prefer: wait=0", b"Prefer: respond-async, wait=1"])
async def test_a_caller_that_cannot_wait_long_enough_gets_its_429_at_once(prefer: bytes) -> None:
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        await caller.send(request(b"GET", b"/x", prefer))
        await (await upstream.next_request()).respond(too_many(HINT, b"Retry-After: 8"))
        _assert_relayed(await caller.response(), "cannot_be_in_time", range(7, 9), own=True, body=HINT)
        await caller.send(request(b"GET", b"/x", prefer))
        _assert_relayed(await caller.response(), "cannot_be_in_time", range(7, 9), own=False, body=HINT)
        assert len(upstream.requests) == 1
        await proxy.check_idle()


async def test_a_hint_beyond_the_longest_wait_fails_all_waiting_requests() -> None:
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin, max_wait="1s") as proxy,
        await proxy.caller() as first,
        await proxy.caller() as second,
    ):
        await first.send(request(b"GET", b"/1"))
        await (await upstream.next_request()).respond(SOON)
        await until(lambda: proxy.waiting == 1)
        await second.send(request(b"GET", b"/2"))
        for _ in range(2):  # the second request tells whether the hint concerns only the first one
            await (await upstream.next_request()).respond(LATER)
        _assert_relayed(await first.response(), "quota_used_up", range(29, 32), own=True)
        _assert_relayed(await second.response(), "quota_used_up", range(29, 32), own=True)


@pytest.mark.parametrize("seconds", [0, 5])
async def test_a_preference_for_a_shorter_wait_is_confirmed(seconds: int) -> None:
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        for prefer, applied in [(seconds, [b"wait=%d" % seconds]), (3600, [])]:
            await caller.send(request(b"GET", b"/x", b"Prefer: wait=%d" % prefer))
            exchange = await upstream.next_request()
            await exchange.respond(OK)
            assert (await caller.response()).values(b"Preference-Applied") == applied
            assert b"Prefer: wait=%d" % prefer in exchange.lines


async def test_a_full_queue_rejects_a_request_and_names_its_position() -> None:
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin, max_waiting=2, max_wait="1h") as proxy,
        proxy.callers(2) as callers,
        await proxy.caller() as late,
    ):
        await callers[0].send(request(b"GET", b"/x"))
        await (await upstream.next_request()).respond(too_many(b"", b"Retry-After: 600"))
        await until(lambda: proxy.waiting == 1)
        await callers[1].send(request(b"GET", b"/x"))
        await until(lambda: proxy.waiting == 2)
        await late.send(request(b"GET", b"/x"))
        response = await late.response()
        _assert_rate_limited(response, "queue_full", range(540, 601))
        assert response.json()["details"]["position"] == 3


@pytest.mark.parametrize(
    ("setting", "reason", "start", "name"),
    [
        ("max_waiting", "queue_full", "The queue is", "max_waiting (1)"),
        ("max_waiting_per_caller", "queue_full_for_caller", "The queue of a caller was", "max_waiting_per_caller"),
    ],
)
async def test_refusals_of_a_full_queue_are_the_state_and_the_rate_limit_its_cause(
    setting: str, reason: str, start: str, name: str
) -> None:
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin, **{setting: 1}) as proxy,
        await proxy.caller() as held,
        await proxy.caller() as late,
    ):
        await held.send(request(b"GET", b"/x"))
        await (await upstream.next_request()).respond(LATER.replace(b"30", b"9"))
        await until(lambda: proxy.waiting == 1)
        for _ in range(3):
            _assert_rate_limited(await late.get(b"/x"), reason, range(1, 11))
        refused = f"3 of 3 requests in the last 20 s were refused, because {name} lets no more wait"
        assert proxy.proxy.status(1).state == State("queue_full", "limit", f"{start} full: {refused}.")


async def test_refusals_while_all_places_were_in_flight_have_the_proxy_as_their_cause_afterwards_too() -> None:
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin, max_waiting=1, pool_size=1) as proxy,
        proxy.callers(2) as callers,
        await proxy.caller() as late,
    ):
        await callers[0].send(request(b"GET", b"/x"))
        first = await upstream.next_request()
        await callers[1].send(request(b"GET", b"/x"))
        await until(lambda: proxy.waiting == 1)
        for _ in range(3):
            assert (await late.get(b"/x")).status == 429
        assert proxy.proxy.status(1).state.sentence.startswith("The queue is full: 3 of 3 requests")
        await first.respond(OK)
        await (await upstream.next_request()).respond(OK)
        assert [(await caller.response()).status for caller in callers] == [200, 200]
        state = proxy.proxy.status(1).state
        assert (state.code, state.cause) == ("queue_full", "proxy")
        assert state.sentence.startswith("The queue was full: 3 of 5 requests")


async def test_a_closed_scope_does_not_delay_other_scopes() -> None:
    predict = b"/api/v2/OCR/Model/%b/LabelFile/?async=true"
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as held,
        await proxy.caller() as caller,
    ):
        await held.send(request(b"POST", predict % b"a", body=b"x"))
        await (await upstream.next_request()).respond(LATER.replace(b"30", b"9"))
        await until(lambda: proxy.waiting == 1)
        for method, path in [
            (b"POST", predict % b"b"),
            (b"GET", predict % b"a"),
            (b"GET", b"/api/v2/Inferences/Model/a/ImageLevelInferences"),
            (b"GET", b"/api/v4/workflows"),
        ]:
            await caller.send(request(method, path))
            await (await upstream.next_request()).respond(OK)
            assert (await caller.response()).status == 200
        assert proxy.waiting == 1
        held.close()


async def test_no_more_requests_are_in_flight_than_the_pool_has_connections() -> None:
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin, pool_size=2) as proxy,
        proxy.callers(5) as callers,
    ):
        for caller in callers:
            await caller.send(request(b"GET", b"/x"))
        exchanges = [await upstream.next_request() for _ in range(2)]
        await until(lambda: proxy.waiting == 3)
        assert len(upstream.requests) == proxy.in_flight == 2
        while exchanges:
            await exchanges.pop(0).respond(OK)
            if len(upstream.requests) < 5:
                exchanges.append(await upstream.next_request())
        assert [(await caller.response()).status for caller in callers] == [200] * 5
