"""What is measured of a running peer, and what ours is held to."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from speed.closed_loop import load
from speed.peers import Running
from speed.requests import SMALL, Request

CONNECTIONS: Final = 32


@dataclass(frozen=True, slots=True)
class Case:
    """`measure` gives figures by quantity, such as cpu_us; it is asked once a round of each peer."""

    name: str
    title: str
    measure: Callable[[Running, int], Mapping[str, float]]
    """Gets the peer and the length of a window in whole seconds."""
    tls: bool = False
    at_most: Mapping[str, float] = field(default_factory=dict)
    """Our CPU time a request, as a multiple of a peer's."""


def cpu_per_request(
    request: Request, *, connections: int = CONNECTIONS
) -> Callable[[Running, int], dict[str, float]]:
    """CPU microseconds of the peer's process tree for each request, and requests a second, in a closed loop."""

    def measure(peer: Running, window_s: int) -> dict[str, float]:
        before_s = peer.cpu_s()
        loaded = load(peer.origin, request, connections=connections, duration_s=window_s)
        used_s = peer.cpu_s() - before_s
        if loaded.failed > loaded.requests / 1000:
            raise RuntimeError(
                f"{loaded.failed} of {loaded.requests + loaded.failed} requests failed at {peer.origin}"
            )
        return {"cpu_us": used_s / loaded.requests * 1e6, "per_s": loaded.per_s}

    return measure


CASES: Final = (
    Case(
        "small_get",
        "small GET",
        cpu_per_request(SMALL),
        at_most={"Envoy": 1.0, "Caddy": 0.6, "nginx": 3.0, "aiohttp recipe": 0.35},
    ),
    Case(
        "small_get_tls",
        "small GET, TLS upstream",
        cpu_per_request(SMALL),
        tls=True,
        at_most={"Envoy": 1.1, "Caddy": 0.6},
    ),
)
