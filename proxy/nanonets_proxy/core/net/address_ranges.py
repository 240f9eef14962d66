"""Whether an IP address is loopback, or on the public Internet.

The ranges stand here, because releases of Python differ in what they count as global or loopback.
"""

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

# IANA IPv4 Special-Purpose Address Registry (RFC 6890), multicast and the reserved class E.
_NOT_PUBLIC_IPV4: Final = tuple(
    map(
        IPv4Network,
        (
            *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
            *("192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15"),
            *("198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4"),
        ),
    )
)
# RFC 4291 §2.4: IANA gives global unicast addresses out of this range alone. Deprecated forms, such as ::127.0.0.1,
# ::ffff:0:127.0.0.1 and fec0::/10, are outside, and so is the local NAT64 prefix 64:ff9b:1::/48 (RFC 8215).
_GLOBAL_UNICAST: Final = IPv6Network("2000::/3")
# IANA IPv6 Special-Purpose Address Registry: protocol assignments with Teredo, documentation, and 6to4, which leads
# to an IPv4 address through a relay (deprecated by RFC 7526).
_NOT_PUBLIC_IPV6: Final = tuple(map(IPv6Network, ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")))
# RFC 6052 §2.1: the last 32 bits are the IPv4 address that the packet is sent to.
_NAT64: Final = IPv6Network("64:ff9b::/96")


def is_loopback_address(address: str) -> bool:
    """Returns whether an IP address, perhaps with a zone, is loopback. IPv4-mapped addresses count as IPv4."""
    return _unmapped(address).is_loopback


def is_public_address(address: str) -> bool:
    """Returns whether an IP address, perhaps with a zone, is on the public Internet.

    Private, shared, link-local, multicast and reserved addresses are not. If an IPv6 address maps or translates to
    an IPv4 address, the IPv4 address decides.
    """
    ip = _unmapped(address)
    if isinstance(ip, IPv6Address):
        if ip not in _NAT64:
            return ip in _GLOBAL_UNICAST and not _is_in(ip, _NOT_PUBLIC_IPV6)
        ip = IPv4Address(ip.packed[-4:])
    return not _is_in(ip, _NOT_PUBLIC_IPV4)


def _unmapped(address: str) -> IPv4Address | IPv6Address:
    ip = ip_address(address.partition("%")[0])
    return getattr(ip, "ipv4_mapped", None) or ip


def _is_in(ip: IPv4Address | IPv6Address, networks: Iterable[IPv4Network | IPv6Network]) -> bool:
    return any(ip in network for network in networks)
