"""An upstream for bodies of 1 GiB: `python -m speed.load.bulk_upstream PORT DIRECTORY`.

It discards uploads, and sends a sparse file as download, so neither accesses the disk.
"""

import contextlib
import socket
import sys
import threading
from pathlib import Path
from typing import Final

from speed.load.wire import content_length, discard, receive_head
from speed.requests import HUGE, HUGE_BYTES, SMALL_RESPONSE

_HEAD: Final = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n"
_BUFFER_BYTES: Final = 1024**2


def _serve(sock: socket.socket, huge: Path) -> None:
    buffer = memoryview(bytearray(_BUFFER_BYTES))
    with sock, contextlib.suppress(OSError), huge.open("rb") as file:  # the peer closed the connection
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while True:
            head, had = receive_head(sock)
            discard(sock, (content_length(head) or 0) - had, buffer)
            if head.startswith(f"GET {HUGE.path} ".encode()):
                sock.sendall(_HEAD.format(HUGE_BYTES).encode())
                sock.sendfile(file, 0, HUGE_BYTES)
            else:
                sock.sendall((_HEAD.format(len(SMALL_RESPONSE)) + SMALL_RESPONSE).encode())


def main(port: int, directory: Path) -> None:
    huge = directory / "huge.bin"
    with huge.open("wb") as file:
        file.truncate(HUGE_BYTES)
    with socket.create_server(("127.0.0.1", port), backlog=1024) as listener:
        while True:
            sock, _ = listener.accept()
            threading.Thread(target=_serve, args=(sock, huge), daemon=True).start()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
