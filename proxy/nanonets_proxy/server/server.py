"""A listener on aiohttp's low-level server, for callers or for the admin listener."""

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final, cast

import aiohttp
from aiohttp import web
from prometheus_client import CollectorRegistry

from nanonets_proxy.core.access.peer_guard import PeerGuard
from nanonets_proxy.errors import ForbiddenPeer
from nanonets_proxy.server.connection.caller_connection import CallerConnection
from nanonets_proxy.server.connection.caller_request import Handler
from nanonets_proxy.server.connection.flow_control import ReadAhead
from nanonets_proxy.server.connection.head_reader import HeadReader
from nanonets_proxy.server.connection_limits import (
    PATIENCE_S,
    REJECTION,
    Connection,
    ConnectionLimits,
    ConnectionPolicy,
)
from nanonets_proxy.server.peers import hung_up, readable
from nanonets_proxy.server.tls_handshake import TlsHandshake
from nanonets_proxy.telemetry.alerts import Alerts

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Callable, Iterable

    from nanonets_proxy.server.tls import ListenerTls

# Half of the second within which a hung-up caller's upstream request must end.
_HANG_UP_POLL_S: Final = 0.5
# Connections that stay open for a moment after an error response: of peers that may not call, or beyond a limit.
_MAX_REJECTED: Final = 16
# Each costs about 100 KiB and some milliseconds of CPU time. A newcomer displaces the oldest one.
MOST_HANDSHAKES: Final = 256
LAST_REQUEST_S: Final = 10.0
"""After a handover, an idle connection that could not move closes after this time."""
# Turns of the event loop from bytes in the socket to the handler's first line: read, start the task.
_TURNS_TO_HANDLER: Final = 2
# Turns in which the event loop reads what has arrived on idle connections. One suffices, if few are ready.
_MOST_TURNS_TO_READ: Final = 100


class AiohttpMismatch(Exception):
    """This release of aiohttp does not register connections as this program needs."""


