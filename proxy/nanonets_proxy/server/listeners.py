"""Opens listening sockets, all of them before any is served, so that a busy port is an error at start."""

import contextlib
import errno
import grp
import os
import pwd
import socket
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final
from weakref import WeakKeyDictionary

from nanonets_proxy.core.net.addresses import Listener, TcpListener, UnixListener
from nanonets_proxy.server.inherited import InheritedSockets, Opened

BACKLOG: Final = 2048
_REASONS: Final = {
    errno.EADDRINUSE: "is already in use",
    errno.EADDRNOTAVAIL: "is not an address of this machine",
    errno.EACCES: "needs more rights than this process has",
    errno.EAFNOSUPPORT: "has an address family that this machine does not support",
}
# bind(2): the interface has no IPv6 address. socket(2): the kernel has no IPv6.
_WITHOUT_IPV6: Final = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
# Port 0: the port that the kernel chose for IPv4 may be in use for IPv6.
_MAX_PORT_CHOICES: Final = 20

# Of each unix socket: the device and the number of its file.
_files: Final[WeakKeyDictionary[socket.socket, tuple[int, int]]] = WeakKeyDictionary()
# The sockets that this program opened, in this process or an earlier one.
_own: Final[WeakKeyDictionary[socket.socket, Opened]] = WeakKeyDictionary()


class ListenFailed(Exception):
    """An address cannot be listened on. The message names the setting, the address and the reason."""

    is_in_use = False
    """Whether another socket has the address."""


def open_sockets(
    setting: str, listeners: Sequence[Listener], inherited: InheritedSockets | None = None
) -> list[socket.socket]:
    """Returns bound and listening sockets; a name may have several addresses (IPv4 and IPv6).

    Inherited sockets are used where they fit. The IPv6 address that `localhost` or every interface stands for is
    left out if the machine has no IPv6.

    Raises ListenFailed, which names `setting`; then no socket stays open.
    """
    inherited = inherited or InheritedSockets()
    opened: list[socket.socket] = []
    try:
        for listener in listeners:
            wanted = Opened(setting, str(listener))
            sockets = inherited.take_opened_for(wanted) or _open(setting, listener, inherited)
            opened += sockets
            for sock in sockets:
                if sock not in inherited.of_manager:
                    _own[sock] = wanted
    except ListenFailed:
        close_sockets(opened)
        raise
    return opened


def _open(setting: str, listener: Listener, inherited: InheritedSockets) -> list[socket.socket]:
    if isinstance(listener, TcpListener):
        return _open_tcp(setting, listener, inherited)
    if (sock := inherited.take_unix(listener.path)) is not None:
        return [sock]
    with _named_failure(setting, listener):
        return _open_unix(listener)


def reject_unused(inherited: InheritedSockets) -> None:
    """Raises ListenFailed if a service manager passes a socket that no listener has taken."""
    if unused := inherited.unused_of_manager:
        names = ", ".join(map(describe, unused))
        raise ListenFailed(f"no setting names the socket {names} of systemd: add it to listen or admin_listen")


def own_files(sockets: Iterable[socket.socket]) -> None:
    """Makes this process remove the files of unix sockets at its end, also of those that its predecessor opened."""
    for sock in sockets:
        name = sock.getsockname()
        if sock in _own and isinstance(name, str):
            with contextlib.suppress(OSError):  # somebody has removed the file
                _files[sock] = _identity(Path(name))


def opened_for(sock: socket.socket) -> Opened | None:
    """Returns what this program opened a socket for; None: a service manager opened it."""
    return _own.get(sock)


def duplicate(sock: socket.socket) -> socket.socket:
    """Returns another socket object for the same listening socket. Closing one of them leaves the other open."""
    copy = sock.dup()
    if (opened := _own.get(sock)) is not None:
        _own[copy] = opened
    if (identity := _files.get(sock)) is not None:
        _files[copy] = identity
    return copy


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
    """Removes the file of a unix socket, unless another process has replaced it; does nothing for other sockets."""
    name = sock.getsockname() if sock.fileno() >= 0 else None
    if isinstance(name, str) and name:
        with contextlib.suppress(OSError):
            if _identity(Path(name)) == _files.get(sock):
                Path(name).unlink()


