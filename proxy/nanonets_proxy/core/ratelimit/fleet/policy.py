"""Where a fleet meets: the address of Redis, and the names of the fleet's keys there."""

from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

from nanonets_proxy.core.net.redis_address import RedisAddress

PROTOCOL: Final = 8
"""Replicas with another protocol are another fleet. A change of messages or scripts needs another number.

Fleets with different protocols share two keys, whose form must therefore never change: see `common_prefix`.
"""


@dataclass(frozen=True, slots=True)
class FleetPolicy:
    """The fleet that a replica belongs to."""

    address: RedisAddress
    account: str
    """The name of the account whose limits the fleet shares: the upstream, the environment and the setting."""
    required: bool
    """Whether a replica is not ready while it is alone."""
    protocol: int = PROTOCOL

    def key(self) -> bytes:
        """Returns the key of the hashes of names."""
        return blake2b(self.address.password.encode(), digest_size=32, person=b"fleet").digest()

    @property
    def _id(self) -> str:
        """In braces, it keeps the keys of a fleet in one slot of a cluster."""
        return blake2b(self.account.encode(), digest_size=12, key=self.key()).hexdigest()

    def prefix(self) -> str:
        """Returns the prefix of the lease and of all channels. Redis keeps apart only the keys of its databases."""
        return f"nanonets-proxy:{self.protocol}:{self.address.database}:{{{self._id}}}"

    def common_prefix(self) -> str:
        """Returns the prefix of the keys that fleets with different protocols share: `kept` and `versions`."""
        return f"nanonets-proxy:{{{self._id}}}"
