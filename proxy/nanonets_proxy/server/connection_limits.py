"""Limits the connections of one listener, in total and per address.

A connection beyond the limit replaces another one, the oldest of the first kind that exists:

1. without a request for PATIENCE_S. A well-behaved caller opens an idle connection again; an attacker that only
   holds connections loses them;
2. with a request whose body has stalled for PATIENCE_S, which gets a 408, or a response that its caller does not
   read;
3. without a request, or with one whose body has not begun. They may be on their way. A connection whose bytes have
   arrived and are not read yet stays.

Connections that arrive together are accepted before one of them is read, and before one that makes room is lost. So
a connection that makes room counts no longer from then on, and makes room only once.

If all connections are busy, the new one gets a 503, and so do those that arrive within the next milliseconds.
Otherwise, callers that try again and again would keep the event loop busy with walks over all connections.

Loopback addresses and unix sockets stand for many callers, so only the total limit applies to them.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Protocol

from prometheus_client import CollectorRegistry, Counter

from nanonets_proxy.core.access.caller_names import LOOPBACK_NAME
from nanonets_proxy.core.status.error_advice import RAISE_OPEN_FILES
from nanonets_proxy.server.open_files import open_files_limit
from nanonets_proxy.server.peers import Peer
from nanonets_proxy.telemetry.alerts import Alerts

# Finding the oldest connections takes a walk over all of them, so several are closed at once.
_BATCH: Final = 32
# The pause after a walk that found no room, for each connection walked over. The walk itself takes a tenth of it.
_NO_WALK_S: Final = 1e-5
# A caller on a slow or distant network sends something in that time.
PATIENCE_S: Final = 1.0

REJECTION: Final = (
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
    """How many connections there may be, in total and per address beyond this machine, and how long they may wait.

    `keep_alive_s`: without a request. `head_timeout_s`: for a whole head, from its first byte on.
    """

    max_connections: int
    max_connections_per_peer: int
    keep_alive_s: float
    head_timeout_s: float
    last_file: int = 2**31
    """The highest file number that a connection may have: higher ones are spare."""
    listener: str = ""
    """The prefix of the limit's and its metric's name: "" for callers, "admin_" for the admin listener."""
    advice: str = "raise max_connections and the limit of open files"
    is_lowered: bool = False
    """Whether the limit of open files allows fewer connections than the setting."""


class Connection(Protocol):
    """The part of a caller's connection that the limits use."""

    peer: Peer

    @property
    def is_idle(self) -> bool:
        """Whether no request waits for its response."""

    @property
    def idle_since_s(self) -> float:
        """Since when it is idle, if it is, by the loop's clock."""

    @property
    def stalled_since_s(self) -> float:
        """Since when the caller sends no body or reads no response, by the loop's clock; infinite: no wait."""

    @property
    def awaits_body(self) -> bool:
        """Whether the proxy waits for the first byte of a request's body."""

    def has_unread_bytes(self) -> bool:
        """Returns whether bytes of the caller have arrived that are not read yet."""

    def displace(self) -> None:
        """Closes the connection now; unsent bytes are lost."""

    def give_up(self) -> None:
        """Ends the request and then the connection."""


