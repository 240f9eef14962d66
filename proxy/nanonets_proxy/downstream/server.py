"""The callers' listener on aiohttp's low-level server: no routing table, every path is the upstream's."""

import asyncio
from typing import Any, Final, cast

from aiohttp import EMPTY_PAYLOAD, StreamReader, web
from aiohttp.http_exceptions import BadHttpMessage, LineTooLong
from aiohttp.web_protocol import _ErrInfo

from nanonets_proxy.downstream.handler import Handler
from nanonets_proxy.downstream.peers import UNKNOWN, Peer, hung_up, peer_of, reset
from nanonets_proxy.errors import (
    BadRequest,
    CallerTooSlow,
    HeadTooLarge,
    InternalError,
    ProxyError,
    TargetTooLong,
)

# RFC 9112 §3 wants at least 8000 octets of request line; the two limits differ, since the parser's error
# names nothing but the limit. All fields together have as much room as common servers give.
_MAX_TARGET_BYTES: Final = 12 * 1024
_MAX_FIELD_BYTES: Final = 16 * 1024
_MAX_HEAD_BYTES: Final = 64 * 1024
_READ_BUFFER_BYTES: Final = 64 * 1024
# Half of the second within which a hung-up caller's upstream request has to end.
_HANG_UP_LOOK_S: Final = 0.5
# Turns of the event loop from bytes in the socket to the handler's first line: read, wake, new task.
_TURNS_TO_HANDLER: Final = 3


class CallerConnection(web.RequestHandler):
    """One caller's connection; knows its peer from the start, and answers malformed requests in our shape.

    A head that began has to be complete within `head_timeout_s`, and within `_MAX_HEAD_BYTES`.
    """

    __slots__ = (
        "_head_bytes",
        "_head_timeout_s",
        "_head_timer",
        "_on_malformed",
        "_payload",
        "_refused",
        "peer",
        "under_way",
    )

    def __init__(self, server: "CallerServer", *, head_timeout_s: float, **options: Any) -> None:
        super().__init__(server, **options)
        self._on_malformed = server.on_malformed
        self._head_timeout_s = head_timeout_s
        self._head_timer: asyncio.TimerHandle | None = None
        self._head_bytes = 0
        self._payload: StreamReader = EMPTY_PAYLOAD  # of the request that came last
        self._refused = False
        self.under_way: web.BaseRequest | None = None
        self.peer = UNKNOWN

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.peer = peer_of(transport)
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._end_head()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        in_body = not self._payload.is_eof()
        seen = self._request_count
        super().data_received(data)
        if self._request_count != seen:
            self._on_messages(self._head_bytes + len(data))
        elif data and not in_body:
            self._on_piece_of_head(len(data))

    def _on_messages(self, count: int) -> None:
        self._end_head()
        message, self._payload = self._messages[-1]
        if isinstance(message, _ErrInfo):
            if self.under_way is not None:
                self._break_body(self.under_way.content)
        elif count > _MAX_HEAD_BYTES and _size_of(message) > _MAX_HEAD_BYTES:
            self._messages.pop()
            self._refuse(HeadTooLarge("The request's header section is too large."))

    def _on_piece_of_head(self, count: int) -> None:
        self._head_bytes += count
        if self._head_bytes > _MAX_HEAD_BYTES:
            self._refuse(HeadTooLarge("The request's header section is too large."))
        elif self._head_timer is None:
            late = CallerTooSlow("The request's header section did not come in time.")
            self._head_timer = self._loop.call_later(self._head_timeout_s, self._refuse, late)

    def _end_head(self) -> None:
        self._head_bytes = 0
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _refuse(self, error: ProxyError) -> None:
        """Answers with `error` behind what is under way, and takes nothing more from this connection."""
        self._refused = True
        self._end_head()
        self._messages.append((_ErrInfo(error.status, error, error.message), EMPTY_PAYLOAD))
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _break_body(self, body: StreamReader) -> None:
        """aiohttp queues a malformed chunk as the next request, while this one's body goes on without an end."""
        if not body.is_eof():
            body.set_exception(web.RequestPayloadError("malformed"))
            body.feed_eof()  # nothing of it is left to be skipped behind the answer

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - may quote the request, so it is not passed on
    ) -> web.StreamResponse:
        """The parser's refusals; the handler itself lets no error out."""
        failed = InternalError("The proxy failed.")
        return self._on_malformed(request, self.peer, failed if status >= 500 else _refusal(exc))


