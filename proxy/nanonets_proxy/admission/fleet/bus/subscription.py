"""Hears messages over one connection to Redis, until it is lost or silent.

| state | event | next state |
|---|---|---|
| CONNECTING, SUBSCRIBING | Redis has confirmed each channel: `on_subscribed` is called | HEARING |
| HEARING | no message for 1 s | ASKING |
| ASKING | a message, or the response to the PING | HEARING |
| | silence for another second | ended |
| HEARING, ASKING | each second, once the last PING has its response | a PING is sent |
| | `MOST_LATE` responses in a row were late | `on_slow` is called |
| any | the connection is lost, or Redis refuses a channel | ended |
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Final

from nanonets_proxy.admission.fleet.bus.wire import READ_S, Refused, Wire
from nanonets_proxy.core.net.resp import ErrorReply, Reply, pack
from nanonets_proxy.core.ratelimit.fleet.lates import Lates

SILENCE_S: Final = 1.0
_STEPS: Final = 2  # after a silence: the PING, and a moment to read


class Subscription:
    """Call `run`."""

    def __init__(
        self,
        connect: Callable[[], Coroutine[None, None, Wire]],
        channels: tuple[bytes, ...],
        on_subscribed: Callable[[], None],
        on_message: Callable[[bytes], None],
        on_slow: Callable[[], None],
    ) -> None:
        self._connect = connect
        self._channels = channels
        self._on_subscribed = on_subscribed
        self._on_message = on_message
        self._on_slow = on_slow
        self._loop = asyncio.get_running_loop()
        self._pinged_at_s: float | None = None
        """When the latest PING was sent; None: it has its response."""
        self._lates = Lates()  # responses to PINGs
        self._confirmed = 0

    async def run(self) -> None:
        """Connects and subscribes. Ends with an exception: the reason."""
        loop, wire = self._loop, await self._connect()
        lost: asyncio.Future[Exception] = loop.create_future()
        wire.on_reply, wire.on_lost = self._hear, lost.set_result
        try:
            wire.send(pack(b"SUBSCRIBE", *self._channels))
            heard_at_s, steps, wait_s = wire.heard_at_s, 0, SILENCE_S
            while not (await asyncio.wait((lost,), timeout=wait_s))[0]:
                if self._pinged_at_s is None:
                    self._pinged_at_s = loop.time()
                    wire.send(pack(b"PING"))
                if wire.heard_at_s > heard_at_s:
                    heard_at_s, steps = wire.heard_at_s, 0
                    wait_s = max(0.0, heard_at_s + SILENCE_S - loop.time())
                    continue
                if steps == _STEPS:
                    raise TimeoutError("the subscription is silent")
                wait_s = (SILENCE_S, READ_S)[steps]
                steps += 1
            raise lost.result()
        finally:
            wire.close()

    def _hear(self, reply: Reply) -> None:
        if isinstance(reply, ErrorReply):
            raise Refused(f"SUBSCRIBE: {reply.text}")
        if not isinstance(reply, list):
            raise TypeError(f"{reply!r} is not of a subscription")
        if reply[0] == b"message" and isinstance(data := reply[2], bytes):
            self._on_message(data)
        elif reply[0] == b"pong" and self._pinged_at_s is not None:
            took_s, self._pinged_at_s = self._loop.time() - self._pinged_at_s, None
            if self._lates.note(took_s):
                self._on_slow()
        elif reply[0] == b"subscribe":
            self._confirmed += 1
            if self._confirmed == len(self._channels):
                self._on_subscribed()
