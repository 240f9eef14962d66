"""The fleet's bus over Redis: `PUBLISH` and `SUBSCRIBE` for messages, three scripts for the lease.

| state | event | next state |
|---|---|---|
| CONNECTING: looks for the server | subscribed | CONNECTED |
| | an error | CONNECTING, after a pause of 0.05 s, doubling up to 0.4 s |
| CONNECTED | the subscription ends, or is silent for 2 s | CONNECTING; the replica hears of the loss |
| | the server is no master any more, or does not respond in 1 s | the same |
| | `reconnect`, at most once a minute | the same |

So after a failover, and if the network drops a connection without a word, the bus looks for the server again.

One connection is for the subscription, one for messages (`publisher.py`), and one for the lease. Only that of the
lease is a connection of redis-py.
"""

import asyncio
import contextlib
import math
from collections.abc import Callable
from functools import partial
from typing import Any, Final, NamedTuple

import structlog

from nanonets_proxy.admission.fleet.bus.client import (
    TIMEOUT_S,
    find_server,
    make_client,
    may_have_moved,
    tls_context,
    words,
)
from nanonets_proxy.admission.fleet.bus.once_a_minute import OnceAMinute
from nanonets_proxy.admission.fleet.bus.port import LATE, BusError, EpochVoid, Won
from nanonets_proxy.admission.fleet.bus.publisher import Publisher
from nanonets_proxy.admission.fleet.bus.scripts import CAMPAIGN, RENEW, RESIGN, keys
from nanonets_proxy.admission.fleet.bus.subscription import Subscription
from nanonets_proxy.admission.fleet.bus.wire import Refused, connect
from nanonets_proxy.aio.look_up import LookUps
from nanonets_proxy.core.ratelimit.fleet.policy import FleetPolicy

_LEASE_MS: Final = 1000
_KEPT_MS: Final = 26 * 3_600_000  # longer than the day of a daily budget
_PAUSES_S: Final = (0.05, 0.4)  # shorter than `lead.GATHER_S`
_STEADY_S: Final = 1.0  # a connection that lasted for longer was of use
_RECONNECT_EACH_S: Final = 60.0  # if the leader is at fault, new connections do not help
_SLOW: Final = "Redis confirms the messages of this replica late"
_STOP_S: Final = 1.0
_CLOSE_S: Final = 0.1  # with TLS, a connection waits for the server's end of it


class _Use(NamedTuple):
    """The use of one server. What is late from an earlier one does not end a later one."""

    commands: Any
    """The client of the lease."""
    broken: "asyncio.Future[str]"
    """Gets the reason for which the bus must look for the server again."""


