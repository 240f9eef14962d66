"""The subset of HTTP/1.1 that the load needs: responses with Content-Length, on sockets."""

import socket


class BadResponse(Exception):
    """The response has not the status 200, or no Content-Length."""


def split_head(received: bytes | bytearray) -> tuple[bytes, int] | None:
    """Returns the head and the offset of the body; None while the head is incomplete."""
    end = received.find(b"\r\n\r\n")
    return (bytes(received[:end]), end + 4) if end >= 0 else None


def content_length(head: bytes) -> int | None:
    """Returns the Content-Length in a request or response head, or None."""
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return None


def response_bytes(received: bytes | bytearray) -> int | None:
    """Returns the first response's length; None while its head is incomplete. Raises BadResponse."""
    found = split_head(received)
    if found is None:
        return None
    head, body_at = found
    length = content_length(head)
    if not head.startswith(b"HTTP/1.1 200 ") or length is None:
        raise BadResponse(head.partition(b"\r\n")[0].decode("latin-1"))
    return body_at + length


def receive_head(sock: socket.socket) -> tuple[bytes, int]:
    """Returns the next head, and the number of body bytes read with it. Raises ConnectionError at the end."""
    received = bytearray()
    while True:
        found = split_head(received)
        if found is not None:
            return found[0], len(received) - found[1]
        data = sock.recv(65536)
        if not data:
            raise ConnectionError("the connection ended within a head")
        received += data


def discard(sock: socket.socket, count: int, into: memoryview) -> None:
    """Reads and discards `count` bytes. Raises ConnectionError if fewer arrive."""
    while count > 0:
        got = sock.recv_into(into[: min(count, len(into))])
        if not got:
            raise ConnectionError(f"the connection ended {count} bytes early")
        count -= got
