"""Transfers one body of 1 GiB on one connection: `python -m speed.load.bulk up|down URL` prints the seconds."""

import socket
import sys
import time
from typing import Final
from urllib.parse import urlsplit

from speed.load.wire import content_length, discard, receive_head, response_bytes
from speed.processes import run_on_load_core
from speed.requests import HUGE, HUGE_BYTES, post

_CHUNK_BYTES: Final = 1024**2
_PATIENCE_S: Final = 60.0


def transfer(direction: str, origin: str) -> float:
    """Runs the transfer in a separate process, and returns its seconds."""
    return float(run_on_load_core([sys.executable, "-m", "speed.load.bulk", direction, origin]))


def _up(sock: socket.socket, host: str) -> None:
    sock.sendall(post(HUGE_BYTES).head(host))
    chunk = bytes(_CHUNK_BYTES)
    for _ in range(HUGE_BYTES // _CHUNK_BYTES):
        sock.sendall(chunk)
    head, _ = receive_head(sock)
    response_bytes(head + b"\r\n\r\n")  # raises BadResponse for any other response than a 200


def _down(sock: socket.socket, host: str) -> None:
    sock.sendall(HUGE.head(host))
    head, had = receive_head(sock)
    response_bytes(head + b"\r\n\r\n")
    length = content_length(head)
    assert length == HUGE_BYTES, head
    discard(sock, length - had, memoryview(bytearray(_CHUNK_BYTES)))


def main(direction: str, origin: str) -> None:
    url = urlsplit(origin)
    started_at_s = time.perf_counter()
    with socket.create_connection((url.hostname, url.port), timeout=_PATIENCE_S) as sock:
        (_up if direction == "up" else _down)(sock, url.netloc)
    print(time.perf_counter() - started_at_s)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
