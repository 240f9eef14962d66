"""One sandbox's state, and the types that its handlers share."""

import hashlib
import math
import random
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

from aiohttp import web

from nanonets_proxy.sandbox.limiter import Limiter, make_limiter
from nanonets_proxy.sandbox.policy import OK, LimitRule, SandboxPolicy
from nanonets_proxy.sandbox.stats import Stats
from nanonets_proxy.sandbox.store import Store

MAX_REQUESTS: Final = 10_000
"""The number of requests that a sandbox remembers."""

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


@dataclass(frozen=True, slots=True)
class SeenRequest:
    """An API request that has ended. `status` is 0 if it got no response; `time` is its start, in Unix seconds."""

    method: str
    path: str
    """With the query, as it was sent."""
    status: int
    time: float


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
    """The mutable state of a sandbox. `reset` restores the initial state, except for keys and limit."""

    def __init__(self, policy: SandboxPolicy) -> None:
        self.policy = policy
        self.keys = AcceptedKeys(policy.api_keys)
        self.reset()

    def reset(self) -> None:
        """Deletes documents, counters and the rate limit's state. The faults begin anew."""
        policy = self.policy
        self.store = Store(policy.seed)
        self.stats = Stats()
        self.limiter = self._new_limiter()
        self.requests: deque[SeenRequest] = deque(maxlen=MAX_REQUESTS)
        """The last API requests, in the order in which they ended."""
        self._chance = random.Random(policy.seed)  # noqa: S311 - must be predictable
        self._faults = deque(policy.faults)

    def change_limit(self, limit: LimitRule | None) -> None:
        """Applies the rule from now on, and begins to count anew."""
        self.policy = replace(self.policy, limit=limit)
        self.limiter = self._new_limiter()

    def _new_limiter(self) -> Limiter | None:
        policy = self.policy
        return make_limiter(policy.limit_kind, policy.limit) if policy.limit else None

    def next_fault(self) -> str:
        """Decides what happens to the next admitted request: a status, `disconnect` or `ok`."""
        if self._faults:
            return self._faults.popleft()
        return "503" if self._chance.random() < self.policy.failure_rate else OK


SANDBOX = web.AppKey("sandbox", Sandbox)
DIGEST = web.RequestKey("digest", RequestDigest)


def timestamp() -> str:
    """Returns the current time in the API's format: ISO 8601, UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
