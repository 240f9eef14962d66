"""Ports and addresses of this machine."""

import contextlib
import random
import socket
from typing import Final

_PORTS: Final = range(20_000, 30_000)  # below Linux's range of ephemeral ports
_chance = random.SystemRandom()  # tests that run at the same time start from equal seeds


def free_port() -> int:
    """Returns a free port of loopback. The kernel gives it to no other connection and to no listener on port 0."""
    while True:
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", _chance.choice(_PORTS))) as sock:
            return int(sock.getsockname()[1])


def has_ipv6() -> bool:
    """Returns whether the machine can listen on ::1."""
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False
