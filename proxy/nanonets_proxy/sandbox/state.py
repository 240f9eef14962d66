"""One sandbox's state, and the record of one call that it answers."""

import hashlib
import math
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from aiohttp import web

from nanonets_proxy.sandbox.limiter import make_limiter
from nanonets_proxy.sandbox.policy import SandboxPolicy
from nanonets_proxy.sandbox.stats import Stats
from nanonets_proxy.sandbox.store import Store

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Call:
    """A call of the API: `path` is a route, `about` a line for the sandbox's page."""

    method: str
    path: str
    handler: Handler
    about: str


class RequestDigest:
    """The hash of one request: its method, target and decoded body."""

    def __init__(self, method: str, target: str) -> None:
        self._hash = hashlib.sha256()
        self.add(f"{method} {target}")

    def add(self, piece: str | bytes) -> None:
        """Add the next piece; whoever reads the body does so."""
        # surrogatepass: aiohttp decodes bytes that are no UTF-8 to lone surrogates.
        self._hash.update(piece if isinstance(piece, bytes) else piece.encode("utf-8", "surrogatepass"))
        self._hash.update(b"\n")

    def value(self) -> bytes:
        return self._hash.digest()


class AcceptedKeys:
    """The keys that are accepted now; those that were replaced stay good for a grace time."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._until_s: dict[str, float] = dict.fromkeys(keys, math.inf)

    def replace(self, keys: Sequence[str], grace_s: float, now_s: float) -> None:
        """Accept `keys` from now on, and any other for `grace_s` seconds more at most."""
        ending_s = now_s + grace_s
        old = {key: min(until_s, ending_s) for key, until_s in self._until_s.items() if until_s > now_s}
        self._until_s = old | dict.fromkeys(keys, math.inf)

    def at(self, now_s: float) -> tuple[str, ...]:
        return tuple(key for key, until_s in self._until_s.items() if until_s > now_s)


class Sandbox:
    """The mutable part of a sandbox; `reset` makes it as new, but for the keys."""

    def __init__(self, policy: SandboxPolicy) -> None:
        self.policy = policy
        self.keys = AcceptedKeys(policy.api_keys)
        self.reset()

    def reset(self) -> None:
        """Forget everything: documents, counters, what the limit has counted."""
        policy = self.policy
        self.store = Store(policy.seed)
        self.stats = Stats()
        self.limiter = make_limiter(policy.limit_kind, policy.limit) if policy.limit else None
        self._faults = random.Random(policy.seed)  # noqa: S311 - made to be predictable

    def next_fails(self) -> bool:
        """Decide whether the call at hand is answered with 503."""
        return self._faults.random() < self.policy.failure_rate


SANDBOX = web.AppKey("sandbox", Sandbox)
DIGEST = web.RequestKey("digest", RequestDigest)


def timestamp() -> str:
    """Return the time of day as the API writes it: ISO 8601, UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