class CallerServer(web.Server):
    """Makes a CallerConnection for each connection; aiohttp's server registers them and shuts them down."""

    def __init__(
        self,
        handler: Handler,
        guard: PeerGuard,
        policy: ConnectionPolicy,
        registry: CollectorRegistry,
        alerts: Alerts,
    ) -> None:
        super().__init__(cast("Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]", handler))
        self._check_aiohttp()
        self._handler = handler
        self._policy = policy
        self._heads = HeadReader()
        self._guard = guard
        now_s = asyncio.get_running_loop().time
        self._limits = ConnectionLimits(policy, registry, self._counted_connections, alerts, now_s)
        self._rejected: set[CallerConnection] = set()  # see _MAX_REJECTED; they use up no limit
        self._handshakes: dict[TlsHandshake, None] = {}  # the oldest first
        self._alerts = alerts
        self._ahead = ReadAhead()
        self._open = 0
        self._drains = self._finishes = False
        self._has_fewer = asyncio.Event()  # a connection or a handshake has ended
        self._hang_up_poll: asyncio.TimerHandle | None = None

    def __call__(self) -> CallerConnection:  # type: ignore[override]  # in the place of aiohttp's own protocol
        return CallerConnection(self, self._handler, self._heads, self._policy, self._ahead)

    def change(self, handler: Handler, policy: ConnectionPolicy) -> None:
        """Uses another handler and other limits: new connections at once, others from their next request on.

        The guard may have changed too.
        """
        self._handler, self._policy = handler, policy
        self._limits.change_policy(policy)
        for connection in self._caller_connections():
            connection.change(handler, policy)
        self.close_forbidden()

    def close_forbidden(self) -> None:
        """Ends the connections of peers that the guard no longer admits, after their response."""
        for connection in self._caller_connections():
            if connection not in self._rejected and not self._may_call(connection):
                connection.close()

    def _may_call(self, connection: CallerConnection) -> bool:
        try:
            self._guard.check_peer(connection.peer.address, connection.peer.uid)
        except ForbiddenPeer:
            return False
        return True

    def _check_aiohttp(self) -> None:
        """Raises AiohttpMismatch unless aiohttp needs `_task_handler` of a connection, and nothing else private."""
        probe = cast("web.RequestHandler", _RegistrationProbe())
        try:
            super().connection_made(probe, cast("asyncio.Transport", None))
            super().connection_lost(probe)
        except AttributeError as error:
            raise AiohttpMismatch(f"aiohttp {aiohttp.__version__} does not fit this program: {error}") from None
        if self.connections:
            raise AiohttpMismatch(
                f"aiohttp {aiohttp.__version__} does not fit this program: it keeps a lost connection"
            )

    @property
    def open_connections(self) -> int:
        return self._open

    def _caller_connections(self) -> list[CallerConnection]:
        return cast("list[CallerConnection]", self.connections)

    def _counted_connections(self) -> "Iterable[Connection]":
        yield from list(self._handshakes)
        yield from (connection for connection in self._caller_connections() if connection not in self._rejected)

    def over_tls(self, tls: "ListenerTls") -> "Callable[[], asyncio.Protocol]":
        """Returns a factory of connections that begin with a TLS handshake."""
        return lambda: TlsHandshake(tls.context, self, self._begin_handshake, self._end_handshake)

    def _begin_handshake(self, handshake: TlsHandshake, file: int) -> bool:
        """Counts a handshake, and returns whether it may go on. Displaces the oldest one if there are too many."""
        try:
            self._guard.check_peer(handshake.peer.address, handshake.peer.uid)
        except ForbiddenPeer as error:
            self._alerts.report(
                "peer_rejected", "see the setting allow_from", peer=handshake.peer.name, error=error.message
            )
            return False
        if len(self._handshakes) >= MOST_HANDSHAKES:
            next(iter(self._handshakes)).displace()
        self._handshakes[handshake] = None
        if self._limits.take(handshake, file):
            return True
        self._end_handshake(handshake)
        return False

    def _end_handshake(self, handshake: TlsHandshake) -> None:
        if handshake in self._handshakes:
            del self._handshakes[handshake]
            self._limits.give_back(handshake)
            self._has_fewer.set()

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        connection = cast("CallerConnection", handler)
        super().connection_made(handler, transport)
        self._open += 1
        try:
            self._guard.check_peer(connection.peer.address, connection.peer.uid)
        except ForbiddenPeer as error:
            self._rejected.add(connection)
            if len(self._rejected) > _MAX_REJECTED:
                connection.displace()
            else:
                connection.reject(error)
            return
        file = transport.get_extra_info("socket").fileno()
        if not self._limits.take(connection, file):
            transport.write(REJECTION)
            if len(self._rejected) < _MAX_REJECTED and file <= self._policy.last_file:
                self._limits.give_back(connection)
                self._rejected.add(connection)
                connection.linger()
            else:
                connection.close_when_sent()
        elif self._drains:
            connection.finish_soon(self._first_request_s(connection))
        elif self._finishes:
            connection.finish(LAST_REQUEST_S)
        if self._hang_up_poll is None:
            self._poll_later()

    def connection_lost(self, handler: web.RequestHandler, exc: BaseException | None = None) -> None:
        super().connection_lost(handler, exc)
        connection = cast("CallerConnection", handler)
        if connection in self._rejected:
            self._rejected.remove(connection)
        else:
            self._limits.give_back(connection)
        self._open -= 1
        self._has_fewer.set()

    def _poll_later(self) -> None:
        loop = asyncio.get_running_loop()
        self._hang_up_poll = loop.call_later(_HANG_UP_POLL_S, self._poll_for_hang_ups)

    def _poll_for_hang_ups(self) -> None:
        """Aborts the connections of callers that hung up: the event loop sees no hang-up while it does not read."""
        paused = [
            connection.transport
            for connection in self._caller_connections()
            if connection.transport is not None and not connection.transport.is_reading() and not connection.is_idle
        ]
        for transport in hung_up(paused):
            cast("asyncio.Transport", transport).abort()
        self._hang_up_poll = None
        if self._open:
            self._poll_later()

    # --- a successor -----------------------------------------------------------------------------

    def lend_idle(self) -> "list[tuple[CallerConnection, socket.socket]]":
        """Returns the idle connections that a successor can serve, with another descriptor of each."""
        offered = [(own, own.lend()) for own in self._caller_connections() if own not in self._rejected]
        return [(own, sock) for own, sock in offered if sock is not None]

    async def adopt(
        self, sock: "socket.socket", factory: "Callable[[], asyncio.BaseProtocol] | None" = None
    ) -> None:
        """Serves an accepted connection, with the protocols of `factory` if given. Closes it if that fails."""
        sock.setblocking(False)  # noqa: FBT003 - the name says what it is
        try:
            await asyncio.get_running_loop().connect_accepted_socket(factory or self, sock)
        except OSError:
            sock.close()

    async def finish(self, timeout_s: float) -> None:
        """Lets each connection finish by itself (`CallerConnection.finish`); resets those that take longer."""
        self._finishes = True
        for connection in self._caller_connections():
            connection.finish(LAST_REQUEST_S)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while self._open or self._handshakes:
                    self._has_fewer.clear()
                    await self._has_fewer.wait()
        await self.drain(0.0)

    # --- the end ---------------------------------------------------------------------------------

    async def drain(self, timeout_s: float) -> int:
        """Closes idle connections now, others after the request that is here; resets connections that take longer.

        A new connection has PATIENCE_S for its first request, which may be on its way. Returns how many were reset.
        The handler must announce the end of connections before.
        """
        loop = asyncio.get_running_loop()
        ends_at_s = loop.time() + timeout_s
        self._drains = True
        await self._read_what_has_arrived()
        for connection in self._caller_connections():
            connection.finish_soon(0.0 if connection.has_had_request else self._first_request_s(connection))
        await self._end_handshakes(min(timeout_s, PATIENCE_S))
        connections = self._caller_connections()
        await self.shutdown(max(0.0, ends_at_s - loop.time()))
        if self._hang_up_poll is not None:
            self._hang_up_poll.cancel()
        return sum(connection.was_cut_off for connection in connections)

    async def _read_what_has_arrived(self) -> None:
        """Reads the requests that are in the sockets already: each gets its response."""
        for _ in range(_TURNS_TO_HANDLER):
            await asyncio.sleep(0)
        for _ in range(_MOST_TURNS_TO_READ):
            idle = (own.transport for own in self._caller_connections() if own.is_idle)
            if not readable(own for own in idle if own is not None and own.is_reading()):
                return
            await asyncio.sleep(0)

    @staticmethod
    def _first_request_s(connection: CallerConnection) -> float:
        """Returns for how much longer a connection without a request may wait for one."""
        return max(0.0, connection.idle_since_s + PATIENCE_S - asyncio.get_running_loop().time())

    async def _end_handshakes(self, timeout_s: float) -> None:
        """Lets handshakes come to their end, and ends those that take longer."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while self._handshakes:
                    self._has_fewer.clear()
                    await self._has_fewer.wait()
        for handshake in list(self._handshakes):
            handshake.displace()
        await asyncio.sleep(0)  # a handshake that has just ended makes its connection


class _RegistrationProbe:
    """A connection with only the attributes that aiohttp's server may use."""

    __slots__ = ("_task_handler",)

    def __init__(self) -> None:
        self._task_handler = None
