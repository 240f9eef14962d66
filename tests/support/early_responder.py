"""An upstream that responds to the head of an upload and closes at once, with the body unread.

It runs in a thread: only real concurrency shows what happens when a response arrives between two writes. Because of
the unread bytes, Linux sends RST instead of FIN.
"""

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator

from nanonets_proxy.core.net.addresses import Origin


@contextlib.contextmanager
def early_responder(*responses: bytes, tls: ssl.SSLContext | None = None, reads_bytes: int = 0) -> Iterator[Origin]:
    """Sends the first of `responses` on the first connection, and so on; repeats the last one.

    Reads `reads_bytes` of a body, and the whole body if the response is a 200.
    """
    left = list(responses)

    def respond(accepted: socket.socket) -> None:
        accepted.settimeout(60)
        # As servers do. Otherwise, the close would discard a response that waits for an acknowledgement.
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(OSError):
            sock = accepted if tls is None else tls.wrap_socket(accepted, server_side=True)
            with sock:
                head, _, body = _read_head(sock).partition(b"\r\n\r\n")
                response = left.pop(0) if len(left) > 1 else left[0]
                length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
                wanted = length if response.startswith(b"HTTP/1.1 200") else reads_bytes
                read = len(body)
                while read < wanted and (piece := sock.recv(65536)):
                    read += len(piece)
                sock.sendall(response)

    def accept() -> None:
        with contextlib.suppress(OSError):  # the listener is closed
            while True:
                threading.Thread(target=respond, args=(listener.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield Origin("http" if tls is None else "https", "127.0.0.1", listener.getsockname()[1])
        listener.shutdown(socket.SHUT_RDWR)
    thread.join()


def _read_head(sock: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data and (piece := sock.recv(65536)):
        data += piece
    return data
