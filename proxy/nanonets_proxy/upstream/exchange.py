"""One exchange of an upstream connection, as a task sees it: it sends a request, waits, and reads the response.

`UpstreamConnection` adds the states of the connection between exchanges, and the calls of asyncio.
"""

import asyncio
import enum
import math
from collections.abc import Callable
from dataclasses import dataclass
from mmap import mmap

from nanonets_proxy.aio.time_limit import TimeLimit
from nanonets_proxy.upstream.body import RequestBody
from nanonets_proxy.upstream.errors import UpstreamTimeout, closed_early
from nanonets_proxy.upstream.response_head import ResponseHead
from nanonets_proxy.upstream.response_parser import ResponseParser, ResponseState
from nanonets_proxy.upstream.transport import UpstreamTransport


class UpstreamConnectionState(enum.Enum):
    """The states of a connection. `connection.py` has their transitions."""

    IDLE = enum.auto()
    BUSY = enum.auto()
    CLOSED = enum.auto()


# Python 3.11 makes a call for each look-up of an enum's member.
_IDLE, _BUSY, _CLOSED = UpstreamConnectionState
_HEAD, _COMPLETE = ResponseState.HEAD, ResponseState.COMPLETE


@dataclass(slots=True)
class UpstreamRequest:
    """A request for the upstream. `head` includes the empty line at its end.

    `on_interim` is called with each interim (1xx) response other than 100. `on_send` is called each time that a
    connection is about to send the request.
    """

    method: str
    head: bytes
    body: RequestBody | None
    expect_continue: bool = False
    on_interim: Callable[[ResponseHead], None] | None = None
    caller: str = ""
    """The caller's name, if connections are kept per caller."""
    on_send: Callable[[], None] | None = None
    route: str = ""
    """Its route, by which the upstream's times are judged (core/api/routes.py)."""


