"""Opens listening sockets, all of them before any is served, so that a busy port is an error at start."""

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
    """An address cannot be listened on. The message names the setting, the address and the reason."""


def open_sockets(setting: str, listeners: Sequence[Listener]) -> list[socket.socket]:
    """Returns bound and listening sockets; a name may have several addresses (IPv4 and IPv6).

    Raises ListenFailed, naming `setting`, and leaves no socket open then.
    """
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
    """Closes sockets that were opened and will not be served."""
    for sock in sockets:
        remove_file(sock)
        sock.close()


def describe(sock: socket.socket) -> str:
    """Returns the address that a socket has, as callers write it."""
    name = sock.getsockname()
    return f"unix:{name}" if isinstance(name, str) else str(TcpListener(name[0], name[1]))


def remove_file(sock: socket.socket) -> None:
    """Removes the file of a unix socket; does nothing for other sockets."""
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
            # Port 0: the kernel chooses a free port for the first address, and the others get the same one.
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
        # Nobody else may connect between bind and chmod.
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
    """Removes the socket file of a crashed process. If a process listens on it, it stays, and `bind` fails."""
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
            pass  # a process listens, and its backlog is full
        except ConnectionRefusedError:
            path.unlink()
