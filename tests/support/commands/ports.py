"""Ports and addresses of this machine."""

import socket


def free_port() -> int:
    """Returns a port of loopback that nobody uses at this moment."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


def has_ipv6() -> bool:
    """Returns whether the machine can listen on ::1."""
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False
