"""How much of a caller's bytes is read, and when: a body that nobody wants yet stays in the caller's hands.

The transport's protocol, in front of aiohttp's. aiohttp takes what comes, up to 256 KB at a read, into its buffer;
a thousand uploads that wait for their turn would cost that much each.

NARROW  small reads, or larger ones while there is room for what they may bring too early (`ReadAhead`). One
        that fills the buffer is the last until the request, if there is one, says what it wants
  a request begins to wait        -> SHUT
  its body is wanted              -> WIDE
SHUT    nothing is read; the server looks for hang-ups all the same
  its body is wanted              -> WIDE
  the request has ended           -> NARROW
WIDE    large reads
  the request has ended           -> NARROW
"""

import asyncio
from typing import Any, Final, Protocol, cast

_NARROW: Final = memoryview(bytearray(2048))  # as large as most heads with their tokens
_AHEAD: Final = memoryview(bytearray(68 * 1024))  # a head and 64 KiB, as clients write them
_WIDE: Final = memoryview(bytearray(256 * 1024))
# Of all connections together: a thousand waiting uploads may cost two KiB more each.
MOST_AHEAD_BYTES: Final = 2 * 1024 * 1024


class ReadAhead:
    """Room for what is read of bodies before it is known whether they are wanted: most are, at once, and then one
    read of a head and its body is all that they take. Shared by the connections of a server."""

    __slots__ = ("free_bytes",)

    def __init__(self) -> None:
        self.free_bytes = MOST_AHEAD_BYTES


class Connection(Protocol):
    """The part of our protocol that is needed here."""

    @property
    def has_request(self) -> bool:
        """Whether a request's head is complete, and its end not yet reached."""

    @property
    def takes_more(self) -> bool:
        """Whether its own buffers do not hold back the reading."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None: ...
    def connection_lost(self, exc: BaseException | None) -> None: ...
    def data_received(self, data: bytes) -> None:
        """What is more than a head comes as it lies in the buffer, which is good for this call only."""

    def eof_received(self) -> Any: ...
    def pause_writing(self) -> None: ...
    def resume_writing(self) -> None: ...


class FlowControl(asyncio.BufferedProtocol):
    """One connection's."""

    __slots__ = ("_ahead", "_ahead_bytes", "_buffer", "_connection", "_shut", "_tls", "_transport", "_wide")

    def __init__(self, connection: Connection, ahead: ReadAhead) -> None:
        self._connection = connection
        self._ahead = ahead
        self._ahead_bytes = 0  # taken of its room
        self._buffer = _NARROW  # of the read that is under way
        self._transport: asyncio.Transport | None = None
        self._tls: Any = None  # the transport, if it decrypts
        self._wide = False
        self._shut = False

    # --- what the request wants -------------------------------------------------------------------

    def shut(self) -> None:
        """The request waits, its body unread."""
        if not self._shut and self._transport is not None and not self._transport.is_closing():
            self._shut, self._wide = True, False
            self._transport.pause_reading()
            if self._tls is not None:
                self._tls.set_read_buffer_limits(0)  # else it reads on, half a megabyte that nobody has decrypted

    def open_wide(self) -> None:
        """The body is wanted."""
        if not self._wide:
            self._wide = True
            self._reopen()
            self.release()

    def narrow(self) -> None:
        """The request has ended."""
        if self._wide or self._shut:
            self._wide = False
            self._reopen()
        if self._ahead_bytes:
            self.release()

    def release(self) -> None:
        """What was read ahead is wanted, or gone."""
        self._ahead.free_bytes += self._ahead_bytes
        self._ahead_bytes = 0

    def _reopen(self) -> None:
        was_shut, self._shut = self._shut, False
        if self._transport is None or self._transport.is_closing():
            return
        if was_shut and self._tls is not None:
            self._tls.set_read_buffer_limits()
        if self._connection.takes_more:
            self._transport.resume_reading()

    # --- asyncio's side ---------------------------------------------------------------------------

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio's signature
        if self._wide:
            self._buffer = _WIDE
        else:
            self._buffer = _AHEAD if self._ahead.free_bytes >= len(_AHEAD) else _NARROW
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        buffer = self._buffer
        data = buffer[:nbytes]
        self._connection.data_received(cast("bytes", data) if nbytes > len(_NARROW) else data.tobytes())
        if nbytes >= len(_NARROW) and not self._wide and self._connection.has_request:
            self._ahead.free_bytes -= nbytes
            self._ahead_bytes += nbytes
            if nbytes == len(buffer):
                self.shut()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._tls = None if transport.get_extra_info("ssl_object") is None else transport
        self._connection.connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._transport = self._tls = None
        self.release()
        self._connection.connection_lost(exc)

    def eof_received(self) -> Any:
        return self._connection.eof_received()

    def pause_writing(self) -> None:
        self._connection.pause_writing()

    def resume_writing(self) -> None:
        self._connection.resume_writing()
