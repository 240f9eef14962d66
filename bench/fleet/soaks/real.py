"""Lets random events happen to a fleet of three real replicas, and looks for faults (`FLEET_ARGS="--soak 60"`).

The fleet is coordinated over Sentinels, and its upstream has a fixed window. The seed decides which events come and
when. The replica of the first slot lives all the time, so that its growth shows.
"""

import asyncio
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from statistics import fmean
from typing import Final

from fleet.events import be_away, be_full, be_slow, be_wiped, fail_over, fail_over_by_hand, hang, lose_last_second
from fleet.load import COUNT, KINDS, PERIOD_S, stats
from fleet.proxies import WARM_S
from fleet.redis_server import RedisServer
from fleet.soaks.scene import Member, Slot, SoakScene
from support.commands.process import sandbox
from support.commands.redis_groups import sentinel_group

_SETTLE_S: Final = 2 * PERIOD_S
"""After an event, its 429s come within this time."""
_SAMPLE_EACH_S: Final = 10.0
_PAIRS: Final = 0.2
"""The share of events at which another one happens too."""
_EXPECTED: Final = frozenset({"fleet_alone"})
"""The warnings that the events explain."""
_GROWN_DESCRIPTORS: Final = 20
_SHOWN: Final = 8


@dataclass(frozen=True)
class _Moment:
    """What an event has to do with."""

    scene: SoakScene
    chance: random.Random
    slot: Slot
    """Of the replica to which it happens, if it happens to one."""

    @property
    def master(self) -> RedisServer:
        return self.scene.group.master


Act = Callable[[_Moment], object]


def _stand_still(now: _Moment) -> None:
    now.slot.member.signal(signal.SIGSTOP)
    time.sleep(10 ** now.chance.uniform(-1.3, 1))
    now.slot.member.signal(signal.SIGCONT)


_OF_ANY_REPLICA: Final[dict[str, Act]] = {
    "SIGSTOP": _stand_still,
    "reload": lambda now: now.slot.member.reload(),
}
_OF_OTHER_REPLICAS: Final[dict[str, Act]] = {
    "SIGKILL": lambda now: now.scene.kill(now.slot, now.chance.uniform(0, 5)),
    "a new replica, then SIGTERM": lambda now: now.scene.replace(now.slot),
    "restart": lambda now: now.slot.member.restart(),
}
_OF_SERVERS: Final[dict[str, Act]] = {
    "Redis: SIGKILL, back at once": lambda now: be_away(now.master, 0.1),
    "Redis: SIGSTOP, no failover": lambda now: hang(now.master, now.chance.uniform(0.03, 0.4)),
    "Redis: FLUSHALL": lambda now: be_wiped(now.master),
    "Redis: slow": lambda now: be_slow(now.master, now.chance.uniform(0.01, 0.1), 8),
    "Redis: out of memory": lambda now: be_full(now.master, 5),
    "failover: SIGKILL": lambda now: fail_over(now.scene.group, is_killed=True).start(),
    "failover: SIGSTOP": lambda now: fail_over(now.scene.group, is_killed=False),
    "failover: the last second is lost": lambda now: lose_last_second(now.scene.group).start(),
    "failover by hand": lambda now: fail_over_by_hand(now.scene.group, now.scene.group.sentinels[0]),
}


@dataclass
class _Counted:
    """What the upstream admitted and refused in some spans of time."""

    seconds: list[float] = field(default_factory=list)
    admitted: list[int] = field(default_factory=list)
    refused: list[int] = field(default_factory=list)

    def goodput(self) -> float:
        return sum(self.admitted) * PERIOD_S / (COUNT * sum(self.seconds)) if self.seconds else 0.0

    async def note(self, upstream: str, since: tuple[float, int, int]) -> tuple[float, int, int]:
        """Notes what has come since an earlier mark, and returns the next one."""
        now = await mark(upstream)
        self.seconds.append(now[0] - since[0])
        self.admitted.append(now[1] - since[1])
        self.refused.append(now[2] - since[2])
        return now


async def mark(upstream: str) -> tuple[float, int, int]:
    """Returns the time, and how many requests were admitted and refused so far."""
    return time.monotonic(), *await asyncio.to_thread(stats, upstream)


