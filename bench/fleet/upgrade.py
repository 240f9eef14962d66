"""Replaces the replicas of a running fleet by those of another version, one by one (`FLEET_ARGS=--upgrade`).

The fleet has learned its limit before. The callers of a replica send their next requests to the new one as soon as
it is ready. The old one gets a SIGTERM at the same moment, while requests wait there, which it serves during its
`drain_delay`.
"""

import asyncio
import contextlib
import json
import re
import shutil
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import aiohttp

import nanonets_proxy
from fleet.load import KINDS, Results, call, jain, stats
from fleet.redis_server import redis_server
from support.commands.process import ANY_PORTS, COMMAND, Running, environment, running, sandbox

_CALLERS = 4
_WARM_S = 16.0
_PAUSE_S = 4.0
"""Between the end of a replica and the start of the next one."""
_AFTER_S = 24.0
_SHARED_S = 60.0
_LOOK_S = 5.0


@dataclass(frozen=True)
class Version:
    """How to run a version."""

    name: str
    command: list[str]
    env: Mapping[str, str]


@contextlib.contextmanager
def _other_protocol() -> Iterator[Version]:
    """Copies this version, with the number of the next protocol."""
    with TemporaryDirectory(prefix="upgrade") as folder:
        package = Path(folder, "nanonets_proxy")
        shutil.copytree(Path(nanonets_proxy.__file__).parent, package)
        policy = package / "core/ratelimit/fleet/policy.py"
        changed, count = re.subn(
            r"(?<=^PROTOCOL: Final = )\d+", lambda found: str(int(found[0]) + 1), policy.read_text(), flags=re.M
        )
        assert count == 1
        policy.write_text(changed)
        yield Version("next protocol", [sys.executable, "-m", "nanonets_proxy"], {"PYTHONPATH": folder})


def unready(admin_url: str) -> str:
    """Returns why the replica with this admin listener is not ready; empty: it is."""
    try:
        urllib.request.urlopen(f"{admin_url}/readyz", timeout=_LOOK_S).close()  # noqa: S310 - loopback, http
    except urllib.error.HTTPError as error:
        return str(json.load(error)["reason"])
    except OSError:
        return "no_response"
    return ""


def _is_ready(proxy: Running) -> bool:
    return not unready(proxy.admin_url)


def _is_coordinated(proxy: Running) -> bool:
    with urllib.request.urlopen(f"{proxy.admin_url}/metrics") as response:  # noqa: S310 - loopback, http
        return b"\nnanonets_proxy_fleet_coordinated 1.0\n" in response.read()


@dataclass
class _Upgrade:
    upstream: str
    url: str
    stack: ExitStack
    proxies: list[Running]
    results: Results
    drain_delay_s: float
    not_ready: "Counter[str]" = field(default_factory=Counter)
    """How often a replica with callers was not ready, for each reason."""

    def start(self, version: Version) -> Running:
        options = ["--caller-header", "X-Caller", "--log-successes", "0", "--coordination-required"]
        options += ["--drain-delay", f"{self.drain_delay_s:.0f}s"]
        arguments = ["serve", *ANY_PORTS, "--upstream", self.upstream, "--coordination", self.url, *options]
        env = environment(NANONETS_API_KEY="sandbox-test-key", **version.env)
        proxy = self.stack.enter_context(running(arguments, env, command=version.command))
        proxy.wait_for("started")
        return proxy

    async def watch(self) -> None:
        """Looks every 0.1 s whether each replica that has callers is ready."""
        while True:
            for proxy in list(self.proxies):
                reason = await asyncio.to_thread(unready, proxy.admin_url)
                if reason and proxy in self.proxies:  # it was not replaced meanwhile
                    self.not_ready[reason] += 1
            await asyncio.sleep(0.1)


async def _until(proxy: Running, condition: Callable[[Running], bool]) -> None:
    async with asyncio.timeout(_SHARED_S):
        while not await asyncio.to_thread(condition, proxy):  # noqa: ASYNC110 - only the proxy knows
            await asyncio.sleep(0.05)


