"""What two processes of the program say to each other over a socket pair: JSON documents and open files."""

import json
import socket
from collections.abc import Callable, Sequence
from typing import Any, Final

_FILES_AT_ONCE: Final = 200  # Linux takes 253 (SCM_MAX_FD)
_HEADER_BYTES: Final = 16
_MAX_DOCUMENT_BYTES: Final = 64 * 2**20
_MAX_FILES: Final = 1_000_000


class PeerLost(Exception):
    """The other process has ended, hangs, or does not speak this language."""


def send_document(sock: socket.socket, document: Any, files: Sequence[int] = ()) -> None:
    """Sends a document and open files. Blocks; raises PeerLost."""
    text = json.dumps(document).encode()
    try:
        sock.sendall(b"%08x%08x" % (len(text), len(files)))
        for start in range(0, len(files), _FILES_AT_ONCE):
            socket.send_fds(sock, [b"f"], list(files[start : start + _FILES_AT_ONCE]))
        sock.sendall(text)
    except OSError as error:
        raise PeerLost(str(error)) from None


def receive_document(sock: socket.socket) -> tuple[Any, list[int]]:
    """Returns a document and open files, which other programs do not inherit. Blocks; raises PeerLost."""
    files: list[int] = []
    try:
        header = _receive_exactly(sock, _HEADER_BYTES)
        length, count = int(header[:8], 16), int(header[8:], 16)
        if length > _MAX_DOCUMENT_BYTES or count > _MAX_FILES:
            raise PeerLost("its message is too large")
        while len(files) < count:
            flags = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
            byte, received, _, _ = socket.recv_fds(sock, 1, _FILES_AT_ONCE, flags)
            if not byte or not received:
                raise PeerLost("it sent fewer files than it announced")
            files += received
        return json.loads(_receive_exactly(sock, length)), files
    except (OSError, ValueError) as error:
        raise PeerLost(str(error)) from None


def _receive_exactly(sock: socket.socket, count: int) -> bytes:
    received = bytearray()
    while len(received) < count:
        piece = sock.recv(min(count - len(received), 2**20))
        if not piece:
            raise PeerLost("it has ended")
        received += piece
    return bytes(received)


class Lines:
    """Splits what arrives into JSON lines, and passes each to `receive`."""

    def __init__(self, receive: Callable[[Any], None]) -> None:
        self._receive = receive
        self._rest = b""

    def feed(self, data: bytes) -> None:
        """Takes the next bytes."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._receive(json.loads(line))


def as_line(message: Any) -> bytes:
    """Returns a message for `Lines` at the other end."""
    return json.dumps(message).encode() + b"\n"