class RedisBus:
    """One replica's connections to Redis."""

    def __init__(self, policy: FleetPolicy, name: str) -> None:
        """Raises CoordinationUnusable if the library is not installed."""
        self.connected = False
        self.fault = ""
        self._policy = policy
        self._prefix = policy.prefix()
        self._name = name
        self._keys = keys(self._prefix, policy.common_prefix())
        self._look_ups = LookUps()
        self._use: _Use | None = None
        self._may_reconnect_at_s = -math.inf
        self._publisher: Publisher | None = None
        self._listener: asyncio.Task[None] | None = None
        self._on_message: Callable[[bytes], None] = lambda _: None
        self._on_lost: Callable[[str], None] = lambda _: None
        self._on_unheard: Callable[[str], None] = lambda _: None
        self._log = structlog.get_logger()
        self._lost = OnceAMinute(asyncio.get_running_loop())
        make_client(policy.address, policy.address.hosts[0])

    def start(
        self,
        on_message: Callable[[bytes], None],
        on_lost: Callable[[str], None],
        on_unheard: Callable[[str], None],
    ) -> None:
        self._on_message, self._on_lost, self._on_unheard = on_message, on_lost, on_unheard
        self._listener = asyncio.get_running_loop().create_task(self._stay_connected())

    def _channel(self, to: str) -> bytes:
        return (f"{self._prefix}:to:{to}" if to else f"{self._prefix}:all").encode()

    # --- the connection -----------------------------------------------------------------------------

    async def _stay_connected(self) -> None:
        loop, (pause_s, most_s) = asyncio.get_running_loop(), _PAUSES_S
        while True:
            began_s = loop.time()
            self._lose(await self._use_server())
            # A read-only server is lost at once, each time.
            pause_s = _PAUSES_S[0] if loop.time() - began_s > _STEADY_S else min(2 * pause_s, most_s)
            await asyncio.sleep(pause_s)

    async def _use_server(self) -> str:
        """Finds the server and uses it until that fails. Returns the reason."""
        hearing: asyncio.Task[None] | None = None
        broken: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        client: Any = None
        where = ""
        try:
            address, server = self._policy.address, await find_server(self._policy, self._look_ups)
            where = f" ({server[0]}:{server[1]})"
            client = make_client(address, server)
            dial = partial(connect, address, server, tls_context(address))
            on_fault, on_slow = partial(self._on_message_lost, broken), partial(self.reconnect, _SLOW)
            self._publisher = Publisher(dial, self._on_unheard, on_fault, on_slow)
            await self._publisher.start()
            self._use = _Use(client, broken)
            channels = (self._channel(""), self._channel(self._name))
            on_late = partial(self.reconnect, LATE)
            subscription = Subscription(dial, channels, self._on_subscribed, self._on_message, on_late)
            hearing = asyncio.ensure_future(subscription.run())
            await asyncio.wait((hearing, broken), return_when=asyncio.FIRST_COMPLETED)
            if not hearing.done():
                self.fault = broken.result() + where
                return self.fault
            hearing.result()
        except Exception as error:  # noqa: BLE001 - no fault of Redis or of its library may end the loop
            self.fault = words(error) + where
            return self.fault
        finally:
            if hearing is not None:
                hearing.cancel()
                await asyncio.gather(hearing, return_exceptions=True)
            self._use = None
            if self._publisher is not None:
                await self._publisher.stop()
                self._publisher = None
            if client is not None:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_CLOSE_S):
                        await client.aclose()
        return "the subscription ended"

    def reconnect(self, reason: str) -> None:
        now_s = asyncio.get_running_loop().time()
        if self._use is not None and not self._use.broken.done() and now_s >= self._may_reconnect_at_s:
            self._may_reconnect_at_s = now_s + _RECONNECT_EACH_S
            self._use.broken.set_result(reason)

    def _on_subscribed(self) -> None:
        self.connected, self.fault = True, ""

    def _lose(self, reason: str) -> None:
        self.fault = reason
        if self.connected:
            self.connected = False
            self._on_lost(reason)

    # --- messages -----------------------------------------------------------------------------------

    @property
    def is_sending(self) -> bool:
        return self._publisher is not None and self._publisher.is_sending

    def send(self, to: str, data: bytes) -> None:
        if self.connected and self._publisher is not None:
            self._publisher.send(to, self._channel(to), data)

    def _on_message_lost(self, broken: "asyncio.Future[str]", error: Exception) -> None:
        if times := self._lost.count():
            self._log.info("fleet_message_lost", reason=words(error), times=times)
        if not isinstance(error, Refused) and not broken.done():
            broken.set_result(words(error))

    # --- the lease ----------------------------------------------------------------------------------

    async def campaign(self, epoch: int) -> Won | None:
        result = await self._run(CAMPAIGN, self._keys, self._name, epoch, _LEASE_MS, self._policy.protocol)
        if not result:
            return None
        if len(result) == 1:
            raise EpochVoid(f"epoch {epoch} is far ahead of the clock of Redis, {int(result[0])} ms")
        return Won(int(result[0]), result[1], int(result[2]) / 1000, int(result[3]))

    async def renew(self, epoch: int, replicas: int, beat: bytes, keep: bytes | None) -> int | None:
        lease, kept = (f"{epoch} {self._name}", _LEASE_MS), (keep or b"", _KEPT_MS)
        told, fleet = (self._channel(""), beat), (self._policy.protocol, replicas)
        others = int(await self._run(RENEW, self._keys, *lease, *told, *kept, *fleet))
        return None if others < 0 else others

    async def resign(self, epoch: int) -> None:
        with contextlib.suppress(BusError):
            await self._run(RESIGN, self._keys[:1], f"{epoch} {self._name}")

    async def _run(self, script: str, keys: tuple[str, ...], *values: object) -> Any:
        """Runs a script by its hash, or loads it first if Redis does not know it (NOSCRIPT)."""
        use = self._use
        if use is None:
            raise BusError(self.fault or "not connected")
        try:
            async with asyncio.timeout(TIMEOUT_S):
                return await use.commands.register_script(script)(keys=list(keys), args=list(values))
        except Exception as error:  # noqa: BLE001 - each fault of Redis has the same effect
            self._judge(error, use.broken)
            raise BusError(words(error)) from None

    def _judge(self, error: Exception, broken: "asyncio.Future[str]") -> None:
        """Lets the bus look for the server again if the error may mean that it is another one now."""
        if may_have_moved(error) and not broken.done():
            broken.set_result(words(error))

    async def stop(self) -> None:
        if self._publisher is not None:
            await self._publisher.flush(_STOP_S)
        if self._listener is not None:
            self._listener.cancel()
            await asyncio.gather(self._listener, return_exceptions=True)
