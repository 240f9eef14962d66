"""The callers' listener on aiohttp's low-level server: no routing table, every path is the upstream's."""

import asyncio
from typing import Any, cast

from aiohttp import web

from nanonets_proxy.downstream.handler import Handler
from nanonets_proxy.downstream.peers import Peer, peer_of
from nanonets_proxy.downstream.valve import Valve, Watch
from nanonets_proxy.errors import BadRequest, InternalError, ProxyError

# Field and target lengths as common servers have them; more fields than any real client sends.
_MAX_LINE_BYTES = 8190
_MAX_FIELD_BYTES = 16 * 1024
_READ_BUFFER_BYTES = 64 * 1024


class CallerConnection(web.RequestHandler):
    """One caller's connection; knows its peer from the start, and answers malformed requests in our shape."""

    __slots__ = ("_on_malformed", "busy", "peer", "valve")

    def __init__(self, server: "CallerServer", **options: Any) -> None:
        super().__init__(server, **options)
        self._on_malformed = server.on_malformed
        self.busy = False
        self.peer = Peer("unknown", "unknown")
        self.valve = Valve(self, server.watch, server.loop)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.peer = peer_of(transport)
        super().connection_made(transport)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,  # noqa: ARG002 - aiohttp's signature
        message: str | None = None,  # noqa: ARG002 - may quote the request, so it is not passed on
    ) -> web.StreamResponse:
        """The parser's refusals; the handler itself lets no error out."""
        malformed = BadRequest("The request is not valid HTTP.")
        return self._on_malformed(
            request, self.peer, malformed if status < 500 else InternalError("The proxy failed.")
        )


class CallerServer(web.Server):
    """Makes a CallerConnection for each connection."""

    def __init__(self, handler: Handler, *, keep_alive_s: float) -> None:
        self._handler = handler
        self._open = 0
        self.loop = asyncio.get_running_loop()
        self.watch = Watch(self.loop)
        self._all_closed = asyncio.Event()
        self._all_closed.set()
        super().__init__(
            self._dispatch,
            # Without this a caller that hangs up would keep its request running to the end.
            handler_cancellation=True,
            keepalive_timeout=keep_alive_s,
            access_log=None,
            auto_decompress=False,
            max_line_size=_MAX_LINE_BYTES,
            max_field_size=_MAX_FIELD_BYTES,
            read_bufsize=_READ_BUFFER_BYTES,
        )

    def __call__(self) -> Valve:  # type: ignore[override]  # aiohttp's own protocol stands behind it
        return CallerConnection(self, loop=self._loop, **self._kwargs).valve

    async def _dispatch(self, request: web.BaseRequest) -> web.StreamResponse:
        connection = cast("CallerConnection", request.protocol)
        connection.busy = True
        try:
            return await self._handler(request, connection.peer)
        finally:
            connection.busy = False
            connection.valve.narrow()

    def on_malformed(self, request: web.BaseRequest, peer: Peer, error: ProxyError) -> web.StreamResponse:
        return self._handler.refuse_malformed(request, peer, error)

    def connection_lost(self, handler: web.RequestHandler, exc: BaseException | None = None) -> None:
        super().connection_lost(handler, exc)
        self._open -= 1
        if not self._open:
            self._all_closed.set()

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        self._open += 1
        self._all_closed.clear()

    async def drain(self, timeout_s: float) -> int:
        """Closes idle connections now and the others behind their answers, cutting off what takes longer than
        `timeout_s`. Returns how many were cut off."""
        for connection in cast("list[CallerConnection]", self.connections):
            connection.close()
            if not connection.busy:
                connection.force_close()
        try:
            async with asyncio.timeout(timeout_s):
                await self._all_closed.wait()
        except TimeoutError:
            pass
        cut_off = self._open
        await self.shutdown(0)
        return cut_off
