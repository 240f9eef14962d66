"""One request after another on a caller's connection: aiohttp's own loop, less what nobody here asks for.

idle       a future is waited for
  a request is queued                    -> handled
handled    in the connection's own task, which a hang-up cancels
  answered                               -> skipping
  answered, and refused by the parser    -> closed    once the caller has ended its side too, or a moment later
  cancelled, or the caller is lost       -> closed
skipping   what comes of a body that nobody has read is dropped, for a while
  its end, behind an answer that says so -> idle
  no end in time, or no further request  -> closed

aiohttp's `start` makes a task, a coroutine to run in it, a writer and a request with tables and caches for every
request; this one makes a request with what the handler reads. All else stays aiohttp's: parser, queue, payloads,
timers, `shutdown`. Of its private parts this stands on those that `start` and what it calls use.
"""

import asyncio
import contextlib
from collections.abc import Awaitable
from typing import Any, Final, Protocol, Self

from aiohttp import HttpVersion, HttpVersion11, StreamReader, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_parser import RawRequestMessage
from aiohttp.http_writer import StreamWriter
from aiohttp.web_protocol import ERROR, PayloadAccessError, _ErrInfo  # private; what the parser refused

from nanonets_proxy.core.http.request_head import unzipped
from nanonets_proxy.core.http.request_patterns import RequestPattern
from nanonets_proxy.request.relay import RelayedResponse
from nanonets_proxy.server.flow_control import FlowControl, ReadAhead
from nanonets_proxy.server.peers import UNKNOWN, Peer

# Enough for what a refused caller had sent before it could see its answer.
_LINGER_S: Final = 1.0


class RequestHandler(Protocol):
    draining: bool
    """Once it is, no connection outlives its answer."""

    def __call__(self, request: "CallerRequest", peer: Peer) -> Awaitable[web.StreamResponse]: ...


class WholeBody:
    """A body that came with its head: as much of aiohttp's stream as is asked for."""

    __slots__ = ("_data",)

    def __init__(self, data: bytes) -> None:
        self._data = data

    def is_eof(self) -> bool:
        """Whether all has come, read or not."""
        return True

    def exception(self) -> None:
        return None

    def set_exception(self, exc: BaseException) -> None:
        """The connection is lost, which takes nothing from what is here."""

    def read_nowait(self) -> bytes:
        data, self._data = self._data, b""
        return data


Body = StreamReader | WholeBody


class CallerRequest(web.BaseRequest):
    """A request with what ours are asked for; the base class's set-up is not paid for."""

    __slots__ = (
        *("content", "field_names", "keep_alive", "method", "parts"),
        *("protocol", "raw_path", "shape", "version"),
    )

    def __init__(
        self,
        protocol: web.RequestHandler,
        content: Body,
        method: str,
        raw_path: str,
        field_names: tuple[bytes, ...],
        parts: tuple[bytes, ...],
        shape: RequestPattern | None = None,
        version: HttpVersion = HttpVersion11,
        keep_alive: bool = True,
    ) -> None:
        """`parts` are the values of all fields; of a request that has a `shape`, the groups of its expression."""
        self.protocol = protocol  # type: ignore[misc]  # a property there
        self.content = content  # type: ignore[assignment]  # no more of a stream is asked for
        self.method = method
        self.raw_path = raw_path
        self.field_names = field_names
        self.parts = parts
        self.shape = shape
        self.version = version
        self.keep_alive = keep_alive

    @classmethod
    def parsed(cls, protocol: web.RequestHandler, content: Body, message: RawRequestMessage) -> Self:
        """As aiohttp's parser has read it."""
        names, values = unzipped(message.raw_headers)
        stays = not message.should_close
        return cls(protocol, content, message.method, message.path, names, values, None, message.version, stays)

    @property
    def transport(self) -> asyncio.Transport | None:
        return self.protocol.transport

    @property
    def writer(self) -> AbstractStreamWriter:
        """For its `drain` only: what is written goes to the transport."""
        return StreamWriter(self.protocol, asyncio.get_running_loop())

    def _cancel(self, exc: BaseException) -> None:
        """aiohttp's, where the connection is lost: who waits for the body learns of it."""
        self.content.set_exception(exc)


