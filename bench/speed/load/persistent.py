"""Many persistent callers: `python -m speed.load.persistent URL COUNT idle|waiting|busy`.

It runs until standard input ends. `idle` callers have received a response and keep their connections open.
`waiting` callers have sent a request and wait for its response. `busy` callers send their next request as soon as
they have a response; they are ready after COUNT responses. wrk would connect all of them at once, and overflow the
listener's backlog.
"""

import resource
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final
from urllib.parse import urlsplit

from speed.load.wire import response_bytes
from speed.processes import LOAD_CORE, LoadFailed, last_line, on_core
from speed.requests import PREDICT, SMALL

_ADDRESSES: Final = 16
_BURST: Final = 20
"""Callers connect in bursts: all at once would overflow the backlog, and one after another would take minutes."""
_PAUSE_S: Final = 0.01
"""The pause after a burst of waiting callers. Other callers wait for their responses."""
_CHECK_AFTER_S: Final = 0.5
_PATIENCE_S: Final = 60.0
_END_S: Final = 20.0
_RESET: Final = b"\x01\x00\x00\x00\x00\x00\x00\x00"
"""SO_LINGER with 0 seconds: closing a connection frees its port at once."""


@contextmanager
def held(url: str, count: int, kind: str) -> Iterator[Callable[[], None]]:
    """Keeps `count` callers connected during the block, and yields a check of them.

    Both the check and the end of the block raise LoadFailed if a caller has failed.
    """
    command = on_core(LOAD_CORE, [sys.executable, "-m", "speed.load.persistent", url, str(count), kind])
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdin
    assert process.stdout
    assert process.stderr

    def failed() -> LoadFailed:
        assert process.stderr
        return LoadFailed(f"{count:,} {kind} callers: {last_line(process.stderr.read())}")

    def check() -> None:
        if process.poll() is not None:
            raise failed()

    try:
        if process.stdout.readline() != b"ready\n":
            raise failed()
        yield check
        check()
    finally:
        process.stdin.close()
        try:
            process.wait(_END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
        process.stderr.close()


def _connected(host: str, port: int, number: int) -> socket.socket:
    """Connects from one of several source addresses, to have enough ports."""
    source = f"127.0.1.{number % _ADDRESSES + 1}"
    sock = socket.create_connection((host, port), timeout=_PATIENCE_S, source_address=(source, 0))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    return sock


def _received(sock: socket.socket) -> bytes:
    data = sock.recv(65536)
    if not data:
        raise ConnectionError("the proxy closed a connection")
    return data


def _read_response(sock: socket.socket) -> None:
    received = b""
    while (length := response_bytes(received)) is None or len(received) < length:
        received += _received(sock)


def _any_readable(callers: Sequence[socket.socket]) -> bool:
    """Returns whether a caller has received bytes or lost its connection."""
    poll = select.poll()
    for sock in callers:
        poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))


def _report_ready() -> None:
    sys.stdout.write("ready\n")
    sys.stdout.flush()


def _keep_busy(callers: Sequence[socket.socket], wire: bytes) -> None:
    """Keeps all callers busy until standard input ends."""
    poll = select.epoll()
    poll.register(sys.stdin.fileno(), select.EPOLLIN | select.EPOLLHUP)
    by_file = {sock.fileno(): sock for sock in callers}
    received = dict.fromkeys(by_file, b"")
    for file, sock in by_file.items():
        poll.register(file, select.EPOLLIN)
        sock.sendall(wire)
    responses = 0
    while True:
        ready = poll.poll(_PATIENCE_S)
        if not ready:
            raise TimeoutError(f"no caller received a response for {_PATIENCE_S:.0f} s")
        for file, _ in ready:
            if file == sys.stdin.fileno():
                return
            so_far = received[file] + _received(by_file[file])
            length = response_bytes(so_far)
            complete = length is not None and len(so_far) >= length
            received[file] = b"" if complete else so_far
            if complete:
                by_file[file].sendall(wire)
                responses += 1
                if responses == len(callers):
                    _report_ready()


def main(url: str, count: int, kind: str) -> None:
    max_files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (max_files, max_files))
    parts = urlsplit(url)
    assert parts.hostname
    assert parts.port
    request = PREDICT if kind == "waiting" else SMALL
    wire = request.head(parts.netloc) + b"x" * request.body_bytes
    callers: list[socket.socket] = []
    for first in range(0, count, _BURST):
        burst = [
            _connected(parts.hostname, parts.port, number) for number in range(first, min(first + _BURST, count))
        ]
        for sock in burst:
            sock.sendall(wire)
        if kind == "waiting":
            time.sleep(_PAUSE_S)
        else:
            for sock in burst:
                _read_response(sock)
        callers += burst
    if kind == "busy":
        _keep_busy(callers, wire)
    else:
        time.sleep(_CHECK_AFTER_S)
        if _any_readable(callers):
            raise RuntimeError(f"a {kind} caller received a response or lost its connection")
        _report_ready()
        sys.stdin.read()
    for sock in callers:
        sock.close()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
