"""Who is at the other end of a caller's connection."""

import asyncio
import select
import socket
import struct
from dataclasses import dataclass
from typing import Final

# The kernel's struct ucred (unix(7)): pid, uid, gid.
_UCRED: Final = struct.Struct("3i")
# Linux only; elsewhere a hidden hang-up shows once the body is read.
_POLLRDHUP: Final = getattr(select, "POLLRDHUP", 0)


@dataclass(frozen=True, slots=True)
class Peer:
    """`address` is an IP address without its port, None on a unix socket. `name` tells callers apart."""

    name: str
    address: str | None


def peer_of(transport: asyncio.BaseTransport) -> Peer:
    """The real peer of the socket: no header is believed."""
    name = transport.get_extra_info("peername")
    if isinstance(name, tuple):
        return Peer(name[0], name[0])
    sock = transport.get_extra_info("socket")
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None or sock is None:
        return Peer("unix", None)
    _, uid, _ = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, option, _UCRED.size))
    return Peer(f"unix:uid={uid}", None)


def has_hung_up(transport: asyncio.BaseTransport) -> bool:
    """Whether the peer has ended its side: unread bytes before it hide that from the event loop."""
    sock = transport.get_extra_info("socket")
    if not _POLLRDHUP or sock is None or sock.fileno() < 0:
        return False
    poll = select.poll()
    poll.register(sock.fileno(), _POLLRDHUP)
    return bool(poll.poll(0))
