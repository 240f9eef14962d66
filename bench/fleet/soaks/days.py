"""A fleet of three in virtual time for days, with a random fault about each ten minutes (`--simulate --days N`).

Callers always want more than the limit. A replica that ends is replaced by a new one. The seed decides all. This
looks for what only shows after a while: claims that never end, containers that grow, a wrong belief that stays.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from statistics import fmean
from typing import Final

from fleet.faults import FAULTS
from fleet.soaks.growth import lengths, most
from simulator.limiters import FixedWindow
from support.gate.fleet_scene import FleetScene
from support.gate.virtual_loop import run_virtually

_COUNT, _PERIOD_S = 60, 60.0
_REPLICAS, _CALLERS = 3, 8
_FAULT_EACH_S: Final = (450.0, 750.0)
_HOUR_S, _DAY_S = 3600.0, 86_400.0
_NEVER_S: Final = 1e9
_END_S: Final = 600.0
_ENDS_REPLICAS: Final = frozenset({"leader: SIGKILL", "leader: SIGTERM", "follower: SIGKILL"})
_GROWN, _GROWN_BY = 1.5, 20
"""A container has grown if it is larger by this factor, and by so many items, than ever in the first third."""


class _Days:
    """Make it inside a running loop."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)  # noqa: S311 - the same run for the same seed
        self.scene = FleetScene(_REPLICAS, FixedWindow(_COUNT, _PERIOD_S), seed=seed)
        self.slots = list(range(_REPLICAS))
        """The number of the replica in each slot."""
        self._tasks: dict[int, list[asyncio.Task[None]]] = {}  # the callers of each replica

    async def start(self) -> None:
        await self.scene.start()
        for slot in range(_REPLICAS):
            self._call(slot)

    def _call(self, slot: int) -> None:
        """Starts the callers of a slot. The next replica there has callers with the same names."""
        scene, number = self.scene, self.slots[slot]
        before = len(scene.tasks)
        scene.callers(number, _CALLERS, f"s{slot}c")
        self._tasks[number] = scene.tasks[before:]
        del scene.tasks[before:]

    async def _replace(self, slot: int) -> None:
        self.slots[slot] = len(self.scene.replicas)
        await self.scene.add().start(1.0)
        self._call(slot)

    def _forget(self, number: int) -> None:
        """Lets nothing of an ended replica go on."""
        scene = self.scene
        scene.dead.add(number)
        scene.redis.buses.remove(scene.buses[number])
        scene.processes[number].stand_still(_NEVER_S)
        for task in (*self._tasks.pop(number), *scene.processes[number].tasks):
            task.cancel()

    async def kill(self, slot: int) -> None:
        self.scene.kill(self.slots[slot])
        self._forget(self.slots[slot])
        await asyncio.sleep(self.chance.uniform(0, 5))
        await self._replace(slot)

    async def drain(self, slot: int) -> None:
        """Starts another replica, and stops the former one once its callers have been served."""
        scene, number = self.scene, self.slots[slot]
        await self._replace(slot)
        scene.leaving.add(number)
        await asyncio.wait(self._tasks[number])
        scene.replicas[number].room.close()
        await scene.replicas[number].stop()
        self._forget(number)

    def slot_of_leader(self) -> int:
        leader = self.scene.leader
        return self.slots.index(leader) if leader in self.slots else 0

    def is_right(self) -> bool:
        """Returns whether the leader believes the limit, to 5 %."""
        scene = self.scene
        if scene.leader < 0:
            return False
        statuses = scene.replicas[scene.leader].gate().scopes.statuses(scene.loop.time(), 5)
        rates = [status.count / status.period_s for status in statuses if status.count and status.period_s]
        return len(rates) == 1 and abs(rates[0] * _PERIOD_S / _COUNT - 1) < 0.05

    def lengths(self) -> "Counter[str]":
        """Returns the lengths of all containers of the living replicas, and the number of tasks."""
        found: Counter[str] = Counter()
        for number in self.slots:
            found += lengths(self.scene.replicas[number])
        found["tasks"] = len(asyncio.all_tasks())
        return found

    async def end(self) -> list[str]:
        """Lets the callers end, and returns the claims that are left."""
        scene, left = self.scene, []
        scene.leaving.update(self.slots)
        _, late = await asyncio.wait([task for n in self.slots for task in self._tasks[n]], timeout=_END_S)
        if late:
            left.append(f"{len(late)} callers wait")
        await asyncio.sleep(10)
        for number in self.slots:
            replica = scene.replicas[number]
            statuses = replica.gate().scopes.statuses(scene.loop.time(), 100)
            lead, claims = replica.position.lead, len(list(replica.room.held()))
            if lead is not None and lead.host is not None:
                claims += sum(len(member.claims) for member in lead.host.members.values())
            counts = (
                replica.room.waiting,
                replica.room.in_flight,
                claims,
                *(count for status in statuses for count in (status.waiting, status.in_flight)),
            )
            if any(counts):
                left.append(f"replica {number}: waiting, in flight, claims, and of each scope: {counts}")
        await scene.stop()
        return left


# --- faults ---------------------------------------------------------------------------------------------

