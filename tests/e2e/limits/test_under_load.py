"""Many callers at once, behind a rate limit and during a shutdown."""

import asyncio
import signal
from typing import Any

import aiohttp

from support.commands.process import proxy_to, sandbox


async def test_200_callers_behind_a_limit_of_40_per_second_see_no_429() -> None:
    with sandbox("--limit", "40/1s") as upstream, proxy_to(upstream) as proxy:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

            async def caller() -> int:
                async with session.get(f"{proxy.url}/api/v4/workflows") as response:
                    await response.read()
                    return response.status

            statuses = await asyncio.gather(*(caller() for _ in range(200)))
            async with session.get(f"{upstream}/sandbox/stats") as response:
                stats: dict[str, Any] = await response.json()
    assert statuses == [200] * 200
    assert stats["admitted"] == 200


async def test_uploads_refused_by_the_upstreams_limit_arrive_whole() -> None:
    async def upload(session: aiohttp.ClientSession, url: str, number: int) -> bool:
        content = b"%PDF" + number.to_bytes(2, "big") * 100_000
        form = aiohttp.FormData()
        form.add_field("file", content, filename=f"{number}.pdf")
        async with session.post(f"{url}/api/v2/OCR/Model/m/LabelFile/", data=form) as response:
            body = await response.json()
            return response.status == 200 and body["files"][0]["size"] == len(content)

    with sandbox("--limit", "8/1s") as upstream, proxy_to(upstream, "--body-memory", "64KiB") as proxy:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            assert all(await asyncio.gather(*(upload(session, proxy.url, number) for number in range(24))))


async def raw_get(host: str, port: int) -> bytes:
    """Returns the bytes of one response on a new connection, complete or not."""
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(b"GET /api/v4/workflows HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


async def test_sigterm_under_load_leaves_no_response_incomplete() -> None:
    with sandbox("--limit", "none", "--latency", "0.2") as upstream, proxy_to(upstream) as proxy:
        host, port = proxy.url.removeprefix("http://").split(":")
        responses: list[bytes] = []
        refused = 0
        busy, ended = asyncio.Event(), asyncio.Event()

        async def caller() -> None:
            nonlocal refused
            while not ended.is_set():
                try:
                    responses.append(await raw_get(host, int(port)))
                except ConnectionError:  # reset while it was still in the backlog
                    refused += 1
                    return
                if len(responses) == 100:
                    busy.set()

        callers = [asyncio.create_task(caller()) for _ in range(50)]
        await busy.wait()
        code = await asyncio.to_thread(proxy.end, signal.SIGTERM)
        ended.set()
        await asyncio.gather(*callers)
    assert code == 0
    assert refused > 0
    whole = [response for response in responses if response]
    assert all(response.startswith((b"HTTP/1.1 200 ", b"HTTP/1.1 503 ")) for response in whole)
    assert all(response.endswith((b'{"workflows": []}', b"}")) for response in whole)
    assert all(_is_whole(response) for response in whole)
    assert proxy.wait_for("stopped")["cut_off"] == 0


def _is_whole(response: bytes) -> bool:
    head, _, body = response.partition(b"\r\n\r\n")
    length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    return len(body) == int(length.split(b":")[1])
