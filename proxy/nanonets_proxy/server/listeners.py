"""Listening sockets: all are opened before anything is promised, so that a busy port is an error at start."""

import contextlib
import errno
import os
import shutil
import socket
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from nanonets_proxy.core.net.addresses import Listener, TcpListener, UnixListener

BACKLOG: Final = 2048
_REASONS: Final = {
    errno.EADDRINUSE: "is already in use",
    errno.EADDRNOTAVAIL: "is not an address of this machine",
    errno.EACCES: "needs more rights than this process has",
}


class ListenFailed(Exception):
    """The message says which address, and why."""


def open_sockets(setting: str, listeners: Sequence[Listener]) -> list[socket.socket]:
    """Bound and listening sockets; one address may give several (IPv4 and IPv6). Raises ListenFailed, naming
    `setting`, with none left open."""
    opened: list[socket.socket] = []
    try:
        for listener in listeners:
            try:
                opened += _open_unix(listener) if isinstance(listener, UnixListener) else _open_tcp(listener)
            except OSError as error:
                reason = _REASONS.get(error.errno or 0) or f"cannot be listened on ({error.strerror})"
                raise ListenFailed(f"{setting}: {listener} {reason}") from error
    except ListenFailed:
        close_sockets(opened)
        raise
    return opened


def close_sockets(sockets: Iterable[socket.socket]) -> None:
    """For sockets that were opened and are not served after all."""
    for sock in sockets:
        remove_file(sock)
        sock.close()


def describe(sock: socket.socket) -> str:
    """The address that a socket really has, as callers write it."""
    name = sock.getsockname()
    return f"unix:{name}" if isinstance(name, str) else str(TcpListener(name[0], name[1]))


def remove_file(sock: socket.socket) -> None:
    """A unix socket leaves a file behind; nothing for others."""
    name = sock.getsockname() if sock.fileno() >= 0 else None
    if isinstance(name, str) and name:
        with contextlib.suppress(OSError):
            Path(name).unlink()


def _open_tcp(listener: TcpListener) -> list[socket.socket]:
    flags = socket.AI_PASSIVE
    infos = socket.getaddrinfo(listener.host or None, listener.port, type=socket.SOCK_STREAM, flags=flags)
    opened: list[socket.socket] = []
    port = listener.port
    try:
        for family, kind, protocol, _, address in dict.fromkeys(infos):
            sock = socket.socket(family, kind, protocol)
            opened.append(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            # A free port is chosen once, for all addresses of the name.
            sock.bind((address[0], port, *address[2:]))
            port = sock.getsockname()[1]
            sock.listen(BACKLOG)
            sock.setblocking(False)  # noqa: FBT003 - the name says what it is
    except OSError:
        for sock in opened:
            sock.close()
        raise
    return opened


def _open_unix(listener: UnixListener) -> list[socket.socket]:
    path = Path(listener.path)
    _remove_stale(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # Nobody but us until the mode is set: between bind and chmod the file would have the default one.
        old_mask = os.umask(0o177)
        try:
            sock.bind(listener.path)
        finally:
            os.umask(old_mask)
        if listener.owner or listener.group:
            _give_away(path, listener)
        path.chmod(listener.mode)
        sock.listen(BACKLOG)
        sock.setblocking(False)  # noqa: FBT003 - the name says what it is
    except OSError:
        sock.close()
        raise
    return [sock]


def _give_away(path: Path, listener: UnixListener) -> None:
    try:
        if listener.owner is not None:
            shutil.chown(path, user=_id_or_name(listener.owner))
        if listener.group is not None:
            shutil.chown(path, group=_id_or_name(listener.group))
    except LookupError as error:
        raise OSError(errno.EINVAL, str(error)) from None


def _id_or_name(text: str) -> int | str:
    return int(text) if text.isdecimal() else text


def _remove_stale(path: Path) -> None:
    """Removes a socket that a crashed process left; one that somebody listens on stays, and bind says so."""
    try:
        if not stat.S_ISSOCK(path.stat().st_mode):
            return
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)  # noqa: FBT003 - the name says what it is
        try:
            probe.connect(str(path))
        except BlockingIOError:
            pass  # its backlog is full: somebody listens
        except ConnectionRefusedError:
            path.unlink()
