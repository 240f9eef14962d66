"""Responses that the API does not send: they reach the caller unaltered, and become an alert."""

import gzip
from typing import Any

import pytest

from support.eventually import until
from support.log_capture import LogCapture, captured_log
from support.proxy_harness import KEY, RunningProxy, running_proxy
from support.raw_caller import RawCaller, request
from support.raw_upstream import ok
from support.scripted_upstream import ScriptedUpstream, responding

PATH = b"/api/v4/workflows/secret-id?token=secret"
ROUTE = "/api/v4/workflows/{workflow}"
PORTAL = b"<html><title>Hotel Wi-Fi: sign in</title>" + b" " * 300 + b"</html>"
HTML = b"Content-Type: text/html; charset=utf-8"
JSON = b"Content-Type: application/json"


async def _alerts(proxy: RunningProxy) -> list[dict[str, Any]]:
    async with await RawCaller.connect(proxy.admin_address) as admin:
        return (await admin.get(b"/readyz")).json().get("alerts", [])


async def _counts(proxy: RunningProxy) -> dict[str, float]:
    (family,) = [
        family for family in proxy.proxy.metrics.registry.collect() if family.name == "nanonets_proxy_alerts"
    ]
    return {sample.labels["kind"]: sample.value for sample in family.samples}


def _event(log: LogCapture) -> dict[str, Any]:
    (event,) = log.events("unexpected_response")
    return event


async def test_a_captive_portal_is_an_alert_and_its_page_reaches_the_caller() -> None:
    page = ok(PORTAL, HTML)
    with captured_log() as log:
        async with (
            ScriptedUpstream(responding(page, page)) as upstream,
            running_proxy(upstream.origin) as proxy,
            await proxy.caller() as caller,
        ):
            for _ in range(2):
                response = await caller.get(PATH)
                assert (response.status, response.body) == (200, PORTAL)
            (alert,) = await _alerts(proxy)
            assert await _counts(proxy) == {"html": 2}
    event = _event(log)  # once a minute
    assert (event["level"], event["what"], event["status"], event["route"]) == ("warning", "html", 200, ROUTE)
    assert event["content_type"] == "text/html; charset=utf-8"
    assert event["start"] == "<html><title>Hotel Wi-Fi: sign in</title>"
    assert event["request_id"] == log.events("request")[0]["request_id"]
    assert "captive portal" in event["advice"]
    assert (alert["event"], alert["what"], alert["times"]) == ("unexpected_response", "html", 2)
    assert "secret" not in str(alert)
    assert "secret" not in str(event)


@pytest.mark.parametrize(
    "response",
    [
        ok(b'{"message": "Success"}', JSON),
        ok(b"[]", b"Content-Type: application/json; charset=utf-8", status=b"404 No"),
        ok(b"", JSON, status=b"500 No"),
        ok(b"{}", HTML),
        b"HTTP/1.1 204 No Content\r\nContent-Type: text/html\r\n\r\n",
    ],
)
async def test_what_the_api_may_send_is_no_alert(response: bytes) -> None:
    with captured_log() as log:
        async with (
            ScriptedUpstream(responding(response)) as upstream,
            running_proxy(upstream.origin) as proxy,
            await proxy.caller() as caller,
        ):
            await caller.get(PATH)
            assert await _alerts(proxy) == []
    assert log.events("unexpected_response") == []


@pytest.mark.parametrize("is_split", [False, True], ids=["in one piece", "in pieces"])
async def test_an_error_with_broken_json_is_an_alert(is_split: bool) -> None:
    body = b'{"code": "internal", "message": "half an er'
    whole = ok(body, JSON, status=b"500 No")
    with captured_log() as log:
        async with (
            ScriptedUpstream() as upstream,
            running_proxy(upstream.origin) as proxy,
            await proxy.caller() as caller,
        ):
            await caller.send(request(b"GET", PATH))
            exchange = await upstream.next_request()
            if is_split:
                await exchange.send(whole[:-20])
                await caller.head()
                assert await caller.read(len(body) - 20) == body[:-20]
                await exchange.respond(whole[-20:])
                assert await caller.read(20) == body[-20:]
            else:
                await exchange.respond(whole)
                assert (await caller.response()).body == body
            await proxy.check_idle()
            assert [alert["what"] for alert in await _alerts(proxy)] == ["broken_json"]
    assert _event(log)["start"] == body.decode()


async def test_an_error_with_valid_json_in_pieces_is_no_alert() -> None:
    body = b'{"code": "internal", "message": "an error", "details": {}}'
    whole = ok(body, JSON, status=b"500 No")
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        await caller.send(request(b"GET", PATH))
        exchange = await upstream.next_request()
        await exchange.send(whole[:-20])
        await caller.head()
        await caller.read(len(body) - 20)
        await exchange.respond(whole[-20:])
        assert await caller.read(20) == body[-20:]
        await proxy.check_idle()
        assert await _alerts(proxy) == []


