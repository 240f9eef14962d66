"""A fleet in virtual time: replicas over a Redis in memory, callers that always want more, one simulated limit."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

from nanonets_proxy.admission.fleet.homes.maker import HomeMaker
from nanonets_proxy.admission.fleet.replica import Replica
from nanonets_proxy.admission.fleet.state import State
from nanonets_proxy.core.ratelimit.fleet.names import Names
from nanonets_proxy.core.ratelimit.gate_policy import GatePolicy
from nanonets_proxy.core.ratelimit.tickets import Outcome, Ticket
from nanonets_proxy.errors import ProxyError
from simulator.limiters import Limiter
from support.gate.memory_bus import MemoryBus, MemoryRedis
from support.gate.replica_loop import ReplicaLoop

TRAVEL_S = 0.02


@dataclass
class Counts:
    served: "Counter[tuple[int, str]]" = field(default_factory=Counter)
    """By replica and caller."""
    served_at_s: list[float] = field(default_factory=list)
    refused_at_s: list[float] = field(default_factory=list)
    sent: list[tuple[float, int]] = field(default_factory=list)
    """When each request was sent, and by which replica."""
    errors: list[ProxyError] = field(default_factory=list)
    waits_s: list[float] = field(default_factory=list)

    def clear(self) -> None:
        """Begins to count anew."""
        for each in (self.served, self.served_at_s, self.refused_at_s, self.sent, self.errors, self.waits_s):
            each.clear()

    def refused_since(self, since_s: float) -> int:
        return sum(at_s >= since_s for at_s in self.refused_at_s)

    def served_by(self, key: Callable[[tuple[int, str]], object]) -> "Counter[object]":
        sums: Counter[object] = Counter()
        for each, count in self.served.items():
            sums[key(each)] += count
        return sums


def jain(values: list[float]) -> float:
    """Returns Jain's index of fairness: 1 if all values are equal, 1/n if one has everything."""
    return sum(values) ** 2 / (len(values) * sum(value * value for value in values))


class FleetScene:
    """Make it inside a running loop."""

    def __init__(
        self,
        replicas: int,
        limiter: Limiter | None,
        policy: GatePolicy | None = None,
        *,
        seed: int = 1,
        service_s: float = 0.1,
        whole_seconds: bool = True,
        clocks_off_s: float = 0.0,
        redis: MemoryRedis | None = None,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.clocks_off_s = clocks_off_s
        self.random = random.Random(seed)
        self.redis = redis or MemoryRedis(chance=random.Random(seed))
        self.limiter = limiter
        self.policy = policy or GatePolicy(max_in_flight=256, max_waiting=10_000)
        self.service_s = service_s
        self.whole_seconds = whole_seconds
        self.counts = Counts()
        self.tasks: list[asyncio.Task[None]] = []
        self.changes: list[tuple[float, int, State, str]] = []
        self.replicas: list[Replica] = []
        self.buses: list[MemoryBus] = []
        self.processes: list[ReplicaLoop] = []
        self.dead: set[int] = set()
        self.leaving: set[int] = set()
        """The replicas whose callers send no further request."""
        for _ in range(replicas):
            self.add()

    def add(self) -> Replica:
        number = len(self.replicas)
        name = f"r{number}" if self.redis.protocol == 1 else f"v{self.redis.protocol}r{number}"
        process = ReplicaLoop(self.loop, number * self.clocks_off_s)
        bus = MemoryBus(self.redis, name, process)
        names = Names(b"secret", name, self.policy.static_limits)
        make = HomeMaker(
            cast("asyncio.AbstractEventLoop", process), self.random.random, lambda _: None, lambda: 0.0
        )
        replica = Replica(name, self.policy, names, bus, make)
        replica.position.on_change = lambda reason: self.changes.append(
            (self.loop.time(), number, replica.state, reason)
        )
        self.replicas.append(replica)
        self.buses.append(bus)
        self.processes.append(process)
        return replica

    async def start(self) -> None:
        await asyncio.gather(*(replica.start(1.0) for replica in self.replicas))

    @property
    def leader(self) -> int:
        return next((n for n, r in enumerate(self.replicas) if r.state is State.LEADING and n not in self.dead), -1)

    def callers(self, replica: int, count: int, name: str = "caller", *, pause_s: float = 0.0) -> None:
        """Starts callers that send one request after the other."""
        for number in range(count):
            self.tasks.append(self.loop.create_task(self._calls(replica, f"{name}{number}", pause_s)))

    async def _calls(self, replica: int, name: str, pause_s: float) -> None:
        while replica not in self.leaving:
            await self.request(replica, name)
            await asyncio.sleep(pause_s)

    async def request(self, number: int, caller: str, *, wait_s: float = 300.0) -> None:
        """Sends one request, again and again until it is served or ends."""
        room, loop, counts = self.replicas[number].room, self.loop, self.counts
        process = self.processes[number]
        await process.awake()
        began_s, clock_s = loop.time(), process.time()
        ticket = Ticket("account", clock_s + wait_s, caller, kind="/x")
        try:
            admitted = room.try_admit(ticket, clock_s)
            while True:
                if not admitted:
                    try:
                        future = room.enter(ticket, process.time())
                        if future is not None:
                            await future
                    except asyncio.CancelledError:
                        room.leave(ticket)
                        raise
                await process.awake()
                counts.waits_s.append(loop.time() - began_s)
                if number in self.dead:
                    await asyncio.sleep(3600)
                outcome, hint_s = Outcome.UNUSED, None
                try:
                    counts.sent.append((loop.time(), number))
                    outcome, hint_s = await self._upstream()
                    await process.awake()
                finally:
                    room.settle(ticket, outcome, hint_s)
                if outcome is Outcome.SERVED:
                    counts.served[number, caller] += 1
                    counts.served_at_s.append(loop.time())
                    return
                admitted = False
        except ProxyError as error:
            counts.errors.append(error)
            await asyncio.sleep(1.0)

    async def _upstream(self) -> tuple[Outcome, float | None]:
        """Returns the upstream's response after a round trip, and its service if it accepts the request."""
        loop, limiter = self.loop, self.limiter
        await asyncio.sleep(TRAVEL_S / 2 * (0.8 + 0.4 * self.random.random()))
        if limiter is not None:
            wait_s = limiter.wait_s(loop.time())
            if wait_s > 0:
                limiter.refuse(loop.time())
                await asyncio.sleep(TRAVEL_S / 2)
                self.counts.refused_at_s.append(loop.time())
                return Outcome.THROTTLED, float(-(-wait_s // 1)) if self.whole_seconds else wait_s
            limiter.admit(loop.time())
        await asyncio.sleep(self.service_s * (0.8 + 0.4 * self.random.random()))
        if limiter is not None:
            limiter.release()
        await asyncio.sleep(TRAVEL_S / 2)
        return Outcome.SERVED, None

    def kill(self, number: int) -> None:
        """Ends a process at once, as SIGKILL does."""
        self.dead.add(number)
        self.buses[number].kill()

    async def stop(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        for number, replica in enumerate(self.replicas):
            if number not in self.dead:
                replica.room.close()
                await replica.stop()
