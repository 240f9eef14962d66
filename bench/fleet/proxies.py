"""Runs Redis, the sandbox and a fleet of real proxies, and puts a load on them."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import aiohttp

from fleet.load import Results, call, stats
from fleet.redis_server import RedisServer, redis_server
from support.commands.process import Running, proxy_to, sandbox

WARM_S = 8.0
"""Two periods of the limit, in which a fleet learns it before anything is counted."""


@dataclass
class Fleet:
    redis: RedisServer
    upstream: str
    proxies: list[Running]


@contextlib.contextmanager
def fleet(replicas: int, limit: tuple[str, ...], *, alone: bool = False) -> Iterator[Fleet]:
    """Runs Redis, the sandbox with the arguments `limit`, and the proxies. `alone`: without coordination."""
    with ExitStack() as stack:
        redis = stack.enter_context(redis_server())
        upstream = stack.enter_context(sandbox(*limit))
        extra = [] if alone else ["--coordination", redis.url]
        proxies = [
            stack.enter_context(proxy_to(upstream, "--caller-header", "X-Caller", "--log-successes", "0", *extra))
            for _ in range(replicas)
        ]
        yield Fleet(redis, upstream, proxies)


async def load(
    own: Fleet,
    callers: list[int],
    seconds: float,
    act: Callable[[], None],
    act_after_s: float,
    warm_s: float = WARM_S,
) -> Results:
    """Lets each replica have its number of callers, which call without a pause for `warm_s` and then `seconds`.

    `act` happens `act_after_s` after the end of the warm-up, in a thread. Returns the time after the warm-up.
    """
    results = Results()
    connector = aiohttp.TCPConnector(limit=0)
    async with (
        aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(None)) as session,
        asyncio.TaskGroup() as group,  # an error of a caller ends the run
    ):
        urls = [proxy.url for proxy in own.proxies]
        tasks = [
            group.create_task(call(session, urls, n, f"r{n}c{c}", results))
            for n, count in enumerate(callers)
            for c in range(count)
        ]
        await asyncio.sleep(warm_s)
        before = await asyncio.to_thread(stats, own.upstream)
        results.clear()
        ends_at_s = results.since_s + seconds
        await asyncio.sleep(act_after_s)
        await asyncio.to_thread(act)
        await asyncio.sleep(ends_at_s - time.monotonic())
        after = await asyncio.to_thread(stats, own.upstream)
        results.close(before, after)
        for task in tasks:
            task.cancel()
    return results
