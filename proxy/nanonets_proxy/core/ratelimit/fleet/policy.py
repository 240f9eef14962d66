"""Where a fleet meets: the address of Redis, and the names of the fleet's keys there."""

from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

from nanonets_proxy.core.net.redis_address import RedisAddress

PROTOCOL: Final = 5
"""Replicas with another protocol are another fleet. A change of messages or scripts needs another number."""


@dataclass(frozen=True, slots=True)
class FleetPolicy:
    """The fleet that a replica belongs to."""

    address: RedisAddress
    account: str
    """The name of the account whose limits the fleet shares: the upstream, the environment and the setting."""
    required: bool
    """Whether a replica is not ready while it is alone."""

    def key(self) -> bytes:
        """Returns the key of the hashes of names."""
        return blake2b(self.address.password.encode(), digest_size=32, person=b"fleet").digest()

    def prefix(self) -> str:
        """Returns the prefix of keys and channels. Its braces keep the keys of a fleet in one slot of a cluster."""
        name = blake2b(self.account.encode(), digest_size=12, key=self.key()).hexdigest()
        return f"nanonets-proxy:{PROTOCOL}:{{{name}}}"
