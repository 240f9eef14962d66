"""Requests whose limit is in pages, through the whole proxy: callers state the pages, or the proxy counts them."""

import pytest

from nanonets_proxy.app.environment import pages
from nanonets_proxy.request import upload_pages
from support.documents import FORM, form, pdf
from support.eventually import until
from support.log_capture import captured_log
from support.proxy_harness import running_proxy
from support.raw_caller import request
from support.scripted_upstream import OK, ScriptedUpstream, responding

STATED = {"cost_header": "X-Pages", "limits": ["account 10 pages/hour"], "max_wait": "1s"}
TEN_PAGES = {"limits": ["account 10 pages/hour"], "max_wait": "1s"}
TYPE = b"Content-Type: " + FORM
SMALL = form(pdf(7))
LARGE = form(pdf(7, padding=600_000))
THROTTLED = b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n"


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine must not make a count late."""
    monkeypatch.setattr(upload_pages, "MAX_COUNT_S", 10.0)


async def test_stated_pages_count_against_the_limit_and_are_not_forwarded() -> None:
    async with (
        ScriptedUpstream(responding(OK)) as upstream,
        running_proxy(upstream.origin, **STATED) as proxy,
        await proxy.caller() as caller,
    ):
        statuses = []
        for pages in (b"6", b"3", b"2", b"1"):
            await caller.send(request(b"POST", b"/x", b"X-Pages: " + pages, body=b"x"))
            statuses.append((await caller.response()).status)
        assert statuses == [200, 200, 429, 200]
        assert all(b"x-pages" not in exchange.head.lower() for exchange in upstream.requests)


async def test_a_request_with_more_pages_than_the_limit_is_rejected_at_once() -> None:
    async with (
        ScriptedUpstream(responding(OK)) as upstream,
        running_proxy(upstream.origin, **STATED) as proxy,
        await proxy.caller() as caller,
    ):
        await caller.send(request(b"GET", b"/x", b"X-Pages: 11"))
        response = await caller.response()
        assert (response.status, response.json()["code"]) == (413, "larger_than_limit")
        assert response.json()["details"]["cost"] == 11
        assert not upstream.requests


@pytest.mark.parametrize("pages", [b"0", b"many", b"1.5"])
async def test_garbage_is_a_400_that_names_the_field(pages: bytes) -> None:
    async with (
        ScriptedUpstream(responding(OK)) as upstream,
        running_proxy(upstream.origin, **STATED) as proxy,
        await proxy.caller() as caller,
    ):
        await caller.send(request(b"GET", b"/x", b"X-Pages: " + pages))
        response = await caller.response()
        assert response.status == 400
        assert "X-Pages" in response.json()["message"]


@pytest.mark.parametrize("body", [SMALL, LARGE], ids=["whole", "streamed"])
async def test_the_pages_of_an_upload_count_against_the_limit(body: bytes) -> None:
    with captured_log() as log:
        async with (
            ScriptedUpstream(responding(OK)) as upstream,
            running_proxy(upstream.origin, **TEN_PAGES) as proxy,
            await proxy.caller() as caller,
        ):
            await caller.send(request(b"POST", b"/x", TYPE, body=body))
            assert (await caller.response()).status == 200
            window = proxy.proxy._gate.scopes.by_name["account"].limit.estimate.window
            await until(lambda: window.used(0.0) == 7)
            await caller.send(request(b"POST", b"/x", TYPE, body=SMALL))
            assert (await caller.response()).status == 429
            await caller.send(request(b"GET", b"/x"))
        (first, _) = [event.get("pages") for event in log.events("request")][:2]
        assert first in (7, None)  # None: the response ended before the count


async def test_an_upload_with_more_pages_than_the_limit_is_rejected_at_once() -> None:
    async with (
        ScriptedUpstream(responding(OK)) as upstream,
        running_proxy(upstream.origin, limits=["account 6 pages/hour"]) as proxy,
        await proxy.caller() as caller,
    ):
        await caller.send(request(b"POST", b"/x", b"Content-Type: application/pdf", body=pdf(7)))
        response = await caller.response()
        assert (response.status, response.json()["details"]["cost"]) == (413, 7)
        assert not upstream.requests


async def test_a_refused_upload_waits_with_its_true_cost() -> None:
    async with (
        ScriptedUpstream(responding(THROTTLED)) as upstream,
        running_proxy(upstream.origin, limits=["account 6 pages/hour"]) as proxy,
        await proxy.caller() as caller,
    ):
        await caller.send(request(b"POST", b"/x", TYPE, body=LARGE))
        assert (await caller.response()).status == 413
        assert len(upstream.requests) == 1


@pytest.mark.parametrize(
    "fields", [(b"Content-Type: application/json",), (TYPE, b"Content-Encoding: gzip"), ()], ids=str
)
async def test_other_bodies_cost_the_mean(fields: tuple[bytes, ...]) -> None:
    async with (
        ScriptedUpstream(responding(OK)) as upstream,
        running_proxy(upstream.origin, **TEN_PAGES) as proxy,
        await proxy.caller() as caller,
    ):
        await caller.send(request(b"POST", b"/x", *fields, body=SMALL))
        assert (await caller.response()).status == 200
        assert proxy.proxy._gate.scopes.by_name["account"].limit.estimate.window.used(0.0) == 1


async def test_no_process_counts_pages_if_no_limit_is_in_pages() -> None:
    async with ScriptedUpstream(responding(OK)) as upstream, running_proxy(upstream.origin) as proxy:
        assert proxy.proxy._pages._counter is None


async def test_without_the_extra_a_warning_at_start_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "can_count_pages", lambda: False)
    with captured_log() as log:
        async with (
            ScriptedUpstream(responding(OK)) as upstream,
            running_proxy(upstream.origin, **TEN_PAGES) as proxy,
            await proxy.caller() as caller,
        ):
            await caller.send(request(b"POST", b"/x", TYPE, body=SMALL))
            assert (await caller.response()).status == 200
        (warning,) = log.events("pages_not_counted")
        assert "nanonets-proxy[pages]" in warning["advice"]
