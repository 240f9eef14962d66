"""Runs Redis, the sandbox and a fleet of real proxies, and puts a load on them."""

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from enum import StrEnum

import aiohttp

from fleet.load import Results, call, stats
from fleet.redis_server import redis_server
from support.commands.process import Running, sandbox
from support.commands.redis_groups import Servers, replicated_cluster, sentinel_group
from support.commands.restarts import replaceable_proxy

WARM_S = 8.0
"""Two periods of the limit, in which a fleet learns it before anything is counted."""


class Over(StrEnum):
    """What a fleet is coordinated by."""

    ONE_SERVER = "one server"
    SENTINEL = "a master, its replica and three Sentinels"
    CLUSTER = "a cluster of three masters, each with a replica"


_SERVERS: dict[Over, Callable[[], contextlib.AbstractContextManager[Servers]]] = {
    Over.ONE_SERVER: redis_server,
    Over.SENTINEL: sentinel_group,
    Over.CLUSTER: replicated_cluster,
}


@dataclass
class Fleet:
    servers: Servers
    upstream: str
    proxies: list[Running]

    @property
    def leader(self) -> Running:
        """The replica that began to lead last."""
        return self.proxies[max(range(len(self.proxies)), key=lambda n: led_since(self.proxies[n]))]

    @property
    def follower(self) -> Running:
        """The first replica that does not lead."""
        leader = self.leader
        return next(proxy for proxy in self.proxies if proxy is not leader)


def led_since(proxy: Running) -> str:
    """Returns when a proxy began to lead for the last time; empty: it never did."""
    events = (e for e in proxy.all_events() if e["event"] == "fleet_joined" and e["role"] == "leader")
    return max((e["timestamp"] for e in events), default="")


def pid_of(proxy: Running) -> int:
    """Returns the process that serves now. A restart changes it."""
    pids = [event["pid"] for event in proxy.all_events() if event["event"] == "replaced"]
    return pids[-1] if pids else proxy.process.pid


def signal_to(proxy: Running, number: int) -> None:
    """Sends a signal to the process that serves."""
    os.kill(pid_of(proxy), number)


@contextlib.contextmanager
def fleet(
    replicas: int, limit: tuple[str, ...], *arguments: str, alone: bool = False, over: Over = Over.ONE_SERVER
) -> Iterator[Fleet]:
    """Runs the servers, the sandbox with the arguments `limit`, and the proxies. `alone`: without coordination."""
    with ExitStack() as stack:
        servers = stack.enter_context(_SERVERS[over]())
        upstream = stack.enter_context(sandbox(*limit))
        settings = ["--caller-header", "X-Caller", "--log-successes", "0", *arguments]
        if not alone:
            settings += ["--coordination", servers.url]
        proxies = [stack.enter_context(replaceable_proxy(upstream, *settings)) for _ in range(replicas)]
        yield Fleet(servers, upstream, proxies)


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
