"""As much of HTTP/1.1 as the load needs: answers with a Content-Length, on sockets."""

import socket


class BrokenAnswer(Exception):
    """What came is no answer with status 200 and a Content-Length."""


def split_head(received: bytes | bytearray) -> tuple[bytes, int] | None:
    """The header section and where the body begins; None while the section is incomplete."""
    end = received.find(b"\r\n\r\n")
    return (bytes(received[:end]), end + 4) if end >= 0 else None


def content_length(head: bytes) -> int | None:
    """Of a request or an answer; None if it has none."""
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return None


def answer_bytes(received: bytes | bytearray) -> int | None:
    """Bytes of the answer that `received` begins with; None while its head is incomplete. Raises BrokenAnswer."""
    found = split_head(received)
    if found is None:
        return None
    head, body_at = found
    length = content_length(head)
    if not head.startswith(b"HTTP/1.1 200 ") or length is None:
        raise BrokenAnswer(head.decode("latin-1"))
    return body_at + length


def receive_head(sock: socket.socket) -> tuple[bytes, int]:
    """The next header section, and how many bytes of its body came along. Raises ConnectionError at the end."""
    received = bytearray()
    while True:
        found = split_head(received)
        if found is not None:
            return found[0], len(received) - found[1]
        data = sock.recv(65536)
        if not data:
            raise ConnectionError("closed before a header section was complete")
        received += data


def discard(sock: socket.socket, count: int, into: memoryview) -> None:
    """Reads `count` bytes. Raises ConnectionError if fewer come."""
    while count > 0:
        got = sock.recv_into(into[: min(count, len(into))])
        if not got:
            raise ConnectionError(f"closed {count} bytes early")
        count -= got
