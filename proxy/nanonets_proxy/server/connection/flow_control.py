"""Decides how many of a caller's bytes are read, and when. A body that is not needed yet stays with the caller.

    NARROW  small reads, or larger ones while all connections together have room for bodies that are read before
            they are needed (`ReadAhead`)
      a request waits for its permit  -> SHUT
      a body is needed                -> WIDE
    SHUT    nothing is read; the server polls for hang-ups
      the body is needed              -> WIDE
      the request has ended           -> NARROW
    WIDE    large reads
      the request has ended           -> NARROW

Beside these, reading pauses while the connection holds more than it can use (`hold_back`, `let_go`). `Backpressure`
is the other direction: a caller that reads its response slowly.
"""

import asyncio
import math
from mmap import MAP_ANONYMOUS, MAP_PRIVATE, mmap
from typing import Any, Final

NARROW_BYTES: Final = 2048  # as large as most heads with their tokens
_AHEAD_BYTES: Final = 68 * 1024  # a head and 64 KiB, as clients write them
_WIDE_BYTES: Final = 256 * 1024
# Of all connections together. Beyond it, a thousand waiting uploads cost two KiB more each.
MOST_AHEAD_BYTES: Final = 2 * 1024 * 1024


def _buffer(length: int) -> tuple[mmap, memoryview]:
    """Returns a buffer and a view of it. The system gives it a page only when a read first fills that page."""
    memory = mmap(-1, length, MAP_PRIVATE | MAP_ANONYMOUS)
    return memory, memoryview(memory)


_NARROW, _AHEAD, _WIDE = _buffer(NARROW_BYTES), _buffer(_AHEAD_BYTES), _buffer(_WIDE_BYTES)


class ReadAhead:
    """Room for body bytes that are read before the request is granted, so one read receives a whole small upload.

    The connections of a server share it.
    """

    __slots__ = ("free_bytes",)

    def __init__(self) -> None:
        self.free_bytes = MOST_AHEAD_BYTES


class FlowControl:
    """Controls the reading from one connection."""

    __slots__ = (
        *("_ahead", "_is_held_back", "_shut", "_tls", "_transport", "_wide"),
        *("ahead_bytes", "has_changed", "memory", "view"),
    )

    def __init__(self, ahead: ReadAhead) -> None:
        self._ahead = ahead
        self.ahead_bytes = 0
        """The bytes of the shared room that this connection occupies."""
        self.memory, self.view = _NARROW
        """The buffer of the latest read, for copies and for views of its bytes. Connections share it, so its bytes
        are valid during one call only."""
        self._transport: asyncio.Transport | None = None
        self._tls: Any = None  # the transport, if it decrypts
        self._wide = False
        self._shut = False
        self._is_held_back = False
        self.has_changed = False
        """Whether `narrow` must follow the request."""

    def attach(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._tls = None if transport.get_extra_info("ssl_object") is None else transport

    def detach(self) -> None:
        self._transport = self._tls = None
        self.release()

    # --- the request ------------------------------------------------------------------------------

    def shut(self) -> None:
        """Stops reading: the request waits, and the unread part of its body stays with the caller."""
        if not self._shut and self._transport is not None and not self._transport.is_closing():
            self._shut, self._wide, self.has_changed = True, False, True
            self._transport.pause_reading()
            if self._tls is not None:
                self._tls.set_read_buffer_limits(0)  # otherwise it reads half a megabyte more, undecrypted

    def open_wide(self) -> None:
        """Reads in large pieces: the body is needed."""
        if not self._wide:
            self._wide = self.has_changed = True
            self._reopen()
            self.release()

    def narrow(self) -> None:
        """Reads in small pieces: the request has ended."""
        self.has_changed = False
        if self._wide or self._shut:
            self._wide = False
            self._reopen()
        if self.ahead_bytes:
            self.release()

    def release(self) -> None:
        """Returns the room of bytes that were read ahead: they are needed now, or discarded."""
        self._ahead.free_bytes += self.ahead_bytes
        self.ahead_bytes = 0

    # --- the connection ---------------------------------------------------------------------------

    def next_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio's signature of `get_buffer`
        """Returns the buffer for the next read."""
        if self._wide:
            self.memory, view = _WIDE
        else:
            self.memory, view = _AHEAD if self._ahead.free_bytes >= _AHEAD_BYTES else _NARROW
        self.view = view
        return view

    def was_read(self, nbytes: int, *, is_waiting: bool) -> None:
        """Accounts for a read. `is_waiting`: a request has begun, and its body is not needed yet."""
        if is_waiting and nbytes >= NARROW_BYTES and not self._wide:
            self._ahead.free_bytes -= nbytes
            self.ahead_bytes += nbytes
            self.has_changed = True
            if nbytes == len(self.memory):
                self.shut()

    def hold_back(self) -> None:
        """Stops reading until `let_go`: the connection holds more than it can use now."""
        if not self._is_held_back:
            self._is_held_back = True
            if self._transport is not None and not self._transport.is_closing():
                self._transport.pause_reading()

    def let_go(self) -> None:
        """Ends `hold_back`."""
        if self._is_held_back:
            self._is_held_back = False
            if not self._shut and self._transport is not None and not self._transport.is_closing():
                self._transport.resume_reading()

    def _reopen(self) -> None:
        was_shut, self._shut = self._shut, False
        if self._transport is None or self._transport.is_closing():
            return
        if was_shut and self._tls is not None:
            self._tls.set_read_buffer_limits()
        if not self._is_held_back:
            self._transport.resume_reading()


class Backpressure:
    """Whether the transport's write buffer is full. One waiter at a time."""

    __slots__ = ("_waiter", "full_since_s", "is_full")

    def __init__(self) -> None:
        self._waiter: asyncio.Future[None] | None = None
        self.is_full = False
        self.full_since_s = math.inf
        """Since when it is full, by the loop's clock; infinite if it is not."""

    def begin(self) -> None:
        self.is_full = True
        self.full_since_s = asyncio.get_running_loop().time()

    def end(self) -> None:
        self.is_full = False
        self.full_since_s = math.inf
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def fail(self, error: Exception) -> None:
        """Makes the waiter raise `error`."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(error)

    async def wait(self) -> None:
        """Returns when the buffer has room. Raises the error of `fail`."""
        if self.is_full:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
