"""The transport of a caller's connection: the peer, flow control in both directions, and the ways to close it."""

import asyncio
import os
import socket
from typing import TYPE_CHECKING, Final, cast

from nanonets_proxy.server.connection.flow_control import Backpressure, FlowControl, ReadAhead
from nanonets_proxy.server.peers import UNKNOWN, Peer, caller_gone, keep_alive_probes, peer_of, readable, reset

if TYPE_CHECKING:
    from nanonets_proxy.server.connection.idle_timer import StallTimer

CLOSE_S: Final = 60.0  # for the unsent bytes of a response to a slow reader


class CallerTransport(asyncio.BufferedProtocol):
    """Holds the asyncio transport until the connection is lost."""

    __slots__ = ("_loop", "_timer", "flow", "peer", "transport", "was_cut_off", "writing")

    def __init__(self, ahead: ReadAhead) -> None:
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | StallTimer | None = None  # of the connection's state, or of its close
        self.flow = FlowControl(ahead)
        self.peer: Peer = UNKNOWN
        self.transport: asyncio.Transport | None = None
        self.was_cut_off = False
        """Whether `shutdown` has reset the connection."""
        self.writing = Backpressure()

    async def drain(self) -> None:
        """Waits until the caller has read most of the written bytes. Raises ConnectionError if it is gone."""
        if self.transport is None:
            raise caller_gone()
        await self.writing.wait()

    def has_unread_bytes(self) -> bool:
        """Returns whether bytes of the caller are in the socket, or its end."""
        return self.transport is not None and bool(readable([self.transport]))

    def close_when_sent(self) -> None:
        """Closes when all written bytes are sent, at the latest after CLOSE_S."""
        if self.transport is not None:
            self.transport.close()
            if self.transport.get_write_buffer_size():
                self._stop_timer()
                self._timer = self._loop.call_later(CLOSE_S, self.displace)

    def displace(self) -> None:
        """Closes now, and resets the connection if written bytes are unsent."""
        if self.transport is not None:
            if self.transport.get_write_buffer_size():
                reset(self.transport)
            else:
                self.transport.close()

    def cut_off(self) -> None:
        """Resets the connection at the end of the process, and notes it."""
        if self.transport is not None:
            self.was_cut_off = True
            reset(self.transport)

    def duplicate(self) -> socket.socket | None:
        """Returns another descriptor of the connection, for another process.

        None: the connection closes, has unsent bytes, or is over TLS, whose keys stay in this process.
        """
        transport = self.transport
        if transport is None or transport.is_closing() or transport.get_write_buffer_size():
            return None
        if transport.get_extra_info("ssl_object") is not None:
            return None
        return socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno()))

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # --- called by asyncio ----------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.peer = peer_of(transport)
        keep_alive_probes(transport)
        self.flow.attach(self.transport)

    def connection_lost(self, exc: BaseException | None) -> None:  # noqa: ARG002 - asyncio's signature
        self.transport = None
        self._stop_timer()
        self.flow.detach()
        self.writing.fail(caller_gone())

    def eof_received(self) -> None:
        """Closes the connection: a caller that closes its side counts as gone."""

    def pause_writing(self) -> None:
        self.writing.begin()

    def resume_writing(self) -> None:
        self.writing.end()
