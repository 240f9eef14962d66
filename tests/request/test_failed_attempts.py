"""Temporary failures of the upstream: which requests are retried, and what their callers see."""

import socket

import pytest

from nanonets_proxy.core.net.addresses import Origin
from support.eventually import until
from support.log_capture import captured_log
from support.proxy_harness import running_proxy
from support.raw_caller import request
from support.scripted_upstream import OK, Exchange, Script, ScriptedUpstream, responding

FAST = {"retries": 2, "retry_backoff": "1ms"}


def failing(*failures: bytes | None) -> Script:
    """Fails once per failure, None by closing without a response; then responds with OK."""
    left = list(failures)

    async def script(exchange: Exchange) -> None:
        failure = left.pop(0) if left else OK
        if failure is None:
            await exchange.read_body()
            exchange.close()
        else:
            await exchange.respond(failure)

    return script


def status(line: bytes, *fields: bytes) -> bytes:
    return b"\r\n".join([b"HTTP/1.1 " + line, b"Content-Length: 4", *fields, b"", b"fail"])


FAILURES = [status(b"502 Bad Gateway"), status(b"503 Service Unavailable"), status(b"504 Gateway Timeout"), None]


@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"OPTIONS"])
@pytest.mark.parametrize("failure", FAILURES)
async def test_a_safe_request_is_retried_and_server_timing_says_so(method: bytes, failure: bytes | None) -> None:
    async with (
        ScriptedUpstream(failing(failure, failure)) as upstream,
        running_proxy(upstream.origin, **FAST) as proxy,
        await proxy.caller() as caller,
    ):
        await caller.send(request(method, b"/x"))
        response = await caller.response(to_head=method == b"HEAD")
        assert response.status == 200
        assert b", retry;dur=" in response.value(b"Server-Timing")
        assert response.value(b"Server-Timing").endswith(b';desc="2"')
        assert len(upstream.requests) == 3
        assert proxy.proxy.metrics.registry.get_sample_value("nanonets_proxy_upstream_retries_total") == 2


async def test_an_upstream_that_fails_at_first_is_the_state_although_each_request_succeeds() -> None:
    failed = status(b"503 Busy")
    with captured_log() as log:
        async with (
            ScriptedUpstream(failing(None, OK, failed, OK, failed, OK)) as upstream,
            running_proxy(upstream.origin, **FAST) as proxy,
            await proxy.caller() as caller,
        ):
            for _ in range(3):
                assert (await caller.get(b"/x")).status == 200
            state = proxy.proxy.status(1).state
    assert (state.code, state.cause) == ("attempts_failing", "upstream")
    assert state.sentence == (
        "Nanonets fails at first: 3 of 3 requests in the last 20 s were sent again (upstream_503)."
    )
    after = [event["retried_after"] for event in log.events("request")]
    assert after == ["upstream_closed", "upstream_503", "upstream_503"]


@pytest.mark.parametrize("line", [b"503 Busy", b"429 Too Many Requests"])
async def test_a_page_of_html_that_no_caller_gets_is_an_alert_and_does_not_count_in_the_state(line: bytes) -> None:
    page = status(line, b"Content-Type: text/html", b"Retry-After: 0")
    async with (
        ScriptedUpstream(failing(page, OK)) as upstream,
        running_proxy(upstream.origin, **FAST) as proxy,
        await proxy.caller() as caller,
    ):
        assert (await caller.get(b"/api/v4/workflows")).status == 200
        (problem,) = proxy.proxy.status(9).problems
        assert (problem.kind, problem.what, problem.times) == ("unexpected_response", "html", 1)
        assert proxy.proxy._recent.ring.latest().unexpected == 0


@pytest.mark.parametrize("method", [b"POST", b"PUT", b"PATCH", b"DELETE", b"PROPFIND"])
@pytest.mark.parametrize("failure", FAILURES)
async def test_any_other_request_that_may_have_arrived_is_sent_once(method: bytes, failure: bytes | None) -> None:
    async with (
        ScriptedUpstream(failing(failure)) as upstream,
        running_proxy(upstream.origin, **FAST) as proxy,
        await proxy.caller() as caller,
    ):
        await caller.send(request(method, b"/x", body=b"abc"))
        response = await caller.response()
        assert response.status == (502 if failure is None else int(failure[9:12]))
        assert response.body == b"fail" if failure else b"upstream_closed" in response.body
        assert len(upstream.requests) == 1


