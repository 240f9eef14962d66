"""GET /status of a running proxy."""

import asyncio
import json
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nanonets_proxy.admin.status import MAX_BYTES, StatusReader
from nanonets_proxy.core.status.document import (
    CallerUsage,
    EnvironmentStatus,
    FleetStatus,
    GateStatus,
    JobsStatus,
    KeysStatus,
    LaneEntry,
    Problem,
    RequestCounts,
    ScopeEntry,
    State,
    Usage,
)
from nanonets_proxy.telemetry.ledger import writer
from support.eventually import until
from support.proxy_harness import KEY, RunningProxy, running_proxy
from support.raw_caller import RawCaller, request
from support.raw_upstream import ok
from support.scripted_upstream import Exchange, ScriptedUpstream, responding
from support.telemetry.status_page import adapter

_OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
_NOT_FOUND = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
_REFUSED = b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 5\r\nContent-Length: 0\r\n\r\n"
_HOSTILE = "<img src=x onerror=alert(1)>\"'\x9b31m\u202eé"
_HOSTILE_SHOWN = "<img src=x onerror=alert(1)>\"'\\x9b31m\\u202eé"


async def _status(proxy: RunningProxy) -> dict[str, Any]:
    """Returns the document, which the schema accepts."""
    async with await RawCaller.connect(proxy.admin_address) as admin:
        response = await admin.get(b"/status")
    assert response.status == 200
    assert len(response.body) <= MAX_BYTES
    adapter().validate_json(response.body, strict=True)
    document: dict[str, Any] = json.loads(response.body)
    return document


async def test_an_idle_proxy_is_ready() -> None:
    async with ScriptedUpstream() as upstream, running_proxy(upstream.origin) as proxy:
        document = await _status(proxy)
        assert (document["schema_version"], document["is_shortened"]) == (1, False)
        assert document["state"] == {
            "code": "idle",
            "cause": None,
            "sentence": "Ready: no request is in flight or waits.",
        }
        (environment,) = document["environments"]
        assert (environment["name"], environment["upstream"]) == ("", str(upstream.origin))
        assert environment["gate"]["scopes"] == []
        assert environment["keys"]["keys"][0]["state"] == "candidate"
        assert environment["usage"] is None


async def _respond_after_20_ms(exchange: Exchange) -> None:
    await asyncio.sleep(0.02)
    await exchange.respond(_OK)


