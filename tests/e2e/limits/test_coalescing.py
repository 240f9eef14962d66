"""Pollers of one document, and lists that stay the same, with the real process and the sandbox."""

import asyncio
from typing import Any

import aiohttp

from support.commands.process import proxy_to, sandbox

POLLERS = 50
POLLS = 4


async def test_fifty_pollers_of_one_document_cost_a_few_requests() -> None:
    with (
        sandbox("--limit", "none", "--latency", "300ms", "--pending-polls", "2") as upstream,
        proxy_to(upstream) as proxy,
    ):
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            workflows = f"{proxy.url}/api/v4/workflows"
            async with session.post(workflows, json={"description": "invoices"}) as response:
                workflow = (await response.json())["id"]
            document = {"document_url": "https://example.com/a.pdf", "async": True}
            async with session.post(f"{workflows}/{workflow}/documents", json=document) as response:
                url = f"{workflows}/{workflow}/documents/{(await response.json())['document_id']}"

            async def poll() -> list[Any]:
                results = []
                for _ in range(POLLS):
                    async with session.get(url) as response:
                        assert response.status == 200
                        results.append((await response.json())["status"])
                return results

            polled = await asyncio.gather(*(poll() for _ in range(POLLERS)))
            async with session.get(f"{upstream}/sandbox/stats") as response:
                stats = await response.json()
        proxy.end()
        polls = [event for event in proxy.requests() if event["method"] == "GET"]
    assert all(results[-1] not in ("pending", "") for results in polled)
    sent = sum(event["attempts"] for event in polls)
    assert sent + sum(event.get("coalesced", False) for event in polls) == POLLERS * POLLS
    # One a round trip, if the machine lets all pollers run in the time of a response.
    assert POLLS <= sent <= POLLERS
    assert stats["admitted"] == sent + 2


async def test_a_list_that_stays_the_same_is_confirmed_by_the_upstream() -> None:
    with (
        sandbox("--limit", "none", "--etags") as upstream,
        proxy_to(upstream, "--revalidate", "/api/v4/workflows") as proxy,
    ):
        async with aiohttp.ClientSession() as session:
            url = f"{proxy.url}/api/v4/workflows"

            async def get() -> tuple[int, bytes, str | None]:
                async with session.get(url) as response:
                    return response.status, await response.read(), response.headers.get("Proxy-Status")

            first, second = await get(), await get()
            async with session.post(url, json={"description": "invoices"}) as response:
                assert response.status < 300
            third = await get()
            async with session.get(f"{upstream}/sandbox/requests") as response:
                seen = [(each["method"], each["status"]) for each in (await response.json())["requests"]]
    assert second == (200, first[1], "nanonets-proxy; received-status=304")
    assert (first[2], third[2]) == (None, None)
    assert b"invoices" in third[1]
    assert [status for method, status in seen if method == "GET"] == [200, 304, 200]
