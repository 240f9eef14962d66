"""The callers' listener on aiohttp's low-level server: no routing table, every path is the upstream's."""

import asyncio
from typing import Final, cast

from aiohttp import web
from prometheus_client import CollectorRegistry

from nanonets_proxy.request.handler import Handler
from nanonets_proxy.server.caller_connection import CallerConnection
from nanonets_proxy.server.connection_limits import REFUSAL, ConnectionLimits, ConnectionPolicy
from nanonets_proxy.server.flow_control import FlowControl, ReadAhead
from nanonets_proxy.server.parser_feed import MAX_FIELD_BYTES, MAX_TARGET_BYTES
from nanonets_proxy.server.peers import hung_up, reset

_READ_BUFFER_BYTES: Final = 64 * 1024
# Half of the second within which a hung-up caller's upstream request has to end.
_HANG_UP_LOOK_S: Final = 0.5
# Turns of the event loop from bytes in the socket to the handler's first line: read, wake.
_TURNS_TO_HANDLER: Final = 2


class CallerServer(web.Server):
    """Makes a CallerConnection for each connection."""

    def __init__(
        self,
        handler: Handler,
        *,
        keep_alive_s: float,
        head_timeout_s: float,
        limits: ConnectionPolicy,
        registry: CollectorRegistry,
    ) -> None:
        self._handler = handler
        self._head_timeout_s = head_timeout_s
        self._limits = ConnectionLimits(limits, registry, lambda: cast("list[CallerConnection]", self.connections))
        self._ahead = ReadAhead()
        self._shapes = handler.heads.shapes()
        self._open = 0
        self._all_ended = asyncio.Event()
        self._all_ended.set()
        self._looker: asyncio.TimerHandle | None = None
        super().__init__(
            handler.__call__,  # type: ignore[arg-type]  # our own loop tells it the peer as well
            # Without this a caller that hangs up would keep its request running to the end.
            handler_cancellation=True,
            keepalive_timeout=keep_alive_s,
            access_log=None,
            auto_decompress=False,
            max_line_size=MAX_TARGET_BYTES,
            max_field_size=MAX_FIELD_BYTES,
            read_bufsize=_READ_BUFFER_BYTES,
        )

    def __call__(self) -> FlowControl:  # type: ignore[override]  # aiohttp's own protocol stands behind it
        connection = CallerConnection(
            self,
            self._handler,
            self._ahead,
            self._handler.refuse_malformed,
            self._shapes,
            head_timeout_s=self._head_timeout_s,
            loop=self._loop,
            **self._kwargs,
        )
        return connection.valve

    @property
    def open_connections(self) -> int:
        return self._open

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        self._open += 1
        self._all_ended.clear()
        if not self._limits.take(cast("CallerConnection", handler)):
            transport.write(REFUSAL)
            handler.force_close()
        if self._looker is None:
            self._looker = self._loop.call_later(_HANG_UP_LOOK_S, self._look_for_hang_ups)

    def connection_lost(self, handler: web.RequestHandler, exc: BaseException | None = None) -> None:
        connection = cast("CallerConnection", handler)
        super().connection_lost(connection, exc)
        self._limits.give_back(connection)
        self._open -= 1
        if connection.task is None:
            self._note_end()
        else:
            connection.task.add_done_callback(self._note_end)

    def _note_end(self, _: object = None) -> None:
        if not self._connections:  # a lost one counts until its request has ended as well
            self._all_ended.set()

    def _look_for_hang_ups(self) -> None:
        """A caller that hangs up behind an upload that nobody reads now is not seen by the event loop."""
        paused = [
            connection.transport
            for connection in cast("list[CallerConnection]", self.connections)
            if connection.transport is not None
            and not connection.transport.is_reading()
            and connection.under_way is not None
        ]
        for transport in hung_up(paused):
            cast("asyncio.Transport", transport).abort()
        self._looker = self._loop.call_later(_HANG_UP_LOOK_S, self._look_for_hang_ups) if self._open else None

    async def drain(self, timeout_s: float) -> int:
        """Closes idle connections now and the others behind their answers, resetting what takes longer than
        `timeout_s`. Returns how many were reset. The handler must be told to `drain` before."""
        idle = [
            connection
            for connection in cast("list[CallerConnection]", self.connections)
            if connection.under_way is None
        ]
        for _ in range(_TURNS_TO_HANDLER):  # a request that is here already gets its answer
            await asyncio.sleep(0)
        for connection in idle:
            if connection.under_way is None:
                connection.force_close()
        try:
            async with asyncio.timeout(timeout_s):
                await self._all_ended.wait()
        except TimeoutError:
            return await self._cut_off()
        finally:
            if self._looker is not None:
                self._looker.cancel()
        return 0

    async def _cut_off(self) -> int:
        transports = [c.transport for c in self.connections if c.transport is not None]
        for transport in transports:
            reset(transport)
        await self._all_ended.wait()
        return len(transports)
