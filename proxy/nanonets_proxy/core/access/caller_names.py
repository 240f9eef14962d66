"""The names of callers that prove none: by the address of their connection, or by their user of a unix socket.

A user of the machine has all loopback addresses, and an IPv6 host has all addresses of its /64 (RFC 8981). So they
are one caller, and settings must call it by the same name.
"""

import ipaddress
import re
from typing import Final

from nanonets_proxy.core.status.text import printable

LOOPBACK_NAME: Final = "127.0.0.1"
_UNIX: Final = "unix:"
_UNIX_NAME: Final = re.compile(r"unix:uid=(?:0|[1-9][0-9]*)", re.ASCII)
_UNIX_ANYBODY: Final = "unix"  # where the system does not report the user

MAX_STATED_CHARS: Final = 128
_MOST_BYTES: Final = 4 * MAX_STATED_CHARS  # UTF-8 has at most four bytes for a character


def stated_name(value: bytes) -> str:
    """Returns the name that a caller states in a header field, as printable text of at most `MAX_STATED_CHARS`.

    The name goes into logs, metrics, tables and web pages. So bytes that are no UTF-8 become escapes, such as
    `\\xe9`, and so do the characters that `printable` escapes.
    """
    return printable(value[:_MOST_BYTES].decode("utf-8", "backslashreplace"))[:MAX_STATED_CHARS]


def name_of_address(address: str) -> str:
    """Returns the name of the caller at an IP address. Raises ValueError if it is not one."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is None:
            return LOOPBACK_NAME if ip.is_loopback else f"{ipaddress.ip_network((ip, 64), strict=False)}"
        ip = ip.ipv4_mapped
    return LOOPBACK_NAME if ip.is_loopback else str(ip)


def name_of_user(uid: int) -> str:
    """Returns the name of the caller on a unix socket."""
    return f"{_UNIX}uid={uid}"


def is_unproven(name: str) -> bool:
    """Returns whether a caller's name in the settings is that of an address or of a user of a unix socket."""
    return name == _UNIX_ANYBODY or name.startswith(_UNIX) or _name_of_network(name) is not None


def check_name_in_settings(name: str) -> str:
    """Returns the name. Raises ValueError, with the right spelling, if no caller can have it."""
    if name.startswith(_UNIX) and not _UNIX_NAME.fullmatch(name):
        raise ValueError(f"{name} is not the name of a caller: write unix:uid=1000")
    canonical = _name_of_network(name)
    if canonical == "":
        raise ValueError(f"{name} is a network, not the name of a caller: write one address, such as 10.0.0.7")
    if canonical not in (None, name):
        raise ValueError(f"{name} is not the name of a caller: write {canonical}, which names its callers together")
    return name


def _name_of_network(text: str) -> str | None:
    """Returns the name of the callers at an address or network; "" if they have several; None for other text."""
    address, slash, bits = text.strip("[]").partition("/")
    try:
        name = name_of_address(address)
    except ValueError:
        return None
    if not slash:
        return name
    try:
        network = ipaddress.ip_network(f"{address}/{bits}", strict=False)
    except ValueError:
        return ""
    few = network.prefixlen >= (64 if network.version == 6 else 32)
    return name if few or (name == LOOPBACK_NAME and network.is_loopback) else ""
