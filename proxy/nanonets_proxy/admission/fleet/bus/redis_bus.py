"""The fleet's bus over Redis: `PUBLISH` and `SUBSCRIBE` for messages, three scripts for the lease.

| state | event | next state |
|---|---|---|
| CONNECTING | subscribed | CONNECTED |
| | an error | CONNECTING, after a pause of 0.1 s, doubling up to 1 s |
| CONNECTED | an error of the subscription or of a message | CONNECTING; the replica hears of the loss |

One connection is for the subscription, and others for commands. The messages of one turn of the event loop go out
together.
"""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any, Final

import structlog

from nanonets_proxy.admission.fleet.bus.port import BusError, CoordinationUnusable, Won
from nanonets_proxy.admission.fleet.bus.scripts import CAMPAIGN, RENEW, RESIGN
from nanonets_proxy.core.ratelimit.fleet.policy import FleetPolicy

_LEASE_MS: Final = 1000
_KEPT_MS: Final = 26 * 3_600_000  # longer than the day of a daily budget
_PAUSES_S: Final = (0.1, 1.0)
_TIMEOUT_S: Final = 1.0
_MAX_QUEUED: Final = 10_000


def make_client(policy: FleetPolicy, **options: Any) -> Any:
    """Returns a client. Raises CoordinationUnusable if the library is not installed."""
    try:
        # Imported here: only a process with `coordination` loads the library.
        from redis.asyncio import Redis
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff
    except ImportError:
        raise CoordinationUnusable("coordination: install the extra nanonets-proxy[redis]") from None
    address = policy.address
    return Redis(
        host=address.host,
        port=address.port,
        db=address.database,
        username=address.user or None,
        password=address.password or None,
        ssl=address.tls,
        socket_connect_timeout=_TIMEOUT_S,
        retry=Retry(NoBackoff(), 0),
        protocol=2,
        **options,
    )


async def check(policy: FleetPolicy) -> str | None:
    """Returns why Redis cannot be reached now; None if it can. Raises CoordinationUnusable if it never will.

    A server that is away may come back. A wrong password, a missing right or another kind of server will not.
    """
    from redis import exceptions

    client = make_client(policy, socket_timeout=_TIMEOUT_S)
    try:
        await client.eval("return redis.call('GET', KEYS[1])", 1, f"{policy.prefix()}:lease")
        await client.publish(f"{policy.prefix()}:check", b"")
    except exceptions.BusyLoadingError as error:
        return str(error)
    except (exceptions.AuthenticationError, exceptions.AuthorizationError, exceptions.NoPermissionError) as error:
        raise CoordinationUnusable(f"coordination: {policy.address} refuses the login: {error}") from None
    except (exceptions.ConnectionError, exceptions.TimeoutError, OSError) as error:
        return f"{policy.address} cannot be reached: {error}"
    except exceptions.RedisError as error:
        raise CoordinationUnusable(f"coordination: {policy.address} cannot be used: {error}") from None
    finally:
        await client.aclose()
    return None


