"""Keeps idle connections to the upstream. The gate, not the pool, limits the number of busy connections."""

import asyncio
from collections.abc import Callable
from typing import Final
from weakref import WeakSet

from nanonets_proxy.core.status.upstream_watch import Finding, Owed, Progress, UpstreamWatch
from nanonets_proxy.upstream.connection import UpstreamConnection
from nanonets_proxy.upstream.dial import Dialer
from nanonets_proxy.upstream.exchange import UpstreamConnectionState

_IDLE, _BUSY = UpstreamConnectionState.IDLE, UpstreamConnectionState.BUSY
_SAMPLE_EACH_S: Final = 0.1
_SAMPLE_BURST_S: Final = 2.0  # requests that wait together get their responses together
# Of all callers together. Otherwise, connections of callers that do not return would use up the open files.
_MOST_IDLE_PER_CALLER: Final = 64


class Pool:
    """Hands out idle connections, newest first, and closes those that were idle for more than `keep_alive_s`.

    The upstream is least likely to have closed the newest one, and the oldest ones expire when the load falls.

    With `per_caller`, a connection serves requests of one caller only. Otherwise, bytes that the upstream sends
    after a response could become the start of another caller's response, and nobody would notice. The first time
    that such bytes are noticed, the pool turns `per_caller` on and calls `on_surplus`.
    """

    def __init__(
        self,
        dialer: Dialer,
        *,
        keep_alive_s: float,
        per_caller: bool = False,
        on_surplus: Callable[[], None] = lambda: None,
    ) -> None:
        self._dialer = dialer
        self._keep_alive_s = keep_alive_s
        self.per_caller = per_caller
        self._on_surplus = on_surplus
        self._idle: list[UpstreamConnection] = []
        self.opened = 0
        """The number of connections that were opened."""
        self._sweeper: asyncio.TimerHandle | None = None
        self._closed = False
        self._had_surplus = False
        self._connections: WeakSet[UpstreamConnection] = WeakSet()
        self._dialed_at_s = self._heard_at_s = self._sample_at_s = 0.0
        self._watch = UpstreamWatch()

    @property
    def idle(self) -> int:
        """The number of idle connections."""
        return len(self._idle)

    def change(self, dialer: Dialer | None, *, keep_alive_s: float, per_caller: bool) -> None:
        """Applies other settings. With another dialer, no connection of the earlier one serves a further request.

        If late bytes have turned `per_caller` on, it stays on.
        """
        self._keep_alive_s = keep_alive_s
        self.per_caller = per_caller or self._had_surplus
        if dialer is not None:
            self._dialer = dialer
            self._close_idle()
        elif self._sweeper is not None:
            self._sweeper.cancel()
            self._sweep()

    async def dial(self) -> UpstreamConnection:
        dialer = self._dialer
        connection = await dialer.dial()
        self.opened += 1
        self._dialed_at_s = asyncio.get_running_loop().time()
        self._connections.add(connection)
        connection.on_surplus = self._note_surplus
        connection.dialer = dialer
        return connection

    def _note_surplus(self) -> None:
        self._had_surplus = True
        if not self.per_caller:
            self.per_caller = True
            self._close_idle()  # late bytes may be on their way on these connections too
        self._on_surplus()

    def take_idle(self, now_s: float, check_socket: bool, caller: str = "") -> UpstreamConnection | None:
        """Returns an idle connection for a request of `caller`, or None.

        `check_socket`, for a request that must not be sent twice: asks the system whether the upstream has closed.
        """
        while self._idle:
            if not self.per_caller:
                connection = self._idle.pop()
            elif (own := self._pop_own(caller)) is not None:
                connection = own
            else:
                return None
            if connection.state is not _IDLE:
                continue
            too_old = now_s - connection.idle_since_s > self._keep_alive_s
            if too_old or (check_socket and connection.is_readable()):
                connection.close()
                continue
            return connection
        return None

    def _pop_own(self, caller: str) -> UpstreamConnection | None:
        for index in range(len(self._idle) - 1, -1, -1):
            if self._idle[index].caller == caller:
                return self._idle.pop(index)
        return None

    def give_back(self, connection: UpstreamConnection) -> None:
        """Ends the exchange on `connection`, and keeps the connection if it can serve another one."""
        if self._closed or connection.dialer is not self._dialer:
            connection.close()
        elif connection.release():
            self._idle.append(connection)
            if connection.idle_since_s >= self._sample_at_s:
                self._note_times(connection, connection.idle_since_s)
            if self.per_caller and len(self._idle) > _MOST_IDLE_PER_CALLER:
                self._idle.pop(0).close()
            if self._sweeper is None:
                self._sweeper = asyncio.get_running_loop().call_later(self._keep_alive_s, self._sweep)
        elif connection.is_complete:
            self._heard_at_s = asyncio.get_running_loop().time()
            if connection.request_sent:
                self._note_times(connection, self._heard_at_s)

    def _note_times(self, connection: UpstreamConnection, now: float) -> None:
        """Notes how long the response took to begin. Of many responses, a sample is enough."""
        began_after_s = connection.began_after_s
        if began_after_s is None:
            began_after_s = now - connection.waits_since_s
        self._watch.note(connection.kind, began_after_s, now)
        self._sample_at_s = max(self._sample_at_s, now - _SAMPLE_BURST_S) + _SAMPLE_EACH_S

    def judge_upstream(self, now_s: float, gives_up_after_s: float) -> Finding | None:
        """Returns what is wrong with the upstream. A request ends with a 504 after `gives_up_after_s`."""
        owed, heard_at_s = [], self._heard_at_s
        for connection in self._connections:
            if connection.owes_a_byte:
                owed.append(Owed(connection.kind, connection.waits_since_s))
            if connection.state is _BUSY and connection.response_begun:
                is_arriving = not connection.owes_a_byte
                heard_at_s = max(heard_at_s, now_s if is_arriving else connection.waits_since_s)
            else:
                heard_at_s = max(heard_at_s, connection.idle_since_s)
        dialing = [dialing for dialing in self._dialer.dialing() if dialing.since_s > self._dialed_at_s]
        return self._watch.judge(Progress(owed, dialing, heard_at_s, gives_up_after_s), now_s)

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        oldest_s = loop.time() - self._keep_alive_s
        kept = []
        for connection in self._idle:
            if connection.state is _IDLE and connection.idle_since_s > oldest_s:
                kept.append(connection)
            else:
                connection.close()
        self._idle = kept
        # The first connection in the list has been idle for longest.
        self._sweeper = loop.call_at(kept[0].idle_since_s + self._keep_alive_s, self._sweep) if kept else None

    def close(self) -> None:
        """Closes the idle connections now, and the busy ones when they are given back."""
        self._closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
        self._close_idle()

    def _close_idle(self) -> None:
        for connection in self._idle:
            connection.close()
        self._idle.clear()