async def test_a_page_after_a_retried_error_is_reported_once() -> None:
    broken = b"HTTP/1.1 503 No\r\n" + JSON + b'\r\nContent-Length: 100\r\n\r\n{"code":'
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin, retries=1) as proxy,
        await proxy.caller() as caller,
    ):
        await caller.send(request(b"GET", PATH))
        await (await upstream.next_request()).respond(broken)
        exchange = await upstream.next_request()
        await exchange.send(b"HTTP/1.1 500 No\r\n" + HTML + b"\r\nContent-Length: 20\r\n\r\n<html>")
        await caller.head()
        await exchange.respond(b"x" * 14)
        assert await caller.read(20) == b"<html>" + b"x" * 14
        await proxy.check_idle()
        assert await _counts(proxy) == {"html": 1}


async def test_a_compressed_page_is_readable_in_the_alert() -> None:
    page = ok(gzip.compress(PORTAL), HTML, b"Content-Encoding: gzip", status=b"503 No")
    with captured_log() as log:
        async with (
            ScriptedUpstream(responding(page)) as upstream,
            running_proxy(upstream.origin) as proxy,
            await proxy.caller() as caller,
        ):
            response = await caller.get(PATH)
            assert gzip.decompress(response.body) == PORTAL
    assert _event(log)["start"].startswith("<html><title>Hotel")


async def test_bytes_that_are_no_http_are_an_alert() -> None:
    with captured_log() as log:
        async with (
            ScriptedUpstream(responding(b"SSH-2.0-OpenSSH_9.2\r\n")) as upstream,
            running_proxy(upstream.origin) as proxy,
            await proxy.caller() as caller,
        ):
            response = await caller.get(PATH)
            assert (response.status, response.json()["code"]) == (502, "upstream_bad_reply")
            assert b"SSH" not in response.body
            assert await _counts(proxy) == {"not_http": 1}
    event = _event(log)
    assert (event["what"], event["start"]) == ("not_http", "SSH-2.0-OpenSSH_9.2")


async def test_a_429_page_is_an_alert_although_the_caller_never_sees_it() -> None:
    refusal = ok(b"<html>Slow down</html>", HTML, b"Retry-After: 0", status=b"429 No")
    async with (
        ScriptedUpstream(responding(refusal, ok(b"{}", JSON))) as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        assert (await caller.get(PATH)).status == 200
        assert await _counts(proxy) == {"html": 1}


async def test_the_alert_shows_no_key() -> None:
    page = ok(b"<p>Bad key " + KEY.encode() + b"</p>", HTML, status=b"403 No")
    garbage = b"Who is " + KEY.encode() + b"?\r\n\r\n"
    with captured_log() as log:
        async with (
            ScriptedUpstream(responding(page, garbage)) as upstream,
            running_proxy(upstream.origin) as proxy,
            await proxy.caller() as caller,
        ):
            await caller.get(PATH)
            await caller.get(PATH)
            alerts = await _alerts(proxy)
    assert {alert["start"] for alert in alerts} == {
        "<p>Bad key " + "*" * len(KEY) + "</p>",
        "Who is " + "*" * len(KEY) + "?",
    }
    assert KEY not in str(log.events("unexpected_response"))


async def test_the_alert_shows_no_part_of_a_key_that_has_not_arrived_whole() -> None:
    page = ok(b"<p>Bad key " + KEY.encode() + b"</p>", HTML)
    with captured_log() as log:
        async with (
            ScriptedUpstream() as upstream,
            running_proxy(upstream.origin) as proxy,
            await proxy.caller() as caller,
        ):
            await caller.send(request(b"GET", PATH))
            exchange = await upstream.next_request()
            await exchange.send(page[:-6])
            await caller.head()
            await exchange.respond(page[-6:])
            await proxy.check_idle()
    assert _event(log)["start"] == "<p>Bad key"


async def test_a_page_is_relayed_as_it_arrives() -> None:
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        await caller.send(request(b"GET", PATH))
        exchange = await upstream.next_request()
        await exchange.send(b"HTTP/1.1 200 OK\r\n" + HTML + b"\r\nContent-Length: 200000\r\n\r\n<html>first")
        await caller.head()
        assert await caller.read(11) == b"<html>first"
        rest = b"x" * (200_000 - 11)
        await exchange.respond(rest)
        assert await caller.read(len(rest)) == rest


async def test_a_401_that_waits_for_a_ruling_counts_once_when_it_is_relayed() -> None:
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin) as proxy,
        proxy.callers(2) as callers,
    ):
        await callers[0].send(request(b"GET", PATH))
        first = await upstream.next_request()
        await callers[1].send(request(b"GET", PATH))
        second = await upstream.next_request()
        await first.respond(ok(PORTAL, HTML, status=b"401 No"))
        await until(lambda: proxy.proxy.status(1).gate.in_flight == 1)
        await second.respond(ok(b"{}", JSON))
        assert (await callers[1].response()).status == 200
        response = await callers[0].response()
        assert (response.status, response.body) == (401, PORTAL)
        assert (await _counts(proxy))["html"] == 1
        assert proxy.proxy._recent.ring.latest().unexpected == 1
