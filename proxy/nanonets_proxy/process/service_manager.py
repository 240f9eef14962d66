"""What the process tells systemd: sd_notify(3), by a datagram to the socket that $NOTIFY_SOCKET names.

READY=1       The program serves; also the end of a reload.
RELOADING=1   A reload by SIGHUP has begun (Type=notify-reload).
STOPPING=1    The program has been asked to stop.
WATCHDOG=1    The event loop runs: at half of the interval that $WATCHDOG_USEC gives.
MAINPID=...   Another process serves now (`restart.py`). With NotifyAccess=main only the old one may say so. The new
              one is systemd's own child by then (`successor/launch.py`).
FDSTORE=1     systemd keeps the listening sockets that the program opened itself, so that a crash loses no
              connection that waits in their queues.

Without $NOTIFY_SOCKET, nothing is sent. systemd is told what is so, and never asked: a failure to send is ignored.
"""

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Iterable, Mapping
from typing import Final

from nanonets_proxy.process.inheritance import STORED_NAME
from nanonets_proxy.server.listeners import opened_for

_MAX_STORED: Final = 16
_SEND_S: Final = 0.1


class ServiceManager:
    """The service manager of this process, if it has one."""

    def __init__(self, environ: Mapping[str, str], *, is_successor: bool) -> None:
        """`is_successor`: $WATCHDOG_PID still names the predecessor."""
        address = environ.get("NOTIFY_SOCKET", "")
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._watchdog_s = 0.0
        usec, pid = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
        if usec.isdecimal() and (is_successor or pid in ("", str(os.getpid()))):
            self._watchdog_s = int(usec) / 1e6 / 2
        self._stores = environ.get("FDSTORE", "0") != "0"
        self._heartbeat: asyncio.TimerHandle | None = None

    def ready(self) -> None:
        """Says that the program serves, and begins to answer the watchdog."""
        self._notify("READY=1")
        if self._heartbeat is None and self._watchdog_s:
            self._beat()

    def reloading(self) -> None:
        """Says that a reload has begun. `ready` ends it."""
        self._notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """Says that the program has been asked to stop."""
        self._notify("STOPPING=1")

    def replaced_by(self, pid: int) -> None:
        """Says that another process serves now, and leaves the watchdog to it."""
        self._notify(f"MAINPID={pid}")
        if self._heartbeat is not None:
            self._heartbeat.cancel()

    def store(self, sockets: Iterable[socket.socket]) -> None:
        """Lets systemd keep the TCP sockets that this program opened, if it has a store.

        The file of a unix socket would be gone after a stop, so such sockets are not kept.
        """
        own = [sock for sock in sockets if opened_for(sock) is not None and sock.family != socket.AF_UNIX]
        if self._stores and own:
            self._notify(f"FDSTOREREMOVE=1\nFDNAME={STORED_NAME}")
            self._notify(f"FDSTORE=1\nFDNAME={STORED_NAME}", own[:_MAX_STORED])

    def _beat(self) -> None:
        self._notify("WATCHDOG=1")
        self._heartbeat = asyncio.get_running_loop().call_later(self._watchdog_s, self._beat)

    def _notify(self, state: str, files: Iterable[socket.socket] = ()) -> None:
        if not self._address:
            return
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            # systemd reads at once. If its queue is full all the same, callers come first.
            sock.settimeout(_SEND_S)
            sock.connect(self._address)
            numbers = [file.fileno() for file in files]
            if numbers:
                socket.send_fds(sock, [state.encode()], numbers)
            else:
                sock.send(state.encode())