async def test_finished_requests_count_at_once() -> None:
    async with (
        ScriptedUpstream(_respond_after_20_ms) as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        for _ in range(3):
            assert (await caller.get(b"/api/v4/workflows")).status == 200
        counts = (await _status(proxy))["environments"][0]["requests"]
        assert (counts["served"][-1], sum(counts["served"])) == (3, 3)
        assert counts["mean_upstream_s"][-1] >= 0.015  # a timer may fire a little early


async def test_an_error_shows_its_caller_and_its_cure_but_not_its_path() -> None:
    async with (
        ScriptedUpstream(responding(_NOT_FOUND)) as upstream,
        running_proxy(upstream.origin, caller_header="x-caller") as proxy,
        await proxy.caller() as caller,
    ):
        await caller.send(request(b"GET", b"/api/v4/secret-path?secret=query", b"X-Caller: billing"))
        assert (await caller.response()).status == 404
        document = await _status(proxy)
        (problem,) = document["environments"][0]["problems"]
        assert (problem["kind"], problem["times"], problem["caller"]) == ("upstream_404", 1, "billing")
        assert "model, workflow or document" in problem["advice"]
        text = json.dumps(document)
        assert "secret" not in text
        assert KEY not in text


async def test_an_alert_shows_its_advice() -> None:
    async with ScriptedUpstream() as upstream, running_proxy(upstream.origin) as proxy:
        proxy.proxy.alerts.report("disk_filled", "make room", free_bytes=0, sentence="0 bytes are free.")
        (problem,) = (await _status(proxy))["environments"][0]["problems"]
        assert (problem["kind"], problem["is_alert"], problem["advice"]) == ("disk_filled", True, "make room")
        assert (problem["sentence"], problem["what"], problem["reason"]) == ("0 bytes are free.", "", "")


@pytest.mark.parametrize("field", ["reason", "error"])
async def test_an_alert_shows_its_reason_bounded_and_without_the_key(field: str) -> None:
    async with ScriptedUpstream() as upstream, running_proxy(upstream.origin) as proxy:
        proxy.proxy.alerts.report("disk_filled", "make room", **{field: f"\udcffkey {KEY} " + "x" * 1000})
        (problem,) = (await _status(proxy))["environments"][0]["problems"]
        assert problem["reason"].startswith("?key [REDACTED] xxx")
        assert len(problem["reason"]) == 200


async def test_an_unexpected_response_shows_its_route_and_its_start() -> None:
    page = b"<html>Sign in to the hotel's Wi-Fi</html>"
    response = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n" % len(page)
    async with (
        ScriptedUpstream(responding(response + page)) as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        await caller.get(b"/api/v4/workflows")
        (problem,) = (await _status(proxy))["environments"][0]["problems"]
    assert problem["reason"] == f"the response to /api/v4/workflows began with {page.decode()}"


async def test_an_alert_with_an_error_and_its_reason_shows_both() -> None:
    async with ScriptedUpstream() as upstream, running_proxy(upstream.origin) as proxy:
        proxy.proxy.alerts.report(
            "away", "look", error="The upstream refused the connection.", reason="ECONNREFUSED"
        )
        (problem,) = (await _status(proxy))["environments"][0]["problems"]
        assert problem["reason"] == "The upstream refused the connection: ECONNREFUSED"


async def test_an_alert_about_a_file_names_it_once() -> None:
    async with ScriptedUpstream() as upstream, running_proxy(upstream.origin) as proxy:
        proxy.proxy.alerts.report("a", "look", path="/x/usage.db", reason="cannot be used: read-only file system")
        proxy.proxy.alerts.report("b", "look", path="/x/jobs", reason="/x/jobs is full")
        proxy.proxy.alerts.report("c", "look", path="/x/pem", sentence="The certificate in /x/pem expires.")
        problems = (await _status(proxy))["environments"][0]["problems"]
        assert {problem["kind"]: problem["reason"] for problem in problems} == {
            "a": "/x/usage.db: cannot be used: read-only file system",
            "b": "/x/jobs is full",
            "c": "",
        }


async def _after_3_requests(response: bytes, path: bytes = b"/api/v4/workflows") -> dict[str, Any]:
    """Returns the status of the environment after three requests with the same response."""
    async with (
        ScriptedUpstream(responding(*[response] * 3)) as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        for _ in range(3):
            await caller.get(path)
        environment: dict[str, Any] = (await _status(proxy))["environments"][0]
    return environment


async def test_a_captive_portal_with_200_is_the_state() -> None:
    environment = await _after_3_requests(ok(b"<html>Sign in</html>", b"Content-Type: text/html"))
    assert environment["state"] == {
        "code": "upstream_failing",
        "cause": "upstream",
        "sentence": "Nanonets does not respond as itself: 3 of 3 requests in the last 20 s got an unexpected "
        "response.",
    }
    (problem,) = environment["problems"]
    assert (problem["kind"], problem["what"], problem["times"]) == ("unexpected_response", "html", 3)


@pytest.mark.parametrize(
    ("response", "path"),
    [
        (ok(b"%PDF-1.7", b"Content-Type: application/pdf"), b"/api/v4/workflows/w/documents/d/original"),
        (ok(b"<html></html>", b"Content-Type: text/html"), b"/a-page"),
        (ok(b"{no JSON", b"Content-Type: application/json", status=b"404 Not Found"), b"/api/v4/workflows"),
    ],
)
async def test_what_the_api_itself_sends_is_not_the_state(response: bytes, path: bytes) -> None:
    assert (await _after_3_requests(response, path))["state"]["code"] == "idle"


async def test_waiting_callers_show_with_the_time_of_the_next_permit() -> None:
    async with (
        ScriptedUpstream(responding(_REFUSED)) as upstream,
        running_proxy(upstream.origin, caller_header="x-caller", max_wait="60s") as proxy,
        AsyncExitStack() as stack,
    ):
        for name in ("a", "a", _HOSTILE):
            caller = await stack.enter_async_context(await proxy.caller())
            await caller.send(request(b"GET", b"/", b"X-Caller: " + name.encode()))
            count = proxy.waiting
            await until(lambda count=count: proxy.waiting > count)
        document = await _status(proxy)
        (environment,) = document["environments"]
        gate = environment["gate"]
        assert (gate["waiting"], gate["waiting_callers"]) == (3, 2)
        assert 0 < gate["next_permit_in_s"] <= gate["scopes"][0]["opens_in_s"] + 0.1
        assert {lane["caller"]: lane["waiting"] for lane in gate["lanes"]} == {"a": 2, _HOSTILE_SHOWN: 1}
        assert environment["state"]["code"] == "waiting_for_upstream"
        assert environment["state"]["sentence"].startswith("Waiting for Nanonets: 2 callers with 3 requests, next")
        assert document["state"] == environment["state"]


@pytest.mark.usefixtures("one_day")
async def test_the_usage_of_today_comes_from_the_ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "_MAINTENANCE_INTERVAL_S", 0.0)
    async with (
        ScriptedUpstream(responding(_OK)) as upstream,
        running_proxy(upstream.origin, caller_header="x-caller", ledger=str(tmp_path / "usage.db")) as proxy,
        await proxy.caller() as caller,
    ):
        for _ in range(2):
            await caller.send(request(b"GET", b"/", "X-Caller: é".encode()))
            assert (await caller.response()).status == 200
        usage = proxy.program.usage
        assert usage is not None
        await until(lambda: [tuple(each) for each in usage.ledger.usage_today("")] == [("é", 2, 0)])
        (own,) = (await _status(proxy))["environments"][0]["usage"]
        assert own == {"caller": "é", "requests": 2, "pages": 0}


async def test_a_draining_proxy_says_so() -> None:
    async with ScriptedUpstream() as upstream, running_proxy(upstream.origin) as proxy:
        proxy.proxy.announce_drain()
        assert (await _status(proxy))["state"]["code"] == "draining"


class _Environment:
    """An environment whose lists are as long, and whose names are as large in JSON, as they can be."""

    def __init__(self, name: str) -> None:
        self._name = name

    def status(self, most: int) -> EnvironmentStatus:
        name, many = "\x01" * 64, (123_456_789,) * 60
        scope = ScopeEntry(
            "\x01" * 128, "learned", 1.5, 1e9, 1e9, 1e9, 1e9, quota_used_up=False, waiting=9, in_flight=9
        )
        problem = Problem("upstream_404", 50, 3600, is_alert=False, caller=name, request_id=name, advice="x" * 400)
        problem = replace(problem, sentence="x" * 400, what=name, reason="\x01" * 200)
        return EnvironmentStatus(
            self._name,
            "https://app.nanonets.com",
            State("serving", None, "Serving."),
            GateStatus(
                *(10_000, 10_000, 10_000, 256, 256, 23.5),
                *((scope,) * most, 1000, (LaneEntry(name, "\x01" * 128, 10_000, 1e9),) * most, 10_000),
                FleetStatus("follows", 10_000),
            ),
            KeysStatus("env", "serving", is_rejected=False, keys=(), warnings=(), source_fault=None),
            RequestCounts(60, 1e6, *(many,) * 5, *((12345.678,) * 60,) * 2),
            (problem,) * most,
            Usage(12_000, 12_000),
            256,
            Usage(2**40, 2**40),
            Usage(2**40, 2**40),
            (CallerUsage(name, 10**9, 1e9),) * most,
            JobsStatus(Usage(10**6, 10**6), 10**4, 10**9, 10**9, 10**9, 10**9, Usage(2**40, 2**40)),
        )


@pytest.mark.parametrize("count", [1, 2, 5, 20, 60, 500])
def test_the_document_stays_within_its_bound_whatever_callers_send(count: int) -> None:
    environments = [_Environment(f"environment{number}") for number in range(count)]
    body = StatusReader(environments).read()
    assert len(body) <= MAX_BYTES
    document = adapter().validate_json(body, strict=True)
    assert document.is_shortened
    shown = [environment.name for environment in document.environments]
    assert shown == [f"environment{number}" for number in range(len(shown))]
    assert len(shown) == count or count > 20


def test_an_ordinary_document_is_not_shortened() -> None:
    class Ordinary(_Environment):
        def status(self, most: int) -> EnvironmentStatus:
            status = super().status(most)
            return replace(status, gate=replace(status.gate, lanes=(), scopes=()), problems=(), usage=None)

    environments = [Ordinary("eu"), Ordinary("us")]
    assert not adapter().validate_json(StatusReader(environments).read()).is_shortened


async def test_a_proxy_that_rejects_connections_is_full() -> None:
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin, max_connections=16) as proxy,
        proxy.callers(16) as callers,
    ):
        for caller in callers:
            await caller.send(request(b"GET", b"/api/v4/workflows"))
            await upstream.next_request()
        async with await proxy.caller() as other:
            assert (await other.response()).status == 503
        state = (await _status(proxy))["state"]
        assert (state["code"], state["cause"]) == ("proxy_full", "proxy")
        assert "max_connections (16)" in state["sentence"]
