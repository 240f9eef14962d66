"""Load at a fixed rate: `python -m speed.load.open_loop ORIGIN RATE_PER_S DURATION_S` prints latency quantiles.

Each request is due at a fixed time, regardless of earlier responses, and its latency counts from that time.
A stall therefore shows in all requests that were due during it. A request without a response counts up to the end.
"""

import gc
import json
import select
import socket
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from speed.load.wire import response_bytes
from speed.processes import run_on_load_core
from speed.requests import SMALL
from speed.results import quantile

_CONNECTIONS: Final = 32
_OVERTIME: Final = 1.0
"""The longest extension of a run, as a share of its duration."""


def latencies_ms(origin: str, rate_per_s: int, duration_s: int) -> dict[str, float]:
    """Returns `p50_ms` and `p99_ms`, measured in a separate process."""
    command = [sys.executable, "-m", "speed.load.open_loop", origin, str(rate_per_s), str(duration_s)]
    found: dict[str, float] = json.loads(run_on_load_core(command))
    return found


@dataclass(eq=False, slots=True)
class _Caller:
    sock: socket.socket
    due_at_s: float = 0.0
    received: bytearray = field(default_factory=bytearray)

    def fileno(self) -> int:
        return self.sock.fileno()

    def has_response(self) -> bool:
        """Reads available bytes. Raises ConnectionError at the end, and BadResponse unless the status is 200."""
        data = self.sock.recv(65536)
        if not data:
            raise ConnectionError("the proxy closed a connection")
        self.received += data
        length = response_bytes(self.received)
        return length is not None and len(self.received) >= length


def run(origin: str, rate_per_s: int, duration_s: int) -> list[float]:
    """Returns the latency of each request, in seconds from its due time."""
    url = urlsplit(origin)
    idle = deque(_Caller(socket.create_connection((url.hostname, url.port))) for _ in range(_CONNECTIONS))
    for caller in idle:
        caller.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    wire = SMALL.head(url.netloc)
    count = rate_per_s * duration_s
    busy: set[_Caller] = set()
    taken_s: list[float] = []
    sent = 0
    started_at_s = time.perf_counter() + 0.01
    ends_s = started_at_s + duration_s * (1 + _OVERTIME)
    while len(taken_s) < count and (now_s := time.perf_counter()) < ends_s:
        while sent < count and idle and (due_at_s := started_at_s + sent / rate_per_s) <= now_s:
            caller = idle.popleft()
            caller.due_at_s = due_at_s
            caller.sock.sendall(wire)
            busy.add(caller)
            sent += 1
        next_s = started_at_s + sent / rate_per_s if sent < count and idle else ends_s
        # select, because poll and epoll round the timeout to milliseconds
        ready, _, _ = select.select(busy, (), (), max(0.0, next_s - time.perf_counter()))
        now_s = time.perf_counter()
        for caller in ready:
            if caller.has_response():
                taken_s.append(now_s - caller.due_at_s)
                caller.received.clear()
                busy.remove(caller)
                idle.append(caller)
    now_s = time.perf_counter()
    taken_s += [now_s - caller.due_at_s for caller in busy]
    taken_s += [max(0.0, now_s - started_at_s - number / rate_per_s) for number in range(sent, count)]
    return taken_s


def main(origin: str, rate_per_s: int, duration_s: int) -> None:
    gc.disable()
    taken_s = run(origin, rate_per_s, duration_s)
    print(json.dumps({"p50_ms": quantile(taken_s, 0.5) * 1e3, "p99_ms": quantile(taken_s, 0.99) * 1e3}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
