"""Decides which requests may use all endpoints of the admin listener: from this machine, or with a token."""

from collections.abc import Iterable

from nanonets_proxy.core.access.caller_tokens import CallersByToken, CallerToken, tokens_in_authorization
from nanonets_proxy.core.net.address_ranges import is_loopback_address
from nanonets_proxy.server.peers import Peer

CHALLENGE = 'Bearer realm="nanonets-proxy", Basic realm="nanonets-proxy"'
"""WWW-Authenticate (RFC 9110 §11.6.1). Browsers ask for a user name only if Basic is offered."""


class AdminAccess:
    """Checks admin tokens. The peer guard has checked the address before."""

    def __init__(self, tokens: Iterable[CallerToken]) -> None:
        self._callers: CallersByToken | None = None
        self.use(tokens)

    def use(self, tokens: Iterable[CallerToken]) -> None:
        """Replaces the tokens. Without any, nobody needs one."""
        # Names serve only the person who keeps the list, so two names may have the same token.
        known = [CallerToken("admin", token.digest) for token in tokens]
        self._callers = CallersByToken(known) if known else None

    def permits(self, peer: Peer, credentials: bytes | None) -> bool:
        """Returns whether a request may use all endpoints. `credentials` is its Authorization field's value."""
        if self._callers is None or _is_local(peer):
            return True
        return credentials is not None and (
            self._callers.caller_of_any(tokens_in_authorization(credentials)) is not None
        )


def _is_local(peer: Peer) -> bool:
    if peer.address is None:
        return True
    try:
        return is_loopback_address(peer.address)
    except ValueError:
        return False
