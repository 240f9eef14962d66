"""Faults of a fleet in virtual time, and what follows each one (`make bench-fleet FLEET_ARGS=--simulate`).

On a *busy* machine each replica stands still now and then, as a process that waits for a CPU.
"""

import asyncio
import math
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from statistics import fmean

from simulator.limiters import FixedWindow, Limiter
from support.gate.fleet_scene import FleetScene
from support.gate.virtual_loop import run_virtually

COUNT, PERIOD_S = 40, 4.0
CALLERS = 24
AFTER_S = 40.0
PAUSE_S = 20.0

Act = Callable[[FleetScene], Awaitable[None]]


async def _nothing(scene: FleetScene) -> None:
    """The control."""


async def _kill_the_leader(scene: FleetScene) -> None:
    scene.kill(max(scene.leader, 0))


async def _kill_a_follower(scene: FleetScene) -> None:
    scene.kill(_follower(scene))


async def _stop_the_leader(scene: FleetScene) -> None:
    number = max(scene.leader, 0)
    scene.dead.add(number)
    scene.replicas[number].room.close()
    await scene.replicas[number].stop()


async def _pause_the_leader(scene: FleetScene) -> None:
    scene.processes[max(scene.leader, 0)].stand_still(PAUSE_S)
    await asyncio.sleep(PAUSE_S)


async def _pause_a_follower(scene: FleetScene) -> None:
    scene.processes[_follower(scene)].stand_still(PAUSE_S)
    await asyncio.sleep(PAUSE_S)


def _hang(for_s: float) -> Act:
    async def act(scene: FleetScene) -> None:
        scene.redis.hangs = True
        await asyncio.sleep(for_s)
        scene.redis.resume()

    return act


def _be_away(for_s: float) -> Act:
    async def act(scene: FleetScene) -> None:
        scene.redis.stop()
        scene.redis.flush_all()
        await asyncio.sleep(for_s)
        scene.redis.reconnect_s = 0.4
        scene.redis.come_back()

    return act


def _be_slow(delay_s: float) -> Act:
    async def act(scene: FleetScene) -> None:
        usual_s, scene.redis.delay_s = scene.redis.delay_s, delay_s
        await asyncio.sleep(20.0)
        scene.redis.delay_s = usual_s

    return act


async def _be_read_only(scene: FleetScene) -> None:
    scene.redis.is_read_only = True
    await asyncio.sleep(5.0)
    scene.redis.is_read_only = False


def _follower(scene: FleetScene) -> int:
    return next(n for n in range(len(scene.replicas)) if n != scene.leader and n not in scene.dead)


FAULTS: dict[str, Act] = {
    "none": _nothing,
    "leader: SIGKILL": _kill_the_leader,
    "leader: SIGTERM": _stop_the_leader,
    "leader: SIGSTOP for 20 s": _pause_the_leader,
    "follower: SIGKILL": _kill_a_follower,
    "follower: SIGSTOP for 20 s": _pause_a_follower,
    "Redis: hangs for 0.3 s": _hang(0.3),
    "Redis: hangs for 3 s": _hang(3.0),
    "Redis: away for 3 s, then empty": _be_away(3.0),
    "Redis: away for 30 s, then empty": _be_away(30.0),
    "Redis: read-only for 5 s": _be_read_only,
    "Redis: 20 ms slow for 20 s": _be_slow(0.020),
    "Redis: 45 ms slow for 20 s": _be_slow(0.045),
    "Redis: 100 ms slow for 20 s": _be_slow(0.100),
}


@dataclass(frozen=True)
class Busy:
    """How a machine stands still: every `each_s` on average, for `for_s` on average, and at most `most_s`."""

    each_s: float
    for_s: float
    most_s: float = math.inf


IDLE, BUSY = None, Busy(0.4, 0.06)
KNOWN_AT_S = [24.0, 25.3, 26.6]
LEARNING_AT_S = [0.6 + 0.9 * number for number in range(9)]
"""When the fault comes, after a cold start."""


