"""The targets for this proxy, and whether the figures meet them."""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Final, TypeAlias

from speed import growth
from speed.peers import DIRECT, OURS, RECIPE
from speed.results import Samples


@dataclass(frozen=True, slots=True)
class Target:
    """A bound for a figure of a case. `figure` returns None without samples of this proxy, or of the other peer."""

    title: str
    case: str
    bound: float
    unit: str
    _figure: "_Figure"
    at_least: bool = False

    def figure(self, samples: Samples) -> float | None:
        return self._figure(samples, self.case)

    def met(self, figure: float) -> bool:
        return figure >= self.bound if self.at_least else figure <= self.bound


_Figure: TypeAlias = Callable[[Samples, str], float | None]
"""Returns a figure of the case with this name."""


def _ratio(peer: str, quantity: str) -> _Figure:
    def figure(samples: Samples, case: str) -> float | None:
        ours, theirs = samples.median(case, OURS, quantity), samples.median(case, peer, quantity)
        return ours / theirs if ours is not None and theirs else None

    return figure


def _ours(quantity: str, scale: float = 1.0) -> _Figure:
    def figure(samples: Samples, case: str) -> float | None:
        ours = samples.median(case, OURS, quantity)
        return ours and ours * scale

    return figure


def _added(quantity: str) -> _Figure:
    """Returns the excess over `no proxy` in the same round."""

    def figure(samples: Samples, case: str) -> float | None:
        ours, direct = (samples.by_round(case, peer, quantity) for peer in (OURS, DIRECT))
        added = [ours[number] - direct[number] for number in ours.keys() & direct.keys()]
        return median(added) if added else None

    return figure


def _factor(samples: Samples, case: str) -> float | None:
    costs = samples.points(case, OURS)
    return growth.growth_factor(list(costs.values())) if costs else None


def _exponent(samples: Samples, case: str) -> float | None:
    costs = samples.points(case, OURS)
    return growth.growth_exponent(list(costs), list(costs.values())) if costs else None


def _cpu(case: str, title: str, **bounds: float) -> list[Target]:
    names = {"recipe": RECIPE}
    return [
        Target(
            f"{title}: CPU per request",
            case,
            bound,
            f"x {names.get(peer, peer)}",
            _ratio(names.get(peer, peer), "cpu_us"),
        )
        for peer, bound in bounds.items()
    ]


def _bulk(case: str, title: str) -> list[Target]:
    return [
        Target(f"{title}: throughput", case, 0.5, "x nginx", _ratio("nginx", "mib_per_s"), at_least=True),
        Target(f"{title}: growth of resident memory", case, 16, "MiB", _ours("growth_mib")),
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
    Target("1,000 requests per second: median over no proxy", "latency_1000", 0.25, "ms", _added("p50_ms")),
    Target("1,000 requests per second: p99 over no proxy", "latency_1000", 1.5, "ms", _added("p99_ms")),
    Target("10,000 idle connections: memory per connection", "idle", 12, "KiB", _ours("bytes_each", 1 / 1024)),
    Target(
        "10,000 waiting callers: memory per caller",
        "growth_waiting",
        16,
        "KiB",
        _ours(growth.BYTES_EACH, 1 / 1024),
    ),
    Target("start to first response", "start", 0.5, "s", _ours("ready_s")),
    Target("imported packages of unused extras", "imports", 0, "", _ours("extras")),
    Target("resident memory after start", "start", 48, "MiB", _ours("resident_mib")),
    Target("CPU per request, 1 to 10,000 connections, 32 busy: growth", "growth_open", _FLAT, "x", _factor),
    Target("CPU per request, 1 to 10,000 connections, all busy: growth", "growth_busy", _FLAT, "x", _factor),
    Target("CPU per request, 0 to 10,000 waiting: growth", "growth_waiting", _FLAT, "x", _factor),
    Target("CPU per request, 4 to 64 header fields: growth", "growth_fields", _FLAT, "x", _factor),
    Target("CPU per request, body of 1 KiB to 1 MiB: exponent of growth", "growth_bodies", 1.0, "", _exponent),
)
