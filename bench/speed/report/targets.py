"""The targets for this proxy, and whether the figures meet them."""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Final

from speed import growth
from speed.peers import DIRECT, OURS, RECIPE
from speed.results import Samples


@dataclass(frozen=True, slots=True)
class Target:
    """A bound for a figure. `figure` returns None if nothing was measured."""

    title: str
    bound: float
    unit: str
    figure: Callable[[Samples], float | None]
    at_least: bool = False

    def met(self, figure: float) -> bool:
        return figure >= self.bound if self.at_least else figure <= self.bound


def _ratio(case: str, peer: str, quantity: str) -> Callable[[Samples], float | None]:
    def figure(samples: Samples) -> float | None:
        ours, theirs = samples.median(case, OURS, quantity), samples.median(case, peer, quantity)
        return ours / theirs if ours is not None and theirs else None

    return figure


def _ours(case: str, quantity: str, scale: float = 1.0) -> Callable[[Samples], float | None]:
    def figure(samples: Samples) -> float | None:
        ours = samples.median(case, OURS, quantity)
        return ours and ours * scale

    return figure


def _added(case: str, quantity: str) -> Callable[[Samples], float | None]:
    """Returns the excess over `no proxy` in the same round."""

    def figure(samples: Samples) -> float | None:
        pairs = zip(samples.all(case, OURS, quantity), samples.all(case, DIRECT, quantity), strict=False)
        added = [ours - direct for ours, direct in pairs]
        return median(added) if added else None

    return figure


def _grows(case: str) -> Callable[[Samples], float | None]:
    """Returns the growth as a factor."""

    def figure(samples: Samples) -> float | None:
        costs = samples.points(case, OURS)
        return growth.growth_factor(list(costs.values())) if costs else None

    return figure


def _order(case: str) -> Callable[[Samples], float | None]:
    def figure(samples: Samples) -> float | None:
        costs = samples.points(case, OURS)
        return growth.growth_exponent(list(costs), list(costs.values())) if costs else None

    return figure


def _cpu(case: str, title: str, **bounds: float) -> list[Target]:
    names = {"recipe": RECIPE}
    return [
        Target(
            f"{title}: CPU per request",
            bound,
            f"x {names.get(peer, peer)}",
            _ratio(case, names.get(peer, peer), "cpu_us"),
        )
        for peer, bound in bounds.items()
    ]


def _bulk(case: str, title: str) -> list[Target]:
    return [
        Target(f"{title}: throughput", 0.5, "x nginx", _ratio(case, "nginx", "mib_per_s"), at_least=True),
        Target(f"{title}: growth of resident memory", 16, "MiB", _ours(case, "growth_mib")),
    ]


_FLAT: Final = 1.2

TARGETS: Final = (
    *_cpu("small_get", "small GET", Envoy=1.0, Caddy=0.6, nginx=3.0, recipe=0.35),
    *_cpu("small_get_tls", "small GET, TLS upstream", Envoy=1.1, Caddy=0.6),
    *_cpu("post_1k", "POST of 1 KiB", Envoy=1.2),
    *_cpu("post_64k", "POST of 64 KiB", Envoy=1.2),
    *_cpu("get_64k", "response of 64 KiB", Envoy=1.2),
    *_bulk("bulk_up", "upload of 1 GiB"),
    *_bulk("bulk_down", "download of 1 GiB"),
    Target("1,000 requests per second: median over no proxy", 0.25, "ms", _added("latency_1000", "p50_ms")),
    Target("1,000 requests per second: p99 over no proxy", 1.5, "ms", _added("latency_1000", "p99_ms")),
    Target("10,000 idle connections: memory per connection", 12, "KiB", _ours("idle", "bytes_each", 1 / 1024)),
    Target(
        "10,000 waiting callers: memory per caller",
        16,
        "KiB",
        _ours("growth_waiting", growth.BYTES_EACH, 1 / 1024),
    ),
    Target("start to first response", 0.5, "s", _ours("start", "ready_s")),
    Target("imported packages of unused extras", 0, "", _ours("imports", "extras")),
    Target("resident memory after start", 48, "MiB", _ours("start", "resident_mib")),
    Target("CPU per request, 1 to 10,000 connections, 32 busy: growth", _FLAT, "x", _grows("growth_open")),
    Target("CPU per request, 1 to 10,000 connections, all busy: growth", _FLAT, "x", _grows("growth_busy")),
    Target("CPU per request, 0 to 10,000 waiting: growth", _FLAT, "x", _grows("growth_waiting")),
    Target("CPU per request, 4 to 64 header fields: growth", _FLAT, "x", _grows("growth_fields")),
    Target("CPU per request, body of 1 KiB to 1 MiB: exponent of growth", 1.0, "", _order("growth_bodies")),
)
