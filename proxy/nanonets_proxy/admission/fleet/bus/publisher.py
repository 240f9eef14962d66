"""Publishes messages over one connection to Redis. No message waits for the confirmation of an earlier one.

| state | event | next state |
|---|---|---|
| IDLE | `send` | CONFIRMING |
| | the server closes the idle connection, as after its `timeout` | CLOSED |
| CLOSED | `send` | CONNECTING |
| CONNECTING: messages are kept | connected: the kept messages go | CONFIRMING |
| CONFIRMING | `send` | CONFIRMING, while the confirmations of the earlier messages are awaited |
| | Redis has confirmed each message | IDLE |
| CONNECTING, CONFIRMING | a fault of the connection: `on_fault` is called | ended: its messages are lost |
"""

import asyncio
import contextlib
import math
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Final

from nanonets_proxy.admission.fleet.bus.wire import READ_S, Refused, Wire
from nanonets_proxy.core.net.resp import ErrorReply, Reply, pack
from nanonets_proxy.core.ratelimit.fleet import lates

CONFIRM_S: Final = 1.0
_MAX_UNCONFIRMED: Final = 10_000


class Publisher:
    """Call `start`, then `send`, and `stop` in any case."""

    def __init__(
        self,
        connect: Callable[[], Coroutine[None, None, Wire]],
        on_unheard: Callable[[str], None],
        on_fault: Callable[[Exception], None],
        on_slow: Callable[[], None],
    ) -> None:
        """`on_unheard` gets the name behind each message that reached nobody.

        `on_slow` is called after `MOST_LATE` late confirmations in a row.
        """
        self._connect = connect
        self._on_unheard = on_unheard
        self._on_fault = on_fault
        self._on_slow = on_slow
        self._loop = asyncio.get_running_loop()
        self._wire: Wire | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._kept: list[bytes] = []  # while it connects
        self._unconfirmed: deque[tuple[str, float]] = deque()  # the name behind each message, and when it was sent
        self._timer: asyncio.TimerHandle | None = None
        self._late: tuple[str, float] | None = None  # a message whose time was over when the timer came last
        self._lates = lates.Lates()  # confirmations; messages that were late together count once
        self._late_at_s = -math.inf  # when the latest one that counts came
        self._all_confirmed: asyncio.Future[None] | None = None
        self._has_ended = False

    async def start(self) -> None:
        """Connects. Raises as `wire.connect` does."""
        self._use(await self._connect())

    def _use(self, wire: Wire) -> None:
        self._wire = wire
        wire.on_reply, wire.on_lost = self._confirm, self._on_lost

    @property
    def is_sending(self) -> bool:
        """Whether Redis has not yet confirmed all messages."""
        return bool(self._unconfirmed)

    def send(self, to: str, channel: bytes, data: bytes) -> None:
        """Publishes a message to the replica `to`. Drops it if too many messages are not confirmed."""
        if self._has_ended or len(self._unconfirmed) >= _MAX_UNCONFIRMED:
            return
        command = pack(b"PUBLISH", channel, data)
        self._unconfirmed.append((to, self._loop.time()))
        if self._timer is None:
            self._timer = self._loop.call_later(CONFIRM_S, self._on_timer)
        if self._wire is not None:
            self._wire.send(command)
            return
        self._kept.append(command)
        if self._connecting is None:
            self._connecting = self._loop.create_task(self._connect_again())

    async def _connect_again(self) -> None:
        try:
            await self.start()
        except Exception as error:  # noqa: BLE001 - the replicas notice a lost message by the silence
            self._fail(error)
        else:
            kept, self._kept = self._kept, []
            if self._wire is not None:
                self._wire.send(b"".join(kept))
        finally:
            self._connecting = None

    def _confirm(self, reply: Reply) -> None:
        if not self._unconfirmed:
            raise ValueError("Redis has confirmed a message twice")
        to, sent_at_s = self._unconfirmed.popleft()
        self._note_time(sent_at_s)
        if isinstance(reply, ErrorReply):
            self._on_fault(Refused(f"PUBLISH: {reply.text}"))
        elif not reply:
            self._on_unheard(to)
        if not self._unconfirmed:
            self._settle()

    def _note_time(self, sent_at_s: float) -> None:
        now_s = self._loop.time()
        took_s = now_s - sent_at_s
        if took_s > lates.LATE_S:
            if sent_at_s < self._late_at_s:
                return
            self._late_at_s = now_s
        if self._lates.note(took_s):
            self._on_slow()

    def _settle(self) -> None:
        if self._all_confirmed is not None and not self._all_confirmed.done():
            self._all_confirmed.set_result(None)

    def _on_timer(self) -> None:
        """Ends if the oldest message has waited for too long: one timer for all messages."""
        self._timer = None
        if not self._unconfirmed:
            return
        oldest = self._unconfirmed[0]
        rest_s = oldest[1] + CONFIRM_S - self._loop.time()
        if rest_s <= 0.0:
            if oldest is self._late:
                self._fail(TimeoutError("no response to PUBLISH"))
                return
            self._late, rest_s = oldest, READ_S
        self._timer = self._loop.call_later(rest_s, self._on_timer)

    def _on_lost(self, error: Exception) -> None:
        self._wire = None
        if self._unconfirmed:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        self._end()
        self._on_fault(error)

    def _end(self) -> None:
        self._has_ended = True
        self._unconfirmed.clear()
        self._kept.clear()
        if self._timer is not None:
            self._timer.cancel()
        if self._wire is not None:
            self._wire.close()
        self._settle()

    async def flush(self, patience_s: float) -> None:
        """Waits for at most `patience_s` until Redis has confirmed all messages."""
        if self._unconfirmed:
            self._all_confirmed = self._loop.create_future()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience_s):
                    await self._all_confirmed

    async def stop(self) -> None:
        """Ends the use of the connection."""
        self._end()
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.gather(self._connecting, return_exceptions=True)
