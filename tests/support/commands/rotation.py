"""Rotates keys under load, with the real proxy, the real sandbox and a key file, and counts the callers' responses.

`make bench-rotation` runs it in full: 100 rotations in 60 s under 500 requests per second, for each `Ending`.
"""

import asyncio
import json
import resource
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import Any

import aiohttp

from nanonets_proxy.core.keys.api_key import ApiKey
from support.commands.process import ANY_PORTS, Running, environment, running, sandbox

GET_PATH, POST_PATH = "/api/v4/workflow_types", "/api/v4/workflows"
MOST_OPEN = 2000
"""The limit of concurrent requests. A machine that is too slow lowers the rate instead of running out of files."""
BODY = json.dumps({"description": "x" * 200}).encode()


class Ending(Enum):
    """The time at which the upstream stops accepting the old key."""

    AFTER_200_MS = "0.2 s after the new key exists"
    AT_ONCE = "when the new key exists"
    BEFORE = "0.2 s before the new key exists"


@dataclass(frozen=True)
class Load:
    rotations: int
    duration_s: float
    requests_per_s: int


@dataclass
class Outcome:
    statuses: Counter[int] = field(default_factory=Counter)
    requests_per_s: float = 0.0
    slowest_s: float = 0.0
    slowest_detection_s: float = 0.0
    attempts: Counter[int] = field(default_factory=Counter)
    unauthorized: int = 0
    """401s that the proxy received from the upstream."""

    def __str__(self) -> str:
        statuses = ", ".join(f"{count} x {status}" for status, count in sorted(self.statuses.items()))
        return (
            f"{statuses}; {self.requests_per_s:.0f} per second; slowest response {self.slowest_s * 1000:.0f} ms, "
            f"slowest detection {self.slowest_detection_s * 1000:.0f} ms, "
            f"the upstream sent {self.unauthorized} 401s"
        )


class _Callers:
    def __init__(self, url: str, session: aiohttp.ClientSession, outcome: Outcome) -> None:
        self._url, self._session, self._outcome = url, session, outcome
        self._count = 0

    async def call(self) -> None:
        self._count += 1
        post = self._count % 4 == 0
        began_s = time.monotonic()
        method, path, body = ("POST", POST_PATH, BODY) if post else ("GET", GET_PATH, None)
        try:
            async with self._session.request(method, self._url + path, data=body) as response:
                await response.read()
                status = response.status
        except aiohttp.ClientError:
            status = 0
        self._outcome.statuses[status] += 1
        self._outcome.slowest_s = max(self._outcome.slowest_s, time.monotonic() - began_s)


async def _rotate(
    load: Load, ending: Ending, upstream: str, key_file: Path, session: Any, proxy: Running
) -> list[tuple[float, str]]:
    """Rotates the keys, and returns the wall-clock time at which each key was written to its file.

    On a busy machine, a rotation may begin late. Each key still serves a request, and for half a period at least: a
    key that ends as soon as it is written tests no rotation, and a key that never worked counts as wrong.
    """
    written = []
    period_s = load.duration_s / load.rotations
    began_s = time.monotonic()
    written_s = -period_s
    for number in range(load.rotations):
        due_s = max(began_s + number * period_s, written_s + period_s / 2)
        await asyncio.sleep(max(0.0, due_s - time.monotonic()))
        if ending is Ending.BEFORE:
            await _accept(session, upstream, [], 0.0)
            await asyncio.sleep(0.2)
        grace_s = 0.2 if ending is Ending.AFTER_200_MS else 0.0
        await _accept(session, upstream, [f"key-{number}"], grace_s)
        new = key_file.with_suffix(".new")
        new.write_text(f"key-{number}")
        written.append((time.time(), f"key-{number}"))
        new.rename(key_file)
        written_s = time.monotonic()
        await asyncio.to_thread(proxy.wait_for_next, "key_active")
    await asyncio.sleep(max(1.0, began_s + load.duration_s - time.monotonic()))
    return written


async def _accept(session: aiohttp.ClientSession, upstream: str, keys: list[str], grace_s: float) -> None:
    async with session.post(f"{upstream}/sandbox/keys", json={"keys": keys, "grace_s": grace_s}) as response:
        assert response.status == 204


async def rotate_under_load(load: Load, ending: Ending, directory: Path) -> tuple[Outcome, Running]:
    """Runs the load and the rotations, then ends the proxy."""
    key_file = directory / "key"
    key_file.write_text("the-first-key")
    outcome = Outcome()
    settings = ["serve", *ANY_PORTS, "--api-key-file", str(key_file), "--key-gap", "10m", "--max-wait", "10m"]
    with sandbox("--limit", "none", key="the-first-key") as upstream:
        with running([*settings, "--upstream", upstream], environment(), is_forked=True) as proxy:
            connector = aiohttp.TCPConnector(limit=0)
            async with aiohttp.ClientSession(connector=connector) as session:
                callers = _Callers(proxy.url, session, outcome)
                await callers.call()
                await asyncio.to_thread(proxy.wait_for_next, "key_active")
                rotating = asyncio.create_task(_rotate(load, ending, upstream, key_file, session, proxy))
                began_s, tasks, sent = time.monotonic(), set[asyncio.Task[None]](), 0
                while not rotating.done():
                    due = int((time.monotonic() - began_s) * load.requests_per_s)
                    for _ in range(min(due - sent, MOST_OPEN - len(tasks))):
                        task = asyncio.create_task(callers.call())
                        tasks.add(task)
                        task.add_done_callback(tasks.discard)
                    sent = due
                    await asyncio.sleep(0.01)
                outcome.requests_per_s = sum(outcome.statuses.values()) / (time.monotonic() - began_s)
                written = await rotating
                await asyncio.gather(*tasks)
                async with session.get(f"{upstream}/sandbox/stats") as response:
                    outcome.unauthorized = (await response.json())["unauthorized"]
            assert await asyncio.to_thread(proxy.end) == 0
        outcome.attempts = Counter(event["attempts"] for event in proxy.requests())
        outcome.slowest_detection_s = _slowest_detection_s(proxy, written)
    return outcome, proxy


def _slowest_detection_s(proxy: Running, written: list[tuple[float, str]]) -> float:
    """Returns the longest time from a file's change to its event.

    A change that a later change overtook counts up to the later event.
    """
    seen = {
        event["fingerprint"]: datetime.fromisoformat(event["timestamp"]).timestamp()
        for event in proxy.all_events()
        if event["event"] == "key_candidate"
    }
    found = [seen.get(ApiKey.parse(key, "test").fingerprint()) for _, key in written]
    slowest_s, later_s = 0.0, float("inf")
    for (at_s, _), seen_s in reversed(list(zip(written, found, strict=True))):
        later_s = min(later_s, seen_s if seen_s is not None else later_s)
        slowest_s = max(slowest_s, later_s - at_s)
    return slowest_s


def main(rotations: int = 100, duration_s: float = 60.0) -> int:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # each waiting request is an open file
    failed = False
    for ending in Ending:
        with tempfile.TemporaryDirectory() as directory:
            load = Load(rotations, duration_s, requests_per_s=500)
            outcome, _ = asyncio.run(rotate_under_load(load, ending, Path(directory)))
        sys.stdout.write(f"old key ends {ending.value}: {outcome}\n")
        failed |= any(status not in (200, 201) for status in outcome.statuses) or outcome.slowest_detection_s > 1.0
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
