"""One sandbox's state, and the types that its handlers share."""

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
class Operation:
    """An operation of the API: `path` is a route, `summary` a line for the sandbox's page."""

    method: str
    path: str
    handler: Handler
    summary: str


class RequestDigest:
    """A hash of one request's method, target and decoded body."""

    def __init__(self, method: str, target: str) -> None:
        self._hash = hashlib.sha256()
        self.add(f"{method} {target}")

    def add(self, piece: str | bytes) -> None:
        """Adds the next piece of the body."""
        # surrogatepass: aiohttp decodes invalid UTF-8 to lone surrogates.
        self._hash.update(piece if isinstance(piece, bytes) else piece.encode("utf-8", "surrogatepass"))
        self._hash.update(b"\n")

    def value(self) -> bytes:
        return self._hash.digest()


class AcceptedKeys:
    """The accepted keys; replaced keys stay valid for a grace time."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._until_s: dict[str, float] = dict.fromkeys(keys, math.inf)

    def replace(self, keys: Sequence[str], grace_s: float, now_s: float) -> None:
        """Accepts `keys` from now on, and the previous keys for at most `grace_s` more seconds."""
        ending_s = now_s + grace_s
        old = {key: min(until_s, ending_s) for key, until_s in self._until_s.items() if until_s > now_s}
        self._until_s = old | dict.fromkeys(keys, math.inf)

    def at(self, now_s: float) -> tuple[str, ...]:
        return tuple(key for key, until_s in self._until_s.items() if until_s > now_s)


class Sandbox:
    """The mutable state of a sandbox. `reset` restores the initial state, except for the keys."""

    def __init__(self, policy: SandboxPolicy) -> None:
        self.policy = policy
        self.keys = AcceptedKeys(policy.api_keys)
        self.reset()

    def reset(self) -> None:
        """Deletes documents, counters and the rate limit's state."""
        policy = self.policy
        self.store = Store(policy.seed)
        self.stats = Stats()
        self.limiter = make_limiter(policy.limit_kind, policy.limit) if policy.limit else None
        self._faults = random.Random(policy.seed)  # noqa: S311 - must be predictable

    def next_request_fails(self) -> bool:
        """Decides whether the next admitted request gets a 503."""
        return self._faults.random() < self.policy.failure_rate


SANDBOX = web.AppKey("sandbox", Sandbox)
DIGEST = web.RequestKey("digest", RequestDigest)


def timestamp() -> str:
    """Returns the current time in the API's format: ISO 8601, UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
