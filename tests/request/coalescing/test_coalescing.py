"""Identical GETs share one upstream request, over real sockets at both ends."""

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from nanonets_proxy.core.coalescing.groups import Group
from nanonets_proxy.request.coalescing.whole_body import MAX_WHOLE_BYTES
from support.eventually import until
from support.held_upstream import HeldUpstream
from support.log_capture import captured_log
from support.proxy_harness import KEY, RunningProxy, running_proxy, serve_config, with_upstream
from support.raw_caller import RawCaller, RawResponse, request
from support.raw_upstream import ok

DOCUMENT = b"/api/v4/workflows/7/documents/8"
POLL = request(b"GET", DOCUMENT, b"Accept: */*")
BODY = b'{"status":"processing"}'


@asynccontextmanager
async def scene(callers: int, **settings: Any) -> AsyncIterator[tuple[HeldUpstream, RunningProxy, list[RawCaller]]]:
    """Runs an upstream, a proxy with these settings, and callers."""
    async with (
        HeldUpstream() as upstream,
        running_proxy(upstream.origin, **settings) as proxy,
        proxy.callers(callers) as connected,
    ):
        yield upstream, proxy, connected


def joined(proxy: RunningProxy) -> int:
    """Returns how many GETs follow another one now."""
    groups = {*proxy.proxy._handler._coalescing.groups.sent.values()}
    groups |= {*proxy.proxy._handler._coalescing.groups._waiting.values()}
    return sum(len(group.followers) for group in groups)


async def follow(proxy: RunningProxy, upstream: HeldUpstream, callers: list[RawCaller], data: bytes = POLL) -> None:
    """Lets the first caller lead, and the others follow."""
    before = joined(proxy)
    await callers[0].send(data)
    await upstream.requests(1)
    for caller in callers[1:]:
        await caller.send(data)
    await until(lambda: joined(proxy) == before + len(callers) - 1)


def reload(proxy: RunningProxy, upstream: HeldUpstream, **settings: Any) -> None:
    """Applies other settings, as a reload does."""
    config = with_upstream(serve_config(**settings).environments[0], upstream.origin)
    proxy.proxy.prepare_change(config)()


def without_timing(response: RawResponse) -> tuple[bytes, list[tuple[bytes, bytes]], bytes]:
    """Returns what must be equal for all callers: all but the time and the request's own id."""
    own = (b"server-timing", b"x-request-id", b"date")
    fields = [(name, value) for name, value in response.fields if name.lower() not in own]
    return response.status_line, fields, response.body


async def test_fifty_pollers_cost_one_get_and_get_the_same_bytes() -> None:
    fields = (
        b"Content-Type: application/json",
        b"X-B: 2",
        b"x-a: 1",
        b"X-B: 3",
        b"Set-Cookie: a=b",
        b'ETag: W/"1"',
    )
    with captured_log() as log:
        async with scene(50) as (upstream, proxy, callers):
            await follow(proxy, upstream, callers)
            assert proxy.in_flight == 1
            await upstream.respond(ok(BODY, *fields, b"Cache-Control: private"))
            responses = [await caller.response() for caller in callers]
            assert len(upstream.heads) == 1
            assert len({str(without_timing(response)) for response in responses}) == 1
            assert len({response.value(b"X-Request-Id") for response in responses}) == 50
            assert [name for name, _ in responses[7].fields if name in (b"X-B", b"x-a")] == [b"X-B", b"x-a", b"X-B"]
            assert b"coalesced" not in responses[0].value(b"Server-Timing")
            assert all(b"coalesced;dur=" in response.value(b"Server-Timing") for response in responses[1:])
            events = log.events("request")
            assert sum(event.get("coalesced", False) for event in events) == 49
            assert sum(event["attempts"] for event in events) == 1
            registry = proxy.proxy.metrics.registry
            assert registry.get_sample_value("nanonets_proxy_coalesced_requests_total") == 49


