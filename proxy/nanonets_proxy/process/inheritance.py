"""What a process gets at its start: listening sockets of systemd, or all that its predecessor serves.

systemd passes sockets as sd_listen_fds(3) says. A predecessor passes one end of a socket pair (`restart.py`), and
over it its listening sockets and those variables of its own start that hold secrets: the environment of a process
can be read from outside, and its children would inherit it.
"""

import os
import socket
from dataclasses import dataclass, field
from typing import Final

from nanonets_proxy.process.hardening import prevent_core_dump
from nanonets_proxy.process.run.companion import Companion
from nanonets_proxy.process.successor.messages import PeerLost, receive_document
from nanonets_proxy.server.inherited import InheritedSockets, Opened, is_listening

LINK_VARIABLE: Final = "NANONETS_RESTART_LINK"
STORED_NAME: Final = "stored"
"""The name of the sockets that this program has put into systemd's file descriptor store."""

_FIRST_FILE: Final = 3  # SD_LISTEN_FDS_START
_TIMEOUT_S: Final = 60.0


class InheritanceUnusable(Exception):
    """The process cannot use its inheritance. The message is one sentence."""


@dataclass(frozen=True, slots=True)
class Inheritance:
    """The inherited sockets; after a restart also the link to the predecessor, and its standard error.

    `companion`: of a proxy beside a command, what it knows of the command (`run/companion.py`).
    """

    sockets: InheritedSockets = field(default_factory=InheritedSockets)
    link: socket.socket | None = None
    stderr: int = -1
    companion: Companion | None = None


def inherit() -> Inheritance:
    """Returns the inheritance, and removes its variables from the environment. Raises InheritanceUnusable."""
    number = os.environ.pop(LINK_VARIABLE, None)
    names = {name: os.environ.pop(name, "") for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")}
    if number is not None:
        return _from_predecessor(number)
    if names["LISTEN_PID"] != str(os.getpid()) or not names["LISTEN_FDS"].isdecimal():
        return Inheritance()
    return _from_systemd(int(names["LISTEN_FDS"]), names["LISTEN_FDNAMES"].split(":"))


def _from_systemd(count: int, names: list[str]) -> Inheritance:
    sockets: list[tuple[socket.socket, Opened | None]] = []
    for index, file in enumerate(range(_FIRST_FILE, _FIRST_FILE + count)):
        try:
            os.set_inheritable(file, False)  # noqa: FBT003 - the name says what it is
            sock = socket.socket(fileno=file)
        except OSError:
            raise InheritanceUnusable(f"file {file}, which systemd passes, is not a socket") from None
        if not is_listening(sock):
            raise InheritanceUnusable(
                f"socket {file}, which systemd passes, does not listen for streams: use ListenStream= and Accept=no"
            )
        is_stored = names[index : index + 1] == [STORED_NAME]
        sockets.append((sock, Opened("", "") if is_stored else None))
    return Inheritance(InheritedSockets(sockets))


def _from_predecessor(number: str) -> Inheritance:
    prevent_core_dump()  # before the first secret arrives
    try:
        link = socket.socket(fileno=int(number))
        link.set_inheritable(False)
        link.settimeout(_TIMEOUT_S)
        document, files = receive_document(link)
        *listening, stderr = files
        os.environ.update(document["secrets"])
        sockets = [
            (socket.socket(fileno=file), None if opened is None else Opened(*opened))
            for file, opened in zip(listening, document["listening"], strict=True)
        ]
    except (OSError, ValueError, KeyError, TypeError, PeerLost) as error:
        raise InheritanceUnusable(f"the process to replace passes nothing usable: {error}") from None
    return Inheritance(InheritedSockets(sockets), link, stderr)
