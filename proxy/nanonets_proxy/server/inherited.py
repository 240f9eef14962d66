"""Listening sockets that the process got at its start: from systemd, or from the process that it replaces.

Such a socket keeps the connections that wait in its queue, whatever happens to the processes. A second socket on
the same address (SO_REUSEPORT) would not: closing one of them drops its queue.
"""

import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

_ALL_IPV4, _ALL_IPV6 = "0.0.0.0", "::"  # noqa: S104 - compared, not bound


@dataclass(frozen=True, slots=True)
class Opened:
    """The setting and the listener that a socket was opened for; a name may have several sockets."""

    setting: str
    listener: str


class InheritedSockets:
    """Hands out each inherited socket once."""

    def __init__(self, sockets: Iterable[tuple[socket.socket, Opened | None]] = ()) -> None:
        """Takes listening sockets, and what they were opened for. None: a service manager opened the socket."""
        self._left = dict(sockets)
        self.of_manager = frozenset(sock for sock, opened in self._left.items() if opened is None)
        """The sockets of a service manager, which also made the files of its unix sockets."""

    def take_opened_for(self, wanted: Opened) -> list[socket.socket]:
        """Returns the sockets that a predecessor opened for the same listener, whatever their addresses are."""
        return self._take([sock for sock, opened in self._left.items() if opened == wanted])

    def take_tcp(self, family: int, host: str, port: int) -> socket.socket | None:
        """Returns a socket on this address. A socket on :: that takes IPv4 too stands for 0.0.0.0 as well."""
        for sock in self._left:
            name = sock.getsockname()
            if isinstance(name, tuple) and name[1] == port and (sock.family, name[0]) == (family, host):
                return self._take([sock])[0]
        return None

    def has_both_families(self, port: int) -> bool:
        """Returns whether one socket on this port takes the IPv4 and the IPv6 connections of every interface."""
        return any(
            sock.family == socket.AF_INET6
            and sock.getsockname()[:2] == (_ALL_IPV6, port)
            and not sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
            for sock in self._left
        )

    def take_unix(self, path: str) -> socket.socket | None:
        """Returns a unix socket with this path."""
        found = [sock for sock in self._left if sock.getsockname() == path]
        return self._take(found[:1])[0] if found else None

    def _take(self, sockets: Sequence[socket.socket]) -> list[socket.socket]:
        for sock in sockets:
            del self._left[sock]
            sock.setblocking(False)  # noqa: FBT003 - the name says what it is
        return list(sockets)

    @property
    def unused_of_manager(self) -> list[socket.socket]:
        """The service manager's sockets that no listener has taken."""
        return [sock for sock in self._left if sock in self.of_manager]

    def close_unused(self) -> None:
        """Closes the sockets that no listener has taken."""
        for sock in self._left:
            sock.close()
        self._left.clear()


def is_listening(sock: Any) -> bool:
    """Returns whether a socket listens for stream connections."""
    return bool(
        sock.family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)
        and sock.type == socket.SOCK_STREAM
        and sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    )
