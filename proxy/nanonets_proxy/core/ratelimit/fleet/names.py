"""The names of scopes and callers, as keyed hashes: the names themselves never leave the process.

A scope's name on the wire is `ROW.HASH`. ROW is a hash of the pattern in the row of `limits` that applies to it,
or `-`. So the leader can apply that limit without knowing the name. If it has no such row, as while other `limits`
are rolled out, it learns the limit.
"""

from dataclasses import replace
from hashlib import blake2b
from typing import Final

from nanonets_proxy.core.ratelimit.gate_policy import GatePolicy
from nanonets_proxy.core.ratelimit.scopes.static_limits import StaticLimit, StaticLimits

_HASH_BYTES: Final = 12
_ROW_DIGITS: Final = 8
_MAX_REMEMBERED: Final = 10_000  # callers and their targets may be any number
_LOCAL: Final = ("127.0.0.1", "::1", "unix:")


class Names:
    """Hashes names, and remembers the names of scopes and callers that this replica has hashed."""

    __slots__ = ("_hashes", "_host", "_limits", "_names", "_secret")

    def __init__(self, secret: bytes, host: str, limits: StaticLimits) -> None:
        """`secret` keys the hashes. `host` tells callers of this machine from those of others."""
        self._secret = blake2b(secret, digest_size=32).digest()
        self._host = host
        self._limits = limits
        self._hashes: dict[tuple[str, str], str] = {}
        self._names: dict[str, str] = {}

    def change_limits(self, limits: StaticLimits) -> None:
        """Applies other rows of `limits`. Scopes whose row changes get another name."""
        self._limits = limits
        self._hashes.clear()

    def scope(self, name: str) -> str:
        """Returns the name of a scope on the wire."""
        found = self._hashes.get(("scope", name))
        if found is None:
            limit = self._limits.of(name)
            row = "-" if limit is None else self._row(limit)
            found = self._remember("scope", name, f"{row}.{self._hash('scope', name)}")
        return found

    def policy(self, policy: GatePolicy) -> GatePolicy:
        """Returns a policy with the names on the wire, for a gate that knows no others."""
        rows = (replace(row, scope=f"{self._row(row)}.*") for row in policy.static_limits.rows)
        weights = ((self.lane(name), weight) for name, weight in policy.lane_weights)
        return replace(policy, static_limits=StaticLimits(tuple(rows)), lane_weights=tuple(weights))

    def _row(self, limit: StaticLimit) -> str:
        return self._hash("row", limit.scope)[:_ROW_DIGITS]

    def lane(self, name: str) -> str:
        """Returns the name of a caller on the wire. A loopback address is another caller on each machine."""
        found = self._hashes.get(("lane", name))
        if found is None:
            full = f"{self._host} {name}" if name.startswith(_LOCAL) else name
            found = self._remember("lane", name, self._hash("lane", full))
        return found

    def kind(self, name: str) -> str:
        """Returns the hash of a request's target."""
        return self._hashes.get(("kind", name)) or self._remember("kind", name, self._hash("kind", name))

    def clear(self, hashed: str) -> str:
        """Returns the name behind a hash; the hash itself if only other replicas know the name."""
        return self._names.get(hashed, hashed)

    def _hash(self, use: str, name: str) -> str:
        return blake2b(name.encode(), digest_size=_HASH_BYTES, key=self._secret, person=use.encode()).hexdigest()

    def _remember(self, use: str, name: str, hashed: str) -> str:
        if len(self._hashes) >= _MAX_REMEMBERED:
            self._hashes.clear()
            self._names.clear()
        self._hashes[use, name] = hashed
        if use != "kind":
            self._names[hashed] = name
        return hashed
