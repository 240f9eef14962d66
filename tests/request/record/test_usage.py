"""What the usage ledger records of real requests: one row for each sending."""

import asyncio
import stat
from pathlib import Path
from typing import Any

import pytest

from nanonets_proxy.core.net.addresses import Origin
from nanonets_proxy.core.status.document import CallerUsage
from support.eventually import until
from support.proxy_harness import RunningProxy, running_proxy
from support.raw_caller import request
from support.raw_upstream import RawUpstream, ok, responding_then_closing
from support.raw_upstream import responding as responding_raw
from support.scripted_upstream import OK, Exchange, ScriptedUpstream, responding
from support.telemetry.usage_ledger import rows

REFUSED = b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 0\r\nContent-Length: 2\r\n\r\nno"


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    return tmp_path / "usage.db"


def read(path: Path) -> bytes:
    return path.read_bytes()


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def recorded(path: Path, *names: str) -> list[Any]:
    found = [tuple(row[name] for name in names) for row in sorted(rows(path), key=lambda row: row["number"])]
    return [row[0] for row in found] if len(names) == 1 else found


async def test_a_request_is_a_row_with_its_route_and_its_bytes(ledger: Path) -> None:
    async with (
        ScriptedUpstream(responding(ok(b"result"))) as upstream,
        running_proxy(upstream.origin, ledger=str(ledger), caller_header="X-Team") as proxy,
        await proxy.caller() as caller,
    ):
        await caller.post(b"/api/v4/workflows/wf-7/documents?secret=1", b"document", b"X-Team: billing")
    (row,) = rows(ledger)
    names = ("environment", "caller", "method", "route", "status", "requests", "request_bytes", "response_bytes")
    assert tuple(row[name] for name in names) == (
        *("", "billing", "POST", "/api/v4/workflows/{workflow}/documents", "2xx"),
        *(1, 8, 6),
    )
    assert not [word for word in (b"secret", b"wf-7") if word in read(ledger)]
    assert mode(ledger) == 0o600


async def test_each_sending_of_a_refused_request_is_a_row_and_the_request_counts_once(ledger: Path) -> None:
    async with (
        ScriptedUpstream(responding(REFUSED, REFUSED, OK)) as upstream,
        running_proxy(upstream.origin, ledger=str(ledger)) as proxy,
        await proxy.caller() as caller,
    ):
        assert (await caller.get(b"/api/v4/workflows")).status == 200
    assert recorded(ledger, "status", "requests", "response_bytes") == [("429", 1, 0), ("429", 0, 0), ("2xx", 0, 2)]


async def test_a_request_without_a_connection_is_no_row(ledger: Path) -> None:
    async with (
        running_proxy(Origin("http", "127.0.0.1", 1), ledger=str(ledger)) as proxy,
        await proxy.caller() as caller,
    ):
        assert (await caller.get(b"/x")).status == 502
    assert rows(ledger) == []


async def test_a_sending_without_a_response_is_a_row(ledger: Path) -> None:
    async def close(exchange: Exchange) -> None:
        await exchange.read_body()
        exchange.close()

    async with (
        ScriptedUpstream(close) as upstream,
        running_proxy(upstream.origin, ledger=str(ledger)) as proxy,
        await proxy.caller() as caller,
    ):
        assert (await caller.post(b"/x", b"body")).status == 502
    assert recorded(ledger, "status", "method") == [("none", "POST")]


async def test_a_request_sent_again_on_a_new_connection_is_two_rows(ledger: Path) -> None:
    async with (
        RawUpstream(responding_then_closing(OK), responding_raw(OK)) as upstream,
        running_proxy(upstream.origin, ledger=str(ledger)) as proxy,
        await proxy.caller() as caller,
    ):
        assert (await caller.get(b"/x")).status == 200
        # The upstream may have closed before the proxy takes the connection: then one sending suffices.
        assert (await caller.get(b"/x")).status == 200
    statuses = recorded(ledger, "status")
    assert [status for status in statuses if status != "none"] == ["2xx", "2xx"]