Act = Callable[[_Days], Awaitable[None]]


def _known(name: str) -> Act:
    async def act(own: _Days) -> None:
        await FAULTS[name](own.scene)

    return act


def _other_slot(own: _Days) -> int:
    return (own.slot_of_leader() + own.chance.randint(1, _REPLICAS - 1)) % _REPLICAS


async def _kill_the_leader(own: _Days) -> None:
    await own.kill(own.slot_of_leader())


async def _kill_a_follower(own: _Days) -> None:
    await own.kill(_other_slot(own))


async def _drain_the_leader(own: _Days) -> None:
    await own.drain(own.slot_of_leader())


async def _drain_a_follower(own: _Days) -> None:
    await own.drain(_other_slot(own))


async def _wipe(own: _Days) -> None:
    own.scene.redis.flush_all()


async def _lose_the_last_second(own: _Days) -> None:
    redis = own.scene.redis
    lease, kept = (redis.holder, redis.lease_epoch, redis.lease_until_s), dict(redis.kept)
    await asyncio.sleep(1.0)
    redis.stop()
    await asyncio.sleep(1.5)
    (redis.holder, redis.lease_epoch, redis.lease_until_s), redis.kept = lease, kept
    redis.reconnect_s = 0.4
    redis.come_back()


async def _set_the_clock(own: _Days) -> None:
    own.scene.redis.clock_off_s = own.chance.uniform(-_HOUR_S, _HOUR_S)


async def _lose_messages(own: _Days) -> None:
    own.scene.redis.lost = 0.01
    await asyncio.sleep(20.0)
    own.scene.redis.lost = 0.0


_FAULTS: Final[dict[str, Act]] = {
    **{name: _known(name) for name in FAULTS if name not in _ENDS_REPLICAS},
    "leader: SIGKILL": _kill_the_leader,
    "leader: replaced, then SIGTERM": _drain_the_leader,
    "follower: SIGKILL": _kill_a_follower,
    "follower: replaced, then SIGTERM": _drain_a_follower,
    "Redis: FLUSHALL": _wipe,
    "Redis: a failover loses the last second": _lose_the_last_second,
    "Redis: another time": _set_the_clock,
    "Redis: loses 1 % of the messages for 20 s": _lose_messages,
}


# --- report ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Interval:
    """What followed a fault until the next one."""

    refused: int
    goodput: float
    is_right: bool


async def _run(days: float, seed: int) -> list[str]:
    own, found = _Days(seed), dict[str, list[_Interval]]()
    scene, problems = own.scene, list[str]()
    samples: list[tuple[float, Counter[str]]] = []
    await own.start()
    began_s = scene.loop.time()
    await asyncio.sleep(10 * _PERIOD_S)
    while (age_s := scene.loop.time() - began_s) < days * _DAY_S:
        samples.append((age_s, own.lengths()))
        scene.counts.clear()
        name, since_s = own.chance.choice(list(_FAULTS)), scene.loop.time()
        await _FAULTS[name](own)
        await asyncio.sleep(own.chance.uniform(*_FAULT_EACH_S))
        counts = scene.counts
        served = len(counts.served_at_s) * _PERIOD_S / (_COUNT * (scene.loop.time() - since_s))
        found.setdefault(name, []).append(_Interval(len(counts.refused_at_s), served, own.is_right()))
        problems += [f"after {name}: {type(error).__name__}: {error}" for error in counts.errors]
    problems += await own.end()
    print(
        "| fault | times | 429s until the next fault, mean | most | served of the limit | wrong limit at the end |"
    )
    print("|---|---|---|---|---|---|")
    for name, each in sorted(found.items()):
        refused = [interval.refused for interval in each]
        cells = [
            name,
            str(len(each)),
            f"{fmean(refused):.1f}",
            str(max(refused)),
            f"{fmean(interval.goodput for interval in each):.3f}",
            str(sum(not interval.is_right for interval in each)),
        ]
        print("| " + " | ".join(cells) + " |")
    third = len(samples) // 3 + 1
    first, last = (most([sample for _, sample in each]) for each in (samples[:third], samples[-third:]))
    print(f"the replicas' objects: {first['bytes']} bytes at most in the first third, {last['bytes']} in the last")
    grown = sorted(last, key=lambda name: first[name] - last[name])[1:6]
    print("the most grown: " + ", ".join(f"{name} {first[name]} to {last[name]}" for name in grown))
    problems += [
        f"{name} has grown from {first[name]} to {size}"
        for name, size in last.items()
        if size > max(_GROWN * first[name], first[name] + _GROWN_BY)
    ]
    return problems


def main(days: float, seed: int) -> int:
    """Runs the days, prints what was seen, and returns 1 if it found a fault."""
    print(f"{days:g} days, seed {seed}", flush=True)
    began_s = time.monotonic()
    problems: list[str] = run_virtually(_run(days, seed))
    for problem, times in Counter(problems).items():
        print(f"PROBLEM, {times} times: {problem}")
    print(f"a virtual day took {(time.monotonic() - began_s) / days:.0f} s")
    return 1 if problems else 0
