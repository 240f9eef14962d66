"""The cases: each has a measure, a stage of a round, and the peers to measure."""

from dataclasses import dataclass
from typing import Final

from speed import growth
from speed.measures import Measure, bulk, cpu_of, idle_memory, latency_at, start, unused_imports
from speed.peers import DIRECT, OURS, PEERS
from speed.requests import LARGE, SMALL, post
from speed.stages import BULK, GROWTH, IDLE, IMPORTS, LIMITED, PLAIN, START, TLS, Stage

_ALL: Final = frozenset(peer.name for peer in PEERS)
_AND_DIRECT: Final = _ALL | {DIRECT}
_NO_MITMPROXY: Final = _ALL - {"mitmproxy"}
"""mitmproxy would take minutes."""
_OURS: Final = frozenset({OURS})
_OURS_AND_ENVOY: Final = _OURS | {"Envoy"}


@dataclass(frozen=True, slots=True)
class Case:
    """BENCH_ONLY and the results refer to a case by `name`."""

    name: str
    title: str
    stage: Stage
    measure: Measure
    of: frozenset[str] = _ALL


CASES: Final = (
    Case("start", "start", START, start),
    Case("imports", "imports", IMPORTS, unused_imports, _OURS),
    Case("small_get", "small GET", PLAIN, cpu_of(SMALL), _AND_DIRECT),
    Case("post_1k", "POST of 1 KiB", PLAIN, cpu_of(post(1024))),
    Case("post_64k", "POST of 64 KiB", PLAIN, cpu_of(post(64 * 1024))),
    Case("get_64k", "response of 64 KiB", PLAIN, cpu_of(LARGE)),
    Case("latency_200", "200 requests a second", PLAIN, latency_at(200), _AND_DIRECT),
    Case("latency_1000", "1,000 requests a second", PLAIN, latency_at(1_000), _AND_DIRECT),
    Case("small_get_tls", "small GET, TLS upstream", TLS, cpu_of(SMALL)),
    Case("bulk_up", "upload of 1 GiB", BULK, bulk("up"), _AND_DIRECT),
    Case("bulk_down", "download of 1 GiB", BULK, bulk("down"), _AND_DIRECT),
    Case("idle", "idle connections", IDLE, idle_memory, _NO_MITMPROXY),
    Case("growth_fields", "header fields", GROWTH, growth.of_fields, _OURS_AND_ENVOY),
    Case("growth_bodies", "body of a POST, KiB", GROWTH, growth.of_bodies, _OURS_AND_ENVOY),
    Case("growth_open", "open connections, 32 busy", GROWTH, growth.of_open_connections, _OURS),
    Case("growth_busy", "busy connections", GROWTH, growth.of_busy_connections, _OURS_AND_ENVOY),
    Case("growth_waiting", "waiting callers", LIMITED, growth.of_waiting, _OURS),
)
