"""Restarts the real proxy again and again under load, and counts the responses that callers get.

`make bench-restart` runs it in full: 50 restarts under 1,000 requests a second. RESTARTS and RATE change that.
Another process of the machine that takes its CPU time makes calls queue up, and the load then sends fewer.
"""

import asyncio
import contextlib
import os
import resource
import socket
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator
from http.client import HTTPConnection
from threading import Thread
from typing import Final, cast

import uvloop

from speed.load.wire import content_length, split_head
from support.commands.restarts import replaceable_proxy, restarted

RESTARTS: Final = int(os.environ.get("RESTARTS", "50"))
RATE: Final = int(os.environ.get("RATE", "1000"))
_GAP_S: Final = 1.0
_MOST_OPEN: Final = 4000
_LAST_S: Final = 30.0

_GET: Final = b"GET /api/v4/workflows HTTP/1.1\r\nHost: localhost\r\n"
_POST: Final = b"POST /api/v4/workflows HTTP/1.1\r\nHost: localhost\r\nContent-Length: 20\r\n"
_BODY: Final = b'{"description": "x"}'
_RESPONSE: Final = (
    b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 17\r\n\r\n{"workflows": []}'
)

_LATE_S: Final = 0.2
"""The delay of the first request of some new connections, which are accepted and unread meanwhile."""
_REST_S: Final = 3.0
"""Some connections rest that long between two requests, so that they are idle during a restart."""


class _Upstream(asyncio.Protocol):
    """Responds to each whole request."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._received = b""

    def data_received(self, data: bytes) -> None:
        self._received += data
        while (found := split_head(self._received)) is not None:
            end = found[1] + (content_length(found[0]) or 0)
            if len(self._received) < end:
                return
            self._received = self._received[end:]
            self._transport.write(_RESPONSE)


class _Caller(asyncio.Protocol):
    """One connection; the load gives it a request at a time."""

    def __init__(self, load: "_Load") -> None:
        self._load = load
        self._received = b""
        self.rests_until_s = self.sent_s = 0.0
        self.is_busy = False
        self.may_stay = True
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def send(self, number: int) -> None:
        self.is_busy, self.sent_s = True, time.monotonic()
        if self.transport is None:
            self._load.end(self, "closed before its request")
            return
        self.may_stay = number % 10 != 0
        head, body = (_POST, _BODY) if number % 3 == 0 else (_GET, b"")
        self.transport.write(head + (b"\r\n" if self.may_stay else b"Connection: close\r\n\r\n") + body)

    def data_received(self, data: bytes) -> None:
        self._received += data
        found = split_head(self._received)
        if found is None or len(self._received) < found[1] + (content_length(found[0]) or 0):
            return
        self._received = b""
        self.may_stay = self.may_stay and b"connection: close" not in found[0].lower()
        self._load.end(self, found[0][9:12].decode())

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        if self.is_busy:
            self._load.end(self, type(exc).__name__ if exc else "closed without a response")


class _Load:
    """GETs and POSTs at a fixed rate, on kept connections, resting ones, and new ones for one call in ten."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address
        self._idle: deque[_Caller] = deque()
        self._resting: deque[_Caller] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._open = 0
        self._has_ended = asyncio.Event()
        self.outcomes: Counter[str] = Counter()
        self.slowest_s = 0.0

    def end(self, caller: _Caller, outcome: str) -> None:
        """Counts the outcome of the caller's request."""
        caller.is_busy = False
        self._open -= 1
        self._has_ended.set()
        self.outcomes[outcome] += 1
        self.slowest_s = max(self.slowest_s, time.monotonic() - caller.sent_s)
        if caller.transport is None:
            return
        if not caller.may_stay:
            caller.transport.close()
        elif len(self._resting) < RATE // 4:
            caller.rests_until_s = time.monotonic() + _REST_S
            self._resting.append(caller)
        else:
            self._idle.append(caller)

    async def run(self, is_over: asyncio.Event) -> None:
        sent, began_s = 0, time.monotonic()
        while not is_over.is_set():
            now_s = time.monotonic()
            due = int((now_s - began_s) * RATE)
            for number in range(sent, due):
                self._call(number, now_s)
            sent = due
            await asyncio.sleep(0.002)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST_S):
                while self._open:
                    self._has_ended.clear()
                    await self._has_ended.wait()
        self.outcomes["no response"] += self._open

    def _call(self, number: int, now_s: float) -> None:
        if self._open >= _MOST_OPEN:
            self.outcomes["not sent, because too many wait"] += 1
            return
        self._open += 1
        if number % 10 == 0 or (caller := self._kept(now_s)) is None:
            task = asyncio.get_running_loop().create_task(self._call_anew(number))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        else:
            caller.send(number)

    def _kept(self, now_s: float) -> _Caller | None:
        for callers in (self._resting, self._idle):
            while callers and callers[0].rests_until_s <= now_s:
                caller = callers.popleft()
                if caller.transport is not None:  # a client notices that an idle connection has ended
                    return caller
        return None

    async def _call_anew(self, number: int) -> None:
        caller = _Caller(self)
        try:
            await asyncio.get_running_loop().create_connection(lambda: caller, *self._address)
        except OSError as error:
            self.end(caller, type(error).__name__)
            return
        if number % 50 == 0:
            await asyncio.sleep(_LATE_S)
        caller.send(number)


@contextlib.contextmanager
def _upstream() -> Iterator[str]:
    """Runs the upstream in a thread during the block, and yields its URL."""
    loop = uvloop.new_event_loop()
    sock = socket.create_server(("127.0.0.1", 0), backlog=1024)
    loop.run_until_complete(loop.create_server(_Upstream, sock=sock, backlog=1024))
    thread = Thread(target=loop.run_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{sock.getsockname()[1]}"
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


def _responds(address: tuple[str, int]) -> bool:
    connection = HTTPConnection(*address, timeout=30)
    connection.request("GET", "/api/v4/workflows", headers={"Connection": "close"})
    return connection.getresponse().status == 200


def main() -> int:
    """Returns 1 if a call failed."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with _upstream() as upstream, replaceable_proxy(upstream, "--log-successes", "0") as proxy:
        host, _, port = proxy.url.removeprefix("http://").rpartition(":")
        assert _responds((host, int(port)))
        load, took_s = _Load((host, int(port))), []

        def restart() -> None:
            began_s = time.monotonic()
            restarted(proxy)
            took_s.append(time.monotonic() - began_s)

        async def run() -> None:
            is_over = asyncio.Event()
            calls = asyncio.create_task(load.run(is_over))
            for _ in range(RESTARTS):
                await asyncio.sleep(_GAP_S)
                await asyncio.to_thread(restart)
            is_over.set()
            await calls

        uvloop.run(run())
    outcomes = +load.outcomes
    print(
        f"{RESTARTS} restarts, {outcomes.total()} calls: {dict(outcomes)}; "
        f"slowest restart {max(took_s):.1f} s, slowest call {load.slowest_s:.1f} s"
    )
    return int(set(outcomes) != {"200"})


if __name__ == "__main__":
    sys.exit(main())
