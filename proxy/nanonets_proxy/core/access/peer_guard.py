"""Who may call at all. A pure decision on the peer, Host, Origin, Sec-Fetch-Site and method.

The proxy is an unauthenticated door to a paid API. A web page that is open in a developer's browser
can reach loopback too, under a name of its own (DNS rebinding) or as a cross-site request; hence the
checks of Host (only names that no stranger can register) and of Origin.
"""

import ipaddress
import re
from dataclasses import dataclass

from nanonets_proxy.core.http.request_head import RequestHead
from nanonets_proxy.errors import (
    ForbiddenHost,
    ForbiddenOrigin,
    ForbiddenPeer,
    MethodNotAllowed,
    NotImplementedHere,
)

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# Reserved for local use (RFC 6761, RFC 6762, the .internal reservation) or made by Docker and Kubernetes:
# nobody can register a name below these and point it to a loopback address.
_LOCAL_SUFFIXES = (".localhost", ".internal", ".local", ".svc", ".svc.cluster.local")
_MAX_REMEMBERED = 1024
_NOT_HERE = frozenset({"CONNECT", "TRACE"})
_PORT = re.compile(r":[0-9]{0,5}\Z")
_LABEL = re.compile(r"[a-z0-9_-]+")


@dataclass(frozen=True, slots=True)
class PeerGuardPolicy:
    """`allow_from`: networks that may call besides loopback and unix sockets. `allowed_hosts`: names, or
    `*.suffix` patterns, that Host may have besides the local ones. `allow_uids`: users that may call on a unix
    socket, empty for all whom its file lets. `any_peer`: every address may call where no network is named, since
    callers prove who they are in another way."""

    allow_from: tuple[Network, ...] = ()
    allowed_hosts: tuple[str, ...] = ()
    allow_uids: frozenset[int] = frozenset()
    any_peer: bool = False


class PeerGuard:
    """Applies a PeerGuardPolicy; remembers what passed, since peers and Host values hardly ever vary."""

    def __init__(self, policy: PeerGuardPolicy) -> None:
        self._networks = policy.allow_from
        self._any_peer = policy.any_peer and not policy.allow_from
        self._uids = policy.allow_uids
        self._exact = frozenset(host.lower() for host in policy.allowed_hosts if not host.startswith("*."))
        suffixes = (host[1:].lower() for host in policy.allowed_hosts if host.startswith("*."))
        self._suffixes = (*_LOCAL_SUFFIXES, *suffixes)
        self._passed: set[str | bytes] = set()

    def check_peer(self, address: str | None, uid: int | None = None) -> None:
        """`address` is the peer's IP address without a port; None for a unix socket, whose peer has a user id where
        the system tells it. Raises ForbiddenPeer."""
        if address in self._passed:
            return
        if address is None:
            if self._uids and uid not in self._uids:
                raise ForbiddenPeer("Calls of this user are not allowed; see the setting allow_uids.")
            return
        peer = _address(address)
        if peer is None or not (
            self._any_peer or peer.is_loopback or any(peer in network for network in self._networks)
        ):
            raise ForbiddenPeer("Calls from this address are not allowed; see the setting allow_from.")
        self._remember(address)

    def check_method(self, method: str, *, upgrade: bool, preflight: bool = False) -> None:
        """Refuses tunnels, TRACE (it would echo the credential), protocol switches, and a browser's question
        whether another origin may call: the answer is no, and for private networks too."""
        if method in _NOT_HERE:
            raise MethodNotAllowed(f"{method} is not supported.")
        if upgrade:
            raise NotImplementedHere("Upgrade is not supported.")
        if preflight and method == "OPTIONS":
            raise ForbiddenOrigin("Pages of other origins may not call.")

    def check_request(self, method: str, head: RequestHead, authority: str | None = None) -> None:
        """All that there is to ask of a request itself; `authority`, of an absolute target, stands for its Host."""
        host = head.host if authority is None else authority.encode()
        if method in _NOT_HERE or head.upgrade or head.is_preflight:
            self.check_method(method, upgrade=head.upgrade, preflight=head.is_preflight)
        if host not in self._passed:
            self.check_host(host)
        if head.origin is not None or head.sec_fetch_site is not None:
            self.check_origin(head.origin, head.sec_fetch_site, host)

    def check_host(self, host: bytes) -> None:
        """Host or an absolute target's authority; b"" (an HTTP/1.0 caller) passes. Raises ForbiddenHost."""
        if host in self._passed or not host:
            return
        if not self._is_ours(host.decode("latin-1")):
            raise ForbiddenHost("This Host is not one of the proxy's names; see the setting allowed_hosts.")
        self._remember(host)

    def check_origin(self, origin: bytes | None, sec_fetch_site: bytes | None, host: bytes) -> None:
        """A browser's request must come from a page of this very address. Raises ForbiddenOrigin.

        Sec-Fetch-Site is absent outside browsers; `none` is a person who typed the address.
        """
        if sec_fetch_site in (b"cross-site", b"same-site"):
            raise ForbiddenOrigin("Requests of other sites' pages are not allowed.")
        if origin is not None and origin not in (b"http://" + host, b"https://" + host):
            raise ForbiddenOrigin("Requests with a foreign Origin are not allowed.")

    def _remember(self, passed: str | bytes) -> None:
        if len(self._passed) < _MAX_REMEMBERED:
            self._passed.add(passed)

    def _is_ours(self, host: str) -> bool:
        name = _PORT.sub("", host).lower().rstrip(".")
        if name.startswith("["):
            return _address(name[1:-1]) is not None
        return (
            _LABEL.fullmatch(name) is not None
            or _address(name) is not None
            or name in self._exact
            or name.endswith(self._suffixes)
        )


def _address(text: str) -> Address | None:
    """An IP address; an IPv4 one that came as an IPv6-mapped one counts as itself."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
