"""The parameters of the peer guard."""

import ipaddress
from dataclasses import dataclass

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class PeerGuardPolicy:
    """Which peers and host names are let in.

    `allow_from`: networks that may call, besides loopback and unix sockets. `allowed_hosts`: host names, `*.suffix`
    patterns and addresses to accept in addition to the local names. `allow_uids`: users that may call on a unix
    socket; if empty, every user whom the socket file's permissions let in. `any_peer`: if `allow_from` is empty,
    every address may call, because callers prove their identity otherwise. `setting`: the name of the setting
    that has these networks.
    """

    allow_from: tuple[Network, ...] = ()
    allowed_hosts: tuple[str, ...] = ()
    allow_uids: frozenset[int] = frozenset()
    any_peer: bool = False
    setting: str = "allow_from"