class ConnectionLimits:
    """Counts the connections of one server. `all_open` returns them, the oldest first."""

    def __init__(
        self,
        policy: ConnectionPolicy,
        registry: CollectorRegistry,
        all_open: Callable[[], Iterable[Connection]],
        alerts: Alerts,
        now_s: Callable[[], float],
    ) -> None:
        """`now_s` reads the loop's clock."""
        self._policy = policy
        self._now_s = now_s
        self._all_open = all_open
        self._alerts = alerts
        # The connections of each address, the oldest first. An address at its limit costs no walk over all others.
        self._per_peer: defaultdict[str, dict[Connection, None]] = defaultdict(dict)
        self._open = 0
        self._given_up: set[Connection] = set()  # they made room, and are not lost yet
        self._displaced: set[Connection] = set()  # so are these, and they are not counted any more
        self._next_walk_s: dict[str | None, float] = {}  # for an address, or None: for all connections
        self._shed = Counter(
            f"nanonets_proxy_{policy.listener}connections_shed",
            "Connections closed at a limit: idle and stalled ones, to make room, and new ones, if all are busy.",
            ["what"],
            registry=registry,
        )

    def change_policy(self, policy: ConnectionPolicy) -> None:
        """Applies other limits to new connections."""
        self._policy = policy

    def take(self, newcomer: Connection, file: int = 0) -> bool:
        """Counts a new connection with the file number `file`. Returns whether the connection may stay.

        `give_back` must follow in both cases.
        """
        address = _limited_address(newcomer.peer)
        self._open += 1
        if address is not None:
            own = self._per_peer[address]
            own[newcomer] = None
            if len(own) > self._policy.max_connections_per_peer and not self._make_room(newcomer, address):
                name, limit = "max_connections_per_peer", self._policy.max_connections_per_peer
                self._report(name, limit, f"raise {name}, or let the caller at that address use fewer connections")
                return False
        if file > self._policy.last_file:
            self._make_room(newcomer, None)
            self._report("open_files", open_files_limit(), RAISE_OPEN_FILES)
            return False
        if self._open <= self._policy.max_connections or self._make_room(newcomer, None):
            return True
        policy = self._policy
        if policy.is_lowered:
            self._report("open_files", open_files_limit(), RAISE_OPEN_FILES)
        else:
            self._report(f"{policy.listener}max_connections", policy.max_connections, policy.advice)
        return False

    def give_back(self, connection: Connection) -> None:
        """Counts the end of a connection."""
        self._given_up.discard(connection)
        if connection in self._displaced:
            self._displaced.remove(connection)
            return
        address = _limited_address(connection.peer)
        self._open -= 1
        if address is not None:
            del self._per_peer[address][connection]
            if not self._per_peer[address]:
                del self._per_peer[address]
                self._next_walk_s.pop(address, None)

    def _report(self, limit: str, value: int, advice: str) -> None:
        self._alerts.report(
            "connections_rejected", advice, kind=limit, limit=limit, value=value, open_connections=self._open
        )

    def _make_room(self, newcomer: Connection, address: str | None) -> bool:
        now_s = self._now_s()
        if now_s < self._next_walk_s.get(address, 0.0):
            self._shed.labels("new").inc()
            return False
        batch = _BATCH if address is None else 1
        before_s = now_s - PATIENCE_S
        idle: list[Connection] = []
        fresh: list[Connection] = []
        stalled: Connection | None = None
        for connection in self._all_open() if address is None else self._per_peer[address]:
            if connection is newcomer or connection in self._displaced:
                continue
            if connection.is_idle:
                (idle if connection.idle_since_s <= before_s else fresh).append(connection)
                if len(idle) == batch:
                    break
            elif connection in self._given_up:
                continue
            elif connection.stalled_since_s <= before_s:
                stalled = stalled or connection
            elif connection.awaits_body:
                fresh.append(connection)
        if not idle and stalled is not None:
            self._give_up(stalled)
            self._shed.labels("stalled").inc()
            return True
        # Fresh connections may be on their way. While they are few, a walk is cheap, so few are closed at a time.
        silent = [each for each in fresh[:_BATCH] if not each.has_unread_bytes()] if not idle else []
        displaced = idle or silent[: min(batch, 1 + len(fresh) // _BATCH)]
        for connection in displaced:
            if connection.is_idle:
                self._displace(connection)
            else:
                self._give_up(connection)
        if not displaced:
            walked = self._open if address is None else len(self._per_peer[address])
            self._next_walk_s[address] = now_s + walked * _NO_WALK_S
        self._shed.labels("idle" if displaced else "new").inc(len(displaced) or 1)
        return bool(displaced)

    def _displace(self, connection: Connection) -> None:
        self.give_back(connection)
        self._displaced.add(connection)
        connection.displace()

    def _give_up(self, connection: Connection) -> None:
        self._given_up.add(connection)
        connection.give_up()


def _limited_address(peer: Peer) -> str | None:
    """Returns what the limit per address applies to: an address, or the /64 of an IPv6 host (RFC 8981).

    None for this machine itself.
    """
    return None if peer.address is None or peer.name == LOOPBACK_NAME else peer.name
