"""Kept responses are revalidated by ETag, over real sockets at both ends."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from nanonets_proxy.core.coalescing.kept_responses import KeptResponses
from nanonets_proxy.core.keys.api_key import ApiKey
from nanonets_proxy.core.keys.key_records import FoundKey
from nanonets_proxy.keys.change_watch import ChangeWatch, NoChanges
from nanonets_proxy.request.coalescing.whole_body import MAX_WHOLE_BYTES
from support.eventually import until
from support.held_upstream import HeldUpstream
from support.log_capture import captured_log
from support.proxy_harness import RunningProxy, running_proxy, serve_config, with_upstream
from support.raw_caller import RawCaller, RawResponse, request
from support.raw_upstream import ok

DOCUMENT = b"/api/v4/workflows/7/documents/8"
POLL = request(b"GET", DOCUMENT, b"Accept: */*")
BODY = b'{"status":"processing"}'
TAG = b'ETag: "1"'
CONDITION = b'\r\nIf-None-Match: "1"\r\n'
NOT_MODIFIED = b"HTTP/1.1 304 Not Modified\r\n%b\r\n\r\n" % TAG


@asynccontextmanager
async def scene(callers: int, **settings: Any) -> AsyncIterator[tuple[HeldUpstream, RunningProxy, list[RawCaller]]]:
    """Runs an upstream, a proxy that revalidates documents, and callers."""
    settings = {"revalidate": "/api/v4/workflows/{w}/documents/{d}"} | settings
    async with (
        HeldUpstream() as upstream,
        running_proxy(upstream.origin, **settings) as proxy,
        proxy.callers(callers) as connected,
    ):
        yield upstream, proxy, connected


async def exchange(
    upstream: HeldUpstream, caller: RawCaller, sent: bytes, *response: bytes
) -> tuple[bytes, RawResponse]:
    """Sends a request, lets the upstream respond, and returns the upstream's request and the caller's response."""
    before = len(upstream.heads)
    await caller.send(sent)
    await upstream.requests(before + 1)
    await upstream.respond(*response)
    return upstream.heads[before], await caller.response(to_head=sent.startswith(b"HEAD"))


def kept_of(proxy: RunningProxy) -> KeptResponses[Any]:
    kept = proxy.proxy._coalescing_groups.kept
    assert kept is not None
    return kept


def counts(proxy: RunningProxy) -> tuple[float, float]:
    """Returns how many kept responses were unchanged and changed."""
    value = proxy.proxy.metrics.registry.get_sample_value
    name = "nanonets_proxy_revalidations_total"
    return value(name, {"result": "unchanged"}) or 0, value(name, {"result": "changed"}) or 0


@pytest.mark.parametrize("coalesce", [{}, {"coalesce": ""}])
@pytest.mark.parametrize("tag", [b'"1"', b'W/"1"'])
async def test_a_304_brings_the_kept_response(coalesce: dict[str, str], tag: bytes) -> None:
    fields = (b"Content-Type: application/json", b"ETag: " + tag, b"X-A: 1", b"Date: Sun, 29 Nov 2026 12:00:00 GMT")
    later = b"Date: Sun, 29 Nov 2026 12:01:00 GMT"
    with captured_log() as log:
        async with scene(2, **coalesce) as (upstream, proxy, callers):
            sent, first = await exchange(upstream, callers[0], POLL, ok(BODY, *fields))
            assert b"If-None-Match" not in sent
            assert first.body == BODY
            assert first.values(b"Proxy-Status") == []
            answer = b"HTTP/1.1 304 Not Modified\r\n%b\r\nX-A: 2\r\nETag: %b\r\n\r\n" % (later, tag)
            sent, second = await exchange(upstream, callers[1], POLL, answer)
            assert b"\r\nIf-None-Match: %b\r\n" % tag in sent
            assert (second.status_line, second.body) == (b"HTTP/1.1 200 OK", BODY)
            assert second.values(b"Content-Length") == [b"%d" % len(BODY)]
            assert second.value(b"Content-Type") == b"application/json"
            assert second.values(b"Date") == [later.partition(b": ")[2]]
            assert second.values(b"X-A") == [b"2"]
            assert second.values(b"ETag") == [tag]
            assert second.values(b"Proxy-Status") == [b"nanonets-proxy; received-status=304"]
            _, third = await exchange(upstream, callers[0], POLL, NOT_MODIFIED)
            assert third.values(b"X-A") == [b"2"], "the kept response was updated"
            assert counts(proxy) == (2, 0)
    events = log.events("request")
    assert [event["status"] for event in events] == [200, 200, 200]
    assert [event.get("details") for event in events] == [None, {"received_status": 304}, {"received_status": 304}]


async def test_a_changed_response_takes_the_place_of_the_kept_one() -> None:
    async with scene(1) as (upstream, proxy, (caller,)):
        await exchange(upstream, caller, POLL, ok(BODY, TAG))
        sent, second = await exchange(upstream, caller, POLL, ok(b"done", b'ETag: "2"'))
        assert CONDITION in sent
        assert second.body == b"done"
        assert second.values(b"Proxy-Status") == []
        sent, _ = await exchange(upstream, caller, POLL, ok(b"done", b'ETag: "2"'))
        assert b'\r\nIf-None-Match: "2"\r\n' in sent
        assert counts(proxy) == (0, 2)


async def test_nothing_is_kept_or_imported_by_default() -> None:
    async with scene(1, revalidate="") as (upstream, proxy, (caller,)):
        assert proxy.proxy._coalescing_groups.kept is None
        for _ in range(2):
            sent, _ = await exchange(upstream, caller, POLL, ok(BODY, TAG))
            assert b"If-None-Match" not in sent


@pytest.mark.parametrize(
    "other",
    [
        request(b"GET", DOCUMENT + b"?page=2", b"Accept: */*"),
        request(b"GET", DOCUMENT, b"Accept: text/csv"),
        request(b"GET", DOCUMENT, b"Accept: */*", b"Cookie: a=b"),
        request(b"GET", DOCUMENT, b"Accept: */*", b"Range: bytes=0-1"),
        request(b"GET", DOCUMENT, b"Accept: */*", b"Cache-Control: no-store"),
        request(b"GET", DOCUMENT, b"Accept: */*", body=b"body"),
        request(b"GET", b"/api/v4/workflows", b"Accept: */*"),
        request(b"HEAD", DOCUMENT, b"Accept: */*"),
    ],
)
async def test_a_request_that_differs_gets_no_condition(other: bytes) -> None:
    async with scene(1) as (upstream, proxy, (caller,)):
        await exchange(upstream, caller, POLL, ok(BODY, TAG))
        sent, response = await exchange(upstream, caller, other, ok(b"" if other.startswith(b"HEAD") else b"other"))
        assert b"If-None-Match" not in sent
        assert response.status == 200
        sent, _ = await exchange(upstream, caller, POLL, NOT_MODIFIED)
        assert CONDITION in sent, "the other request has not touched the kept response"
        assert counts(proxy) == (1, 0)


async def test_a_condition_of_the_caller_and_its_304_pass_untouched() -> None:
    conditional = request(b"GET", DOCUMENT, b"Accept: */*", b'If-None-Match: "0"')
    async with scene(1) as (upstream, proxy, (caller,)):
        await exchange(upstream, caller, POLL, ok(BODY, TAG))
        sent, response = await exchange(upstream, caller, conditional, NOT_MODIFIED)
        assert sent.count(b"If-None-Match") == 1
        assert b'If-None-Match: "0"' in sent
        assert (response.status, response.body) == (304, b"")
        assert response.values(b"Proxy-Status") == []
        assert counts(proxy) == (0, 0)


@pytest.mark.parametrize(
    "fields",
    [
        (),
        (TAG, b"Cache-Control: no-store"),
        (TAG, b"Cache-Control: private"),
        (TAG, b"Vary: *"),
        (TAG, b"Vary: Accept, X-Request-ID"),
        (TAG, b"Set-Cookie: a=b"),
        (TAG, b"Content-Type: text/event-stream"),
    ],
)
async def test_a_response_that_must_not_be_kept_is_not(fields: tuple[bytes, ...]) -> None:
    async with scene(1) as (upstream, proxy, (caller,)):
        for _ in range(2):
            sent, response = await exchange(upstream, caller, POLL, ok(BODY, *fields))
            assert b"If-None-Match" not in sent
            assert response.body == BODY
        assert kept_of(proxy).bytes == 0


async def test_a_304_that_forbids_keeping_is_the_last_one() -> None:
    forbidding = b'HTTP/1.1 304 Not Modified\r\nETag: "1"\r\nCache-Control: no-store\r\n\r\n'
    async with scene(1) as (upstream, _, (caller,)):
        await exchange(upstream, caller, POLL, ok(BODY, TAG))
        _, response = await exchange(upstream, caller, POLL, forbidding)
        assert (response.status, response.body) == (200, BODY)
        sent, _ = await exchange(upstream, caller, POLL, ok(BODY, TAG))
        assert b"If-None-Match" not in sent


@pytest.mark.parametrize("status", [b"404 Not Found", b"410 Gone", b"301 Moved Permanently"])
async def test_another_status_drops_the_kept_response(status: bytes) -> None:
    async with scene(1) as (upstream, proxy, (caller,)):
        await exchange(upstream, caller, POLL, ok(BODY, TAG))
        gone = b"HTTP/1.1 %b\r\nContent-Length: 0\r\n\r\n" % status
        await exchange(upstream, caller, POLL, gone)
        assert kept_of(proxy).bytes == 0


async def test_a_failure_of_the_upstream_keeps_it() -> None:
    failed = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n"
    async with scene(1, retries="0") as (upstream, _, (caller,)):
        await exchange(upstream, caller, POLL, ok(BODY, TAG))
        _, response = await exchange(upstream, caller, POLL, failed)
        assert response.status == 500
        sent, _ = await exchange(upstream, caller, POLL, NOT_MODIFIED)
        assert CONDITION in sent


@pytest.mark.parametrize("coalesce", [{}, {"coalesce": ""}])
async def test_a_write_drops_the_kept_response_and_one_in_flight(coalesce: dict[str, str]) -> None:
    write = request(b"PATCH", DOCUMENT, body=b"{}")
    async with scene(2, **coalesce) as (upstream, proxy, callers):
        await exchange(upstream, callers[0], POLL, ok(BODY, TAG))
        await callers[0].send(POLL)
        await upstream.requests(2)
        await callers[1].send(write)
        await upstream.requests(3)
        assert kept_of(proxy).bytes == 0
        await upstream.respond(ok(BODY, TAG))
        assert (await callers[0].response()).body == BODY
        await upstream.respond(ok(b"{}"))
        assert (await callers[1].response()).status == 200
        sent, _ = await exchange(upstream, callers[0], POLL, ok(b"new", b'ETag: "2"'))
        assert b"If-None-Match" not in sent


async def test_a_304_after_a_write_still_confirms_what_was_asked() -> None:
    async with scene(2) as (upstream, proxy, callers):
        await exchange(upstream, callers[0], POLL, ok(BODY, TAG))
        await callers[0].send(POLL)
        await upstream.requests(2)
        kept_of(proxy).note_write("PATCH", DOCUMENT.decode())
        await upstream.respond(NOT_MODIFIED)
        response = await callers[0].response()
        assert (response.status, response.body) == (200, BODY)
        assert kept_of(proxy).bytes == 0


async def test_followers_get_the_kept_response_too() -> None:
    async with scene(3) as (upstream, proxy, callers):
        await exchange(upstream, callers[0], POLL, ok(BODY, TAG))
        await callers[0].send(POLL)
        await upstream.requests(2)
        for caller in callers[1:]:
            await caller.send(POLL)
        groups = proxy.proxy._handler._coalescing.groups
        await until(lambda: sum(len(group.followers) for group in groups.sent.values()) == 2)
        await upstream.respond(NOT_MODIFIED)
        for caller in callers:
            response = await caller.response()
            assert (response.status, response.body) == (200, BODY)
            assert response.values(b"Proxy-Status") == [b"nanonets-proxy; received-status=304"]
        assert len(upstream.heads) == 2
        assert counts(proxy) == (1, 0)


async def test_the_request_that_a_response_is_kept_for_takes_room_too() -> None:
    long = request(b"GET", DOCUMENT + b"?q=" + 5000 * b"q", b"Cookie: " + 5000 * b"c")
    async with scene(1) as (upstream, proxy, (caller,)):
        await exchange(upstream, caller, long, ok(BODY, TAG))
        first_bytes = kept_of(proxy).bytes
        assert first_bytes > 10_000
        await exchange(upstream, caller, long, NOT_MODIFIED)
        assert kept_of(proxy).bytes == first_bytes


async def test_no_get_joins_while_a_response_that_may_be_kept_arrives() -> None:
    head, _, body = ok(BODY, TAG).partition(b"\r\n\r\n")
    async with scene(2) as (upstream, proxy, callers):
        await callers[0].send(POLL)
        await upstream.requests(1)
        await upstream.respond(head + b"\r\n\r\n" + body[:5])
        await until(lambda: proxy.proxy._upstream.bodies.memory_bytes == 5)
        await callers[1].send(POLL)
        await upstream.requests(2)
        await upstream.respond(ok(b"newer", TAG))
        assert (await callers[1].response()).body == b"newer"


async def test_a_304_clears_a_doubt_about_the_key() -> None:
    rejected = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n"
    async with scene(2) as (upstream, proxy, callers):
        await exchange(upstream, callers[0], POLL, ok(BODY, TAG))
        await callers[1].send(request(b"GET", b"/api/v4/workflows/9"))
        await upstream.requests(2)
        await upstream.respond(rejected)
        known = proxy.proxy.key_manager._keyring.known
        await until(lambda: known.doubt is not None)
        sent, _ = await exchange(upstream, callers[0], POLL, NOT_MODIFIED)
        assert CONDITION in sent
        assert known.doubt is None
        assert (await callers[1].response()).status == 401


async def test_a_caller_of_http_1_0_gets_a_chunked_response_that_was_kept() -> None:
    chunked = b"HTTP/1.1 200 OK\r\n%b\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n" % TAG
    async with scene(2) as (upstream, _, callers):
        _, first = await exchange(upstream, callers[0], POLL, chunked, b"2\r\nde\r\n0\r\n\r\n")
        _, second = await exchange(upstream, callers[0], POLL, NOT_MODIFIED)
        assert (first.body, second.body) == (b"abcde", b"abcde")
        _, third = await exchange(upstream, callers[1], POLL.replace(b"HTTP/1.1", b"HTTP/1.0"), NOT_MODIFIED)
        assert third.body == b"abcde"


async def test_a_large_response_passes_and_is_not_kept() -> None:
    body = b"x" * (MAX_WHOLE_BYTES + 1)
    chunks = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    chunked = b"HTTP/1.1 200 OK\r\n%b\r\nTransfer-Encoding: chunked\r\n\r\n" % TAG
    async with scene(1) as (upstream, proxy, (caller,)):
        for response in (ok(body, TAG), chunked + chunks):
            sent, relayed = await exchange(upstream, caller, POLL, response)
            assert b"If-None-Match" not in sent
            assert relayed.body == body
        assert kept_of(proxy).bytes == 0
        assert proxy.proxy._upstream.bodies.memory_bytes == 0


async def test_a_response_that_breaks_off_is_an_error_and_not_kept() -> None:
    broken = b"HTTP/1.1 200 OK\r\n%b\r\nContent-Length: 9\r\n\r\nabc" % TAG
    async with scene(1, retries="0") as (upstream, proxy, (caller,)):
        await caller.send(POLL)
        await upstream.requests(1)
        await upstream.respond(broken, close=True)
        assert (await caller.response()).status == 502
        assert kept_of(proxy).bytes == 0
        assert proxy.proxy._upstream.bodies.memory_bytes == 0


async def test_a_refused_attempt_is_sent_again_with_the_condition_that_holds_then() -> None:
    refused = b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n"
    async with scene(1) as (upstream, proxy, (caller,)):
        await exchange(upstream, caller, POLL, ok(BODY, TAG))
        await caller.send(POLL)
        await upstream.requests(2)
        assert CONDITION in upstream.heads[1]
        kept_of(proxy).note_write("PATCH", DOCUMENT.decode())
        await upstream.respond(refused)
        await upstream.requests(3)
        assert b"If-None-Match" not in upstream.heads[2]
        await upstream.respond(ok(b"new", b'ETag: "2"'))
        assert (await caller.response()).body == b"new"


async def test_a_request_id_of_another_request_is_not_repeated() -> None:
    first_id, second_id = b"X-Request-Id: first", b"X-Request-Id: second"
    async with scene(1) as (upstream, _, (caller,)):
        await exchange(upstream, caller, request(b"GET", DOCUMENT, first_id), ok(BODY, TAG, first_id))
        sent, second = await exchange(upstream, caller, request(b"GET", DOCUMENT, second_id), NOT_MODIFIED)
        assert CONDITION in sent
        assert second.values(b"X-Request-Id") == [b"second"]


async def test_a_reload_keeps_them_until_it_empties_the_setting() -> None:
    async with scene(1) as (upstream, proxy, (caller,)):
        await exchange(upstream, caller, POLL, ok(BODY, TAG))
        for revalidate, is_asked in ((DOCUMENT.decode(), True), ("", False), (DOCUMENT.decode(), False)):
            config = with_upstream(serve_config(revalidate=revalidate).environments[0], upstream.origin)
            proxy.proxy.prepare_change(config)()
            sent, _ = await exchange(upstream, caller, POLL, NOT_MODIFIED if is_asked else ok(BODY, b"X-A: 1"))
            assert (CONDITION in sent) is is_asked


@dataclass
class Store:
    """A key source whose key a test changes."""

    key: str
    name: str = "test:store"

    def read(self) -> tuple[FoundKey, ...]:
        return (FoundKey(ApiKey.parse(self.key, "test"), 0.0),)

    def watch(self) -> ChangeWatch:
        return NoChanges()


async def test_another_key_asks_about_no_response_of_the_first_one() -> None:
    store = Store("old")
    async with (
        HeldUpstream() as upstream,
        running_proxy(upstream.origin, store, revalidate=DOCUMENT.decode()) as proxy,
        await proxy.caller() as caller,
    ):
        for is_asked in (False, True):
            sent, _ = await exchange(upstream, caller, POLL, NOT_MODIFIED if is_asked else ok(BODY, TAG))
            assert (CONDITION in sent) is is_asked
        store.key = "new"
        await proxy.proxy.reload()
        sent, response = await exchange(upstream, caller, POLL, ok(b"of another account", TAG))
        assert b"If-None-Match" not in sent
        assert response.body == b"of another account"


async def test_a_lost_caller_leaves_nothing_behind() -> None:
    async with scene(1) as (upstream, proxy, (caller,)):
        await caller.send(POLL)
        await upstream.requests(1)
        caller.close()
        await until(lambda: upstream.lost == 1)
        await asyncio.sleep(0)
        assert kept_of(proxy)._arriving == {}