@pytest.mark.parametrize(
    "second",
    [
        request(b"GET", DOCUMENT + b"?page=2", b"Accept: */*"),
        request(b"GET", DOCUMENT + b"/", b"Accept: */*"),
        request(b"GET", DOCUMENT, b"Accept: application/json"),
        request(b"GET", DOCUMENT, b"Accept: */*", b"Range: bytes=0-1"),
        request(b"GET", DOCUMENT, b"Accept: */*", b'If-None-Match: "1"'),
        request(b"GET", DOCUMENT, b"Accept: */*", b"Cookie: a=b"),
        request(b"GET", DOCUMENT, b"Accept: */*", b"Prefer: wait=5"),
        request(b"GET", b"/api/v4/workflows/7/documents/9", b"Accept: */*"),
        request(b"GET", DOCUMENT, b"Accept: */*", body=b"body"),
        request(b"HEAD", DOCUMENT, b"Accept: */*"),
        request(b"OPTIONS", DOCUMENT, b"Accept: */*"),
    ],
)
async def test_a_request_that_differs_is_sent_by_itself(second: bytes) -> None:
    async with scene(2) as (upstream, proxy, callers):
        await callers[0].send(POLL)
        await upstream.requests(1)
        await callers[1].send(second)
        await upstream.requests(2)
        assert joined(proxy) == 0
        await upstream.respond(ok(BODY))
        await upstream.respond(ok(b"" if second.startswith(b"HEAD") else BODY))
        assert (await callers[0].response()).status == 200
        assert (await callers[1].response(to_head=True)).status == 200


async def test_a_field_that_connection_removes_is_not_compared() -> None:
    accept = b"Accept: text/csv"
    removing = (b"Connection: keep-alive", accept, b"Connection: Accept")
    async with scene(3) as (upstream, proxy, callers):
        await callers[0].send(request(b"GET", DOCUMENT, accept))
        await upstream.requests(1)
        await callers[1].send(request(b"GET", DOCUMENT, *removing))
        await upstream.requests(2)
        assert accept in upstream.heads[0]
        assert accept not in upstream.heads[1]
        await callers[2].send(request(b"GET", DOCUMENT))
        await until(lambda: joined(proxy) == 1)
        for _ in range(2):
            await upstream.respond(ok())
        for caller in callers:
            await caller.response()


@pytest.mark.parametrize("path", [b"/api/v4/workflows", b"/api/v4/workflows/7/documents", DOCUMENT + b"/original"])
async def test_other_paths_are_not_coalesced_by_default(path: bytes) -> None:
    async with scene(2) as (upstream, _proxy, callers):
        for caller in callers:
            await caller.send(request(b"GET", path))
        await upstream.requests(2)
        for _ in callers:
            await upstream.respond(ok())
        for caller in callers:
            await caller.response()


async def test_ids_and_credentials_of_callers_do_not_make_gets_differ() -> None:
    async with scene(2) as (upstream, proxy, callers):
        ids = (b"X-Request-Id: first", b"Authorization: Basic eDo=", b"traceparent: 00-1-2-3", b"b3: 0")
        await callers[0].send(request(b"GET", DOCUMENT, *ids))
        await upstream.requests(1)
        await callers[1].send(request(b"GET", DOCUMENT, b"X-Request-Id: second", b"Authorization: Basic eTo="))
        await until(lambda: joined(proxy) == 1)
        await upstream.respond(ok(BODY, b"x-request-id: first", b"X-Other: first"))
        assert (await callers[0].response()).value(b"X-Request-Id") == b"first"
        second = await callers[1].response()
        assert (second.value(b"x-request-id"), second.value(b"X-Other")) == (b"second", b"first")


