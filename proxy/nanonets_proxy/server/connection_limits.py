"""How many connections callers may hold, in all and from one address.

A further connection takes the place of an older one that has no request under way, idle or half open: who means
to serve again connects again, and who only occupies places does so in vain. Where every connection is busy, the
newcomer gets a 503. Loopback and unix sockets are many callers behind one address, and so only count in all.
"""

from collections import Counter as Counts
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final, Protocol

from prometheus_client import CollectorRegistry, Counter

from nanonets_proxy.server.peers import Peer

# Looking for the oldest costs a walk over all, so a few are closed at once.
_BATCH: Final = 32

REFUSAL: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\n"
    b"Server: nanonets-proxy\r\n"
    b'Proxy-Status: nanonets-proxy; error=connection_limit_reached; details="too_many_connections"\r\n'
    b"Retry-After: 1\r\n"
    b"Connection: close\r\n"
    b"Content-Type: application/json; charset=utf-8\r\n"
    b"Content-Length: 94\r\n"
    b"\r\n"
    b'{"code": "too_many_connections", "message": "Too many connections are open.", "details": {}}\r\n'
)


@dataclass(frozen=True, slots=True)
class ConnectionPolicy:
    """Most connections, in all and per address beyond this machine."""

    most: int
    most_per_peer: int


class Connection(Protocol):
    """`is_idle`: no request of it is under way, or waits to be."""

    peer: Peer

    @property
    def is_idle(self) -> bool: ...

    def force_close(self) -> None: ...


class ConnectionLimits:
    """Told of each connection that comes and goes. `all_open` gives them, the oldest first."""

    def __init__(
        self, policy: ConnectionPolicy, registry: CollectorRegistry, all_open: Callable[[], Iterable[Connection]]
    ) -> None:
        self._policy = policy
        self._all_open = all_open
        self._per_peer: Counts[str] = Counts()
        self._open = 0
        self._shed = Counter(
            "nanonets_proxy_connections_shed",
            "Callers' connections beyond the limits: idle ones closed to make room, and new ones refused.",
            ["what"],
            registry=registry,
        )

    def take(self, newcomer: Connection) -> bool:
        """Counts a new connection in; False where there is no place for it, and it has to go at once."""
        address = _counted(newcomer.peer)
        self._open += 1
        if address is not None:
            self._per_peer[address] += 1
            if self._per_peer[address] > self._policy.most_per_peer and not self._make_room(newcomer, address):
                return False
        return self._open <= self._policy.most or self._make_room(newcomer, None)

    def give_back(self, connection: Connection) -> None:
        """It has ended, whether it was taken or not."""
        address = _counted(connection.peer)
        self._open -= 1
        if address is not None:
            self._per_peer[address] -= 1
            if not self._per_peer[address]:
                del self._per_peer[address]

    def _make_room(self, newcomer: Connection, address: str | None) -> bool:
        closed = 0
        for connection in self._all_open():
            is_meant = address is None or connection.peer.address == address
            if is_meant and connection is not newcomer and connection.is_idle:
                connection.force_close()
                closed += 1
                if closed == (_BATCH if address is None else 1):
                    break
        self._shed.labels("idle" if closed else "new").inc(closed or 1)
        return closed > 0


def _counted(peer: Peer) -> str | None:
    """The address that a peer counts for; None for this machine itself."""
    if peer.address is None:
        return None
    try:
        return None if ip_address(peer.address.partition("%")[0]).is_loopback else peer.address
    except ValueError:
        return peer.address
