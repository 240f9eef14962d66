"""Benchmarks the gate with real sockets: callers, proxy and sandbox are processes. `make bench-gate-sockets`.

Times are real, so the load of the machine affects the figures. They must not decide about a build.
"""

import asyncio
import json
import math
import sys
import time
import urllib.request
from dataclasses import dataclass

import aiohttp

from support.commands.process import proxy_to, sandbox

COUNT, PERIOD_S = 40, 4.0
COLD_S, SHORT_S, RUN_S = 2 * PERIOD_S, 40.0, 120.0
CALLERS = 100
LATENCY_S = 0.25
PATH = "/api/v4/workflows"


@dataclass(frozen=True, slots=True)
class Kind:
    """A limit of the sandbox, and the requests that an oracle would get through it in `RUN_S`."""

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


@dataclass(frozen=True, slots=True)
class Counts:
    """The requests that the sandbox has admitted and refused since its start."""

    admitted: int
    refused: int

    @property
    def waste(self) -> float:
        """Refused requests per 1,000 admitted ones."""
        return 1000 * self.refused / max(1, self.admitted)

    def __sub__(self, other: "Counts") -> "Counts":
        return Counts(self.admitted - other.admitted, self.refused - other.refused)


async def _call_until(url: str, ends_at_s: float, statuses: list[int]) -> None:
    async def caller() -> None:
        while time.monotonic() < ends_at_s:
            async with session.get(url) as response:
                statuses.append(response.status)

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        tasks = [asyncio.create_task(caller()) for _ in range(CALLERS)]
        done, running = await asyncio.wait(tasks, timeout=ends_at_s - time.monotonic())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        for task in done:
            task.result()  # a caller that failed ends the benchmark


def counts(upstream: str) -> Counts:
    """Returns the sandbox's counts so far."""
    with urllib.request.urlopen(f"{upstream}/sandbox/stats") as response:  # noqa: S310 - loopback, http
        stats = json.load(response)
    return Counts(stats["admitted"], stats["refused"])


async def _counts_after(upstream: str, seconds: float) -> Counts:
    await asyncio.sleep(seconds)
    return await asyncio.to_thread(counts, upstream)


async def _run(upstream: str, url: str, statuses: list[int]) -> list[Counts]:
    """Returns the sandbox's counts after `COLD_S`, `SHORT_S` and `RUN_S`."""
    counts = [asyncio.create_task(_counts_after(upstream, seconds)) for seconds in (COLD_S, SHORT_S, RUN_S)]
    await _call_until(url, time.monotonic() + RUN_S, statuses)
    return list(await asyncio.gather(*counts))


def main() -> int:
    columns = ["sandbox", "goodput", "429s, first 8 s", f"per 1,000 in {SHORT_S:.0f} s", "after 8 s", "not 200"]
    print("| " + " | ".join(columns) + " |")
    print("|---" * len(columns) + "|")
    failures = 0
    for kind in KINDS:
        statuses: list[int] = []
        with sandbox(*kind.arguments) as upstream, proxy_to(upstream) as proxy:
            cold, short, total = asyncio.run(_run(upstream, proxy.url + PATH, statuses))
        others = sum(status != 200 for status in statuses)
        failures += others
        cells = [
            kind.name,
            f"{total.admitted / kind.ideal:.2f}",
            f"{cold.refused}",
            f"{short.waste:.0f}",
            f"{(total - cold).waste:.0f}",
            f"{others}",
        ]
        print("| " + " | ".join(cells) + " |", flush=True)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