@pytest.mark.parametrize("method", [b"POST", b"PUT", b"PATCH", b"DELETE"])
async def test_a_get_after_a_write_has_begun_or_ended_is_sent_by_itself(method: bytes) -> None:
    async with scene(4) as (upstream, _proxy, callers):
        first, writer, second, third = callers
        await first.send(POLL)
        await upstream.requests(1)
        await writer.send(request(method, DOCUMENT + b"/verify", body=b"{}"))
        await upstream.requests(2)
        await second.send(POLL)
        await upstream.requests(3)
        await upstream.respond(ok(b"old"))
        assert (await first.response()).body == b"old"
        await upstream.respond(ok(b"written"))
        assert (await writer.response()).body == b"written"
        await third.send(POLL)
        await upstream.requests(4)
        await upstream.respond(ok(b"in between"))
        await upstream.respond(ok(b"new"))
        assert (await second.response()).body == b"in between"
        assert (await third.response()).body == b"new"


async def test_a_get_after_a_failed_write_is_sent_by_itself() -> None:
    async with scene(3) as (upstream, _proxy, callers):
        writer, first, second = callers
        await writer.send(request(b"DELETE", DOCUMENT))
        await upstream.requests(1)
        await first.send(POLL)
        await upstream.requests(2)
        await upstream.respond(close=True)  # the upstream may have deleted it
        assert (await writer.response()).status == 502
        await second.send(POLL)
        await upstream.requests(3)
        for _ in range(2):
            await upstream.respond(ok())
        for caller in (first, second):
            await caller.response()


async def test_a_get_after_a_write_whose_caller_has_hung_up_is_sent_by_itself() -> None:
    async with scene(3) as (upstream, _proxy, callers):
        writer, first, second = callers
        await writer.send(request(b"DELETE", DOCUMENT))
        await upstream.requests(1)
        await first.send(POLL)
        await upstream.requests(2)
        writer.reset()
        await until(lambda: upstream.lost == 1)  # it may have deleted the document all the same
        await second.send(POLL)
        await upstream.requests(3)
        for _ in range(2):
            await upstream.respond(ok())
        for caller in (first, second):
            await caller.response()


async def test_a_get_after_a_write_that_ended_after_a_reload_is_sent_by_itself() -> None:
    async with scene(4) as (upstream, proxy, callers):
        before, writer, first, second = callers
        await before.send(POLL)
        await upstream.requests(1)
        await writer.send(request(b"DELETE", DOCUMENT))
        await upstream.requests(2)
        reload(proxy, upstream, max_wait="61s")
        await first.send(POLL)
        await upstream.requests(3)
        await upstream.respond(ok(b"old"))
        await upstream.respond(ok(b"deleted"))
        assert (await writer.response()).body == b"deleted"
        await second.send(POLL)
        await upstream.requests(4)
        for _ in range(2):
            await upstream.respond(ok())
        for caller in (before, first, second):
            await caller.response()


async def test_the_request_ends_when_its_last_caller_hangs_up_although_it_joined_after_a_reload() -> None:
    async with scene(2) as (upstream, proxy, callers):
        await follow(proxy, upstream, callers[:1])
        reload(proxy, upstream, max_wait="61s")
        await callers[1].send(POLL)
        await until(lambda: joined(proxy) == 1)
        callers[0].reset()
        await asyncio.sleep(0.02)
        assert (upstream.lost, proxy.in_flight) == (0, 1)
        callers[1].reset()
        await until(lambda: (upstream.lost, proxy.in_flight) == (1, 0))


async def test_nothing_is_kept_of_leaders_that_went_on_without_their_callers() -> None:
    def kept() -> int:
        gc.collect()
        return sum(isinstance(each, Group) for each in gc.get_objects())

    before = kept()
    async with scene(1) as (upstream, proxy, (follower,)):
        for number in range(3):
            async with await proxy.caller() as leader:
                await leader.send(POLL)
                await upstream.requests(number + 1)
                await follower.send(POLL)
                await until(lambda: joined(proxy) == 1)
                leader.reset()
                await asyncio.sleep(0.01)
                await upstream.respond(ok(BODY))
                assert (await follower.response()).body == BODY
        await until(lambda: proxy.in_flight == 0)
        assert kept() == before


