"""The host names of the proxy: those that no web page of a stranger can have.

A browser reaches loopback too. The browser's own rules do not stop a page if the page's host name resolves to this
machine (DNS rebinding). Nor do they stop requests to an address for which browsers send no Sec-Fetch-Site, such as
0.0.0.0 or [::ffff:7f00:1]. So the accepted names depend on the address of the proxy's side of the connection:

loopback   `localhost`, names below it, loopback addresses, the host's names in containers, and allowed names.
           Not `.local`, `.internal` or single labels: a neighbour can claim them by mDNS, LLMNR or DHCP.
elsewhere  Also names for local use, single labels, names of private networks, and the connection's own address.
unix       As elsewhere. The connection has no address, so an address as Host must be loopback or allowed.
"""

import ipaddress
from collections.abc import Iterable
from typing import Final, TypeAlias

from nanonets_proxy.core.access.top_level_domains import is_private_name
from nanonets_proxy.core.net.addresses import is_host_name

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

# Some releases of Python count ::ffff:127.0.0.1 as loopback too.
_LOOPBACK: Final = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))
# Docker and Podman write these into the hosts files or resolvers of containers.
_LOOPBACK_NAMES: Final = frozenset({"localhost", "host.docker.internal", "host.containers.internal"})
_LOOPBACK_SUFFIX: Final = ".localhost"  # RFC 6761 §6.3: never resolved by the network
# Reserved for local use (RFC 6762, ICANN's reservation of .internal), and those of Kubernetes.
_LOCAL_SUFFIXES: Final = (".internal", ".local", ".svc", ".svc.cluster.local")


class OwnNames:
    """`allowed`: further host names, `*.suffix` patterns and addresses to accept."""

    __slots__ = ("_addresses", "_names", "_suffixes")

    def __init__(self, allowed: Iterable[str]) -> None:
        hosts = [host.lower() for host in allowed]
        self._addresses = frozenset(filter(None, map(parse_address, hosts)))
        self._names = _LOOPBACK_NAMES.union(hosts)
        self._suffixes = (_LOOPBACK_SUFFIX, *(host[1:] for host in hosts if host.startswith("*.")))

    def include(self, host: str, own_address: str | None) -> bool:
        """Returns whether `host`, in lower case and without a port, is a name of the proxy.

        `own_address` is the proxy's side of the connection; None for a unix socket.
        """
        own = None if own_address is None else peer_address(own_address)
        literal = parse_address(without_brackets(host))
        if literal is not None:
            is_loopback = any(literal in network for network in _LOOPBACK)
            return is_loopback or literal == own or literal in self._addresses
        if not is_host_name(host):  # a `%` too: some programs cut a name there
            return False
        if host in self._names or host.endswith(self._suffixes):
            return True
        if own is not None and own.is_loopback:
            return False
        return "." not in host or host.endswith(_LOCAL_SUFFIXES) or is_private_name(host)


def without_brackets(host: str) -> str:
    return host[1:-1] if host.startswith("[") and host.endswith("]") else host


def parse_address(text: str) -> Address | None:
    """Parses an IP address. Returns None for any other text, and for an address with a zone."""
    try:
        return None if "%" in text else ipaddress.ip_address(text)
    except ValueError:
        return None


def peer_address(text: str) -> Address | None:
    """Returns the IP address of a socket, without its zone. An IPv4-mapped address becomes the IPv4 address."""
    address = parse_address(text.partition("%")[0])
    return getattr(address, "ipv4_mapped", None) or address
