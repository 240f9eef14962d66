"""A Redis in memory, for replicas in one virtual-time loop. Messages take time, and the server can fail."""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from nanonets_proxy.admission.fleet.bus.port import EVERYBODY, BusError, EpochVoid, Won
from nanonets_proxy.admission.fleet.bus.scripts import MAX_AHEAD_MS
from support.gate.replica_loop import ReplicaLoop


@dataclass
class MemoryRedis:
    """The server. `hangs` holds everything back until it is false again; `is_down` breaks all connections."""

    delay_s: float = 0.0003
    jitter_s: float = 0.0002
    chance: random.Random = field(default_factory=lambda: random.Random(1))
    hangs: bool = False
    is_down: bool = False
    is_read_only: bool = False
    reconnect_s: float = 0.0
    """After it was down, each replica is connected again within this time."""
    buses: list["MemoryBus"] = field(default_factory=list)
    holder: str = ""
    lease_epoch: int = 0
    lease_until_s: float = 0.0
    kept: dict[str, tuple[bytes, float]] = field(default_factory=dict)
    protocol: int = 1
    versions: dict[int, tuple[float, int]] = field(default_factory=dict)
    """When the fleet of each version of the protocol was last heard of, and how many replicas it has."""
    lost: float = 0.0
    """The share of messages that do not arrive."""
    doubled: float = 0.0
    """The share of messages that arrive twice."""
    disorder_s: float = 0.0
    """Messages are late by up to this, each by another time, so that they overtake each other."""
    held_back: list[Callable[[], None]] = field(default_factory=list)
    clock_off_s: float = 0.0
    """How far the clock of the server is off."""
    published: int = 0
    campaigns: int = 0

    def flush_all(self) -> None:
        self.holder = ""
        self.kept.clear()
        self.versions.clear()

    def resume(self) -> None:
        self.hangs = False
        held_back, self.held_back = self.held_back, []
        for act in held_back:
            act()

    def stop(self) -> None:
        self.is_down = True
        for bus in self.buses:
            bus.lose("connection lost")

    def come_back(self) -> None:
        """Accepts connections again, after `stop`."""
        self.is_down = False
        for bus in self.buses:
            bus.connects_at_s = asyncio.get_running_loop().time() + self.reconnect_s * self.chance.random()

    def other_version(self) -> "MemoryRedis":
        """Returns the same server as another version of the protocol uses it."""
        return MemoryRedis(chance=self.chance, protocol=self.protocol + 1, versions=self.versions, kept=self.kept)

    def others(self, now_s: float) -> int:
        return sum(n for each, (at_s, n) in self.versions.items() if each != self.protocol and at_s > now_s - 2.0)

    def leader(self, now_s: float) -> str:
        return self.holder if self.lease_until_s > now_s else ""


