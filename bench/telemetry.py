"""Measures what the ledger, traces, metrics and viewers add to a small GET. `make bench-telemetry` (ROUNDS, RATE).

Each variant gets the same load at a fixed rate, in turns, each time in a new process on a core of its own. CPU time
is the kernel's accounting, by thread: the first one runs the event loop, and the others write log and ledger. The
collector is the upstream, which discards what it gets, or a port where nobody listens, or one that never responds.
ONLY names variants, separated by commas: `make bench-telemetry ONLY=default,everything RATE=1000 ROUNDS=10` takes
about two and a half minutes.
"""

import contextlib
import os
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto
from http.client import HTTPConnection
from pathlib import Path
from statistics import median
from typing import Final

from speed.load.closed_loop import load
from speed.load.open_loop import latencies_ms
from speed.peers import PEERS, Running, serving
from speed.processes import LOAD_CORE, free_port
from speed.requests import SMALL
from speed.upstream import upstreams

ROUNDS: Final = int(os.environ.get("ROUNDS", "5"))
RATE: Final = int(os.environ.get("RATE", "5000"))
DURATION_S: Final = 4
VIEWERS: Final = 20
_SCRAPE_S: Final = 5.0
_PREFIX: Final = "NANONETS_PROXY_"


class Collector(Enum):
    """What the proxy sends its traces to."""

    WELL = auto()
    GONE = auto()
    HANGING = auto()


@dataclass(frozen=True, slots=True)
class Variant:
    name: str
    ledger: bool = False
    traced: float = 0.0
    """The share of the requests that are traced."""
    watched: bool = False
    """With metrics for a collector and for a scraper, and with viewers of the dashboard."""
    collector: Collector = Collector.WELL

    def settings(self, home: Path, collector: str) -> dict[str, str]:
        found = {}
        if self.ledger:
            found["LEDGER"] = str(home / "usage.db")
        if self.traced:
            found |= {"OTLP_ENDPOINT": collector, "OTLP_SHARE": str(self.traced)}
        if self.watched:
            found |= {"OTLP_METRICS_ENDPOINT": collector, "OTLP_METRICS_INTERVAL": "5s"}
        return {_PREFIX + name: value for name, value in found.items()}


_ALL: Final = (
    Variant("default"),
    Variant("ledger", ledger=True),
    Variant("ledger + 10 % traced", ledger=True, traced=0.1),
    Variant("everything + 10 % traced", ledger=True, traced=0.1, watched=True),
    Variant("all traced", traced=1.0),
    Variant("everything", ledger=True, traced=1.0, watched=True),
    Variant("all traced; collector gone", traced=1.0, collector=Collector.GONE),
    Variant("all traced; collector hangs", traced=1.0, collector=Collector.HANGING),
)

_ONLY: Final = set(filter(None, os.environ.get("ONLY", "").split(",")))
VARIANTS: Final = tuple(variant for variant in _ALL if not _ONLY or variant.name in _ONLY)


def main() -> None:
    if unknown := _ONLY - {variant.name for variant in _ALL}:
        raise SystemExit(f"ONLY: no such variant: {', '.join(sorted(unknown))}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # ends all started processes
    os.sched_setaffinity(0, {LOAD_CORE})
    figures: dict[str, dict[str, list[float]]] = {variant.name: {} for variant in VARIANTS}
    with tempfile.TemporaryDirectory() as name, upstreams(Path(name)) as origins:
        for number in range(ROUNDS):
            first = number % len(VARIANTS)
            for variant in (*VARIANTS[first:], *VARIANTS[:first]):
                with tempfile.TemporaryDirectory() as home:
                    admin = free_port()
                    with (
                        _collector(variant.collector, origins.plain.url) as collector,
                        serving(
                            PEERS[0],
                            Path(home),
                            Path(home),
                            origins.plain,
                            variant.settings(Path(home), collector)
                            | {f"{_PREFIX}ADMIN_LISTEN": f"127.0.0.1:{admin}"},
                        ) as peer,
                        _watching(admin) if variant.watched else contextlib.nullcontext(),
                    ):
                        for figure, value in _measure(peer).items():
                            figures[variant.name].setdefault(figure, []).append(value)
            print(f"round {number + 1} of {ROUNDS}", flush=True)
    _print(figures)


def _measure(peer: Running) -> dict[str, float]:
    assert peer.process is not None
    load(peer.url, SMALL, connections=32, duration_s=1)
    before = _cpu_ns(peer.process.pid)
    found = latencies_ms(peer.url, RATE, DURATION_S)
    after = _cpu_ns(peer.process.pid)
    loop_us, others_us = (
        (end - begin) / 1e3 / (RATE * DURATION_S) for begin, end in zip(before, after, strict=True)
    )
    return {"loop, us": loop_us, "other threads, us": others_us, "sum, us": loop_us + others_us} | {
        f"{name.removesuffix('_ms')}, ms": value for name, value in found.items()
    }


def _cpu_ns(pid: int) -> tuple[int, int]:
    """Returns the CPU time of the first thread, and that of all others."""
    by_thread = {
        int(task.name): int((task / "schedstat").read_text().split()[0])
        for task in Path(f"/proc/{pid}/task").iterdir()
    }
    own = by_thread.pop(pid)
    return own, sum(by_thread.values())


@contextlib.contextmanager
def _collector(kind: Collector, well: str) -> Iterator[str]:
    """Yields the URL of a collector."""
    if kind is Collector.WELL:
        yield well
    elif kind is Collector.GONE:
        yield f"http://127.0.0.1:{free_port()}"
    else:
        with socket.create_server(("127.0.0.1", 0)) as hanging:  # accepted by the kernel, and nobody reads
            yield f"http://127.0.0.1:{hanging.getsockname()[1]}"


@contextlib.contextmanager
def _watching(port: int) -> Iterator[None]:
    """Keeps viewers of the dashboard, and scrapes the metrics at an interval."""
    ended = threading.Event()
    viewers = [socket.create_connection(("127.0.0.1", port)) for _ in range(VIEWERS)]
    threads = [threading.Thread(target=_view, args=(viewer,)) for viewer in viewers]
    threads.append(threading.Thread(target=_scrape, args=(port, ended)))
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        for viewer in viewers:
            viewer.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join()


def _view(viewer: socket.socket) -> None:
    with viewer:
        viewer.sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert viewer.recv(65536).startswith(b"HTTP/1.1 200 ")
        while viewer.recv(65536):
            pass


def _scrape(port: int, ended: threading.Event) -> None:
    while not ended.wait(_SCRAPE_S):
        connection = HTTPConnection("127.0.0.1", port)
        connection.request("GET", "/metrics")
        connection.getresponse().read()
        connection.close()


def _print(figures: dict[str, dict[str, list[float]]]) -> None:
    plain = figures[VARIANTS[0].name]
    print(f"\nMedians of {ROUNDS} rounds, small GETs at {RATE:,} requests a second.\n")
    print(f"{'':28}", *(f"{name:>18}" for name in plain))
    for name, own in figures.items():
        cells = []
        for figure, values in own.items():
            usual = median(values)
            cells.append(f"{usual:.2f} ({usual - median(plain[figure]):+.2f})")
        print(f"{name:28}", *(f"{cell:>18}" for cell in cells))
    sums = [median(own["sum, us"]) for own in figures.values()]
    shares = (f"{name} {total / sums[0] - 1:+.1%}" for name, total in zip(figures, sums, strict=True))
    print("\nCPU time:", ", ".join(shares))


if __name__ == "__main__":
    main()