def _refusal(error: BaseException | None) -> ProxyError:
    """Our error for the parser's."""
    match error:
        case ProxyError():
            return error
        case LineTooLong(args=(_, limit, *_)) if limit == _MAX_TARGET_BYTES:
            return TargetTooLong("The request target is too long.")
        case LineTooLong():
            return HeadTooLarge("A header field of the request is too large.")
        case BadHttpMessage(message=message) if message.startswith("Too many headers"):
            return HeadTooLarge("The request has too many header fields.")
        case _:
            return BadRequest("The request is not valid HTTP.")


def _size_of(message: Any) -> int:
    """Octets of a request line and its fields, as they were sent but for optional space."""
    fields = sum(len(name) + len(value) + 4 for name, value in message.raw_headers)
    return len(message.method) + len(message.path) + 12 + fields


class CallerServer(web.Server):
    """Makes a CallerConnection for each connection."""

    def __init__(self, handler: Handler, *, keep_alive_s: float, head_timeout_s: float) -> None:
        self._handler = handler
        self._head_timeout_s = head_timeout_s
        self._open = 0
        self._busy = 0
        self._all_ended = asyncio.Event()
        self._all_ended.set()
        self._looker: asyncio.TimerHandle | None = None
        super().__init__(
            self._dispatch,
            # Without this a caller that hangs up would keep its request running to the end.
            handler_cancellation=True,
            keepalive_timeout=keep_alive_s,
            access_log=None,
            auto_decompress=False,
            max_line_size=_MAX_TARGET_BYTES,
            max_field_size=_MAX_FIELD_BYTES,
            read_bufsize=_READ_BUFFER_BYTES,
        )

    def __call__(self) -> CallerConnection:
        return CallerConnection(self, head_timeout_s=self._head_timeout_s, loop=self._loop, **self._kwargs)

    async def _dispatch(self, request: web.BaseRequest) -> web.StreamResponse:
        connection = cast("CallerConnection", request.protocol)
        connection.under_way = request
        self._busy += 1
        try:
            response = await self._handler(request, connection.peer)
            if self._handler.draining:
                response.force_close()
            return response
        finally:
            connection.under_way = None
            self._busy -= 1
            self._note_end()

    def on_malformed(self, request: web.BaseRequest, peer: Peer, error: ProxyError) -> web.StreamResponse:
        return self._handler.refuse_malformed(request, peer, error)

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        self._open += 1
        self._all_ended.clear()
        if self._looker is None:
            self._looker = self._loop.call_later(_HANG_UP_LOOK_S, self._look_for_hang_ups)

    def connection_lost(self, handler: web.RequestHandler, exc: BaseException | None = None) -> None:
        super().connection_lost(handler, exc)
        self._open -= 1
        self._note_end()

    def _note_end(self) -> None:
        if not self._open and not self._busy:
            self._all_ended.set()

    def _look_for_hang_ups(self) -> None:
        """A caller that hangs up behind an upload that nobody reads now is not seen by the event loop."""
        paused = [
            connection.transport
            for connection in cast("list[CallerConnection]", self.connections)
            if connection.under_way and connection.transport is not None and not connection.transport.is_reading()
        ]
        for transport in hung_up(paused):
            cast("asyncio.Transport", transport).abort()
        self._looker = self._loop.call_later(_HANG_UP_LOOK_S, self._look_for_hang_ups) if self._open else None

    async def drain(self, timeout_s: float) -> int:
        """Closes idle connections now and the others behind their answers, resetting what takes longer than
        `timeout_s`. Returns how many were reset. The handler's `draining` must be set."""
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
