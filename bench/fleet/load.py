"""The callers of a fleet of real proxies: what they ask for, and what they see."""

import asyncio
import json
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Container
from dataclasses import dataclass, field

import aiohttp

COUNT, PERIOD_S = 40, 4.0
LATENCY_S = 0.25
PATH = "/api/v4/workflows"

KINDS = {
    "window": (("--limit", f"{COUNT}/{PERIOD_S:.0f}s", "--limit-kind", "fixed"), COUNT / PERIOD_S),
    "sliding": (("--limit", f"{COUNT}/{PERIOD_S:.0f}s", "--limit-kind", "sliding"), COUNT / PERIOD_S),
    "bucket": (("--limit", f"{COUNT}/{PERIOD_S:.0f}s", "--limit-kind", "bucket"), COUNT / PERIOD_S),
    "concurrency": (
        ("--limit", "12/1s", "--limit-kind", "concurrency", "--latency", str(LATENCY_S)),
        12 / LATENCY_S,
    ),
}
"""The sandbox's arguments, and the rate of an oracle."""


@dataclass
class Results:
    """What the callers saw since `since_s`."""

    since_s: float = 0.0
    served: "Counter[tuple[int, str]]" = field(default_factory=Counter)
    """By replica and caller."""
    failed: "Counter[tuple[int, int]]" = field(default_factory=Counter)
    """By replica and status; 0: the connection failed."""
    elapsed_s: float = 0.0
    refused_before: int = 0
    """What the upstream refused before `since_s`."""
    admitted: int = 0
    """What the upstream admitted and refused in `elapsed_s`."""
    refused: int = 0

    def clear(self) -> None:
        """Begins to count anew."""
        self.served.clear()
        self.failed.clear()
        self.since_s = time.monotonic()

    def close(self, before: tuple[int, int], after: tuple[int, int]) -> None:
        """Takes the counts of the upstream at `since_s` and now."""
        self.elapsed_s = time.monotonic() - self.since_s
        self.refused_before = before[1]
        self.admitted, self.refused = after[0] - before[0], after[1] - before[1]

    def failures(self, of: Container[int]) -> str:
        """Returns how many calls of these replicas failed, with each status."""
        sums: Counter[int] = Counter()
        for (replica, status), count in self.failed.items():
            if replica in of:
                sums[status] += count
        each = ", ".join(f"{count} {status or 'without a response'}" for status, count in sorted(sums.items()))
        return each or "0"

    def by(self, key: Callable[[tuple[int, str]], object], of: "list[object]") -> list[float]:
        sums: Counter[object] = Counter()
        for each, count in self.served.items():
            sums[key(each)] += count
        return [sums[each] for each in of]


def jain(values: list[float]) -> float:
    """Returns Jain's index of fairness: 1 if all values are equal, 1/n if one has everything."""
    squares = sum(value * value for value in values)
    return sum(values) ** 2 / (len(values) * squares) if squares else 0.0


def stats(upstream: str) -> tuple[int, int]:
    """Returns how many requests the upstream has admitted and refused."""
    with urllib.request.urlopen(f"{upstream}/sandbox/stats") as response:  # noqa: S310 - loopback, http
        counts = json.load(response)
    return counts["admitted"], counts["refused"]


def seen(upstream: str) -> list[tuple[float, int]]:
    """Returns when the latest 10,000 requests came, in Unix time, and the status of each."""
    with urllib.request.urlopen(f"{upstream}/sandbox/requests") as response:  # noqa: S310 - loopback, http
        requests = json.load(response)["requests"]
    return sorted((each["time"], each["status"]) for each in requests)


def change_limit(upstream: str, limit: str) -> None:
    """Changes the rate of the upstream's limit, which begins to count anew."""
    body = json.dumps({"limit": limit}).encode()
    urllib.request.urlopen(f"{upstream}/sandbox/limit", body).close()  # noqa: S310 - loopback, http


async def status_of(session: aiohttp.ClientSession, url: str, caller: str) -> int:
    """Calls once, and returns the status; 0: no response came."""
    try:
        async with session.get(url + PATH, headers={"X-Caller": caller}) as response:
            await response.read()
            return response.status
    except aiohttp.ClientError:
        return 0


async def call(
    session: aiohttp.ClientSession, urls: list[str], replica: int, caller: str, results: Results
) -> None:
    """Calls without a pause. Each request goes to the replica's current URL in `urls`."""
    while True:
        status = await status_of(session, urls[replica], caller)
        if status == 200:
            results.served[replica, caller] += 1
        else:
            results.failed[replica, status] += 1
            await asyncio.sleep(0.2)
