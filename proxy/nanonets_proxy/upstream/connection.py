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
import re
from mmap import mmap
from typing import TYPE_CHECKING, Final

from nanonets_proxy.core.api.unexpected import SEARCHED_BYTES
from nanonets_proxy.errors import ProxyError
from nanonets_proxy.upstream.errors import UpstreamBadReply, closed_early
from nanonets_proxy.upstream.exchange import Exchange, UpstreamConnectionState
from nanonets_proxy.upstream.response_parser import ResponseState
from nanonets_proxy.upstream.transport import read_last_bytes, wake

if TYPE_CHECKING:
    from collections.abc import Callable

# While more received bytes than this wait for a `read()`, the connection reads nothing from the upstream.
_PAUSE_READING_BYTES: Final = 256 * 1024
# Up to this size, a copy of what was read costs less than a view.
_COPIED_BYTES: Final = 4096
_IDLE_TIMEOUT: Final = re.compile(rb"HTTP/1\.[01] 408 ")

# Python 3.11 makes a call for each look-up of an enum's member.
_IDLE, _BUSY, _CLOSED = UpstreamConnectionState
_HEAD, _COMPLETE = ResponseState.HEAD, ResponseState.COMPLETE


class UpstreamConnection(Exchange):
    """See the module's docstring."""

    def __init__(self, loop: asyncio.AbstractEventLoop, read_buffer: mmap, *, idle_timeout_s: float) -> None:
        super().__init__(loop, read_buffer, idle_timeout_s=idle_timeout_s)
        self._ended_cleanly = False
        self.idle_since_s = 0.0
        self.dialer: object | None = None
        """The dialer that made it, if the pool must know."""
        self.on_surplus: Callable[[], None] | None = None
        """Called when bytes come that belong to no request."""

    def __repr__(self) -> str:
        return f"<UpstreamConnection {self.state.name} {self._response.state.name}>"

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

    def _notice_surplus(self) -> None:
        if self.on_surplus is not None:
            self.on_surplus()
            self.on_surplus = None  # once

    # --- called by asyncio ----------------------------------------------------------------------

    def buffer_updated(self, nbytes: int) -> None:
        if self.state is not _BUSY:
            # RFC 9110 §15.5.9: a server may send a 408 on an idle connection before it closes it.
            if self.state is _IDLE and not _IDLE_TIMEOUT.match(self._read_memory[:nbytes]):
                self._notice_surplus()
            self.close()
            return
        response = self._response
        try:
            response.feed((self._read_memory if nbytes <= _COPIED_BYTES else self._read_view)[:nbytes])
        except ProxyError as error:
            if isinstance(error, UpstreamBadReply) and response.state is _HEAD:
                error.start = self._read_memory[: min(nbytes, SEARCHED_BYTES)]
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
