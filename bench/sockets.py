"""The gate with real sockets: callers, the proxy and the sandbox as processes. `make bench-gate-sockets`.

Times are real, so that a busy machine shows in the figures: they are for reading, not for judging a build.
"""

import asyncio
import json
import math
import sys
import time
import urllib.request
from dataclasses import dataclass

import aiohttp

from support.process import proxy_to, sandbox

COUNT, PERIOD_S = 40, 4.0
RUN_S = 40.0
CALLERS = 100
LATENCY_S = 0.25
PATH = "/api/v4/workflows"


@dataclass(frozen=True, slots=True)
class Kind:
    """A limit of the sandbox, and what an oracle would get through it in `RUN_S`."""

    name: str
    arguments: tuple[str, ...]
    ideal: float


_WINDOWS = COUNT * math.ceil(RUN_S / PERIOD_S)
LIMIT = ("--limit", f"{COUNT}/{PERIOD_S:.0f}s")
KINDS = (
    Kind("fixed window on the clock", (*LIMIT, "--limit-kind", "fixed"), _WINDOWS),
    Kind("fixed window, hint in the header", (*LIMIT, "--limit-kind", "fixed", "--hint", "header"), _WINDOWS),
    Kind("fixed window, no hint", (*LIMIT, "--limit-kind", "fixed", "--hint", "none"), _WINDOWS),
    Kind("sliding window", (*LIMIT, "--limit-kind", "sliding"), _WINDOWS),
    Kind("token bucket", (*LIMIT, "--limit-kind", "bucket"), COUNT * (1 + RUN_S / PERIOD_S)),
    Kind(
        "concurrency 5",
        ("--limit", "5/1s", "--limit-kind", "concurrency", "--latency", str(LATENCY_S)),
        5 * RUN_S / LATENCY_S,
    ),
)


async def _call_until(url: str, ends_at_s: float, statuses: list[int]) -> None:
    async def caller() -> None:
        while time.monotonic() < ends_at_s:
            async with session.get(url) as answer:
                statuses.append(answer.status)

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        tasks = [asyncio.create_task(caller()) for _ in range(CALLERS)]
        await asyncio.wait(tasks, timeout=ends_at_s - time.monotonic())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _measure(kind: Kind) -> tuple[int, int, int]:
    """Admitted and refused by the sandbox, and answers other than 200 that callers saw."""
    statuses: list[int] = []
    with sandbox(*kind.arguments) as upstream, proxy_to(upstream) as proxy:
        asyncio.run(_call_until(proxy.url + PATH, time.monotonic() + RUN_S, statuses))
        with urllib.request.urlopen(f"{upstream}/sandbox/stats") as answer:  # noqa: S310 - loopback, http
            stats = json.load(answer)
    return stats["admitted"], stats["refused"], sum(status != 200 for status in statuses)


def main() -> int:
    print("| sandbox | goodput | 429s per 1,000 admitted | callers that saw another answer than 200 |")
    print("|---|---|---|---|")
    seen = 0
    for kind in KINDS:
        admitted, refused, others = _measure(kind)
        seen += others
        waste = 1000 * refused / max(1, admitted)
        print(f"| {kind.name} | {admitted / kind.ideal:.2f} | {waste:.0f} | {others} |", flush=True)
    return 1 if seen else 0


if __name__ == "__main__":
    sys.exit(main())
