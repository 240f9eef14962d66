"""Idle connections, newest first. How many may be busy is not decided here but by the gate."""

import asyncio

from nanonets_proxy.upstream.connection import ConnectionState, UpstreamConnection
from nanonets_proxy.upstream.dial import Dialer

_IDLE = ConnectionState.IDLE


class Pool:
    """Hands out idle connections and dials new ones; one sweep timer closes what idled for too long.

    The newest is taken first: it is the least likely to have been closed by the other side, and the
    oldest can age out when load falls.
    """

    def __init__(self, dialer: Dialer, *, keep_alive_s: float) -> None:
        self._dialer = dialer
        self._keep_alive_s = keep_alive_s
        self._idle: list[UpstreamConnection] = []
        self._sweeper: asyncio.TimerHandle | None = None
        self._closed = False

    @property
    def idle(self) -> int:
        return len(self._idle)

    async def dial(self) -> UpstreamConnection:
        return await self._dialer.dial()

    def take_idle(self, now_s: float, careful: bool) -> UpstreamConnection | None:
        """An idle connection that is still good; `careful` asks the socket too, for what must not be repeated."""
        while self._idle:
            connection = self._idle.pop()
            if connection.state is not _IDLE:
                continue
            too_old = now_s - connection.idle_since_s > self._keep_alive_s
            if too_old or (careful and connection.is_readable()):
                connection.close()
                continue
            return connection
        return None

    def give_back(self, connection: UpstreamConnection) -> None:
        """Ends the exchange on `connection` and keeps it if it is good for another."""
        if self._closed:
            connection.close()
        elif connection.release():
            self._idle.append(connection)
            if self._sweeper is None:
                self._sweeper = asyncio.get_running_loop().call_later(self._keep_alive_s, self._sweep)

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
        # The list is in order of idling, so the first is the next to age out.
        self._sweeper = loop.call_at(kept[0].idle_since_s + self._keep_alive_s, self._sweep) if kept else None

    def close(self) -> None:
        """Closes the idle connections; busy ones are closed as they come back."""
        self._closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
        for connection in self._idle:
            connection.close()
        self._idle.clear()
