"""Cold jobs over real sockets: without a proxy, with retries in each caller, and through the proxy.

Part of `make bench-gate-sockets`. A job is 100 requests at once. Callers, proxy and sandbox are processes, so the
load of the machine affects the times. They must not decide about a build.

Callers retry in two ways: with tenacity's usual exponential backoff with jitter, which reads no hints, and with
tenacity and a wait that reads `Retry-After`.
"""

import asyncio
import sys
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass

import aiohttp
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception_type,
    stop_after_attempt,
    wait_random,
    wait_random_exponential,
)
from tenacity.wait import WaitBaseT

from sockets import PATH, counts
from support.commands.process import proxy_to, sandbox

KEY = "sandbox-test-key"
JOB = 100
MAX_ATTEMPTS = 30
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


class Throttled(Exception):
    """A 429, with its `Retry-After` in seconds; None if it has none."""

    def __init__(self, hint_s: float | None) -> None:
        super().__init__()
        self.hint_s = hint_s


async def _unless_throttled(session: aiohttp.ClientSession, url: str) -> int:
    async with session.get(url) as response:
        await response.read()
        if response.status == 429:
            hint = response.headers.get("Retry-After")
            raise Throttled(float(hint) if hint else None)
        return response.status


_EXPONENTIAL = wait_random_exponential(multiplier=0.5, max=30)
_SPREAD = wait_random(0, 0.5)


def _as_the_hint_says(state: RetryCallState) -> float:
    """Waits as the hint says, and up to half as long again, so that callers do not come back together."""
    error = state.outcome and state.outcome.exception()
    if isinstance(error, Throttled) and error.hint_s:
        return error.hint_s * (1.0 + float(_SPREAD(state)))
    wait_s: float = _EXPONENTIAL(state)
    return wait_s


def retrying(wait: WaitBaseT) -> Request:
    """Returns a request that tenacity sends again after each 429, with this wait."""

    async def request(session: aiohttp.ClientSession, url: str) -> int:
        again = AsyncRetrying(
            retry=retry_if_exception_type(Throttled),
            stop=stop_after_attempt(MAX_ATTEMPTS),
            wait=wait,
            reraise=True,
        )
        status: int = await again(_unless_throttled, session, url)
        return status

    return request


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
    print("| sandbox | ideal | no proxy | tenacity | tenacity with the hint | through the proxy |")
    print("|---|---|---|---|---|---|")
    for kind in KINDS:
        cells = [kind.name, f"{kind.ideal_s:.1f} s"]
        for request in (once, retrying(_EXPONENTIAL), retrying(_as_the_hint_says)):
            with sandbox(*kind.arguments) as upstream:
                cells.append(_cell(upstream, upstream + PATH, request))
        with sandbox(*kind.arguments) as upstream, proxy_to(upstream) as proxy:
            cells.append(_cell(upstream, proxy.url + PATH, once))
        print("| " + " | ".join(cells) + " |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