class RedisBus:
    """One replica's connections to Redis."""

    def __init__(self, policy: FleetPolicy, name: str) -> None:
        """Raises CoordinationUnusable if the library is not installed."""
        self.connected = False
        self._prefix = policy.prefix()
        self._name = name
        self._keys = (f"{self._prefix}:lease", f"{self._prefix}:kept")
        self._commands = make_client(policy, socket_timeout=_TIMEOUT_S, single_connection_client=False)
        self._subscriber = make_client(policy, socket_timeout=None)
        self._scripts = {source: self._commands.register_script(source) for source in (CAMPAIGN, RENEW, RESIGN)}
        self._queue: list[tuple[str, bytes]] = []
        self._sender: asyncio.Task[None] | None = None
        self._listener: asyncio.Task[None] | None = None
        self._on_message: Callable[[bytes], None] = lambda _: None
        self._on_lost: Callable[[str], None] = lambda _: None
        self._log = structlog.get_logger()

    def start(self, on_message: Callable[[bytes], None], on_lost: Callable[[str], None]) -> None:
        self._on_message, self._on_lost = on_message, on_lost
        self._listener = asyncio.get_running_loop().create_task(self._listen())

    def _channel(self, to: str) -> str:
        return f"{self._prefix}:to:{to}" if to else f"{self._prefix}:all"

    # --- messages -----------------------------------------------------------------------------------

    async def _listen(self) -> None:
        pause_s, most_s = _PAUSES_S
        while True:
            pubsub = self._subscriber.pubsub(ignore_subscribe_messages=False)
            try:
                channels = (self._channel(""), self._channel(self._name))
                await pubsub.subscribe(*channels)
                heard = 0
                async for message in pubsub.listen():
                    if message["type"] == "message":
                        self._on_message(message["data"])
                    elif message["type"] == "subscribe":
                        heard += 1
                        if heard == len(channels):
                            self.connected = True
                            pause_s = _PAUSES_S[0]
            except asyncio.CancelledError:
                raise
            except Exception as error:  # noqa: BLE001 - no fault of Redis or of its library may end the loop
                self._lost(_words(error))
            finally:
                with contextlib.suppress(Exception):
                    await pubsub.aclose()
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, most_s)

    def _lost(self, reason: str) -> None:
        if self.connected:
            self.connected = False
            self._on_lost(reason)

    def send(self, to: str, data: bytes) -> None:
        if not self.connected or len(self._queue) >= _MAX_QUEUED:
            return
        self._queue.append((self._channel(to), data))
        if self._sender is None:
            self._sender = asyncio.get_running_loop().create_task(self._publish())

    async def _publish(self) -> None:
        try:
            while self._queue:
                queue, self._queue = self._queue, []
                if len(queue) == 1:
                    await self._commands.publish(*queue[0])
                    continue
                async with self._commands.pipeline(transaction=False) as pipeline:
                    for channel, data in queue:
                        pipeline.publish(channel, data)
                    await pipeline.execute()
        except Exception as error:  # noqa: BLE001 - the replicas notice a lost message by the silence
            self._queue.clear()
            self._log.info("fleet_message_lost", reason=_words(error))
        finally:
            self._sender = None

    # --- the lease ----------------------------------------------------------------------------------

    async def campaign(self, epoch: int) -> Won | None:
        result = await self._run(CAMPAIGN, self._keys, self._name, epoch, _LEASE_MS)
        if not result:
            return None
        return Won(int(result[0]), result[1], int(result[2]) / 1000)

    async def renew(self, epoch: int, beat: bytes, keep: bytes | None) -> bool:
        me = f"{epoch} {self._name}"
        return bool(
            await self._run(RENEW, self._keys, me, _LEASE_MS, self._channel(""), beat, keep or b"", _KEPT_MS)
        )

    async def resign(self, epoch: int) -> None:
        with contextlib.suppress(BusError):
            await self._run(RESIGN, self._keys[:1], f"{epoch} {self._name}")

    async def _run(self, script: str, keys: tuple[str, ...], *values: object) -> Any:
        """Runs a script by its hash, or loads it first if Redis does not know it (NOSCRIPT)."""
        try:
            return await self._scripts[script](keys=list(keys), args=list(values))
        except Exception as error:  # noqa: BLE001 - each fault of Redis has the same effect
            raise BusError(_words(error)) from None

    async def stop(self) -> None:
        if self._sender is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._sender, _TIMEOUT_S)
        if self._listener is not None:
            self._listener.cancel()
            await asyncio.gather(self._listener, return_exceptions=True)
        with contextlib.suppress(Exception):
            await self._commands.aclose()
            await self._subscriber.aclose()


def _words(error: Exception) -> str:
    """Returns an error of the library in one line, without its arguments."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
