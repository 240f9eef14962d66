"""A request body between the connection, which feeds it, and the handler, which reads it."""

import asyncio
import math
from typing import Final, Protocol

from nanonets_proxy.errors import CallerTooSlow
from nanonets_proxy.server.connection.flow_control import FlowControl

# With more buffered bytes than this, the connection stops reading until the handler takes them.
_MOST_BUFFERED_BYTES: Final = 128 * 1024


class Body(Protocol):
    """A request body, as the handler reads it."""

    @property
    def is_complete(self) -> bool:
        """Whether no more bytes will arrive: the whole body is here, read or unread, or the body has failed."""

    @property
    def received_bytes(self) -> int: ...

    @property
    def buffered_bytes(self) -> int:
        """The number of bytes that have arrived and are unread."""

    def want_since(self, instant_s: float) -> None:
        """Notes since when the handler waits for bytes, by the loop's clock; infinite: it does not."""

    async def wait(self) -> None:
        """Waits until more bytes arrive, or the body ends."""

    def give_up(self, message: str) -> None:
        """Makes the next read raise CallerTooSlow."""

    def read_nowait(self) -> bytes:
        """Returns the bytes that have arrived, or b"". Raises BadRequest or ConnectionError if the body failed."""

    async def readany(self) -> bytes:
        """Waits for the next bytes; returns b"" at the end. Raises BadRequest or ConnectionError if it failed."""


class WholeBody:
    """A body that arrived with its head, or no body."""

    __slots__ = ("_data", "received_bytes")

    is_complete: Final = True

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.received_bytes = len(data)

    @property
    def buffered_bytes(self) -> int:
        return len(self._data)

    def want_since(self, instant_s: float) -> None:
        """Changes nothing: all bytes have arrived."""

    async def wait(self) -> None:
        """Returns at once: all bytes have arrived."""

    def give_up(self, message: str) -> None:
        """Changes nothing: all bytes have arrived."""

    def read_nowait(self) -> bytes:
        data, self._data = self._data, b""
        return data

    async def readany(self) -> bytes:
        return self.read_nowait()


NO_BODY: Final = WholeBody(b"")


class BodyStream:
    """A body that is still arriving. One reader at a time."""

    __slots__ = (
        *("_error", "_flow", "_is_discarded", "_pieces", "_waiter"),
        *("buffered_bytes", "is_complete", "received_bytes", "wanted_since_s"),
    )

    def __init__(self, flow: FlowControl) -> None:
        self._flow = flow
        self._pieces: list[bytes] = []
        self.buffered_bytes = 0
        self._error: Exception | None = None
        self._is_discarded = False
        self._waiter: asyncio.Future[None] | None = None
        self.is_complete = False
        self.received_bytes = 0
        self.wanted_since_s = math.inf
        """Since when the handler waits for bytes, by the loop's clock; infinite if it does not."""

    # --- the connection calls these ----------------------------------------------------------------

    def feed(self, data: bytes) -> None:
        self.received_bytes += len(data)
        if self._is_discarded or not data:
            return
        self._pieces.append(data)
        self.buffered_bytes += len(data)
        if self.buffered_bytes > _MOST_BUFFERED_BYTES:
            self._flow.hold_back()
        self._wake()

    def finish(self) -> None:
        """Marks the end: all bytes have arrived."""
        self.is_complete = True
        self._wake()

    def fail(self, error: Exception) -> None:
        """Makes the next read raise `error`: the body is malformed, or its connection is lost."""
        self._error = error
        self.is_complete = True
        self.wanted_since_s = math.inf
        self._wake()

    def give_up(self, message: str) -> None:
        """Ends the body, because it arrives too slowly."""
        self.fail(CallerTooSlow(message))

    def discard(self) -> None:
        """Discards unread and later bytes, because the request has its response."""
        self._is_discarded = True
        self._take()

    # --- the handler calls these -------------------------------------------------------------------

    def read_nowait(self) -> bytes:
        if self._error is not None:
            raise self._error
        return self._take()

    async def readany(self) -> bytes:
        while not self._pieces and not self.is_complete:
            await self.wait()
        return self.read_nowait()

    def want_since(self, instant_s: float) -> None:
        self.wanted_since_s = instant_s

    async def wait(self) -> None:
        if not self.is_complete:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None

    def _take(self) -> bytes:
        data = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces.clear()
        if self.buffered_bytes > _MOST_BUFFERED_BYTES:
            self._flow.let_go()
        self.buffered_bytes = 0
        return data

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
