"""TLS handshakes of callers: each counts as a connection from its first byte, and their number has its own bound.

connection_made      the peer is checked, and the handshake is counted
  the peer may not call, or no room is left  -> the connection is reset: before a handshake, no response can be sent
handshake            takes HANDSHAKE_TIMEOUT_S at most; a newcomer may displace it
  it fails, or is displaced                  -> the connection ends
  it succeeds                                -> a CallerConnection takes the transport over
"""

import asyncio
import math
import ssl
from collections.abc import Callable
from typing import Final, cast

from nanonets_proxy.server.peers import UNKNOWN, Peer, peer_of

# Enough for slow networks. With asyncio's default, a silent connection would hold its file for a minute.
HANDSHAKE_TIMEOUT_S: Final = 10.0


class TlsHandshake(asyncio.Protocol):
    """One handshake. `begin` and `end` count it; `begin` returns whether it may go on."""

    is_idle: Final = True
    """A newcomer may displace it."""
    stalled_since_s: Final = math.inf
    awaits_body: Final = False

    def __init__(
        self,
        context: ssl.SSLContext,
        make_connection: Callable[[], asyncio.BufferedProtocol],
        begin: Callable[["TlsHandshake", int], bool],
        end: Callable[["TlsHandshake"], None],
    ) -> None:
        self._context = context
        self._make_connection = make_connection
        self._begin = begin
        self._end = end
        self._transport: asyncio.Transport | None = None
        self._task: asyncio.Task[None] | None = None
        # Bytes that arrive before the handshake begins; later the first bytes of a request, if they arrive with the
        # handshake's last ones.
        self._early = b""
        self._is_lost = False
        self.idle_since_s = asyncio.get_running_loop().time()
        self.peer: Peer = UNKNOWN

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if self._transport is not None:
            return  # the event loop's own call during `start_tls`
        self._transport = cast("asyncio.Transport", transport)
        self.peer = peer_of(transport)
        if self._begin(self, transport.get_extra_info("socket").fileno()):
            self._task = asyncio.get_running_loop().create_task(self._perform(self._transport))
        else:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self._early += data

    def connection_lost(self, _exc: BaseException | None) -> None:
        self._is_lost = True

    def displace(self) -> None:
        """Ends the connection now."""
        self._end(self)  # a task that is cancelled before it has begun does not do so
        if self._task is not None:
            self._task.cancel()
        if self._transport is not None:
            self._transport.abort()

    def has_unread_bytes(self) -> bool:
        """Returns False: a handshake is no request yet."""
        return False

    def give_up(self) -> None:
        """Does nothing: there is no request."""

    async def _perform(self, transport: asyncio.Transport) -> None:
        loop = asyncio.get_running_loop()
        starting = loop.create_task(
            loop.start_tls(
                transport, self, self._context, server_side=True, ssl_handshake_timeout=HANDSHAKE_TIMEOUT_S
            )
        )
        try:
            await asyncio.sleep(0)
            # Now the transport has another protocol. Once connected, it gets the bytes that arrived before.
            before, self._early = self._early, b""
            loop.call_soon(_feed, transport.get_protocol(), before)
            secured = await starting
        except (OSError, asyncio.CancelledError):  # ssl.SSLError is an OSError
            starting.cancel()
            transport.abort()
            return
        finally:
            self._end(self)
        if secured is None or self._is_lost:
            return
        connection = self._make_connection()
        secured.set_protocol(connection)
        connection.connection_made(secured)
        _feed(connection, self._early)


def _feed(protocol: asyncio.BaseProtocol, data: bytes) -> None:
    """Passes `data` to a protocol as the event loop does."""
    receiver, view = cast("asyncio.BufferedProtocol", protocol), memoryview(data)
    while view:
        buffer = memoryview(receiver.get_buffer(len(view)))
        count = min(len(buffer), len(view))
        buffer[:count] = view[:count]
        receiver.buffer_updated(count)
        view = view[count:]
