"""What Prometheus sees after a scripted run."""

from prometheus_client.parser import text_string_to_metric_families

from support.proxy_harness import RunningProxy, running_proxy, until
from support.raw_caller import RawCaller, request
from support.scripted_upstream import OK, ScriptedUpstream

TOO_MANY = b"HTTP/1.1 429 No\r\nRetry-After: 30\r\nContent-Length: 0\r\n\r\n"
Samples = dict[tuple[str, ...], float]


async def _scrape(proxy: RunningProxy) -> Samples:
    """Values by name and label values, without what the client library measures itself."""
    async with await RawCaller.connect(proxy.admin_address) as admin:
        answer = await admin.get(b"/metrics")
    assert answer.one(b"Content-Type").startswith(b"text/plain; version=")
    return {
        (sample.name.removeprefix("nanonets_proxy_"), *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(answer.body.decode())
        for sample in family.samples
        if sample.name.startswith("nanonets_proxy_")
    }


async def test_counters_and_gauges_tell_what_happened() -> None:
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin, max_wait="60s") as proxy,
        await proxy.caller() as caller,
        await proxy.caller() as held,
        await proxy.caller() as gone,
    ):
        before = await _scrape(proxy)
        assert before["ready",] == 1
        assert before["upstream_throttled_total",] == before["upstream_retries_total",] == 0

        for _ in range(2):
            await caller.send(request(b"GET", b"/x"))
            await (await upstream.next_request()).answer(OK)
            await caller.answer()
        assert (await _scrape(proxy))["idle_upstream_connections",] == 1
        await gone.send(request(b"PUT", b"/x", body=b"abc"))
        exchange = await upstream.next_request()
        assert (await _scrape(proxy))["in_flight",] == 1
        assert (await _scrape(proxy))["body_memory_bytes",] == 3
        gone.close()
        await exchange.ended()
        await proxy.check_idle()

        await held.send(request(b"POST", b"/x", body=b"12345"))
        await (await upstream.next_request()).answer(TOO_MANY)
        await until(lambda: proxy.waiting == 1)
        during = await _scrape(proxy)
        assert (during["waiting",], during["in_flight",], during["closed_scopes",]) == (1, 0, 1)
        assert 28 < during["cooldown_seconds",] <= 30
        assert during["body_memory_bytes",] == 5
        assert during["upstream_throttled_total",] == 1

        await caller.send(request(b"GET", b"/x", b"Prefer: wait=0"))
        assert (await caller.answer()).status == 429
        held.close()
        await proxy.check_idle()
        after = await _scrape(proxy)
        assert {key: value for key, value in after.items() if key[0] == "requests_total"} == {
            ("requests_total", "GET", "2xx"): 2,
            ("requests_total", "GET", "4xx"): 1,
            ("requests_total", "PUT", "gone"): 1,
            ("requests_total", "POST", "gone"): 1,
        }
        assert after["queue_seconds_count",] == 5
        assert after["upstream_seconds_count",] == 3  # those that got an answer's head


async def test_a_repeat_on_a_fresh_connection_is_counted() -> None:
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        await caller.send(request(b"GET", b"/1"))
        await (await upstream.next_request()).answer(OK)
        await caller.answer()
        await caller.send(request(b"GET", b"/2"))
        (await upstream.next_request()).close()
        await (await upstream.next_request()).answer(OK)
        await caller.answer()
        assert (await _scrape(proxy))["upstream_retries_total",] == 1


async def test_callers_cannot_make_labels() -> None:
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        for method in (b"PROPFIND", b"REPORT", b"LINK"):
            await caller.send(request(method, b"/api/v2/OCR/Model/" + method))
            await (await upstream.next_request()).answer(b"HTTP/1.1 599 Odd\r\nContent-Length: 0\r\n\r\n")
            await caller.answer()
        await caller.send(b"rubbish\r\n\r\n")
        await caller.answer()
        samples = await _scrape(proxy)
        assert {key for key in samples if key[0] == "requests_total"} == {
            ("requests_total", "other", "5xx"),
            ("requests_total", "other", "4xx"),
        }
        assert not any("Model" in label or "LINK" in label for key in samples for label in key)
