"""One HTTP/1.1 connection to the upstream, one exchange at a time.

States and transitions:

    IDLE     no exchange; any byte or end of file from the peer closes (a byte that comes out of turn would
             become the next caller's answer)
      send() or start()                                    -> BUSY
    BUSY     a request is being sent, an answer is coming (its own states: reply.py)
      release(), request and answer whole, both keep alive -> IDLE
      release() otherwise                                  -> CLOSED
    CLOSED   from every state: close(), fail(), a broken answer, a time limit, the peer's end

An error is kept and raised from whatever awaits next, so that none is lost between two awaits. What had
come of the answer before it can still be read.
"""

import asyncio
import enum
import select
from collections.abc import Callable
from typing import Final, cast

from nanonets_proxy.core.net.key_pins import public_key_digest
from nanonets_proxy.errors import ProxyError, UpstreamTimeout
from nanonets_proxy.upstream.response_faults import closed_early
from nanonets_proxy.upstream.response_head import ResponseHead
from nanonets_proxy.upstream.response_parser import ResponseParser, ResponseState
from nanonets_proxy.upstream.response_patterns import ResponsePatterns
from nanonets_proxy.upstream.time_limit import TimeLimit

# Received and not yet read: above this the peer is paused until the reader has taken it all.
_PAUSE_READING_BYTES: Final = 256 * 1024
_REFUSED_FROM_STATUS: Final = 400


class ConnectionState(enum.Enum):
    IDLE = enum.auto()
    BUSY = enum.auto()
    CLOSED = enum.auto()


# As attributes of their class they cost a call at each look, in Python 3.11.
_IDLE, _BUSY, _CLOSED = ConnectionState
_HEAD, _COMPLETE = ResponseState.HEAD, ResponseState.COMPLETE


