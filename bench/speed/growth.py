"""Measures how a request's CPU time grows with connections, waiting callers, header fields and body size.

Each measure returns microseconds by count.
"""

import time
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import accumulate, pairwise
from math import log
from typing import Final

from speed.load.persistent import held
from speed.measures import CONNECTIONS, cpu
from speed.peers import Running
from speed.processes import LoadFailed
from speed.requests import HEADERS, PREDICT, SMALL, Request, post, requests_served, succeeds

CONNECTION_COUNTS: Final = (1, 10, 100, 1_000, 10_000)
WAITING_COUNTS: Final = (0, 10, 100, 1_000, 10_000)
FIELD_COUNTS: Final = (4, 16, 64)
BODY_KIB: Final = (1, 16, 256, 1_024)
BYTES_EACH: Final = "bytes_each"

_FIELD_BYTES: Final = 24
_BUSY_S: Final = 1.0
"""The shortest measurement; each connection also completes at least one request."""
_PAUSE_S: Final = 0.1


def growth_factor(costs: Sequence[float]) -> float:
    """Returns the largest ratio of a point to an earlier point; 1 if the costs only fall."""
    lowest = accumulate(costs, min)
    return max(1.0, *(cost / least for cost, least in zip(costs, lowest, strict=True)))


def growth_exponent(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """Returns the largest exponent of growth between adjacent points; 1 is linear."""
    steps = pairwise(zip(sizes, costs, strict=True))
    return max(
        log(cost / cost_before) / log(size / size_before) for (size_before, cost_before), (size, cost) in steps
    )


def of_open_connections(peer: Running) -> dict[str, float]:
    """By open connections: at most 32 are busy, the others are idle after one request."""
    found = {}
    with ExitStack() as stack:
        idle = 0
        for count in CONNECTION_COUNTS:
            busy = min(CONNECTIONS, count)
            if more := count - busy - idle:
                stack.enter_context(held(peer.url, more, "idle"))
                idle += more
            found[str(count)] = cpu(peer, SMALL, busy)["cpu_us"]
    return found


def of_busy_connections(peer: Running) -> dict[str, float]:
    """By busy connections: each sends its next request as soon as it has a response."""
    found = {}
    for count in CONNECTION_COUNTS:
        with held(peer.url, count, "busy") as check:
            served, used_s = requests_served(peer.upstream.url), peer.cpu_s()
            enough_at_s, more = time.monotonic() + _BUSY_S, 0
            while more < count or time.monotonic() < enough_at_s:
                check()
                time.sleep(_PAUSE_S)
                more = requests_served(peer.upstream.url) - served
            found[str(count)] = (peer.cpu_s() - used_s) / more * 1e6
    return found


def of_waiting(peer: Running) -> dict[str, float]:
    """By callers that wait for another limit. `bytes_each` is the memory per caller at the largest count."""
    assert peer.process
    if not succeeds(peer.url, PREDICT):
        raise LoadFailed(f"the request for {PREDICT.path} failed")
    found = {}
    waiting, resident = 0, 0
    with ExitStack() as stack:
        for count in WAITING_COUNTS:
            if more := count - waiting:
                stack.enter_context(held(peer.url, more, "waiting"))
                waiting = count
                found[BYTES_EACH] = (peer.process.resident_bytes() - resident) / count
            found[str(count)] = cpu(peer, SMALL)["cpu_us"]
            resident = resident or peer.process.resident_bytes()
    return found


def of_fields(peer: Running) -> dict[str, float]:
    """By header fields of the request, including Host."""
    found = {}
    for count in FIELD_COUNTS:
        more = count - len(HEADERS) - 1
        request = Request(SMALL.path, headers=tuple((f"X-Field-{n:02}", "v" * _FIELD_BYTES) for n in range(more)))
        found[str(count)] = cpu(peer, request)["cpu_us"]
    return found


def of_bodies(peer: Running) -> dict[str, float]:
    """By KiB of a POST's body."""
    return {str(kib): cpu(peer, post(kib * 1024))["cpu_us"] for kib in BODY_KIB}
