"""How much of a caller's bytes is read, and when: a body that nobody wants yet stays in the caller's hands.

The transport's protocol, in front of aiohttp's. aiohttp takes what comes, up to 256 KB at a read, into its buffer;
a thousand uploads that wait for their turn would cost that much each.

NARROW  small reads. One that fills the buffer shuts the valve until the request has begun to be handled
  a request begins to wait        -> SHUT
  its body is wanted              -> WIDE
SHUT    nothing is read. The kernel still hears of a hang-up: see `Watch`
  its body is wanted              -> WIDE
  the request has ended           -> NARROW
WIDE    large reads
  the request has ended           -> NARROW
"""

import asyncio
import select
from typing import Any, Final, Protocol, cast

_NARROW: Final = memoryview(bytearray(2 * 1024))  # as large as most heads
_WIDE: Final = memoryview(bytearray(256 * 1024))
# Rounds of the event loop after which a request must have begun, if what was read is one: more than aiohttp takes.
_ROUNDS: Final = 4
_WATCH_EACH_S: Final = 1.0
# Linux only; elsewhere a hidden hang-up shows once the body is read.
_POLLRDHUP: Final = getattr(select, "POLLRDHUP", 0)


class Connection(Protocol):
    """The part of aiohttp's protocol that is needed here; `busy` while a request of it is handled."""

    busy: bool

    def connection_made(self, transport: asyncio.BaseTransport) -> None: ...
    def connection_lost(self, exc: BaseException | None) -> None: ...
    def data_received(self, data: bytes) -> None: ...
    def eof_received(self) -> Any: ...
    def pause_writing(self) -> None: ...
    def resume_writing(self) -> None: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...


class Watch:
    """Looks each second whether the callers whose valve is shut are still there: one system call for all."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._poll = select.poll()
        self._transports: dict[int, asyncio.Transport] = {}
        self._timer: asyncio.TimerHandle | None = None

    def add(self, transport: asyncio.Transport) -> None:
        number = _descriptor(transport)
        if number is None or not _POLLRDHUP:
            return
        self._transports[number] = transport
        self._poll.register(number, _POLLRDHUP)
        if self._timer is None:
            self._timer = self._loop.call_later(_WATCH_EACH_S, self._look)

    def discard(self, transport: asyncio.Transport) -> None:
        """Call it before the transport closes: its number may then be another's."""
        number = _descriptor(transport)
        if number is not None and self._transports.pop(number, None) is not None:
            self._poll.unregister(number)

    def _look(self) -> None:
        self._timer = None
        for number, _ in self._poll.poll(0):
            transport = self._transports.pop(number)
            self._poll.unregister(number)
            transport.abort()
        if self._transports:
            self._timer = self._loop.call_later(_WATCH_EACH_S, self._look)


class Valve(asyncio.BufferedProtocol):
    """One connection's."""

    __slots__ = ("_connection", "_loop", "_shut", "_transport", "_watch", "_wide")

    def __init__(self, connection: Connection, watch: Watch, loop: asyncio.AbstractEventLoop) -> None:
        self._connection = connection
        self._watch = watch
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._wide = False
        self._shut = False

    # --- what the request wants -------------------------------------------------------------------

    def shut(self) -> None:
        """The request waits, its body unread."""
        if not self._shut and self._transport is not None and not self._transport.is_closing():
            self._shut = True
            self._connection.pause_reading()
            self._watch.add(self._transport)

    def open_wide(self) -> None:
        """The body is wanted."""
        if not self._wide:
            self._wide = True
            self._reopen()

    def narrow(self) -> None:
        """The request has ended."""
        self._wide = False
        self._reopen()

    def _reopen(self) -> None:
        if self._transport is not None:
            if self._shut:
                self._shut = False
                self._watch.discard(self._transport)
            self._connection.resume_reading()

    def _after_full_read(self, rounds: int) -> None:
        if self._connection.busy or self._wide or self._shut:
            return  # the request will say what it wants
        if rounds:
            self._loop.call_soon(self._after_full_read, rounds - 1)
        else:
            self._connection.resume_reading()  # a head larger than the buffer

    # --- asyncio's side ---------------------------------------------------------------------------

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio's signature
        return _WIDE if self._wide else _NARROW

    def buffer_updated(self, nbytes: int) -> None:
        if self._wide:
            self._connection.data_received(bytes(_WIDE[:nbytes]))
            return
        self._connection.data_received(bytes(_NARROW[:nbytes]))
        if nbytes == len(_NARROW) and not self._wide:
            self._connection.pause_reading()
            self._after_full_read(_ROUNDS)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._connection.connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._shut and self._transport is not None:
            self._watch.discard(self._transport)
        self._transport = None
        self._connection.connection_lost(exc)

    def eof_received(self) -> Any:
        return self._connection.eof_received()

    def pause_writing(self) -> None:
        self._connection.pause_writing()

    def resume_writing(self) -> None:
        self._connection.resume_writing()


def _descriptor(transport: asyncio.Transport) -> int | None:
    sock = transport.get_extra_info("socket")
    return sock.fileno() if sock is not None and sock.fileno() >= 0 else None