class Exchange(UpstreamTransport):
    """`idle_timeout_s` bounds each wait for body bytes, in both directions."""

    def __init__(self, loop: asyncio.AbstractEventLoop, read_buffer: mmap, *, idle_timeout_s: float) -> None:
        super().__init__(loop, read_buffer)
        self._idle_timeout_s = idle_timeout_s
        self._response = ResponseParser(is_head=False)
        self._head_waiter: asyncio.Future[ResponseHead] | None = None
        self._body_waiter: asyncio.Future[None] | None = None
        self._continue_waiter: asyncio.Future[None] | None = None
        self._first_byte_limit = TimeLimit(loop, self._on_first_byte_timeout)
        self._error: Exception | None = None
        self.state = _IDLE
        self.kind = ("", "")
        """Method and route of the current request, or of the last one."""
        self.caller = ""
        """The caller of that request, if the pool asks for it."""
        self.request_sent = False
        """Whether the upstream has the whole request."""
        self.waits_since_s = math.inf
        """When the last wait for the response began: the request was sent, or a part of the body came."""
        self.began_after_s: float | None = None
        """How long the response took to begin, if a later part of it was waited for."""

    # --- send(), or start(), write(), finish_request() and head(); then read() ---------------------------------

    def send(self, request: UpstreamRequest, first_byte_timeout_s: float) -> "asyncio.Future[ResponseHead]":
        """Sends a request without a body of its own: start(), write(), finish_request() and head() in one call.

        The future resolves to the final head, or raises an UpstreamError.
        """
        self.start(request)
        loop = self._loop
        self._head_waiter = waiter = loop.create_future()
        if self._transport is None:
            self._resolve_head(waiter)
            return waiter
        self._transport.write(request.head)
        self.request_sent = True
        self.waits_since_s = now = loop.time()
        self._first_byte_limit.set(now + first_byte_timeout_s)
        return waiter

    def start(self, request: UpstreamRequest) -> None:
        """Begins an exchange."""
        is_head = request.method == "HEAD"
        if not self._response.restart(is_head, request.on_interim):
            self._response = ResponseParser(is_head=is_head, on_interim=request.on_interim)
        self.kind, self.caller = (request.method, request.route), request.caller
        self.request_sent, self.began_after_s = False, None
        if self.state is _IDLE:
            self.state = _BUSY

    async def drain(self) -> None:
        """Waits until the transport's write buffer has room; returns at once if the connection is lost."""
        if self._is_writing_paused and self.state is _BUSY:
            self._drain_waiter = self._loop.create_future()
            await self._within_idle_timeout(self._drain_waiter, "The upstream stopped reading the request.")

    def finish_request(self, first_byte_timeout_s: float) -> None:
        """Ends the request: the final head must arrive within `first_byte_timeout_s`."""
        self.request_sent = True
        self.waits_since_s = now = self._loop.time()
        if self.state is _BUSY:
            self._first_byte_limit.set(now + first_byte_timeout_s)

    def wants_body(self) -> bool:
        """Returns whether the upload should continue: False after an error status or on a lost connection."""
        response = self._response
        return self.state is _BUSY and (response.state is _HEAD or response.head.status < 400)

    @property
    def owes_a_byte(self) -> bool:
        """Whether the next byte of the response is waited for."""
        if self.state is not _BUSY or not self.request_sent:
            return False
        return self._response.state is _HEAD or (self._body_waiter is not None and not self._body_waiter.done())

    @property
    def response_begun(self) -> bool:
        """Whether any byte of a response has arrived, which proves that the upstream received the request."""
        return self._response.has_begun

    async def wait_for_continue(self, timeout_s: float) -> bool:
        """Waits for an interim response, at most `timeout_s`; returns whether to send the body.

        Returns False after a final head, or if the connection is lost.
        """
        response = self._response
        try:
            async with asyncio.timeout(timeout_s):
                while self.state is _BUSY and not response.interim_count and response.state is _HEAD:
                    self._continue_waiter = self._loop.create_future()
                    await self._continue_waiter
        except TimeoutError:
            pass
        return self.state is _BUSY and response.state is _HEAD

    async def head(self) -> ResponseHead:
        """Returns the final head. Raises an UpstreamError, or the error of the upload."""
        if self._response.state is not _HEAD:
            return self._response.head
        if self.state is _CLOSED:
            raise self._close_reason()
        waiter: asyncio.Future[ResponseHead] = self._loop.create_future()
        self._head_waiter = waiter
        return await waiter

    @property
    def is_complete(self) -> bool:
        """Whether the last byte of the response has arrived, so `read_nowait()` returns the end of its body."""
        return self._response.state is _COMPLETE

    def read_nowait(self) -> bytes:
        """Returns the body bytes received since the last read; b"" if there are none."""
        data = self._response.take_body()
        if self._is_reading_paused:
            self._resume_reading()
        return data

    async def read(self) -> bytes:
        """Returns the next body bytes, b"" at the end. Raises an UpstreamError if the response is cut short."""
        response = self._response
        while not response.buffered_bytes and response.state is not _COMPLETE:
            if self.state is _CLOSED:
                raise self._close_reason()
            self._body_waiter = self._loop.create_future()
            now = self._loop.time()
            if self.began_after_s is None and self.request_sent:
                self.began_after_s = now - self.waits_since_s
            self.waits_since_s = now
            await self._within_idle_timeout(self._body_waiter, "The upstream stopped sending its response.")
        return self.read_nowait()

    @property
    def trailers(self) -> list[tuple[bytes, bytes]]:
        """The trailer fields, once the response is complete."""
        return self._response.trailers

    def fail(self, error: Exception) -> None:
        """Ends the exchange and its connection. The current wait, or the next one, raises `error`."""
        raise NotImplementedError

    # --- waiting --------------------------------------------------------------------------------

    def _resolve_head(self, waiter: "asyncio.Future[ResponseHead]") -> None:
        self._head_waiter = None
        if waiter.done():
            return
        if self._response.state is _HEAD:
            waiter.set_exception(self._close_reason())
        else:
            waiter.set_result(self._response.head)

    def _close_reason(self) -> Exception:
        return closed_early() if self._error is None else self._error

    def _on_first_byte_timeout(self) -> None:
        if self.state is _BUSY and self.request_sent and self._response.state is _HEAD:
            self.fail(UpstreamTimeout("The upstream did not begin its response in time.", sent=True))

    async def _within_idle_timeout(self, waiter: "asyncio.Future[None]", message: str) -> None:
        timer = self._loop.call_later(self._idle_timeout_s, self.fail, UpstreamTimeout(message, sent=True))
        try:
            await waiter
        finally:
            timer.cancel()
