"""The gate of the real process: fair queueing and early refusals."""

import asyncio

import aiohttp

from support.commands.process import proxy_to, sandbox

CALL = "/api/v4/workflows"


async def test_a_caller_with_many_requests_does_not_delay_a_caller_with_few() -> None:
    async def call(session: aiohttp.ClientSession, url: str, team: str, order: list[str]) -> None:
        async with session.get(url + CALL, headers={"X-Team": team}) as response:
            assert response.status == 200
            order.append(team)

    order: list[str] = []
    with (
        sandbox("--limit", "10/1s") as upstream,
        proxy_to(upstream, "--caller-header", "X-Team") as proxy,
    ):
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            heavy = [asyncio.create_task(call(session, proxy.url, "heavy", order)) for _ in range(60)]
            await heavy[0]
            await asyncio.gather(*(call(session, proxy.url, "light", order) for _ in range(5)))
            served_before = order.count("heavy")
            await asyncio.gather(*heavy)
    assert served_before < 50
    assert len(order) == 65


async def test_an_early_429_stops_the_upload_and_the_retry_sends_the_kept_copy() -> None:
    content = b"%PDF" + bytes(300_000)
    with sandbox("--limit", "1/1s") as upstream, proxy_to(upstream) as proxy:

        async def upload(session: aiohttp.ClientSession) -> int:
            form = aiohttp.FormData()
            form.add_field("file", content, filename="a.pdf")
            async with session.post(f"{proxy.url}/api/v2/OCR/Model/m/LabelFile/", data=form) as response:
                return int((await response.json())["files"][0]["size"])

        async with aiohttp.ClientSession() as session:
            assert await asyncio.gather(*(upload(session) for _ in range(4))) == [len(content)] * 4
            async with session.get(f"{upstream}/sandbox/stats") as response:
                stats = await response.json()
        proxy.end()
        requests = proxy.requests()
    assert stats["admitted"] == 4
    assert stats["refused"] >= 1
    assert sum(event["attempts"] for event in requests) == stats["admitted"] + stats["refused"]
    assert all(event["received_bytes"] < len(content) + 2000 for event in requests)