async def _run(own: _Upgrade, old: Version, new: Version, kind: str, replicas: int) -> None:
    own.proxies = [await asyncio.to_thread(own.start, old) for _ in range(replicas)]
    for proxy in own.proxies:
        await _until(proxy, _is_ready)
    urls = [proxy.url for proxy in own.proxies]
    names = [f"r{n}c{c}" for n in range(replicas) for c in range(_CALLERS)]
    connector = aiohttp.TCPConnector(limit=0)
    async with (
        aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(None)) as session,
        asyncio.TaskGroup() as group,  # an error of a caller or of `watch` ends the run
    ):
        tasks = [
            group.create_task(call(session, urls, n // _CALLERS, name, own.results)) for n, name in enumerate(names)
        ]
        tasks.append(group.create_task(own.watch()))
        await asyncio.sleep(_WARM_S)
        began = await _begin(own)
        for n in range(replicas):
            proxy = await asyncio.to_thread(own.start, new)
            await _until(proxy, _is_ready)
            leaving, own.proxies[n], urls[n] = own.proxies[n], proxy, proxy.url
            assert await asyncio.to_thread(leaving.end) == 0
            if n < replicas - 1:
                await asyncio.sleep(_PAUSE_S)
        left_s = time.monotonic()
        for proxy in own.proxies:
            await _until(proxy, _is_coordinated)
        shared_s = time.monotonic() - left_s
        await _show(f"{old.name} to {new.name}", kind, own, began, names, f"{shared_s:.1f}")
        began = await _begin(own)
        await asyncio.sleep(_AFTER_S)
        await _show(f"{_AFTER_S:.0f} s afterwards", kind, own, began, names, "")
        for task in tasks:
            task.cancel()


async def _begin(own: _Upgrade) -> tuple[int, int]:
    own.results.clear()
    own.not_ready.clear()
    return await asyncio.to_thread(stats, own.upstream)


async def _show(
    what: str, kind: str, own: _Upgrade, began: tuple[int, int], names: list[str], shared_s: str
) -> None:
    elapsed_s = time.monotonic() - own.results.since_s
    admitted, refused = await asyncio.to_thread(stats, own.upstream)
    cells = [
        what,
        kind,
        f"{elapsed_s:.0f}",
        f"{(admitted - began[0]) / (KINDS[kind][1] * elapsed_s):.2f}",
        str(refused - began[1]),
        f"{jain(own.results.by(lambda each: each[1], list(names))):.3f}",
        own.results.failures(range(len(own.proxies))),
        ", ".join(f"{count} {reason}" for reason, count in own.not_ready.items()) or "0",
        shared_s,
    ]
    print("| " + " | ".join(cells) + " |", flush=True)


def _upgrade(old: Version, new: Version, kind: str, replicas: int, drain_delay_s: float) -> None:
    with ExitStack() as stack:
        redis = stack.enter_context(redis_server())
        upstream = stack.enter_context(sandbox(*KINDS[kind][0]))
        proxies = stack.enter_context(ExitStack())
        own = _Upgrade(upstream, redis.url, proxies, [], Results(), drain_delay_s)
        asyncio.run(_run(own, old, new, kind, replicas))
        reasons = Counter(
            (event["event"], event.get("reason", event.get("role")))
            for proxy in own.proxies
            for event in proxy.all_events()
            if event["event"].startswith("fleet_") or event["level"] in ("warning", "error")
        )
    print(f"   the new replicas logged: {dict(reasons)}", flush=True)


def main(command: str, replicas: int, kinds: list[str], drain_delay_s: float) -> None:
    """Prints an upgrade from the version of `command` to this one, and the way back."""
    columns = (
        "what",
        "limit",
        "s",
        "goodput",
        "429s",
        "Jain, callers",
        "failed calls",
        "looks not ready",
        "s until shared",
    )
    print("| " + " | ".join(columns) + " |\n" + "|---" * len(columns) + "|", flush=True)
    with ExitStack() as stack:
        this = Version("this version", list(COMMAND), {})
        other = (
            Version("the other version", command.split(), {}) if command else stack.enter_context(_other_protocol())
        )
        for kind in kinds:
            _upgrade(other, this, kind, replicas, drain_delay_s)
            _upgrade(this, other, kind, replicas, drain_delay_s)