class _Soak:
    def __init__(self, scene: SoakScene, seed: int) -> None:
        self.scene = scene
        self.calm = _Counted()
        self.events: dict[str, _Counted] = {}
        self.beliefs: Counter[str] = Counter()
        """What the fleet believed before each event."""
        self.problems: list[str] = []
        self._chance = random.Random(seed)  # noqa: S311 - the same events for the same seed

    async def run(self, minutes: float) -> None:
        scene, ends_at_s = self.scene, time.monotonic() + 60 * minutes
        calls = asyncio.create_task(scene.call())
        watch = asyncio.create_task(self._watch())
        await asyncio.sleep(2 * WARM_S)
        while time.monotonic() < ends_at_s and not calls.done():
            try:
                await asyncio.to_thread(scene.await_replication)
            except AssertionError:
                self.problems.append(f"no replication {scene.event}")
            now = await mark(scene.upstream)
            await asyncio.sleep(PERIOD_S * self._chance.randint(2, 4))  # whole windows
            now = await self.calm.note(scene.upstream, now)
            believed = await asyncio.to_thread(scene.believed)
            self.beliefs[believed] += 1
            print(f"   {scene.event}: {self.calm.refused[-1]} 429s, believes {believed}", flush=True)
            name = await self._happen()
            await asyncio.sleep(_SETTLE_S)
            await self.events.setdefault(name, _Counted()).note(scene.upstream, now)
        scene.ends = True
        try:
            async with asyncio.timeout(120):
                await calls
        except TimeoutError:
            self.problems.append("calls have not ended after 120 s")
        watch.cancel()
        self.problems += await asyncio.to_thread(scene.leaks)

    async def _happen(self) -> str:
        """Lets a random event happen, sometimes two. Returns its name."""
        scene, chance = self.scene, self._chance
        names, acts = [], list[Act]()
        is_of_servers, is_pair = chance.random() < 0.5, chance.random() < _PAIRS
        slot = chance.choice(scene.slots[1:])
        if is_of_servers or is_pair:
            name = chance.choice(list(_OF_SERVERS))
            names.append(name)
            acts.append(_OF_SERVERS[name])
        if not is_of_servers or is_pair:
            of_replicas = _OF_ANY_REPLICA | _OF_OTHER_REPLICAS
            name = chance.choice(list(of_replicas))
            slot = chance.choice(scene.slots) if name in _OF_ANY_REPLICA else slot
            names.append(f"{name}, {await asyncio.to_thread(scene.role, slot)}")
            acts.append(of_replicas[name])
        now = _Moment(scene, random.Random(chance.random()), slot)  # noqa: S311 - as above
        scene.event = " and ".join(names)
        print(f"   {time.strftime('%H:%M:%S')} {scene.event}", flush=True)
        happening = (asyncio.to_thread(act, now) for act in acts)
        for result in await asyncio.gather(*happening, return_exceptions=True):
            if isinstance(result, BaseException):
                self.problems.append(f"{scene.event}: {type(result).__name__}: {result}"[:300])
        name, scene.event = "two at once" if is_pair else scene.event, f"after {scene.event}"
        return name

    async def _watch(self) -> None:
        while True:
            for slot in self.scene.slots:
                slot.member.sample()
            await asyncio.sleep(_SAMPLE_EACH_S)

    # --- report -------------------------------------------------------------------------------------

    def report(self) -> None:
        """Prints what was seen."""
        scene = self.scene
        failed = sum(scene.failed.values())
        print(f"\n{scene.served} calls served, the longest in {scene.longest_s:.1f} s; {failed} failed at living")
        print(f"replicas: {dict(scene.failed) or 'none'}; {scene.excused} at replicas that were killed")
        refused, seconds = sum(self.calm.refused), sum(self.calm.seconds)
        print(f"without an event: {seconds:.0f} s, goodput {self.calm.goodput():.3f}, {refused} 429s")
        print(f"believed before an event: {dict(self.beliefs)}")
        print("\n| event | times | extra 429s, mean | most | goodput |\n|---|---|---|---|---|")
        rate = refused / seconds if seconds else 0.0
        for name, counted in sorted(self.events.items()):
            extra = [count - rate * each for count, each in zip(counted.refused, counted.seconds, strict=True)]
            cells = [str(len(extra)), f"{fmean(extra):.1f}", f"{max(extra):.1f}", f"{counted.goodput():.2f}"]
            print("| " + " | ".join([name, *cells]) + " |")
        self._report_growth()

    def _report_growth(self) -> None:
        """Prints what the processes that lived longest used in their second minute, half way and at their end."""
        print("\n| process | lived | resident MiB | descriptors | threads |\n|---|---|---|---|---|")
        lives = [(pid, each) for member in self.scene.members for pid, each in member.samples.items()]
        for pid, samples in sorted(lives, key=lambda life: -life[1][-1].age_s)[:_SHOWN]:
            grown = [each for each in samples if each.age_s > 60] or samples
            three = grown[0], grown[len(grown) // 2], grown[-1]
            cells = [
                str(pid),
                f"{three[2].age_s:.0f} s",
                ", ".join(f"{each.resident_mib:.1f}" for each in three),
                ", ".join(str(each.descriptors) for each in three),
                ", ".join(str(each.threads) for each in three),
            ]
            print("| " + " | ".join(cells) + " |")
            if three[2].descriptors > three[0].descriptors + _GROWN_DESCRIPTORS:
                self.problems.append(f"process {pid} has ever more descriptors")

    def read_logs(self) -> None:
        """Notes what the logs of all replicas have that the events do not explain."""
        warnings: Counter[str] = Counter()
        for member in self.scene.members:
            warnings.update(_unexpected(member))
        self.problems += [f"{times} times in the logs: {what}" for what, times in warnings.items()]


def _unexpected(member: Member) -> list[str]:
    found = []
    for event in member.proxy.all_events():
        if event["level"] in ("warning", "error", "critical") and event["event"] not in _EXPECTED:
            hidden = {"timestamp", "level", "request_id", "total_s", "wait_s", "upstream_s", "advice", "caller"}
            found.append(str({name: value for name, value in event.items() if name not in hidden})[:600])
    text = member.proxy.stderr.decode(errors="replace").strip()
    return [*found, f"standard error: {text[-1500:]}"] if text else found


def main(minutes: float, seed: int) -> int:
    """Runs a soak, and returns 1 if it found a fault."""
    print(f"{minutes:g} minutes, seed {seed}", flush=True)
    with ExitStack() as stack:
        group = stack.enter_context(sentinel_group())
        upstream = stack.enter_context(sandbox(*KINDS["window"][0]))
        soak = _Soak(SoakScene(stack, upstream, group), seed)
        asyncio.run(soak.run(minutes))
        soak.report()
        print(f"load at the end: {os.getloadavg()[0]:.1f}", flush=True)
    soak.read_logs()
    for problem in soak.problems:
        print(f"PROBLEM: {problem}")
    return 1 if soak.problems or soak.scene.failed else 0
