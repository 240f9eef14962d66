"""Requests that state their pages, through the whole proxy."""

import pytest

from support.proxy_harness import running_proxy
from support.raw_caller import request
from support.scripted_upstream import OK, ScriptedUpstream, responding

PAGED = {"cost_header": "X-Pages", "limits": ["account 10 pages/hour"], "max_wait": "1s"}


async def test_stated_pages_count_against_the_limit_and_are_not_forwarded() -> None:
    async with (
        ScriptedUpstream(responding(OK)) as upstream,
        running_proxy(upstream.origin, **PAGED) as proxy,
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
        running_proxy(upstream.origin, **PAGED) as proxy,
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
        running_proxy(upstream.origin, **PAGED) as proxy,
        await proxy.caller() as caller,
    ):
        await caller.send(request(b"GET", b"/x", b"X-Pages: " + pages))
        response = await caller.response()
        assert response.status == 400
        assert "X-Pages" in response.json()["message"]
