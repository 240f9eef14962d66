"""Target plans: what the proxy derives from a method and a request target alone, computed once for each pair.

Callers repeat most targets: each poll has that of the poll before.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from nanonets_proxy.core.api.routes import route_of
from nanonets_proxy.core.http.target import loggable_target
from nanonets_proxy.core.ratelimit.scopes.scope_table import ScopeTable

# Bounds of the cache: at most 700 KB for each environment.
_MOST_PLANS: Final = 512
_MOST_CHARS: Final = 256


@dataclass(frozen=True, slots=True)
class TargetPlan:
    """The plan for the requests with one method and one target in origin form."""

    route: str
    scope: str
    loggable: str
    """The target for the log."""
    may_be_coalesced: bool
    """Whether identical requests share one upstream request, if they have no body."""
    start: bytes
    """The start of the upstream's request line, up to the target's end."""


def start_of_line(method: str, target: str) -> bytes:
    """Returns the start of a request line, up to the target's end."""
    return f"{method} {target}".encode()  # HeadReader has escaped all octets beyond ASCII


class TargetPlans(dict[tuple[str, str], TargetPlan]):
    """A cache that makes a plan when a method and a target are looked up first."""

    def __init__(self, scopes: ScopeTable, is_coalesced: Callable[[str], object]) -> None:
        """`is_coalesced` says whether GETs of a target are coalesced."""
        super().__init__()
        self._scopes = scopes
        self._is_coalesced = is_coalesced

    def __missing__(self, pair: tuple[str, str]) -> TargetPlan:
        method, target = pair
        plan = TargetPlan(
            route_of(target),
            self._scopes.classify(method, target),
            loggable_target(target),
            method == "GET" and bool(self._is_coalesced(target)),
            start_of_line(method, target),
        )
        if len(method) + len(target) <= _MOST_CHARS:
            if len(self) >= _MOST_PLANS:
                del self[next(iter(self))]  # the oldest: invented targets must not keep usual ones out for ever
            self[pair] = plan
        return plan
