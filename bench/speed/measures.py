"""The measures of a running peer. Each returns figures by quantity."""

from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

from speed.load.bulk import transfer
from speed.load.closed_loop import load
from speed.load.open_loop import latencies_ms
from speed.load.persistent import held
from speed.peers import OURS, Running
from speed.requests import HUGE_BYTES, Request
from speed.stages import EXTRAS

Measure: TypeAlias = Callable[[Running], Mapping[str, float]]

CONNECTIONS: Final = 32
WINDOW_S: Final = 1
LATENCY_S: Final = 2

IDLE_CONNECTIONS: Final = 10_000
IDLE_CONNECTIONS_OF_OTHERS: Final = 2_000
"""Fewer, to save time: the memory per connection does not depend on the count."""


def cpu(peer: Running, request: Request, connections: int = CONNECTIONS) -> dict[str, float]:
    """Returns `cpu_us` of the process tree per request, and requests `per_s`, in a closed loop."""
    before_s = peer.cpu_s()
    loaded = load(peer.url, request, connections=connections, duration_s=WINDOW_S)
    used_s = peer.cpu_s() - before_s
    return {"per_s": loaded.per_s, **({"cpu_us": used_s / loaded.requests * 1e6} if peer.process else {})}


def cpu_of(request: Request) -> Measure:
    return lambda peer: cpu(peer, request)


def latency_at(rate_per_s: int) -> Measure:
    """Measures `p50_ms` and `p99_ms` of small GETs that are due at fixed times."""
    return lambda peer: latencies_ms(peer.url, rate_per_s, LATENCY_S)


def bulk(direction: str) -> Measure:
    """Measures a body of 1 GiB: `mib_per_s`, `cpu_s`, and `growth_mib`, the peak growth of resident memory."""

    def measure(peer: Running) -> dict[str, float]:
        cpu_before_s = peer.cpu_s()
        resident_before = peer.process.reset_peak() if peer.process else 0
        taken_s = transfer(direction, peer.url)
        found = {"mib_per_s": HUGE_BYTES / 2**20 / taken_s}
        if peer.process:
            found["cpu_s"] = peer.cpu_s() - cpu_before_s
            found["growth_mib"] = (peer.process.peak_bytes() - resident_before) / 2**20
        return found

    return measure


def start(peer: Running) -> dict[str, float]:
    """Returns `ready_s`, from the command's start to its first response, and `resident_mib` then."""
    assert peer.process
    return {"ready_s": peer.ready_after_s, "resident_mib": peer.process.resident_bytes() / 2**20}


def unused_imports(peer: Running) -> dict[str, float]:
    """Returns the number of imported `extras`, and of all imported `modules`."""
    assert peer.process
    names = [
        line.rpartition("|")[2].strip()
        for line in peer.process.log.read_text().splitlines()
        if line.startswith("import time:")
    ]
    return {"extras": sum(name.partition(".")[0] in EXTRAS for name in names), "modules": len(names)}


def idle_memory(peer: Running) -> dict[str, float]:
    """Returns `bytes_each`: resident memory per idle connection, after one response on each."""
    assert peer.process
    count = IDLE_CONNECTIONS if peer.name == OURS else IDLE_CONNECTIONS_OF_OTHERS
    before = peer.process.resident_bytes()
    with held(peer.url, count, "idle"):
        return {"bytes_each": (peer.process.resident_bytes() - before) / count}
