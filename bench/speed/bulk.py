"""One body of a gigabyte on one connection: `python -m speed.bulk up|down URL`; says how many seconds it took."""

import socket
import sys
import time
from typing import Final
from urllib.parse import urlsplit

from speed.processes import run_on_load_core
from speed.requests import HUGE, HUGE_BYTES, post
from speed.wire import answer_bytes, content_length, discard, receive_head

_CHUNK_BYTES: Final = 1024**2
_PATIENCE_S: Final = 60.0


def transfer(direction: str, origin: str) -> float:
    """Seconds that it took, in a process of its own."""
    return float(run_on_load_core([sys.executable, "-m", "speed.bulk", direction, origin]))


def _up(sock: socket.socket, host: str) -> None:
    sock.sendall(post(HUGE_BYTES).head(host))
    chunk = bytes(_CHUNK_BYTES)
    for _ in range(HUGE_BYTES // _CHUNK_BYTES):
        sock.sendall(chunk)
    head, _ = receive_head(sock)
    answer_bytes(head + b"\r\n\r\n")  # raises unless it is good


def _down(sock: socket.socket, host: str) -> None:
    sock.sendall(HUGE.head(host))
    head, had = receive_head(sock)
    answer_bytes(head + b"\r\n\r\n")
    length = content_length(head)
    assert length == HUGE_BYTES, head
    discard(sock, length - had, memoryview(bytearray(_CHUNK_BYTES)))


def main(direction: str, origin: str) -> None:
    url = urlsplit(origin)
    begun_s = time.perf_counter()
    with socket.create_connection((url.hostname, url.port), timeout=_PATIENCE_S) as sock:
        (_up if direction == "up" else _down)(sock, url.netloc)
    print(time.perf_counter() - begun_s)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