class RequestLoop(web.RequestHandler):
    """Handles the requests that its subclass queues."""

    __slots__ = ("_handler", "peer", "valve")

    def __init__(self, server: web.Server, handler: RequestHandler, ahead: ReadAhead, **options: Any) -> None:
        super().__init__(server, **options)
        self._handler = handler
        self.peer = UNKNOWN
        self.valve = FlowControl(self, ahead)

    @property
    def under_way(self) -> web.BaseRequest | None:
        """The request that is handled now."""
        return self._current_request

    @property
    def is_idle(self) -> bool:
        """No request is under way, or waits to be."""
        return self._current_request is None and not self._messages

    @property
    def has_request(self) -> bool:
        """Whether one is handled, or is about to be: not what the parser refused, behind which nothing is read."""
        messages = self._messages
        return self._current_request is not None or bool(messages and not isinstance(messages[0][0], _ErrInfo))

    @property
    def takes_more(self) -> bool:
        """Whether none of aiohttp's buffers holds the reading back."""
        return not self._reading_paused and not self._buffer_paused

    @property
    def task(self) -> "asyncio.Task[None] | None":
        """In which its requests are handled, until the last one has ended."""
        return self._task_handler

    def resume_reading(self, resume_parser: bool = True) -> None:
        """aiohttp calls this at each read from a body, paused or not, and would feed the parser nothing each time,
        over which it would be forgotten where the next request begins."""
        if self._reading_paused:
            super().resume_reading(resume_parser)

    async def start(self) -> None:
        loop = self._loop
        while not self._force_close:
            if not self._messages:
                self._waiter = loop.create_future()
                try:
                    await self._waiter
                finally:
                    self._waiter = None
            try:
                message, body = self._messages.popleft()
                stays_open = await self._respond(message, body)
            except ConnectionError:
                break  # the caller has gone
            except Exception as error:  # noqa: BLE001
                self.log_exception("Unhandled exception", exc_info=error)
                self.force_close()
                break
            except BaseException:
                self.force_close()
                raise
            self._keepalive = stays_open
            if not stays_open or self._close or self._force_close:
                break
            self._next_keepalive_close_time = loop.time() + self._keepalive_timeout
            if self._keepalive_handle is None:
                self._keepalive_handle = loop.call_at(self._next_keepalive_close_time, self._process_keepalive)
        if not self._force_close:
            self._task_handler = None
            if self.transport is not None:
                self.transport.close()

    async def _respond(self, message: RawRequestMessage | CallerRequest | _ErrInfo, body: Body) -> bool:
        """Answers one request, and takes what is left of it. Whether another may follow; ConnectionError where the
        caller has gone."""
        refused = None
        if isinstance(message, CallerRequest):
            request = message
        elif isinstance(message, _ErrInfo):
            request, refused = CallerRequest.parsed(self, body, ERROR), message
        else:
            request = CallerRequest.parsed(self, body, message)
            assert self._parser is not None
            self._parser.message_consumed()
        if self._buffer_paused and len(self._messages) <= self._msg_queue_resume_size:
            self._resume_reading_if_drained()
        self._request_in_progress = True
        try:
            if refused is not None:
                response = self.handle_error(request, refused.status, refused.exc)
            else:
                self._current_request = request
                try:
                    response = await self._handler.__call__(request, self.peer)
                finally:
                    self._current_request = None
                    self.valve.narrow()
            if self._handler.draining:
                response.force_close()
            if self._upgraded:
                await self.finish_response(request, response, None)  # has the parser go on behind a refused upgrade
            elif not isinstance(response, RelayedResponse):  # which is on its way already
                await response.prepare(request)
        finally:
            self._request_in_progress = False
            if self._handler_waiter is not None:
                self._handler_waiter.set_result(None)
        if refused is not None:
            await self._linger()
        elif type(body) is StreamReader and not body.is_eof():
            await self._skip(body)
        return response.keep_alive or False

    async def _linger(self) -> None:
        """RFC 9112 §9.6: closed with bytes unread, the connection would be reset, and the answer lost with it."""
        if self.transport is not None:
            if self.transport.can_write_eof():  # TLS as it is here cannot
                self.transport.write_eof()
            await asyncio.sleep(_LINGER_S)  # cancelled when the caller ends its side

    async def _skip(self, body: StreamReader) -> None:
        """A caller may look for its answer only behind its body, so what nobody wants of that is read for a while.
        Nothing can follow a body whose end did not come."""
        if not self._force_close:
            await asyncio.sleep(0)  # who read it before has just been told to stop, and lets go of it in this turn
            self.valve.open_wide()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._lingering_time):
                    while not body.is_eof():
                        await body.readany()
            self.valve.narrow()
            if not body.is_eof():
                self.close()
        body.set_exception(PayloadAccessError())