async def test_a_long_attempt_is_unfinished_until_it_ends(ledger: Path) -> None:
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin, ledger=str(ledger)) as proxy,
        await proxy.caller() as caller,
    ):
        await caller.send(request(b"GET", b"/x"))
        exchange = await upstream.next_request()
        await _hand_over(proxy)
        assert recorded(ledger, "status") == ["unfinished"]
        await exchange.respond(OK)
        assert (await caller.response()).status == 200
        await _hand_over(proxy)
        assert recorded(ledger, "status") == ["2xx"]


async def _hand_over(proxy: RunningProxy) -> None:
    """Has the ledger written, as if every running attempt had run for long."""
    usage = proxy.program.usage
    assert usage is not None
    usage.ledger._hand_over(closing=True)
    await until(lambda: usage.status().pending == 0)


async def _refused_by_the_queue(proxy: RunningProxy, upstream: ScriptedUpstream) -> None:
    async with await proxy.caller() as first, await proxy.caller() as second:
        await first.send(request(b"GET", b"/x"))
        exchange = await upstream.next_request()
        response = await second.get(b"/x", b"Prefer: wait=0")
        assert response.status == 429
        assert response.json()["code"] == "rate_limit_exceeded"
        await exchange.respond(OK)
        await first.response()


@pytest.mark.usefixtures("one_day")
async def test_a_daily_budget_counts_only_requests_that_were_sent_and_survives_a_restart(ledger: Path) -> None:
    settings = {"ledger": str(ledger), "daily_budget": "3"}
    async with ScriptedUpstream() as upstream:
        async with running_proxy(upstream.origin, pool_size=1, **settings) as proxy:
            await _refused_by_the_queue(proxy, upstream)
        for left in (1, 0):  # the first life used one of three, and the refused request is no use
            async with (
                running_proxy(upstream.origin, **settings) as proxy,
                await proxy.caller() as caller,
            ):
                await caller.send(request(b"GET", b"/x"))
                await (await upstream.next_request()).respond(OK)
                assert (await caller.response()).status == 200
                if not left:
                    assert (await caller.get(b"/x")).json()["code"] == "daily_budget_used_up"


async def test_without_a_file_that_can_be_made_requests_are_served_and_an_alert_says_so_once(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "missing"
    path = folder / "usage.db"
    async with (
        ScriptedUpstream(responding(OK)) as upstream,
        running_proxy(upstream.origin, ledger=str(path)) as proxy,
        await proxy.caller() as caller,
    ):
        usage = proxy.program.usage
        assert usage is not None
        assert (await caller.get(b"/x")).status == 200
        await until(lambda: usage.status().fault is not None)
        (alert,) = [item for item in proxy.proxy.alerts.to_json() if item["event"] == "ledger_stopped"]
        assert alert["path"] == str(path)
        assert alert["times"] == 1
        assert "directory" in alert["reason"]
        folder.mkdir()
        await until(lambda: usage.status().fault is None)
        assert usage.status().lost == 0
    assert recorded(path, "status") == ["2xx"]


async def test_a_request_cancelled_by_its_caller_is_a_row_without_a_response(ledger: Path) -> None:
    async with ScriptedUpstream() as upstream, running_proxy(upstream.origin, ledger=str(ledger)) as proxy:
        async with await proxy.caller() as caller:
            await caller.send(request(b"GET", b"/x"))
            exchange = await upstream.next_request()
        await exchange.read_to_end()
        exchange.release()
        await asyncio.sleep(0)
    assert recorded(ledger, "status") == ["none"]


@pytest.mark.usefixtures("one_day")
async def test_the_status_shows_what_callers_have_used_today(ledger: Path) -> None:
    for sent in (1, 2):
        async with (
            ScriptedUpstream(responding(OK)) as upstream,
            running_proxy(upstream.origin, ledger=str(ledger)) as proxy,
            await proxy.caller() as caller,
        ):
            usage = proxy.program.usage
            assert usage is not None
            if sent > 1:
                await until(lambda today=usage.today: today("", 5) == (CallerUsage("127.0.0.1", 1, 0),))
            await caller.get(b"/x")