class UpstreamConnection(asyncio.BufferedProtocol):
    """See the module's docstring. `idle_timeout_s` bounds each wait for the body's next bytes, either way.

    `read_buffer` is where the transport puts what it reads: one for all connections of a loop, since it is parsed
    before anything else is read. For a protocol without one, TLS allocates 256 KiB at each read.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        read_buffer: memoryview,
        shapes: ResponsePatterns,
        *,
        idle_timeout_s: float,
    ) -> None:
        self._loop = loop
        self._read_buffer = read_buffer
        self._idle_timeout_s = idle_timeout_s
        self._transport: asyncio.Transport | None = None
        self._poll: select.poll | None = None
        self._shapes = shapes
        self._reply = ResponseParser(is_head=False, shapes=shapes)
        self._head_waiter: asyncio.Future[ResponseHead] | None = None
        self._reply_waiter: asyncio.Future[None] | None = None
        self._continue_waiter: asyncio.Future[None] | None = None
        self._drain_waiter: asyncio.Future[None] | None = None
        self._writing_paused = False
        self._reading_paused = False
        self._request_sent = False
        self._ended_cleanly = False
        self._first_byte = TimeLimit(loop, self._on_first_byte_due)
        self._error: Exception | None = None
        self.state = _IDLE
        self.idle_since_s = 0.0

    def __repr__(self) -> str:
        return f"<UpstreamConnection {self.state.name} {self._reply.state.name}>"

    @property
    def tls_version(self) -> str | None:
        """Such as `TLSv1.3`; None on a plain connection."""
        tls = None if self._transport is None else self._transport.get_extra_info("ssl_object")
        return None if tls is None else str(tls.version())

    def public_key_digest(self) -> bytes | None:
        """The SHA-256 of the peer's public key; None on a plain connection."""
        tls = None if self._transport is None else self._transport.get_extra_info("ssl_object")
        return None if tls is None else public_key_digest(tls.getpeercert(binary_form=True))

    # --- an exchange: send, or start, write, finish_request and head; then read, release ----------

    def send(
        self,
        request: bytes,
        first_byte_timeout_s: float,
        is_head: bool,
        on_interim: Callable[[ResponseHead], None] | None,
    ) -> "asyncio.Future[ResponseHead]":
        """`start`, `write`, `finish_request` and `head` in one call, for a request that is all here: most are."""
        if not self._reply.restart(is_head, on_interim):
            self._reply = ResponseParser(is_head=is_head, on_interim=on_interim, shapes=self._shapes)
        loop = self._loop
        self._head_waiter = waiter = loop.create_future()
        if self._transport is None:
            self._settle_head(waiter)
            return waiter
        self.state = _BUSY  # it was not CLOSED: the transport would be gone
        self._transport.write(request)
        self._request_sent = True
        self._first_byte.set(loop.time() + first_byte_timeout_s)
        return waiter

    def start(self, *, is_head: bool, on_interim: Callable[[ResponseHead], None] | None = None) -> None:
        """Begins an exchange; `is_head` since an answer to HEAD has no body whatever its fields say.

        `on_interim` is called with each 1xx other than 100, as it comes.
        """
        if not self._reply.restart(is_head, on_interim):
            self._reply = ResponseParser(is_head=is_head, on_interim=on_interim, shapes=self._shapes)
        self._request_sent = False
        if self.state is _IDLE:
            self.state = _BUSY

    def write(self, data: bytes) -> None:
        """Sends; what is written to a lost connection goes nowhere, and `head()` will say so."""
        if self._transport is not None:
            self._transport.write(data)

    async def drain(self) -> None:
        """Waits until the peer has taken enough of what was written; on a lost connection, not at all."""
        if self._writing_paused and self.state is _BUSY:
            self._drain_waiter = self._loop.create_future()
            await self._within_idle_timeout(self._drain_waiter, "The upstream stopped taking the request.")

    def finish_request(self, first_byte_timeout_s: float) -> None:
        """The request is written to its last byte; from now on the head has so long to come."""
        self._request_sent = True
        if self.state is _BUSY:
            self._first_byte.set(self._loop.time() + first_byte_timeout_s)

    def wants_body(self) -> bool:
        """Whether an upload should go on: not behind a final answer that refuses it, nor on a lost connection."""
        reply = self._reply
        return self.state is _BUSY and (reply.state is _HEAD or reply.head.status < _REFUSED_FROM_STATUS)

    @property
    def response_begun(self) -> bool:
        """Whether any byte of an answer has come: then the request was surely received."""
        return self._reply.has_begun

    async def wait_for_continue(self, timeout_s: float) -> bool:
        """Whether the body is wanted: True at a 1xx, or when `timeout_s` have passed; False at a final head or the
        connection's end."""
        reply = self._reply
        try:
            async with asyncio.timeout(timeout_s):
                while self.state is _BUSY and not reply.interim_count and reply.state is _HEAD:
                    self._continue_waiter = self._loop.create_future()
                    await self._continue_waiter
        except TimeoutError:
            pass
        return self.state is _BUSY and reply.state is _HEAD

    async def head(self) -> ResponseHead:
        """The final head. Raises what came instead: an UpstreamError, or the error of the upload."""
        if self._reply.state is not _HEAD:
            return self._reply.head
        if self.state is _CLOSED:
            raise self._why_closed()
        waiter: asyncio.Future[ResponseHead] = self._loop.create_future()
        self._head_waiter = waiter
        return await waiter

    @property
    def is_complete(self) -> bool:
        """Whether the answer is here to its last byte, so that `read_nowait()` has all that is left of it."""
        return self._reply.state is _COMPLETE

    def read_nowait(self) -> bytes:
        """The body bytes received and not yet taken; never waits."""
        data = self._reply.take_body()
        if self._reading_paused and self._transport is not None:
            self._reading_paused = False
            self._transport.resume_reading()
        return data

    async def read(self) -> bytes:
        """The next body bytes, b"" at the end. Raises an UpstreamError where the answer breaks off."""
        while not self._reply.buffered_bytes and self._reply.state is not _COMPLETE:
            if self.state is _CLOSED:
                raise self._why_closed()
            self._reply_waiter = self._loop.create_future()
            await self._within_idle_timeout(self._reply_waiter, "The upstream stopped in mid-answer.")
        return self.read_nowait()

    @property
    def trailers(self) -> list[tuple[bytes, bytes]]:
        """The trailer fields; complete at the end of the body."""
        return self._reply.trailers

    def release(self) -> bool:
        """Ends the exchange; True if the connection is good for another one, else it is closed now."""
        reply, transport = self._reply, self._transport
        if (
            self.state is not _BUSY
            or reply.state is not _COMPLETE
            or not reply.keep_alive
            or not self._request_sent
            or transport is None
            or transport.is_closing()
        ):
            self.close()
            return False
        if reply.buffered_bytes:
            self.read_nowait()
        self.state = _IDLE
        self.idle_since_s = self._loop.time()
        return True

    def is_readable(self) -> bool:
        """Returns whether bytes or an end of file wait in the socket, or the connection is lost: one system call.

        The pool asks before it gives an idle connection to a request that must not be sent twice.
        """
        if self._transport is None:
            return True
        if self._poll is None:
            self._poll = select.poll()
            self._poll.register(self._transport.get_extra_info("socket").fileno(), select.POLLIN)
        return bool(self._poll.poll(0))

    def fail(self, error: Exception) -> None:
        """Breaks the exchange off: whatever awaits this connection, now or next, gets `error`: an UpstreamError,
        or what went wrong on the caller's side."""
        if self._error is None:
            self._error = error
        self.close()

    def close(self) -> None:
        """Ends the connection at once, whatever its state; unsent bytes are dropped."""
        self.state = _CLOSED
        if self._transport is not None:
            self._transport.abort()
            self._transport = None
        self._first_byte.cancel()
        if self._head_waiter is not None:
            self._settle_head(self._head_waiter)
        _wake(self._reply_waiter)
        _wake(self._continue_waiter)
        _wake(self._drain_waiter)

    # --- asyncio.BufferedProtocol ---------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio's signature
        return self._read_buffer

    def buffer_updated(self, nbytes: int) -> None:
        reply = self._reply
        if self.state is not _BUSY:
            self.close()
            return
        try:
            if reply.has_begun or not reply.feed_whole(self._read_buffer, nbytes):
                reply.feed(self._read_buffer[:nbytes])
        except ProxyError as error:
            self.fail(error)
            return
        if reply.buffered_bytes > _PAUSE_READING_BYTES and not self._reading_paused and self._transport:
            self._reading_paused = True
            self._transport.pause_reading()
        if (waiter := self._head_waiter) is not None and reply.state is not _HEAD:
            self._head_waiter = None
            if not waiter.done():
                waiter.set_result(reply.head)
        if self._reply_waiter is not None:
            _wake(self._reply_waiter)
        if self._continue_waiter is not None:
            _wake(self._continue_waiter)

    def eof_received(self) -> None:
        """Over TLS only at its own closing alert: without that, whoever can cut the connection could have cut the
        answer short (RFC 9112 §9.8)."""
        self._ended_cleanly = True

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self.state is _BUSY and self._reply.state is not _COMPLETE:
            try:
                if exc is not None or not self._ended_cleanly:
                    raise closed_early() from exc
                self._reply.end_of_input()
            except ProxyError as error:
                self.fail(error)
        self.close()

    def pause_writing(self) -> None:
        self._writing_paused = True

    def resume_writing(self) -> None:
        self._writing_paused = False
        _wake(self._drain_waiter)

    # --- inside ---------------------------------------------------------------------------------

    def _settle_head(self, waiter: "asyncio.Future[ResponseHead]") -> None:
        self._head_waiter = None
        if waiter.done():
            return
        if self._reply.state is _HEAD:
            waiter.set_exception(self._why_closed())
        else:
            waiter.set_result(self._reply.head)

    def _why_closed(self) -> Exception:
        return closed_early() if self._error is None else self._error

    def _on_first_byte_due(self) -> None:
        if self.state is _BUSY and self._request_sent and self._reply.state is _HEAD:
            self.fail(UpstreamTimeout("The upstream did not begin to answer in time.", sent=True))

    async def _within_idle_timeout(self, waiter: "asyncio.Future[None]", message: str) -> None:
        timer = self._loop.call_later(self._idle_timeout_s, self.fail, UpstreamTimeout(message, sent=True))
        try:
            await waiter
        finally:
            timer.cancel()


def _wake(waiter: "asyncio.Future[None] | None") -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)