class MemoryBus:
    """One replica's connection."""

    def __init__(self, redis: MemoryRedis, name: str, process: ReplicaLoop) -> None:
        self.redis = redis
        self.name = name
        self.process = process
        self.is_cut = False
        self.passes: Callable[[bytes], bool] = lambda _: True
        """Whether a message to this replica is not lost."""
        self.fault = ""
        self.connects_at_s = 0.0
        self.lag_s = 0.0
        """How late messages reach this replica, until it connects anew."""
        self.reconnects = 0
        self._arrives_at_s = 0.0
        self._on_message: Callable[[bytes], None] | None = None
        self._on_lost: Callable[[str], None] | None = None
        self._on_unheard: Callable[[str], None] = lambda _: None
        self._unconfirmed = 0
        redis.buses.append(self)

    def start(
        self,
        on_message: Callable[[bytes], None],
        on_lost: Callable[[str], None],
        on_unheard: Callable[[str], None],
    ) -> None:
        self._on_message, self._on_lost, self._on_unheard = on_message, on_lost, on_unheard

    @property
    def connected(self) -> bool:
        is_late = self.connects_at_s > asyncio.get_running_loop().time()
        return not (self.redis.is_down or self.is_cut or is_late)

    def lose(self, reason: str) -> None:
        if self._on_lost is not None:
            self._on_lost(reason)

    def reconnect(self, reason: str) -> None:
        self.reconnects += 1
        self.lag_s = self._arrives_at_s = 0.0
        self.connects_at_s = asyncio.get_running_loop().time() + 0.05
        self.lose(reason)

    def move(self, to: MemoryRedis, connects_at_s: float) -> None:
        """Loses the connection, and uses another server from then on."""
        self.redis.buses.remove(self)
        self.redis, self.connects_at_s = to, connects_at_s
        to.buses.append(self)
        self.lose("connection lost")

    def kill(self) -> None:
        """Ends the process of this replica: nothing goes in or out."""
        self.is_cut = True
        self._on_message = None

    def send(self, to: str, data: bytes) -> None:
        if not self.connected:
            return
        self.redis.published += 1
        loop = asyncio.get_running_loop()
        receivers = [bus for bus in self.redis.buses if to in (EVERYBODY, bus.name)]
        for bus in receivers:
            bus.deliver(data, loop)
        self._unconfirmed += 1
        self._confirm(to, heard=any(bus.connected for bus in receivers))

    def _confirm(self, to: str, *, heard: bool) -> None:
        if self.redis.hangs:
            self.redis.held_back.append(lambda: self._confirm(to, heard=heard))
            return
        loop = asyncio.get_running_loop()
        loop.call_later(2 * self.redis.delay_s, self.process.deliver, self._confirmed, to, heard)

    def _confirmed(self, to: str, heard: bool) -> None:
        self._unconfirmed -= 1
        if not heard and self.connected:
            self._on_unheard(to)

    @property
    def is_sending(self) -> bool:
        return self._unconfirmed > 0

    def deliver(self, data: bytes, loop: asyncio.AbstractEventLoop) -> None:
        if self.redis.hangs:
            self.redis.held_back.append(lambda: self.deliver(data, loop))
            return
        if not self.passes(data):
            return
        redis = self.redis
        at_s = loop.time() + self.lag_s + redis.delay_s + redis.jitter_s * redis.chance.random()
        if redis.lost or redis.doubled or redis.disorder_s:
            for _ in range((redis.chance.random() >= redis.lost) + (redis.chance.random() < redis.doubled)):
                loop.call_at(at_s + redis.disorder_s * redis.chance.random(), self._arrive, data)
            return
        self._arrives_at_s = max(at_s, self._arrives_at_s)  # one connection keeps the order
        loop.call_at(self._arrives_at_s, self._arrive, data)

    def _arrive(self, data: bytes) -> None:
        if self.connected:
            self.process.deliver(self._read, data)

    def _read(self, data: bytes) -> None:
        if self._on_message is not None:
            self._on_message(data)

    async def _ask(self) -> None:
        await asyncio.sleep(self.redis.delay_s)
        while self.redis.hangs:  # noqa: ASYNC110 - virtual time makes an Event needless
            await asyncio.sleep(0.01)
        if not self.connected:
            raise BusError("connection refused")
        if self.redis.is_read_only:
            raise BusError("READONLY You can't write against a read only replica.")

    async def _answer(self) -> None:
        """Waits until the response is here and read."""
        await asyncio.sleep(self.redis.delay_s)
        await self.process.awake()

    async def campaign(self, epoch: int) -> Won | None:
        self.redis.campaigns += 1
        await self._ask()
        redis, now_s = self.redis, asyncio.get_running_loop().time()
        latest = int((now_s + redis.clock_off_s) * 1000) + MAX_AHEAD_MS
        if epoch > latest:
            await self._answer()
            raise EpochVoid(f"epoch {epoch} is far ahead")
        if redis.leader(now_s) not in ("", self.name) and epoch <= redis.lease_epoch <= latest:
            await self._answer()
            return None
        redis.holder, redis.lease_until_s = self.name, now_s + 1.0
        redis.lease_epoch = max(int((now_s + redis.clock_off_s) * 1000), epoch + 1)
        kept, at_s = redis.kept.get("kept", (b"", now_s))
        won = Won(redis.lease_epoch, kept, now_s - at_s, redis.others(now_s))
        await self._answer()
        return won

    async def renew(self, epoch: int, replicas: int, beat: bytes, keep: bytes | None) -> int | None:
        await self._ask()
        redis, now_s = self.redis, asyncio.get_running_loop().time()
        if redis.holder == "":  # wiped
            redis.holder, redis.lease_epoch = self.name, epoch
        if (redis.leader(now_s) or self.name, redis.lease_epoch) != (self.name, epoch):
            await self._answer()
            return None
        redis.lease_until_s = now_s + 1.0
        redis.versions[redis.protocol] = now_s, replicas
        others = redis.others(now_s)
        if keep is not None:
            redis.kept["kept"] = keep, now_s
        self.send(EVERYBODY, beat)
        await self._answer()
        return others

    async def resign(self, epoch: int) -> None:
        try:
            await self._ask()
        except BusError:
            return
        if self.redis.lease_epoch == epoch and self.redis.holder == self.name:
            self.redis.holder = ""

    async def stop(self) -> None:
        self._on_message = None
