"""What a fleet adds to the time of a request: while Redis is well, hangs, and is killed (`FLEET_ARGS=--latency`).

A proxy without coordination, a leader and a follower take turns, request by request, so the load of the machine
meets all three. Their upstream has no limit. Each state of Redis begins within its measurement.
"""

import asyncio
import re
import signal
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import aiohttp

from fleet.redis_server import RedisServer, redis_server
from support.commands.process import Running, proxy_to, sandbox

_PATH = "/api/v4/workflows"
_PHASE_S = 10.0
_COUNTED = 500


async def _get(session: aiohttp.ClientSession, proxy: Running) -> float:
    """Returns the milliseconds of one request."""
    began_s = time.perf_counter()
    async with session.get(proxy.url + _PATH) as response:
        await response.read()
        response.raise_for_status()
    return 1000 * (time.perf_counter() - began_s)


async def _phase(
    session: aiohttp.ClientSession, proxies: dict[str, Running], act: Callable[[], object]
) -> dict[str, list[float]]:
    """Returns the times at each proxy. `act` changes the state of Redis after a moment."""
    times: dict[str, list[float]] = {name: [] for name in proxies}
    began_s = time.monotonic()
    is_changed = False
    while (elapsed_s := time.monotonic() - began_s) < _PHASE_S:
        if elapsed_s > 0.5 and not is_changed:
            act()
            is_changed = True
        for name, proxy in proxies.items():
            times[name].append(await _get(session, proxy))
    return times


def _show(state: str, times: dict[str, list[float]]) -> None:
    cuts = {name: statistics.quantiles(each, n=1000) for name, each in times.items()}
    base = cuts["without coordination"]
    for name, own in cuts.items():
        if name != "without coordination":
            added = f"{own[499] - base[499]:.2f} | {own[989] - base[989]:.2f} | {own[998] - base[998]:.2f}"
            print(f"| {state} | {name} | {added} | {max(times[name]):.0f} | {len(times[name])} |", flush=True)


_COUNTERS = {
    "messages": rb"cmdstat_publish:calls=(\d+)",
    "bytes to Redis": rb"total_net_input_bytes:(\d+)",
    "bytes from Redis": rb"total_net_output_bytes:(\d+)",
}


def _counted(redis: RedisServer) -> dict[str, int]:
    """Returns what Redis has counted since its start."""
    info = redis.ask("INFO", "everything")
    found = {name: re.search(pattern, info) for name, pattern in _COUNTERS.items()}
    return {name: 0 if each is None else int(each[1]) for name, each in found.items()}


def _cpu_ms(pid: int) -> float:
    """Returns how long a process has run on a CPU (proc_pid_schedstat(5), all of its threads)."""
    files = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(file.read_text().split()[0]) for file in files) / 1e6


async def _cost(session: aiohttp.ClientSession, redis: RedisServer, name: str, proxies: dict[str, Running]) -> None:
    """Prints the messages, bytes and CPU time of a request at one proxy, in each process."""
    pids = {each: proxy.process.pid for each, proxy in proxies.items()} | {"Redis": redis.pid}
    samples = []
    for is_idle in (True, False):
        counted, used = _counted(redis), {each: _cpu_ms(pid) for each, pid in pids.items()}
        began_s = time.monotonic()
        for _ in range(0 if is_idle else _COUNTED):
            await _get(session, proxies[name])
        if is_idle:
            await asyncio.sleep(1.0)
        elapsed_s = time.monotonic() - began_s
        cpu_ms = {each: _cpu_ms(pid) - used[each] for each, pid in pids.items()}
        now = _counted(redis)
        samples.append((elapsed_s, {each: now[each] - counted[each] for each in now}, cpu_ms))
    (idle_s, idle, idle_ms), (busy_s, busy, busy_ms) = samples
    scale = busy_s / idle_s
    traffic = ", ".join(f"{each} {(busy[each] - scale * idle[each]) / _COUNTED:.1f}" for each in busy)
    costs = {each: (busy_ms[each] - scale * idle_ms[each]) / _COUNTED for each in pids}
    cells = ", ".join(f"{each} {cost:.2f} ms" for each, cost in costs.items() if cost > 0.01)
    print(f"a request at the proxy {name}: {traffic}; CPU time: {cells}", flush=True)


async def _measure(redis: RedisServer, proxies: dict[str, Running]) -> None:
    faults: list[tuple[str, Callable[[], object]]] = [
        ("well", lambda: None),
        ("hangs (SIGSTOP)", lambda: redis.signal(signal.SIGSTOP)),
        ("killed (SIGKILL)", redis.kill),
    ]
    session = aiohttp.ClientSession()
    async with session:
        for name in proxies:
            await _cost(session, redis, name, proxies)
        print("| Redis | at the | added ms, p50 | p99 | p99.9 | longest request, ms | requests |")
        print("|---" * 7 + "|")
        for state, act in faults:
            _show(state, await _phase(session, proxies, act))
            if state.startswith("hangs"):
                redis.signal(signal.SIGCONT)
                await _coordinated(session, proxies)


async def _coordinated(session: aiohttp.ClientSession, proxies: dict[str, Running]) -> None:
    async def is_so(proxy: Running) -> bool:
        async with session.get(f"{proxy.admin_url}/metrics") as response:
            return "nanonets_proxy_fleet_coordinated 1.0\n" in await response.text()

    async with asyncio.timeout(20):
        for name in ("leader", "follower"):
            while not await is_so(proxies[name]):  # noqa: ASYNC110 - only the proxy knows
                await asyncio.sleep(0.05)


def main() -> None:
    with ExitStack() as stack:
        redis = stack.enter_context(redis_server())
        upstream = stack.enter_context(sandbox("--limit", "none"))
        options = ["--log-successes", "0"]
        fleet = [*options, "--coordination", redis.url]
        proxies = {"without coordination": stack.enter_context(proxy_to(upstream, *options))}
        for name in ("leader", "follower"):  # the first one leads
            proxies[name] = stack.enter_context(proxy_to(upstream, *fleet))
            proxies[name].wait_for("fleet_joined")
        asyncio.run(_measure(redis, proxies))
