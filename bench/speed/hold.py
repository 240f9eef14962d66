"""Many callers that stay: `python -m speed.hold URL COUNT idle|waiting|busy`, until its standard input ends.

`idle` ones have had an answer each and keep their connection. `waiting` ones have sent a request and wait. `busy`
ones ask as soon as they have their answer, and have had one each since all were there: wrk would connect all at the
same time, and overflow the listener's backlog.
"""

import resource
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final
from urllib.parse import urlsplit

from speed.processes import LOAD_CORE, on_core
from speed.requests import PREDICT, SMALL
from speed.wire import answer_bytes

_ADDRESSES: Final = 16
_BURST: Final = 20
_PAUSE_S: Final = 0.01
"""Between bursts of those that wait for no answer, so that no backlog overflows either."""
_SETTLE_S: Final = 0.5
_PATIENCE_S: Final = 60.0
_END_S: Final = 20.0
_RESET: Final = b"\x01\x00\x00\x00\x00\x00\x00\x00"
"""SO_LINGER for no time at all: the connection's port is free at once."""


@contextmanager
def held(url: str, count: int, kind: str) -> Iterator[None]:
    """As long as it is entered, `count` callers are connected. Raises RuntimeError if they cannot be."""
    command = on_core(LOAD_CORE, [sys.executable, "-m", "speed.hold", url, str(count), kind])
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin
    assert process.stdout
    try:
        if process.stdout.readline() != b"ready\n":
            raise RuntimeError(f"{count} callers, {kind}, could not connect to {url}")
        yield
        if process.poll() is not None:
            raise RuntimeError(f"{count} callers, {kind}, did not last")
    finally:
        process.stdin.close()
        try:
            process.wait(_END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


def _connected(host: str, port: int, number: int) -> socket.socket:
    """From one of several addresses, so that ports last."""
    source = f"127.0.1.{number % _ADDRESSES + 1}"
    sock = socket.create_connection((host, port), timeout=_PATIENCE_S, source_address=(source, 0))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    return sock


def _received(sock: socket.socket) -> bytes:
    data = sock.recv(65536)
    if not data:
        raise ConnectionError("the proxy closed a connection")
    return data


def _one_answer(sock: socket.socket) -> None:
    received = b""
    while (length := answer_bytes(received)) is None or len(received) < length:
        received += _received(sock)


def _something_came(callers: Sequence[socket.socket]) -> bool:
    """Whether one of them has an answer to read, or lost its connection."""
    poll = select.poll()
    for sock in callers:
        poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))


def _say_ready() -> None:
    sys.stdout.write("ready\n")
    sys.stdout.flush()


def _keep_busy(callers: Sequence[socket.socket], wire: bytes) -> None:
    """Until standard input ends."""
    poll = select.epoll()
    poll.register(sys.stdin.fileno(), select.EPOLLIN | select.EPOLLHUP)
    by_file = {sock.fileno(): sock for sock in callers}
    received = dict.fromkeys(by_file, b"")
    for file, sock in by_file.items():
        poll.register(file, select.EPOLLIN)
        sock.sendall(wire)
    answered = 0
    while True:
        for file, _ in poll.poll():
            if file == sys.stdin.fileno():
                return
            so_far = received[file] + _received(by_file[file])
            length = answer_bytes(so_far)
            complete = length is not None and len(so_far) >= length
            received[file] = b"" if complete else so_far
            if complete:
                by_file[file].sendall(wire)
                answered += 1
                if answered == len(callers):
                    _say_ready()


def main(url: str, count: int, kind: str) -> None:
    most_files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most_files, most_files))
    parts = urlsplit(url)
    assert parts.hostname
    assert parts.port
    request = PREDICT if kind == "waiting" else SMALL
    wire = request.head(parts.netloc) + b"x" * request.body_bytes
    callers: list[socket.socket] = []
    for number in range(count):
        sock = _connected(parts.hostname, parts.port, number)
        callers.append(sock)
        sock.sendall(wire)
        if kind != "waiting":
            _one_answer(sock)
        elif number % _BURST == 0:
            time.sleep(_PAUSE_S)
    if kind == "busy":
        _keep_busy(callers, wire)
    else:
        time.sleep(_SETTLE_S)
        if _something_came(callers):
            raise RuntimeError(f"a caller that should be {kind} has an answer, or lost its connection")
        _say_ready()
        sys.stdin.read()
    for sock in callers:
        sock.close()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
