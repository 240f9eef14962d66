"""How soon a 429 closes the scope everywhere, by the clocks of the replicas (`FLEET_ARGS=--closures`).

All replicas send traces of all requests, whose spans tell when each request was sent, and when the head of its
response was read. All processes have the same clock. The upstream's limit changes every few seconds, so that there
are many closures. One proxy alone shows the error of the measurement, since it closes its scope at once.
"""

import asyncio
import contextlib
import math
import os
import statistics
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from fleet.load import KINDS, change_limit
from fleet.proxies import Fleet, fleet, load
from support.telemetry.otlp_collector import Collector, attributes, running_collector

if TYPE_CHECKING:
    from opentelemetry.proto.trace.v1.trace_pb2 import Span

_SECONDS = 60.0
_LIMITS = ("20/4s", "40/4s")
_CHANGE_EACH_S = 6.0
_TEST_S = 0.5
"""A refused request that is sent later than this after the closure, or after the last one, is the gate's test."""
_CLIENT = 3  # SPAN_KIND_CLIENT


class Attempt(NamedTuple):
    """A request that a replica sent, in Unix time."""

    sent_s: float
    answered_s: float
    status: int


@dataclass(frozen=True)
class Closure:
    began_s: float
    """When the first replica had the 429."""
    lasted_s: float
    """How long after it the last request was sent; 0: none was."""
    late: int
    """How many requests were sent."""


def closures(attempts: Iterable[Attempt]) -> list[Closure]:
    """Returns the closures of a scope. Each ends with the first admitted request that is sent after it."""
    instants = []
    for attempt in attempts:
        instants.append((attempt.sent_s, True, attempt.status))
        if attempt.status == 429:
            instants.append((attempt.answered_s, False, 429))
    found: list[Closure] = []
    is_closed, began_s, last_s, late = False, 0.0, -math.inf, 0
    for time_s, is_sent, status in sorted(instants):
        if not is_sent:
            if not is_closed:
                is_closed, began_s, last_s, late = True, time_s, time_s, 0
        elif is_closed and status == 429 and time_s - last_s <= _TEST_S:
            last_s, late = time_s, late + 1
        elif is_closed:
            found.append(Closure(began_s, last_s - began_s, late))
            is_closed = False
    if is_closed:
        found.append(Closure(began_s, last_s - began_s, late))
    return found


def _attempt(span: "Span") -> Attempt:
    status = attributes(span).get("http.response.status_code", 0)
    return Attempt(span.start_time_unix_nano / 1e9, span.end_time_unix_nano / 1e9, status)


@contextlib.contextmanager
def _collector() -> Iterator[Collector]:
    """Runs a collector in a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    context = running_collector()
    try:
        yield asyncio.run_coroutine_threadsafe(context.__aenter__(), loop).result()
        asyncio.run_coroutine_threadsafe(context.__aexit__(None, None, None), loop).result()
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def _change_again_and_again(own: Fleet, for_s: float) -> None:
    ends_at_s, number = time.monotonic() + for_s, 0
    while time.monotonic() < ends_at_s - _CHANGE_EACH_S:
        change_limit(own.upstream, _LIMITS[number % 2])
        number += 1
        time.sleep(_CHANGE_EACH_S)


def _measure(callers: list[int]) -> list[Closure]:
    with _collector() as collector:
        traces = ("--otlp-endpoint", str(collector.origin), "--otlp-share", "1")
        with fleet(len(callers), KINDS["window"][0], *traces, alone=len(callers) == 1) as own:
            act_for_s = _SECONDS - 1
            asyncio.run(load(own, callers, _SECONDS, lambda: _change_again_and_again(own, act_for_s), 0.0))
    return closures(_attempt(span) for span in collector.spans if span.kind == _CLIENT)


def main(replicas: list[int], rounds: int) -> None:
    """Prints the table."""
    columns = (
        "replicas",
        "callers",
        "runs",
        "closures",
        "of them with a later request",
        "time to the last request, median",
        "95th percentile",
        "most",
        "later requests",
        "load",
    )
    print("| " + " | ".join(columns) + " |\n" + "|---" * len(columns) + "|", flush=True)
    for callers in ([24], *([24 // count] * count for count in replicas), [100, 1]):
        found = []
        for _ in range(rounds):
            each = _measure(callers)
            found += each
            print(f"   {[round(1000 * one.lasted_s) for one in each]} ms", file=sys.stderr, flush=True)
        times_s = [closure.lasted_s for closure in found]
        cuts = statistics.quantiles(times_s, n=20) if len(times_s) > 1 else times_s * 19
        cells = [
            str(len(callers)),
            " and ".join(map(str, dict.fromkeys(callers))),
            str(rounds),
            str(len(found)),
            str(sum(closure.late > 0 for closure in found)),
            f"{1000 * statistics.median(times_s):.0f} ms",
            f"{1000 * cuts[18]:.0f} ms",
            f"{1000 * max(times_s):.0f} ms",
            str(sum(closure.late for closure in found)),
            f"{os.getloadavg()[0]:.0f}",
        ]
        print("| " + " | ".join(cells) + " |", flush=True)