@pytest.mark.parametrize(("method", "status"), [(b"GET", 200), (b"DELETE", 200), (b"POST", 502)])
async def test_an_idempotent_request_lost_on_a_reused_connection_is_sent_again(method: bytes, status: int) -> None:
    async with (
        ScriptedUpstream(failing(OK, None)) as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        assert (await caller.get(b"/x")).status == 200
        await caller.send(request(method, b"/x", body=b"abc"))
        assert (await caller.response()).status == status
        assert len(upstream.requests) == 2 + (status == 200)
        retries = proxy.proxy.metrics.registry.get_sample_value("nanonets_proxy_upstream_retries_total")
        assert retries == (status == 200)


async def test_the_last_failure_is_relayed_unchanged() -> None:
    last = status(b"503 Busy", b"X-Last: 1")
    async with (
        ScriptedUpstream(failing(None, status(b"502 Bad Gateway"), last)) as upstream,
        running_proxy(upstream.origin, **FAST) as proxy,
        await proxy.caller() as caller,
    ):
        response = await caller.get(b"/x")
        assert response.status_line == b"HTTP/1.1 503 Busy"
        assert response.value(b"X-Last") == b"1"
        assert response.body == b"fail"
        assert len(upstream.requests) == 3


@pytest.mark.parametrize(
    ("overrides", "line", "fields"),
    [
        ({"retries": 0}, b"503 Busy", ()),
        ({}, b"503 Busy", (b"Retry-After: 60",)),
        ({}, b"500 Broken", ()),
        ({}, b"404 Not Found", ()),
        ({"retry_backoff": "5s"}, b"503 Busy", (b"Prefer: wait=0",)),
    ],
)
async def test_a_failed_request_without_a_possible_retry_is_sent_once(
    overrides: dict[str, object], line: bytes, fields: tuple[bytes, ...]
) -> None:
    prefer = [field for field in fields if field.startswith(b"Prefer")]
    response_fields = [field for field in fields if not field.startswith(b"Prefer")]
    async with (
        ScriptedUpstream(failing(status(line, *response_fields))) as upstream,
        running_proxy(upstream.origin, **(FAST | overrides)) as proxy,
        await proxy.caller() as caller,
    ):
        response = await caller.get(b"/x", *prefer)
        assert response.status_line == b"HTTP/1.1 " + line
        assert b"retry" not in response.value(b"Server-Timing")
        assert len(upstream.requests) == 1


async def test_a_post_that_could_not_be_sent_is_retried_until_the_upstream_listens() -> None:
    with socket.socket() as kept_free:
        kept_free.bind(("127.0.0.1", 0))  # reserves the port; nobody listens there
        port = kept_free.getsockname()[1]
        async with (
            running_proxy(Origin("http", "127.0.0.1", port), retries=10, retry_backoff="20ms") as proxy,
            await proxy.caller() as caller,
        ):
            await caller.send(request(b"POST", b"/x", body=b"abc"))
            retried = "nanonets_proxy_upstream_retries_total"
            await until(lambda: bool(proxy.proxy.metrics.registry.get_sample_value(retried)))
            kept_free.close()
            async with ScriptedUpstream(responding(OK), port=port) as upstream:
                assert (await caller.response()).status == 200
                assert upstream.requests[0].body == b"abc"
                assert len(upstream.requests) == 1


async def test_a_caller_that_hangs_up_during_the_pause_ends_its_request() -> None:
    async with (
        ScriptedUpstream(failing(None)) as upstream,
        running_proxy(upstream.origin, retries=1, retry_backoff="10m") as proxy,
    ):
        proxy.proxy._handler._services.retries._chance = lambda: 1.0
        async with await proxy.caller() as caller:
            await caller.send(request(b"GET", b"/x"))
            retried = "nanonets_proxy_upstream_retries_total"
            await until(lambda: proxy.proxy.metrics.registry.get_sample_value(retried) == 1)
        await proxy.check_idle()
        await until(lambda: not proxy.connections)
        assert len(upstream.requests) == 1
        latest = proxy.proxy._recent.ring.latest()
        assert (latest.gone, latest.retried) == (1, 0)


async def test_the_budget_bounds_the_share_of_retries() -> None:
    async with (
        ScriptedUpstream(responding(status(b"503 Busy"))) as upstream,
        running_proxy(upstream.origin, retry_budget=0.1, **FAST) as proxy,
        await proxy.caller() as caller,
    ):
        for _ in range(100):
            assert (await caller.get(b"/x")).status == 503
        assert 110 <= len(upstream.requests) <= 121
