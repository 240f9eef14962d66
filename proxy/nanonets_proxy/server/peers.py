"""A caller's connection as its socket knows it: who is there, whether still there, and how to break it off."""

import asyncio
import select
import socket
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

# The kernel's struct ucred (unix(7)): pid, uid, gid.
_UCRED: Final = struct.Struct("3i")
# Linux only; elsewhere a hidden hang-up shows once the body is read.
_POLLRDHUP: Final = getattr(select, "POLLRDHUP", 0)
# socket(7), struct linger: on, for 0 seconds.
_LINGER_NOT: Final = struct.pack("ii", 1, 0)
_MAX_NAME_CHARS: Final = 128


class CallerStalled(ConnectionError):
    """The caller takes nothing of its answer any more."""


@dataclass(frozen=True, slots=True)
class Peer:
    """`address` is an IP address without its port, None on a unix socket, where `uid` is the peer's user. `name`
    tells callers apart; `certificate` is the name in the client certificate that was verified, if any."""

    name: str
    address: str | None
    uid: int | None = None
    certificate: str | None = None


UNKNOWN: Final = Peer("unknown", "unknown")


def peer_of(transport: asyncio.BaseTransport) -> Peer:
    """The real peer of the socket: no header is believed.

    A TCP peer that was gone before it could be asked for its name is `UNKNOWN`, which no guard lets pass.
    """
    name = transport.get_extra_info("peername")
    if isinstance(name, tuple):
        certificate = transport.get_extra_info("peercert")
        return Peer(name[0], name[0], certificate=name_in(certificate) if certificate else None)
    sock = transport.get_extra_info("socket")
    if sock is None or sock.family != socket.AF_UNIX:
        return UNKNOWN
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:
        return Peer("unix", None)
    _, uid, _ = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, option, _UCRED.size))
    return Peer(f"unix:uid={uid}", None, uid)


def keep_alive_probes(transport: asyncio.BaseTransport) -> None:
    """Has the kernel ask now and then whether a silent TCP peer still exists."""
    sock = transport.get_extra_info("socket")
    if sock is not None and sock.family != socket.AF_UNIX:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


def name_in(certificate: Mapping[str, Any]) -> str | None:
    """The caller's name in a verified client certificate, as `ssl` decodes it: its first URI (as SPIFFE has it) or
    DNS name, else its subject's common name."""
    names = [
        value for kind in ("URI", "DNS") for key, value in certificate.get("subjectAltName", ()) if key == kind
    ]
    names += [value for part in certificate.get("subject", ()) for key, value in part if key == "commonName"]
    return str(names[0])[:_MAX_NAME_CHARS] if names else None


def has_hung_up(transport: asyncio.ReadTransport) -> bool:
    """Whether the peer has ended its side unseen: the event loop tells only of those that are read."""
    return not transport.is_reading() and bool(hung_up([transport]))


def hung_up(transports: Iterable[asyncio.BaseTransport]) -> "list[asyncio.BaseTransport]":
    """Those whose peer has ended its side; one system call for all of them."""
    poll = select.poll()
    by_fileno = {}
    for transport in transports:
        sock = transport.get_extra_info("socket")
        if sock is not None and (fileno := sock.fileno()) >= 0:
            poll.register(fileno, _POLLRDHUP)
            by_fileno[fileno] = transport
    return [by_fileno[fileno] for fileno, _ in poll.poll(0)] if by_fileno else []


def reset(transport: asyncio.WriteTransport) -> None:
    """Ends the connection so that the peer sees an error, not an end: what is delimited by the connection's end
    would look complete otherwise. What was not sent yet is dropped."""
    sock = transport.get_extra_info("socket")
    if sock is not None and sock.fileno() >= 0 and sock.family != socket.AF_UNIX:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
    transport.abort()