def _identity(path: Path) -> tuple[int, int]:
    status = path.lstat()
    return status.st_dev, status.st_ino


@contextlib.contextmanager
def _named_failure(setting: str, listener: Listener, address: str | None = None) -> Iterator[None]:
    """Turns an OSError into ListenFailed. `address` is the one of the listener's addresses that is opened."""
    try:
        yield
    except OSError as error:
        reason = _REASONS.get(error.errno or 0) or f"cannot be listened on ({error.strerror})"
        name = listener if address in (None, str(listener)) else f"{address}, an address of {listener},"
        failed = ListenFailed(f"{setting}: {name} {reason}")
        failed.is_in_use = error.errno == errno.EADDRINUSE
        raise failed from error


def _open_tcp(setting: str, listener: TcpListener, inherited: InheritedSockets) -> list[socket.socket]:
    """Returns a socket for each address of the listener, all with the same port. Raises ListenFailed."""
    choices = 1 if listener.port else _MAX_PORT_CHOICES
    while True:
        choices -= 1
        try:
            return _open_addresses(setting, listener, inherited)
        except ListenFailed as error:
            if not choices or not error.is_in_use:
                raise


def _open_addresses(setting: str, listener: TcpListener, inherited: InheritedSockets) -> list[socket.socket]:
    with _named_failure(setting, listener):
        addresses = _resolve(listener)
    opened: list[socket.socket] = []
    port = listener.port
    try:
        for family, (host, _, *flow_and_scope) in addresses:
            if (sock := inherited.take_tcp(family, host, port)) is not None:
                opened.append(sock)
                continue
            if family == socket.AF_INET and listener.address_pair and inherited.has_both_families(port):
                continue
            with _named_failure(setting, listener, str(TcpListener(host, port))):
                try:
                    sock = _open_address(family, (host, port, *flow_and_scope))
                except OSError as error:
                    if listener.address_pair and family == socket.AF_INET6 and error.errno in _WITHOUT_IPV6:
                        continue
                    raise
            opened.append(sock)
            port = sock.getsockname()[1]
    except ListenFailed:
        close_sockets(opened)
        raise
    return opened


def _resolve(listener: TcpListener) -> list[tuple[int, tuple[Any, ...]]]:
    """Returns the family and the socket address of each of the listener's addresses."""
    found = [
        (family, address)
        for part in listener.address_pair or (listener,)
        for family, _, _, _, address in socket.getaddrinfo(part.host, part.port, type=socket.SOCK_STREAM)
    ]
    return list(dict.fromkeys(found))


def _open_address(family: int, address: tuple[Any, ...]) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
        sock.listen(BACKLOG)
        sock.setblocking(False)  # noqa: FBT003 - the name says what it is
    except OSError:
        sock.close()
        raise
    return sock


def _open_unix(listener: UnixListener) -> list[socket.socket]:
    path = Path(listener.path)
    _remove_stale(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # Nobody can connect before `listen`, so the file may have its mode from the beginning. A `chmod` would
        # follow a link that somebody with rights to the directory puts in the file's place.
        old_mask = os.umask(0o777 & ~listener.mode)
        try:
            sock.bind(listener.path)
        finally:
            os.umask(old_mask)
        _files[sock] = _identity(path)
        if listener.owner is not None or listener.group is not None:
            _set_owner(path, listener)
        sock.listen(BACKLOG)
        sock.setblocking(False)  # noqa: FBT003 - the name says what it is
    except OSError:
        sock.close()
        raise
    return [sock]


def _set_owner(path: Path, listener: UnixListener) -> None:
    uid = _id("user", listener.owner, lambda name: pwd.getpwnam(name).pw_uid)
    gid = _id("group", listener.group, lambda name: grp.getgrnam(name).gr_gid)
    os.chown(path, uid, gid, follow_symlinks=False)


def _id(kind: str, text: str | None, look_up: Callable[[str], int]) -> int:
    """Returns the number of a user or group; -1, which changes nothing, for None. Raises OSError."""
    if text is None:
        return -1
    try:
        return int(text) if text.isdecimal() else look_up(text)
    except KeyError:
        raise OSError(errno.EINVAL, f"there is no {kind} {text}") from None


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
