"""Restarts the real proxy again and again under load, and counts the responses that callers get.

`make bench-restart` runs it in full: 50 restarts under 1,000 requests a second. RESTARTS and RATE change that.
"""

import asyncio
import os
import resource
import sys
import time
from collections import Counter
from typing import Final

import aiohttp

from support.commands.process import sandbox
from support.commands.restarts import replaceable_proxy

RESTARTS: Final = int(os.environ.get("RESTARTS", "50"))
RATE: Final = int(os.environ.get("RATE", "1000"))
_GAP_S: Final = 1.0
_MOST_OPEN: Final = 2000


async def _load(url: str, outcome: "Counter[int | str]", is_over: asyncio.Event) -> None:
    """Sends GETs and POSTs at a fixed rate, on kept connections and, one in ten, on a new one."""
    connector = aiohttp.TCPConnector(limit=256, keepalive_timeout=60)
    tasks: set[asyncio.Task[None]] = set()
    async with aiohttp.ClientSession(connector=connector) as session:

        async def call(number: int) -> None:
            fields = {"Connection": "close"} if number % 10 == 0 else {}
            method, body = ("POST", b'{"description": "x"}') if number % 3 == 0 else ("GET", None)
            try:
                target = f"{url}/api/v4/workflows"
                async with session.request(method, target, data=body, headers=fields) as response:
                    await response.read()
                    outcome[response.status] += 1
            except aiohttp.ClientError as error:
                outcome[type(error).__name__] += 1

        sent, began_s = 0, time.monotonic()
        while not is_over.is_set():
            due = int((time.monotonic() - began_s) * RATE)
            for number in range(sent, sent + min(due - sent, _MOST_OPEN - len(tasks))):
                task = asyncio.create_task(call(number))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
            sent = due
            await asyncio.sleep(0.005)
        await asyncio.gather(*tasks)


async def _restart(admin_url: str) -> float:
    """Returns how long the restart took."""
    began_s = time.monotonic()
    fields = {"X-Requested-With": "bench"}
    async with aiohttp.ClientSession() as session, session.post(f"{admin_url}/restart", headers=fields) as response:
        assert response.status == 200, await response.text()
    return time.monotonic() - began_s


async def _run(url: str, admin_url: str) -> "tuple[Counter[int | str], list[float]]":
    outcome: Counter[int | str] = Counter()
    is_over = asyncio.Event()
    load = asyncio.create_task(_load(url, outcome, is_over))
    took_s = []
    for _ in range(RESTARTS):
        await asyncio.sleep(_GAP_S)
        took_s.append(await _restart(admin_url))
    is_over.set()
    await load
    return outcome, took_s


def main() -> int:
    """Returns 1 if a call failed."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with sandbox("--limit", "none") as upstream, replaceable_proxy(upstream, "--log-successes", "0") as proxy:
        outcome, took_s = asyncio.run(_run(proxy.url, proxy.admin_url))
    print(f"{RESTARTS} restarts, {outcome.total()} calls: {dict(outcome)}; slowest restart {max(took_s):.1f} s")
    return int(any(result not in (200, 201) for result in outcome))


if __name__ == "__main__":
    sys.exit(main())