async def be_busy(scene: FleetScene, busy: Busy, chance: random.Random) -> None:
    """Lets each replica stand still now and then."""

    async def stall(number: int) -> None:
        while True:
            await asyncio.sleep(chance.expovariate(1 / busy.each_s))
            scene.processes[number].stand_still(min(busy.most_s, chance.expovariate(1 / busy.for_s)))

    await asyncio.gather(*(stall(number) for number in range(len(scene.replicas))))


@dataclass(frozen=True)
class Found:
    """What one run showed after the fault."""

    refused: int
    served: int
    errors: int
    learned: float
    """Requests a second, as the leader believes at the end; nan: nothing."""
    changes: int


def run(
    fault: Act,
    at_s: float,
    *,
    replicas: int = 3,
    seed: int = 1,
    busy: Busy | None = IDLE,
    whole_seconds: bool = True,
    limiter: Callable[[], Limiter] = lambda: FixedWindow(COUNT, PERIOD_S),
    after_s: float = AFTER_S,
) -> Found:
    """Returns what a fleet did for `after_s` after the fault, which comes `at_s` after a cold start."""

    async def main() -> Found:
        scene = FleetScene(replicas, limiter(), seed=seed, whole_seconds=whole_seconds)
        await scene.start()
        for number in range(replicas):
            scene.callers(number, max(1, CALLERS // replicas), f"r{number}c")
        if busy is not None:
            chance = random.Random(seed + 1000)  # noqa: S311 - the same run each time
            scene.tasks.append(scene.loop.create_task(be_busy(scene, busy, chance)))
        await asyncio.sleep(at_s)
        counts, since_s = scene.counts, scene.loop.time()
        served, errors, changes = len(counts.served_at_s), len(counts.errors), len(scene.changes)
        await fault(scene)
        await asyncio.sleep(since_s + after_s - scene.loop.time())
        rate = float("nan")
        if scene.leader >= 0:
            for status in scene.replicas[scene.leader].gate().scopes.statuses(scene.loop.time(), 5):
                rate = (status.count or 0) / (status.period_s or 1)
        found = Found(
            counts.refused_since(since_s),
            len(counts.served_at_s) - served,
            len(counts.errors) - errors,
            rate,
            len(scene.changes) - changes,
        )
        await scene.stop()
        return found

    found: Found = run_virtually(main())
    return found


def _row(fault: str, at_s: list[float], seeds: int, replicas: int, busy: Busy | None) -> str:
    found = [
        run(FAULTS[fault], at, replicas=replicas, seed=seed, busy=busy)
        for seed, at in enumerate(at_s * seeds, start=1)
    ]
    refused = [each.refused for each in found]
    goodput = fmean(each.served for each in found) / (AFTER_S * COUNT / PERIOD_S)
    cells = [
        fault,
        f"{fmean(refused):.1f}",
        str(max(refused)),
        f"{goodput:.2f}",
        str(sum(each.errors for each in found)),
        f"{sum(not 9.5 < each.learned < 10.5 for each in found)} of {len(found)}",
    ]
    return "| " + " | ".join(cells) + " |"


def main(replicas: list[int]) -> None:
    """Prints a table for each size of a fleet, limit known or not, on an idle and on a busy machine."""
    for count in replicas:
        for when, at_s in (("known", KNOWN_AT_S), ("being learned", LEARNING_AT_S)):
            for machine, busy in (("idle", IDLE), ("busy", BUSY)):
                print(f"\n{count} replicas, the limit is {when}, the machine is {machine}; {AFTER_S:.0f} s\n")
                print("| fault | 429s, mean | most | goodput | errors | wrong limit at the end |")
                print("|---|---|---|---|---|---|")
                for fault in FAULTS:
                    print(_row(fault, at_s, 2 if when == "known" else 1, count, busy), flush=True)