async def test_a_get_after_a_write_by_a_job_is_sent_by_itself(tmp_path: Path) -> None:
    async with scene(3, jobs=str(tmp_path / "jobs")) as (upstream, proxy, callers):
        first, writer, second = callers
        await first.send(POLL)
        await upstream.requests(1)
        accepted = await writer.post(DOCUMENT, b"{}", b"Prefer: respond-async")
        assert accepted.status == 202
        await upstream.requests(2)
        await second.send(POLL)
        await upstream.requests(3)
        for _ in range(3):
            await upstream.respond(ok())
        for caller in (first, second):
            await caller.response()
        await until(lambda: proxy.in_flight == 0)


async def test_a_get_after_the_response_has_begun_is_sent_by_itself() -> None:
    async with scene(2) as (upstream, proxy, callers):
        await follow(proxy, upstream, callers[:1])
        await upstream.respond(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n", b"o")
        await callers[0].head()
        await callers[1].send(POLL)
        await upstream.requests(2)
        await upstream.respond(ok())
        assert (await callers[1].response()).body == b"ok"


async def test_a_leader_that_hangs_up_goes_on_for_its_followers() -> None:
    async with scene(3) as (upstream, proxy, callers):
        await follow(proxy, upstream, callers)
        callers[0].reset()
        await asyncio.sleep(0.05)
        assert upstream.lost == 0
        await upstream.respond(ok(BODY))
        for caller in callers[1:]:
            assert (await caller.response()).body == BODY
        assert len(upstream.heads) == 1


async def test_a_waiting_leader_that_hangs_up_keeps_its_place_for_its_followers() -> None:
    settings = {"pool_size": 1}
    async with scene(3, **settings) as (upstream, proxy, (busy, leader, follower)):
        await busy.send(request(b"GET", b"/api/v4/workflows"))
        await upstream.requests(1)
        await leader.send(POLL)
        await until(lambda: proxy.waiting == 1)
        await follower.send(POLL)
        await until(lambda: joined(proxy) == 1)
        leader.reset()
        await asyncio.sleep(0.05)
        assert proxy.waiting == 1
        await upstream.respond(ok())
        await upstream.respond(ok(BODY))
        assert (await follower.response()).body == BODY
        assert len(upstream.heads) == 2


async def test_the_request_ends_when_its_last_caller_hangs_up() -> None:
    async with scene(3) as (upstream, proxy, callers):
        await follow(proxy, upstream, callers)
        for caller in callers[:2]:
            caller.reset()
        await until(lambda: joined(proxy) == 1)
        await asyncio.sleep(0.02)
        assert (upstream.lost, proxy.in_flight) == (0, 1)
        callers[2].reset()
        await until(lambda: (upstream.lost, proxy.in_flight) == (1, 0))


async def test_a_follower_that_hangs_up_changes_nothing_for_the_others() -> None:
    with captured_log() as log:
        async with scene(3) as (upstream, proxy, callers):
            await follow(proxy, upstream, callers)
            callers[1].reset()
            await until(lambda: joined(proxy) == 1)
            await upstream.respond(ok(BODY))
            assert [(await callers[at].response()).body for at in (0, 2)] == [BODY, BODY]
            gone = log.events("request")[0]
            assert (gone["code"], gone["attempts"], gone["status"]) == ("caller_gone", 0, 0)


async def test_a_caller_that_reads_nothing_holds_up_nobody() -> None:
    body = b"x" * (MAX_WHOLE_BYTES - 1)
    async with scene(4) as (upstream, proxy, callers):
        for caller in callers[:3:2]:  # the leader, and a follower
            caller.transport.pause_reading()
        await follow(proxy, upstream, callers)
        await upstream.respond(ok(body))
        assert (await callers[1].response()).body == body
        assert (await callers[3].response()).body == body
        for caller in callers[:3:2]:
            caller.transport.resume_reading()
            assert (await caller.response()).body == body


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
async def test_a_response_that_arrives_in_pieces_is_shared(framing: str) -> None:
    body = b"0123456789" * 20_000
    pieces = [body[at : at + 50_000] for at in range(0, len(body), 50_000)]
    match framing:
        case "length":
            wire = [b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body), *pieces]
        case "chunked":
            chunks = [b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces]
            wire = [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", *chunks, b"0\r\nX-End: 1\r\n\r\n"]
        case _:
            wire = [b"HTTP/1.1 200 OK\r\n\r\n", *pieces]
    async with scene(3) as (upstream, proxy, callers):
        await follow(proxy, upstream, callers)
        await upstream.respond(*wire, close=framing == "close")
        for caller in callers:
            response = await caller.response()
            assert response.body == body
            assert response.trailers == (b"X-End: 1\r\n" if framing == "chunked" else b"")
        assert len(upstream.heads) == 1


@pytest.mark.parametrize("has_length", [True, False])
async def test_followers_of_a_response_that_is_too_large_are_sent_by_themselves(has_length: bool) -> None:
    body = b"x" * (MAX_WHOLE_BYTES + 1)
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    large = ok(body) if has_length else chunked
    async with scene(3) as (upstream, proxy, callers):
        await follow(proxy, upstream, callers)
        await upstream.respond(large)
        await upstream.requests(3)
        for _ in range(2):
            await upstream.respond(large)
        for caller in callers:
            assert (await caller.response()).body == body
        # The next poll need not find out again.
        for caller in callers[:2]:
            await caller.send(POLL)
        await upstream.requests(5)
        for _ in range(2):
            await upstream.respond(ok())
        assert [(await caller.response()).body for caller in callers[:2]] == [b"ok", b"ok"]


async def test_without_memory_for_the_copy_followers_are_sent_by_themselves() -> None:
    settings = {"body_memory": "1KiB", "body_memory_total": "1KiB"}
    async with scene(2, **settings) as (upstream, proxy, callers):
        await follow(proxy, upstream, callers)
        await upstream.respond(ok(b"x" * 2000))
        await upstream.requests(2)
        await upstream.respond(ok(b"y" * 2000))
        assert [(await caller.response()).body[:1] for caller in callers] == [b"x", b"y"]


async def test_an_event_stream_is_not_held() -> None:
    async with scene(2, coalesce="/**") as (upstream, proxy, callers):
        await follow(proxy, upstream, callers)
        stream = ok(b"data: 1\n\n", b"Content-Type: text/event-stream")
        for _ in callers:
            await upstream.respond(stream)
        assert [(await caller.response()).body for caller in callers] == [b"data: 1\n\n"] * 2
        assert len(upstream.heads) == 2


async def test_a_failure_of_the_upstream_is_the_response_to_all() -> None:
    with captured_log() as log:
        async with scene(3) as (upstream, proxy, callers):
            await follow(proxy, upstream, callers)
            await upstream.respond(b"HTTP/1.1 nonsense\r\n\r\n", close=True)
            responses = [await caller.response() for caller in callers]
            assert [(response.status, response.json()["code"]) for response in responses] == [
                (502, "upstream_bad_reply")
            ] * 3
            assert len({response.json()["details"]["request_id"] for response in responses}) == 3
            assert len(upstream.heads) == 1
            assert sum(event["attempts"] for event in log.events("request")) == 1


async def test_a_body_that_breaks_off_is_an_error_for_all() -> None:
    async with scene(2) as (upstream, proxy, callers):
        await follow(proxy, upstream, callers)
        await upstream.respond(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n", b"short", close=True)
        assert [(await caller.response()).json()["code"] for caller in callers] == ["upstream_closed"] * 2


async def test_a_retried_leader_serves_its_followers() -> None:
    settings = {"retries": 1, "retry_backoff": "1ms"}
    async with scene(2, **settings) as (upstream, proxy, callers):
        await follow(proxy, upstream, callers)
        await upstream.respond(ok(b"busy", status=b"503 Service Unavailable"))
        await upstream.requests(2)
        await upstream.respond(ok(BODY))
        assert [(await caller.response()).body for caller in callers] == [BODY, BODY]


async def test_a_refused_leader_waits_once_for_all() -> None:
    refusal = ok(b'{"details":{"retry_after":0.2}}', b"Retry-After: 1", status=b"429 Too Many Requests")
    async with scene(3) as (upstream, proxy, callers):
        await follow(proxy, upstream, callers)
        await upstream.respond(refusal)
        await upstream.requests(2)
        await upstream.respond(ok(BODY))
        assert [(await caller.response()).body for caller in callers] == [BODY] * 3
        assert len(upstream.heads) == 2


async def test_followers_of_a_leader_that_waited_in_vain_wait_for_their_own_time() -> None:
    async with scene(3, pool_size=1) as (upstream, proxy, (busy, leader, follower)):
        await busy.send(request(b"GET", b"/api/v4/workflows"))
        await upstream.requests(1)
        impatient = request(b"GET", DOCUMENT, b"Prefer: wait=3")
        await leader.send(impatient)
        await until(lambda: proxy.waiting == 1)
        await asyncio.sleep(1.5)
        await follower.send(impatient)
        await until(lambda: joined(proxy) == 1)
        assert (await leader.response()).status == 429
        await until(lambda: proxy.waiting == 1)
        assert joined(proxy) == 0
        response = await follower.response()
        assert response.status == 429
        queue_ms = (
            float(response.value(b"Server-Timing").split(b"=")[1].split(b",")[0])
            if response.values(b"Server-Timing")
            else 3000.0
        )
        assert queue_ms >= 2900
        await upstream.respond(ok())
        await busy.response()


async def test_the_waits_of_two_callers_are_not_joined() -> None:
    settings = {"pool_size": 1, "caller_header": "X-Caller"}
    async with scene(3, **settings) as (upstream, proxy, (busy, *callers)):
        await busy.send(request(b"GET", b"/api/v4/workflows"))
        await upstream.requests(1)
        for number, caller in enumerate(callers):
            await caller.send(request(b"GET", DOCUMENT, b"X-Caller: %d" % number))
        await until(lambda: proxy.waiting == 2)
        for _ in range(3):
            await upstream.respond(ok())
        for caller in (busy, *callers):  # either of the waiting ones may have arrived first
            await caller.response()


async def test_a_rejected_key_is_the_response_to_all() -> None:
    async with scene(2) as (upstream, proxy, callers):
        await follow(proxy, upstream, callers)
        await upstream.respond(ok(b"{}", status=b"401 Unauthorized"))
        responses = [await caller.response() for caller in callers]
        assert [response.status for response in responses] == [401, 401]
        assert all(response.values(b"Proxy-Status") for response in responses)


async def test_an_echoed_key_is_blanked_for_all() -> None:
    async with scene(2) as (upstream, proxy, callers):
        await follow(proxy, upstream, callers)
        await upstream.respond(ok(KEY.encode(), b"X-Key: " + KEY.encode(), status=b"404 Not Found"))
        for caller in callers:
            response = await caller.response()
            assert KEY.encode() not in response.head + response.body
            assert response.body == b"*" * len(KEY)


async def test_a_caller_that_may_not_get_the_path_does_not_join() -> None:
    settings = {"policy": "deny GET /api/v4/workflows/7/**"}
    async with scene(1, **settings) as (upstream, _proxy, (caller,)):
        assert (await caller.get(DOCUMENT)).status == 403
        assert upstream.heads == []


@pytest.mark.usefixtures("one_day")
async def test_a_follower_takes_nothing_from_its_daily_budget() -> None:
    settings = {"daily_budget": "3"}
    async with scene(2, **settings) as (upstream, proxy, callers):
        for _ in range(2):
            sent = len(upstream.heads)
            await callers[0].send(POLL)
            await upstream.requests(sent + 1)
            await callers[1].send(POLL)
            await until(lambda: joined(proxy) == 1)
            await upstream.respond(ok())
            assert [(await caller.response()).status for caller in callers] == [200, 200]
        await callers[0].send(POLL)
        await upstream.respond(ok())
        await callers[0].response()
        assert (await callers[0].get(DOCUMENT)).json()["code"] == "daily_budget_used_up"


@pytest.mark.usefixtures("one_day")
async def test_followers_take_nothing_from_a_daily_budget_while_they_wait_either() -> None:
    settings = {"daily_budget": "2"}
    async with scene(5, **settings) as (upstream, proxy, callers):
        await follow(proxy, upstream, callers)
        await upstream.respond(ok())
        assert [(await caller.response()).status for caller in callers] == [200] * 5
        await callers[0].send(POLL)
        await upstream.respond(ok())
        assert (await callers[0].response()).status == 200
        assert (await callers[0].get(DOCUMENT)).json()["code"] == "daily_budget_used_up"


@pytest.mark.usefixtures("one_day")
async def test_followers_that_are_sent_in_the_end_are_counted_within_the_daily_budget() -> None:
    settings = {"daily_budget": "3"}
    large = ok(b"x" * (MAX_WHOLE_BYTES + 1))
    async with scene(5, **settings) as (upstream, proxy, callers):
        await follow(proxy, upstream, callers)
        for _ in range(3):
            await upstream.respond(large)
        responses = [await caller.response() for caller in callers]
        assert sorted(response.status for response in responses) == [200, 200, 200, 429, 429]
        assert {r.json()["code"] for r in responses if r.status == 429} == {"daily_budget_used_up"}
        assert len(upstream.heads) == 3


@pytest.mark.usefixtures("one_day")
async def test_a_follower_without_a_request_left_passes_the_lead_on() -> None:
    settings = {"daily_budget": "2"}
    impatient = request(b"GET", DOCUMENT, b"Prefer: wait=0")
    async with scene(4, **settings) as (upstream, proxy, (other, *callers)):
        await follow(proxy, upstream, callers, impatient)
        await other.send(request(b"GET", b"/api/v4/workflows"))
        await upstream.requests(2)
        await upstream.respond(ok(b"{}", b"Retry-After: 9", status=b"429 Too Many Requests"))
        assert (await callers[0].response()).status == 429
        for caller in callers[1:]:
            assert (await caller.response()).json()["code"] == "daily_budget_used_up"
        assert joined(proxy) == 0
        await upstream.respond(ok())
        await other.response()


async def test_callers_that_share_no_connection_share_no_response() -> None:
    settings = {"pool_per_caller": True, "caller_header": "X-Forwarded-Caller"}
    async with scene(2, **settings) as (upstream, _proxy, callers):
        for number, caller in enumerate(callers):  # X-Forwarded-… is not sent upstream, so the GETs are identical
            await caller.send(request(b"GET", DOCUMENT, b"X-Forwarded-Caller: %d" % number))
        await upstream.requests(2)
        for _ in callers:
            await upstream.respond(ok())
        for caller in callers:
            await caller.response()


async def test_no_path_is_coalesced_if_the_setting_is_empty() -> None:
    async with scene(2, coalesce="") as (upstream, _proxy, callers):
        for caller in callers:
            await caller.send(POLL)
        await upstream.requests(2)
        for _ in callers:
            await upstream.respond(ok())
        for caller in callers:
            await caller.response()


async def test_a_shutdown_ends_a_leader_without_its_caller() -> None:
    async with HeldUpstream() as upstream, running_proxy(upstream.origin) as proxy, AsyncExitStack() as stack:
        callers = [await stack.enter_async_context(await proxy.caller()) for _ in range(2)]
        await follow(proxy, upstream, callers)
        callers[0].reset()
        await asyncio.sleep(0.02)
        await proxy.stop(0.1)
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await callers[1].response()
