"""The peer guard: decides by peer, Host, Origin, Sec-Fetch-Site and method whether a request is let in at all.

Without credentials of its own, anybody who reaches the proxy can use a paid API. A web page that is open in a
browser on the same machine can reach loopback too: as a cross-site request, or under a host name of its own that
resolves to loopback (DNS rebinding). The guard therefore checks Origin, and accepts as Host only names that no
stranger can register.
"""

import ipaddress
import re
from dataclasses import dataclass

from nanonets_proxy.core.access.top_level_domains import is_private_name
from nanonets_proxy.core.http.methods import REJECTED_METHODS, USUAL_METHODS, is_misspelled
from nanonets_proxy.core.http.request_head import RequestHead
from nanonets_proxy.core.net.addresses import is_host_name
from nanonets_proxy.errors import (
    BadRequest,
    ForbiddenHost,
    ForbiddenOrigin,
    ForbiddenPeer,
    MethodNotAllowed,
)

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# Suffixes reserved for local use (RFC 6761, RFC 6762, ICANN's reservation of .internal), and those that Docker and
# Kubernetes use. Nobody can register a name under them and let it resolve to loopback.
_LOCAL_SUFFIXES = (".localhost", ".internal", ".local", ".svc", ".svc.cluster.local")
_MAX_REMEMBERED = 1024
_PORT = re.compile(r":[0-9]{0,5}\Z")
_LABEL = re.compile(r"[a-z0-9_-]+")


@dataclass(frozen=True, slots=True)
class PeerGuardPolicy:
    """Which peers and host names are let in.

    `allow_from`: networks that may call, besides loopback and unix sockets. `allowed_hosts`: host names, or
    `*.suffix` patterns, that are accepted besides the local ones. `allow_uids`: users that may call on a unix
    socket; if empty, every user whom the socket file's permissions let in. `any_peer`: if `allow_from` is empty,
    every address may call, because callers prove their identity otherwise. `private_names`: names of private
    networks are accepted, such as Kubernetes' `name.namespace` and Compose's `name.network`.
    """

    allow_from: tuple[Network, ...] = ()
    allowed_hosts: tuple[str, ...] = ()
    allow_uids: frozenset[int] = frozenset()
    any_peer: bool = False
    private_names: bool = False


class PeerGuard:
    """Applies a PeerGuardPolicy. Remembers accepted values, because peers and Host values rarely vary."""

    def __init__(self, policy: PeerGuardPolicy) -> None:
        self._networks = policy.allow_from
        self._any_peer = policy.any_peer and not policy.allow_from
        self._uids = policy.allow_uids
        self._exact = frozenset(host.lower() for host in policy.allowed_hosts if not host.startswith("*."))
        suffixes = (host[1:].lower() for host in policy.allowed_hosts if host.startswith("*."))
        self._suffixes = (*_LOCAL_SUFFIXES, *suffixes)
        self._private_names = policy.private_names
        self._accepted: set[str | bytes] = set()

    def check_peer(self, address: str | None, uid: int | None = None) -> None:
        """Raises ForbiddenPeer unless the peer may call.

        `address`: the peer's IP address without a port, or None for a unix socket. `uid`: the user of a unix
        socket's peer, if the system reports it.
        """
        if address in self._accepted:
            return
        if address is None:
            if self._uids and uid not in self._uids:
                raise ForbiddenPeer("This user may not call the proxy; see the setting allow_uids.")
            return
        peer = _address(address)
        if peer is None or not (
            self._any_peer or peer.is_loopback or any(peer in network for network in self._networks)
        ):
            raise ForbiddenPeer("This address may not call the proxy; see the setting allow_from.")
        self._remember(address)

    def check_method(self, method: str, *, preflight: bool = False) -> None:
        """Rejects CONNECT, TRACE (the upstream would echo the key), misspelled methods and CORS preflights.

        Raises:
            MethodNotAllowed, BadRequest, ForbiddenOrigin.
        """
        if is_misspelled(method):
            raise BadRequest(f"Methods are case-sensitive: write {method.upper()}.")
        if method in REJECTED_METHODS:
            raise MethodNotAllowed(f"{method} is not supported.")
        if preflight and method == "OPTIONS":
            raise ForbiddenOrigin("Pages of another origin may not call the proxy.")

    def check_request(self, method: str, head: RequestHead, authority: str | None = None) -> None:
        """Makes all checks but that of the peer. The `authority` of an absolute target replaces Host."""
        host = head.host if authority is None else authority.encode("utf-8", "surrogateescape")
        if method not in USUAL_METHODS or head.is_preflight:
            self.check_method(method, preflight=head.is_preflight)
        if host not in self._accepted:
            self.check_host(host)
        if head.origin is not None or head.sec_fetch_site is not None:
            self.check_origin(head.origin, head.sec_fetch_site, host)

    def check_host(self, host: bytes) -> None:
        """Raises ForbiddenHost unless the host is a name of the proxy. An empty host (HTTP/1.0) passes."""
        if host in self._accepted or not host:
            return
        name = _PORT.sub("", host.decode("latin-1")).lower().rstrip(".")
        if not self._is_own_name(name):
            if not is_host_name(name):
                raise ForbiddenHost("This Host is not a name of the proxy; see the setting allowed_hosts.")
            raise ForbiddenHost(
                f"{name} is not a name of the proxy. If it should be, add it to the setting allowed_hosts.",
                host=name,
            )
        self._remember(host)

    def check_origin(self, origin: bytes | None, sec_fetch_site: bytes | None, host: bytes) -> None:
        """Raises ForbiddenOrigin if a browser sends the request for a page of another origin.

        Only browsers send Sec-Fetch-Site; its value `none` means that the user typed the address.
        """
        if sec_fetch_site in (b"cross-site", b"same-site"):
            raise ForbiddenOrigin("Pages of another site may not call the proxy.")
        if origin is not None and origin not in (b"http://" + host, b"https://" + host):
            raise ForbiddenOrigin("Pages of another origin may not call the proxy.")

    def _remember(self, accepted: str | bytes) -> None:
        if len(self._accepted) < _MAX_REMEMBERED:
            self._accepted.add(accepted)

    def _is_own_name(self, name: str) -> bool:
        if name.startswith("["):
            return _address(name[1:-1]) is not None
        return (
            _LABEL.fullmatch(name) is not None
            or _address(name) is not None
            or name in self._exact
            or name.endswith(self._suffixes)
            or (self._private_names and is_private_name(name))
        )


def _address(text: str) -> Address | None:
    """Parses an IP address; an IPv4-mapped IPv6 address becomes the IPv4 address. Returns None if malformed."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
