"""One caller's connection: reads requests, and passes each to the handler after the response to the previous one.

    IDLE       no byte of a request has arrived; the connection closes after `keep_alive_s`
      bytes of a head                              -> HEAD
    HEAD       a head is incomplete; the head timer runs
      the head is complete                         -> BUSY
      it is late, too large or malformed           -> LINGERING
    BUSY       the handler has the request, in a task; the bytes after its body are kept unparsed
      the response is sent, the body has arrived   -> IDLE, and the kept bytes are parsed at once
      the response is sent, the body is incomplete -> SKIPPING
      the response is sent, the body is malformed  -> LINGERING
      the response ends the connection             -> CLOSED, when its bytes are sent or CLOSE_S have passed
      the caller hangs up                          -> CLOSED; ends the task, if no one else waits for it
    SKIPPING   the remaining body is discarded; at its end -> IDLE, or CLOSED if the response said so
      no byte within SKIP_S, or SKIP_TOTAL_S pass  -> CLOSED; a drain waits only LINGER_S for a byte
    LINGERING  an error response has been sent and our side is closed; later bytes are discarded
      the caller closes, or LINGER_S pass          -> CLOSED

`RequestReader` splits the bytes into requests.
"""

import asyncio
import math
import socket
from typing import TYPE_CHECKING, Final, cast

import structlog

from nanonets_proxy.errors import CallerTooSlow, ProxyError
from nanonets_proxy.server.connection.caller_request import CallerRequest, Handler
from nanonets_proxy.server.connection.caller_transport import CallerTransport
from nanonets_proxy.server.connection.connection_state import ConnectionState
from nanonets_proxy.server.connection.flow_control import NARROW_BYTES, ReadAhead
from nanonets_proxy.server.connection.head_reader import HeadReader
from nanonets_proxy.server.connection.idle_timer import IdleTimer, StallTimer
from nanonets_proxy.server.connection.request_reader import RequestReader
from nanonets_proxy.server.connection_limits import ConnectionPolicy
from nanonets_proxy.server.peers import caller_gone, reset

if TYPE_CHECKING:
    from aiohttp import web

LINGER_S: Final = 1.0  # enough to receive the bytes that a rejected caller sent before it saw the response
SKIP_S: Final = 10.0
READER_PATIENCE_S: Final = 10.0  # a slow reader empties the buffer of a response (64 KiB) in that time
SKIP_TOTAL_S: Final = 300.0  # many clients send their whole body before they read the response

_IDLE, _HEAD, _BUSY, _SKIPPING, _LINGERING, _CLOSED = ConnectionState  # a look-up costs a call in Python 3.11


