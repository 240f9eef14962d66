"""The peer guard: decides by peer, method, Host, Origin, Referer and Sec-Fetch-Site whether a request is let in.

Without credentials of its own, anybody who reaches the proxy can use a paid API. A web page that is open in a
browser on the same machine can reach loopback too: as a cross-site request, or under a host name of its own that
resolves to loopback (DNS rebinding). The guard therefore checks Origin, and accepts as Host only names that no
stranger can have (`own_names.py`).
"""

import re
from typing import Final

from nanonets_proxy.core.access.own_names import OwnNames, parse_address, peer_address, without_brackets
from nanonets_proxy.core.access.peer_guard_policy import PeerGuardPolicy
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

_MAX_REMEMBERED = 1024
_PATH = re.compile(rb"[/?#\\]")
_PORT = re.compile(r":[0-9]{0,5}\Z")
_NO_HOSTS: Final[frozenset[bytes]] = frozenset()


class PeerGuard:
    """Applies a PeerGuardPolicy. Remembers accepted values, because peers and Host values rarely vary."""

    def __init__(self, policy: PeerGuardPolicy) -> None:
        self.change_policy(policy)

    def change_policy(self, policy: PeerGuardPolicy) -> None:
        """Applies another policy, and forgets what the earlier one accepted."""
        self._networks = policy.allow_from
        self._setting = policy.setting
        self._any_peer = policy.any_peer and not policy.allow_from
        self._uids = policy.allow_uids
        self._names = OwnNames(policy.allowed_hosts)
        self._accepted_peers: set[str] = set()
        self._accepted_hosts: dict[str | None, set[bytes]] = {}

    def check_peer(self, address: str | None, uid: int | None = None) -> None:
        """Raises ForbiddenPeer unless the peer may call.

        `address`: the peer's IP address without a port, or None for a unix socket. `uid`: the user of a unix
        socket's peer, if the system reports it.
        """
        if address in self._accepted_peers:
            return
        if address is None:
            if self._uids and uid not in self._uids:
                raise ForbiddenPeer("This user may not call the proxy; see the setting allow_uids.")
            return
        peer = peer_address(address)
        if peer is None or not (
            self._any_peer or peer.is_loopback or any(peer in network for network in self._networks)
        ):
            raise ForbiddenPeer(f"This address may not call the proxy; see the setting {self._setting}.")
        if len(self._accepted_peers) < _MAX_REMEMBERED:
            self._accepted_peers.add(address)

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

    def check_request(
        self, method: str, head: RequestHead, authority: str | None = None, own_address: str | None = None
    ) -> None:
        """Makes all checks but that of the peer. The `authority` of an absolute target replaces Host.

        `own_address` is the proxy's side of the connection; None for a unix socket.
        """
        host = head.host if authority is None else authority.encode("utf-8", "surrogateescape")
        if method not in USUAL_METHODS or head.is_preflight:
            self.check_method(method, preflight=head.is_preflight)
        if host not in self._accepted_hosts.get(own_address, _NO_HOSTS):
            self.check_host(host, own_address)
        if head.origin is not None or head.sec_fetch_site is not None or head.referer is not None:
            self.check_origin(head.origin, head.sec_fetch_site, host, head.referer)

    def check_host(self, host: bytes, own_address: str | None = None) -> None:
        """Raises ForbiddenHost unless the host is a name of the proxy. An empty host (HTTP/1.0) passes."""
        if not host:
            return
        name = _PORT.sub("", host.decode("latin-1")).lower().removesuffix(".")
        if not self._names.include(name, own_address):
            if not is_host_name(name) and parse_address(without_brackets(name)) is None:
                raise ForbiddenHost("This Host is not a name of the proxy; see the setting allowed_hosts.")
            raise ForbiddenHost(
                f"{name} is not a name of the proxy. If it should be, add it to the setting allowed_hosts.",
                host=name,
            )
        if sum(map(len, self._accepted_hosts.values())) < _MAX_REMEMBERED:
            self._accepted_hosts.setdefault(own_address, set()).add(host)

    def check_origin(
        self, origin: bytes | None, sec_fetch_site: bytes | None, host: bytes, referer: bytes | None = None
    ) -> None:
        """Raises ForbiddenOrigin if a browser sends the request for a page of another origin.

        Only browsers send Sec-Fetch-Site; its value `none` means that the user typed the address. Browsers send it
        only to origins that they trust, so a Referer of another origin counts too.
        """
        if sec_fetch_site in (b"cross-site", b"same-site"):
            raise ForbiddenOrigin("Pages of another site may not call the proxy.")
        own_origins = (b"http://" + host, b"https://" + host)
        if origin is not None and origin not in own_origins:
            raise ForbiddenOrigin("Pages of another origin may not call the proxy.")
        if referer and not referer.startswith(b"/") and _origin_of(referer) not in own_origins:
            raise ForbiddenOrigin("Pages of another origin may not call the proxy; the request has their Referer.")


def _origin_of(url: bytes) -> bytes:
    """Returns scheme and authority of an absolute URL (RFC 3986 §3)."""
    scheme, separator, rest = url.partition(b"://")
    return scheme + separator + _PATH.split(rest, 1)[0]
