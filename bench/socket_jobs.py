"""Cold jobs over real sockets: without a proxy, with a retry loop in each caller, and through the proxy.

Part of `make bench-gate-sockets`. A job is 100 requests at once. Callers, proxy and sandbox are processes, so the
load of the machine affects the times. They must not decide about a build.
"""

import asyncio
import random
import sys
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass

import aiohttp

from sockets import PATH, counts
from support.commands.process import proxy_to, sandbox

KEY = "sandbox-test-key"
JOB = 100
MAX_RETRIES = 30
GIVE_UP_S = 60.0

Request = Callable[[aiohttp.ClientSession, str], Coroutine[None, None, int]]


@dataclass(frozen=True, slots=True)
class Kind:
    """The sandbox's arguments, and the shortest possible time of a job."""

    name: str
    arguments: tuple[str, ...]
    ideal_s: float


KINDS = (
    Kind("no limit, calls of 3 s", ("--limit", "none", "--latency", "3"), 3.0),
    Kind("no limit, calls of 0.2 s", ("--limit", "none", "--latency", "0.2"), 0.2),
    Kind("20 in 1 s, window", ("--limit", "20/1s", "--limit-kind", "sliding"), 4.0),
    Kind("40 in 4 s, window", ("--limit", "40/4s", "--limit-kind", "sliding"), 8.0),
    Kind("40 in 4 s, no hint", ("--limit", "40/4s", "--limit-kind", "sliding", "--hint", "none"), 8.0),
    Kind("bucket of 20, 10 a second", ("--limit", "20/2s", "--limit-kind", "bucket"), 8.0),
    Kind(
        "concurrency 5, calls of 0.25 s",
        ("--limit", "5/1s", "--limit-kind", "concurrency", "--latency", "0.25"),
        5.0,
    ),
)


async def once(session: aiohttp.ClientSession, url: str) -> int:
    """Sends a request once."""
    async with session.get(url) as response:
        await response.read()
        return response.status


async def with_retries(session: aiohttp.ClientSession, url: str) -> int:
    """Sends a request until it is no 429. Waits as the hint says, or exponentially longer, with jitter."""
    for attempt in range(MAX_RETRIES):
        async with session.get(url) as response:
            await response.read()
            if response.status != 429:
                return response.status
            hint = response.headers.get("Retry-After")
        wait_s = float(hint) if hint else min(30.0, 0.5 * 2.0**attempt)
        await asyncio.sleep(wait_s * random.uniform(1.0, 1.5))  # noqa: S311 - a benchmark
    return 429


async def job(url: str, request: Request) -> tuple[float, int]:
    """Returns the makespan of a job, and how many of its requests did not end with 200."""
    headers = {"Authorization": aiohttp.encode_basic_auth(KEY, "")}
    began_s = time.monotonic()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), headers=headers) as session:
        tasks = [asyncio.create_task(request(session, url)) for _ in range(JOB)]
        done, late = await asyncio.wait(tasks, timeout=GIVE_UP_S)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
    failed = len(late) + sum(task.exception() is not None or task.result() != 200 for task in done)
    return time.monotonic() - began_s, failed


def _cell(upstream: str, url: str, request: Request) -> str:
    makespan_s, failed = asyncio.run(job(url, request))
    return f"{makespan_s:.2f} s / {failed} / {counts(upstream).refused}"


def main() -> int:
    print(f"\nJobs of {JOB} requests at once, cold: makespan / not 200 / upstream 429s")
    print("| sandbox | ideal | no proxy | retry loop in each caller | through the proxy |")
    print("|---|---|---|---|---|")
    for kind in KINDS:
        cells = [kind.name, f"{kind.ideal_s:.1f} s"]
        for request in (once, with_retries):
            with sandbox(*kind.arguments) as upstream:
                cells.append(_cell(upstream, upstream + PATH, request))
        with sandbox(*kind.arguments) as upstream, proxy_to(upstream) as proxy:
            cells.append(_cell(upstream, proxy.url + PATH, once))
        print("| " + " | ".join(cells) + " |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
