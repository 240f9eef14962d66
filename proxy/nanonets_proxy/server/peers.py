"""Reads the peer from a caller's socket, and whether the peer has hung up. Resets connections."""

import asyncio
import select
import socket
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

from nanonets_proxy.core.access.caller_names import name_of_address, name_of_user

# The kernel's struct ucred (unix(7)): pid, uid, gid.
_UCRED: Final = struct.Struct("3i")
# Linux only. Elsewhere, a hang-up behind unread bytes is noticed only when the body is read.
_POLLRDHUP: Final = getattr(select, "POLLRDHUP", 0)
# socket(7), struct linger: on, for 0 seconds.
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)
_MAX_NAME_CHARS: Final = 128
_DIGEST_CHARS: Final = 32


class CallerStalled(ConnectionError):
    """The caller has stopped reading its response."""


@dataclass(frozen=True, slots=True)
class Peer:
    """The other side of a connection."""

    name: str
    """Tells callers apart."""
    address: str | None
    """The IP address, without the port; None on a unix socket."""
    uid: int | None = None
    """The peer's user, on a unix socket."""
    certificate: str | None = None
    """The name in the verified client certificate, if there is one."""
    own_address: str | None = None
    """The IP address of our side of the connection; None on a unix socket."""


UNKNOWN: Final = Peer("unknown", "unknown", own_address="127.0.0.1")  # loopback accepts the fewest Hosts


def peer_of(transport: asyncio.BaseTransport) -> Peer:
    """Returns the peer of the socket; header fields do not count.

    A TCP peer that has gone before its address could be read is `UNKNOWN`, which every guard rejects.
    """
    name = transport.get_extra_info("peername")
    if isinstance(name, tuple):
        certificate = transport.get_extra_info("peercert")
        own = transport.get_extra_info("sockname")
        return Peer(
            name_of_address(name[0]),
            name[0],
            certificate=name_in(certificate) if certificate else None,
            own_address=own[0] if isinstance(own, tuple) else UNKNOWN.own_address,
        )
    sock = transport.get_extra_info("socket")
    if sock is None or sock.family != socket.AF_UNIX:
        return UNKNOWN
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:
        return Peer("unix", None)
    _, uid, _ = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, option, _UCRED.size))
    return Peer(name_of_user(uid), None, uid)


def keep_alive_probes(transport: asyncio.BaseTransport) -> None:
    """Turns on TCP keep-alive, by which the kernel finds out that a silent peer no longer exists."""
    sock = transport.get_extra_info("socket")
    if sock is not None and sock.family != socket.AF_UNIX:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


def name_in(certificate: Mapping[str, Any]) -> str | None:
    """Returns the name in a verified client certificate, as `ssl` decodes it.

    The name is the first URI (as in SPIFFE) or DNS name, otherwise the subject's common name. A name of more than
    128 characters ends in a part of its SHA-256 instead.
    """
    names = [
        value for kind in ("URI", "DNS") for key, value in certificate.get("subjectAltName", ()) if key == kind
    ]
    names += [value for part in certificate.get("subject", ()) for key, value in part if key == "commonName"]
    if not names:
        return None
    name = str(names[0])
    if len(name) <= _MAX_NAME_CHARS:
        return name
    # Two names with the same beginning must not be one caller.
    digest = sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGEST_CHARS]
    return f"{name[: _MAX_NAME_CHARS - _DIGEST_CHARS - 1]}~{digest}"


def has_hung_up(transport: asyncio.ReadTransport) -> bool:
    """Returns whether the peer has closed its side; the event loop does not notice while reading is paused."""
    return not transport.is_reading() and bool(hung_up([transport]))


def hung_up(transports: Iterable[asyncio.BaseTransport]) -> "list[asyncio.BaseTransport]":
    """Returns the transports whose peer has closed its side, with one system call for all of them."""
    return _polled(transports, _POLLRDHUP)


def readable(transports: Iterable[asyncio.BaseTransport]) -> "list[asyncio.BaseTransport]":
    """Returns the transports whose sockets hold unread bytes or the peer's end, with one system call for all."""
    return _polled(transports, select.POLLIN)


def _polled(transports: Iterable[asyncio.BaseTransport], events: int) -> "list[asyncio.BaseTransport]":
    poll = select.poll()
    by_fileno = {}
    for transport in transports:
        sock = transport.get_extra_info("socket")
        if sock is not None and (fileno := sock.fileno()) >= 0:
            poll.register(fileno, events)
            by_fileno[fileno] = transport
    return [by_fileno[fileno] for fileno, _ in poll.poll(0)] if by_fileno else []


def caller_gone() -> ConnectionResetError:
    """Returns the error of a caller that has hung up."""
    return ConnectionResetError("the caller has gone")


def reset(transport: asyncio.WriteTransport) -> None:
    """Ends the connection with an error for the peer, and drops unsent bytes.

    After an orderly close, a body that is delimited by the connection's end would look complete.
    """
    sock = transport.get_extra_info("socket")
    if sock is not None and sock.fileno() >= 0 and sock.family != socket.AF_UNIX:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    transport.abort()
