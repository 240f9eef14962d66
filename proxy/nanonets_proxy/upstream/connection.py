"""One HTTP/1.1 connection to the upstream, with at most one exchange at a time.

States and transitions:

    IDLE     no exchange. Bytes or an end of file from the upstream close the connection: an unexpected byte would
             become the start of the next response
      send() or start()                                           -> BUSY
    BUSY     the request is being sent, the response is arriving (its states: response_parser.py)
      release(), both complete, the upstream keeps the connection -> IDLE
      release() otherwise                                         -> CLOSED
    CLOSED   from every state: close(), fail(), a broken response, a timeout, the upstream's end

The connection keeps an error and raises it at the next await, so an error between two awaits is not lost. Bytes
of the response that arrived before the error can still be read.
"""

import asyncio
import enum
import re
from collections.abc import Callable
from typing import Final

from nanonets_proxy.core.api.unexpected import SEARCHED_BYTES
from nanonets_proxy.errors import ProxyError
from nanonets_proxy.upstream.errors import UpstreamBadReply, UpstreamTimeout
from nanonets_proxy.upstream.response_errors import closed_early
from nanonets_proxy.upstream.response_head import ResponseHead
from nanonets_proxy.upstream.response_parser import ResponseParser, ResponseState
from nanonets_proxy.upstream.time_limit import TimeLimit
from nanonets_proxy.upstream.transport import UpstreamTransport, read_last_bytes, wake

# While more received bytes than this wait for a `read()`, the connection reads nothing from the upstream.
_PAUSE_READING_BYTES: Final = 256 * 1024
_IDLE_TIMEOUT: Final = re.compile(rb"HTTP/1\.[01] 408 ")


class ConnectionState(enum.Enum):
    IDLE = enum.auto()
    BUSY = enum.auto()
    CLOSED = enum.auto()


# Python 3.11 makes a call for each look-up of an enum's member.
_IDLE, _BUSY, _CLOSED = ConnectionState
_HEAD, _COMPLETE = ResponseState.HEAD, ResponseState.COMPLETE


class UpstreamConnection(UpstreamTransport):
    """See the module's docstring. `idle_timeout_s` bounds each wait for body bytes, in both directions."""

    def __init__(self, loop: asyncio.AbstractEventLoop, read_buffer: memoryview, *, idle_timeout_s: float) -> None:
        super().__init__(loop, read_buffer)
        self._idle_timeout_s = idle_timeout_s
        self._response = ResponseParser(is_head=False)
        self._head_waiter: asyncio.Future[ResponseHead] | None = None
        self._body_waiter: asyncio.Future[None] | None = None
        self._continue_waiter: asyncio.Future[None] | None = None
        self.request_sent = False
        """Whether the upstream has the whole request of the exchange."""
        self._ended_cleanly = False
        self._first_byte_limit = TimeLimit(loop, self._on_first_byte_timeout)
        self._error: Exception | None = None
        self.state = _IDLE
        self.idle_since_s = 0.0

    def __repr__(self) -> str:
        return f"<UpstreamConnection {self.state.name} {self._response.state.name}>"

    # --- an exchange: send(), or start(), write(), finish_request() and head(); then read(), release() --------

    def send(
        self,
        request: bytes,
        first_byte_timeout_s: float,
        is_head: bool,
        on_interim: Callable[[ResponseHead], None] | None,
    ) -> "asyncio.Future[ResponseHead]":
        """Sends a complete request: start(), write(), finish_request() and head() in one call.

        The future resolves to the final head, or raises an UpstreamError.
        """
        self.start(is_head=is_head, on_interim=on_interim)
        loop = self._loop
        self._head_waiter = waiter = loop.create_future()
        if self._transport is None:
            self._resolve_head(waiter)
            return waiter
        self._transport.write(request)
        self.request_sent = True
        self.waits_since_s = now = loop.time()
        self._first_byte_limit.set(now + first_byte_timeout_s)
        return waiter

    def start(self, *, is_head: bool, on_interim: Callable[[ResponseHead], None] | None = None) -> None:
        """Begins an exchange. `is_head`: a response to a HEAD request has no body, whatever its fields say.

        `on_interim` is called with each interim (1xx) response other than 100.
        """
        if not self._response.restart(is_head, on_interim):
            self._response = ResponseParser(is_head=is_head, on_interim=on_interim)
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

    def release(self) -> bool:
        """Ends the exchange. Returns True if the connection can serve another one; closes it otherwise."""
        response, transport = self._response, self._transport
        if (
            self.state is not _BUSY
            or response.state is not _COMPLETE
            or not response.keep_alive
            or not self.request_sent
            or transport is None
            or transport.is_closing()
        ):
            self.close()
            return False
        if response.buffered_bytes:
            self.read_nowait()
        self.state = _IDLE
        self.idle_since_s = self._loop.time()
        return True

    def fail(self, error: Exception) -> None:
        """Closes the connection. The current wait, or the next one, raises `error`."""
        if self._error is None:
            self._error = error
        self.close()

    def close(self) -> None:
        """Closes the connection at once and discards unsent bytes."""
        self.state = _CLOSED
        self._abort()
        self._first_byte_limit.cancel()
        if self._head_waiter is not None:
            self._resolve_head(self._head_waiter)
        wake(self._body_waiter)
        wake(self._continue_waiter)

    # --- called by asyncio ----------------------------------------------------------------------

    def buffer_updated(self, nbytes: int) -> None:
        if self.state is not _BUSY:
            # RFC 9110 §15.5.9: a server may send a 408 on an idle connection before it closes it.
            if self.state is _IDLE and not _IDLE_TIMEOUT.match(self._read_buffer[:nbytes]):
                self._notice_surplus()
            self.close()
            return
        response = self._response
        try:
            response.feed(self._read_buffer[:nbytes])
        except ProxyError as error:
            if isinstance(error, UpstreamBadReply) and response.state is _HEAD:
                error.start = bytes(self._read_buffer[: min(nbytes, SEARCHED_BYTES)])
            self.fail(error)
            return
        if response.buffered_bytes > _PAUSE_READING_BYTES:
            self._pause_reading()
        if response.has_surplus:
            self._notice_surplus()
        if (waiter := self._head_waiter) is not None and response.state is not _HEAD:
            self._head_waiter = None
            if not waiter.done():
                waiter.set_result(response.head)
        if self._body_waiter is not None:
            wake(self._body_waiter)
        if self._continue_waiter is not None:
            wake(self._continue_waiter)

    def eof_received(self) -> None:
        """Notes a clean end. Over TLS, asyncio calls this only for a closing alert.

        Without the alert, an attacker may have cut the response short (RFC 9112 §9.8).
        """
        self._ended_cleanly = True

    def connection_lost(self, exc: Exception | None) -> None:
        transport, self._transport = self._transport, None
        if exc is not None and self.is_upload and transport is not None:
            read_last_bytes(transport, self)
        if self.state is _BUSY and self._response.state is not _COMPLETE:
            try:
                if exc is not None or not self._ended_cleanly:
                    raise closed_early() from exc
                self._response.end_of_input()
            except ProxyError as error:
                self.fail(error)
        self.close()

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