class CallerConnection(CallerTransport):
    """See the module's docstring."""

    __slots__ = (
        *("_closes", "_ended", "_handle", "_handler", "_idle_timer", "_next", "_policy", "_reader"),
        *("_server", "_skip_s", "_state", "_task_handler", "get_buffer", "request"),
    )

    def __init__(
        self, server: "web.Server", handler: Handler, heads: HeadReader, policy: ConnectionPolicy, ahead: ReadAhead
    ) -> None:
        super().__init__(ahead)
        self._server, self._handler, self._policy = server, handler, policy
        self._handle = handler.__call__  # to call the object itself costs more
        self._state, self._closes = _IDLE, False  # once it closes, no request may follow
        self._skip_s = SKIP_S
        self._ended: asyncio.Event | None = None
        self._idle_timer = IdleTimer(self._loop, policy.keep_alive_s, self._close_if_idle)
        # The only private name of aiohttp: its server waits for this task before it forgets a lost connection.
        self._task_handler: asyncio.Task[None] | None = None
        self._next: asyncio.Future[CallerRequest] | None = None  # the task waits for a request
        # Not a method: each read would cost one more call.
        self.get_buffer = self.flow.next_buffer  # type: ignore[method-assign]
        self._reader = RequestReader(heads, self.flow)
        self.request: CallerRequest | None = None
        """The request that is handled now."""

    def change(self, handler: Handler, policy: ConnectionPolicy) -> None:
        """Uses another handler and other time limits from the next request on."""
        self._handler, self._policy, self._handle = handler, policy, handler.__call__
        self._idle_timer.change_timeout(policy.keep_alive_s)
        self._reader.forget_head()  # it holds what the earlier handler read

    @property
    def is_idle(self) -> bool:
        """Whether no request waits for its response."""
        return self.request is None

    @property
    def has_had_request(self) -> bool:
        return self._task_handler is not None  # the first request starts the task, which the others use too

    @property
    def idle_since_s(self) -> float:
        return self._idle_timer.since_s

    @property
    def stalled_since_s(self) -> float:
        wanted_since_s = math.inf if self._reader.body is None else self._reader.body.wanted_since_s
        return min(wanted_since_s, self.writing.full_since_s + READER_PATIENCE_S)

    @property
    def awaits_body(self) -> bool:
        body = self._reader.body
        return body is not None and not body.received_bytes and body.wanted_since_s < math.inf

    def give_up(self) -> None:
        """Ends the request, with a 408 if its response has not begun, and then the connection."""
        if self.writing.is_full and self.transport is not None:
            reset(self.transport)
        elif self._reader.body is not None:
            self._reader.body.give_up("The request's body arrives too slowly, and too many connections are open.")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._idle_timer.restart()
        self._server.connection_made(self, cast("asyncio.Transport", transport))  # type: ignore[arg-type]  # aiohttp declares its own class only

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self._state = _CLOSED
        self._idle_timer.cancel()
        self._server.connection_lost(self, exc)  # type: ignore[arg-type]  # aiohttp declares its own class only
        self._reader.discard()
        if self._reader.body is not None:
            self._reader.body.fail(caller_gone())
        if self._task_handler is not None:
            if self.request is None or not self.request.outlives_caller():
                self._task_handler.cancel()
        elif self._ended is not None:
            self._ended.set()

    def buffer_updated(self, nbytes: int) -> None:
        state, request = self._state, None
        if state is _LINGERING:
            return
        flow = self.flow
        if state is _IDLE or state is _HEAD:
            request = self._next_request((flow.view if nbytes > NARROW_BYTES else flow.memory)[:nbytes])
        else:
            self._reader.receive(flow.memory[:nbytes])
            if state is _SKIPPING and self._reader.body is None:
                self._stop_timer()
                request = self._after_body()
        if request is not None:
            if self._next is not None:
                self._next.set_result(request)
            else:
                self._task_handler = self._loop.create_task(self._serve(request))
        if nbytes >= NARROW_BYTES:
            flow.was_read(nbytes, is_waiting=self.request is not None)

    # --- requests ---------------------------------------------------------------------------------

    def _next_request(self, data: bytes | memoryview = b"") -> CallerRequest | None:
        """Returns the next request if its head has arrived. Otherwise waits for the head, or rejects it."""
        try:
            request = self._reader.next_request(data)
        except ProxyError as error:
            self.reject(error)
            return None
        if request is not None:
            self._state = _BUSY
            if self._timer is not None:
                self._stop_timer()
            request.connection, request.peer = self, self.peer
            self.request = request
        elif not self._reader.kept:
            self._stop_timer()
            self._state = _IDLE
            self._idle_timer.restart()
        else:
            self._state = _HEAD
            if self._timer is None:
                late = CallerTooSlow("The request's header section did not arrive in time.")
                self._timer = self._loop.call_later(self._policy.head_timeout_s, self.reject, late)
        return request

    async def _serve(self, request: CallerRequest | None) -> None:
        """Passes this request and the following ones to the handler, until the connection is lost."""
        try:
            while request is not None or self._state is not _CLOSED:
                if request is None:
                    self._next = self._loop.create_future()
                    request = await self._next
                    self._next = None
                handle = self._handle
                response = await handle(request)
                request = self._after_response(response.keep_alive)
        except ConnectionError:
            self.close_when_sent()
        except Exception:  # noqa: BLE001 - a fault of one request must not leave its connection open
            structlog.get_logger().exception("connection_failed")
            if self.transport is not None:
                reset(self.transport)
        finally:
            self.request = self._task_handler = None
            if self._ended is not None and self._state is _CLOSED:
                self._ended.set()

    def _after_response(self, keep_alive: bool) -> CallerRequest | None:
        """Ends a request whose response was sent. Returns the next request if it has arrived."""
        self.request = None
        if self.transport is None or self.transport.is_closing():
            return None
        self._closes = self._closes or not keep_alive
        if self._reader.body is None:
            return self._after_body()
        if self._reader.body.is_complete:  # it was given up
            self.linger()
            return None
        # A caller may read its response only after it has sent its body.
        self._state = _SKIPPING
        self._reader.body.discard()
        self.flow.open_wide()
        self._timer = StallTimer(self._loop, self._reader.body, self._skip_s, SKIP_TOTAL_S, self.close_when_sent)
        return None

    def _after_body(self) -> CallerRequest | None:
        """Ends a request whose response was sent and whose body has ended. Returns the next one if it is here."""
        if self.flow.has_changed:
            self.flow.narrow()
        if self._reader.is_malformed:
            self.linger()
        elif self._closes:
            self.close_when_sent()
        elif self._reader.kept:
            return self._next_request()
        else:
            self._state = _IDLE
            self._idle_timer.restart()
        return None

    def _close_if_idle(self) -> None:
        if self._state is _IDLE:
            (self.close_when_sent if self._closes else self.displace)()

    # --- ends -------------------------------------------------------------------------------------

    def reject(self, error: ProxyError) -> None:
        """Sends an error response to malformed bytes, or to a peer that may not call."""
        if self.transport is not None and not self.transport.is_closing():
            request = self._reader.rejected_request()
            request.connection, request.peer = self, self.peer
            self._handler.reject_malformed(request, error)
            self.linger()

    def linger(self) -> None:
        """Closes only our side. RFC 9112 §9.6: a close with unread bytes may lose the response."""
        self._stop_timer()
        self._state = _LINGERING
        self._reader.discard()
        self.flow.let_go()
        if self.transport is not None:
            if self.transport.can_write_eof():  # not over TLS
                self.transport.write_eof()
            self._timer = self._loop.call_later(LINGER_S, self.close_when_sent)

    def close(self) -> None:
        """Closes now, or after the response in progress."""
        self._closes = True
        if self.request is None:
            self.close_when_sent()

    def lend(self) -> socket.socket | None:
        """Stops reading an idle connection, and returns another descriptor of it for a successor.

        None: it is busy, or cannot move (`CallerTransport.duplicate`).
        """
        if self._state is not _IDLE or self._closes or (duplicate := self.duplicate()) is None:
            return None
        self.flow.hold_back()
        return duplicate

    def finish(self, last_request_s: float) -> None:
        """Closes after the response in progress, or else the next one, or after that time without a request."""
        self._closes = True
        self._idle_timer.change_timeout(min(last_request_s, self._policy.keep_alive_s))

    def finish_soon(self, first_request_s: float) -> None:
        """Does the same as `finish`, and waits less for the rest of a body whose response was sent."""
        self._skip_s = LINGER_S
        if isinstance(self._timer, StallTimer):
            self._timer.shorten(LINGER_S)
        self.finish(first_request_s)

    async def shutdown(self, timeout_s: float | None) -> None:
        """Waits for the end of the connection and its request; resets the connection after `timeout_s`."""
        if self._state is _CLOSED and self._task_handler is None:
            return
        self._ended = asyncio.Event()
        try:
            async with asyncio.timeout(timeout_s):
                await self._ended.wait()
        except TimeoutError:
            self.cut_off()
            if self._task_handler is not None:
                self._task_handler.cancel()
            await self._ended.wait()
