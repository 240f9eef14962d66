"""An upstream made of raw sockets: it plays one script per connection, byte by byte.

async with RawUpstream(responding(ok(b"hello"))) as upstream:
    ...
"""

import asyncio
import os
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable
from typing import Final, Self, cast

from nanonets_proxy.core.net.addresses import Origin

_READ_LIMIT_BYTES: Final = 1024 * 1024


class Peer:
    """One accepted connection, seen from the upstream's side."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @property
    def is_closing(self) -> bool:
        return self._writer.is_closing()

    async def head(self) -> bytes:
        """Reads the next request's head, including its empty line."""
        return await self._reader.readuntil(b"\r\n\r\n")

    async def read_exactly(self, count: int) -> bytes:
        return await self._reader.readexactly(count)

    async def read_some(self) -> bytes:
        """Reads at least one byte; b"" at the end of the connection."""
        return await self._reader.read(_READ_LIMIT_BYTES)

    async def read_through(self, end: bytes) -> bytes:
        return await self._reader.readuntil(end)

    async def read_to_end(self) -> bytes:
        """Waits until the other side closes or resets the connection; returns the bytes before an orderly end."""
        try:
            return await self._reader.read()
        except ConnectionError:
            return b""

    async def read_body(self, head: bytes) -> bytes:
        """Reads the body that `head` announces, and removes the chunks' framing."""
        lengths = [value for name, value in _fields(head) if name == b"content-length"]
        if lengths:
            return await self.read_exactly(int(lengths[0]))
        if (b"transfer-encoding", b"chunked") not in _fields(head):
            return b""
        body = []
        while size := int(await self.read_through(b"\r\n"), 16):
            body.append(await self.read_exactly(size))
            assert await self.read_exactly(2) == b"\r\n"
        assert await self.read_through(b"\r\n") == b"\r\n"
        return b"".join(body)

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    def send_nowait(self, data: bytes) -> None:
        """Sends without waiting for the other side, which may read less."""
        self._writer.write(data)

    def stop_reading(self) -> None:
        cast("asyncio.Transport", self._writer.transport).pause_reading()

    def send_fin(self) -> None:
        """Puts FIN into the other side's socket before its event loop can see it."""
        with self._own_socket() as sock:
            sock.shutdown(socket.SHUT_WR)

    def send_without_tls(self, data: bytes) -> None:
        """Writes plain bytes to the socket below TLS."""
        with self._own_socket() as sock:
            sock.sendall(data)

    def close(self) -> None:
        self._writer.close()

    def abort(self) -> None:
        """Closes at once, without flushing."""
        self._writer.transport.abort()

    def reset(self) -> None:
        """Ends the connection with RST instead of FIN."""
        reset(self._writer)

    def _own_socket(self) -> socket.socket:
        """Returns a duplicate of the connection's socket; closing it leaves the connection open."""
        return socket.socket(fileno=os.dup(self._writer.get_extra_info("socket").fileno()))


Script = Callable[[Peer], Awaitable[None]]


class RawUpstream:
    """Listens on 127.0.0.1; port 0 takes a free port.

    The first connection plays the first script, and so on; the last script serves all later connections.
    A script's exception fails the test at the end of the block.
    """

    def __init__(self, *scripts: Script, port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        self._scripts = scripts
        self.port = port
        self._tls = tls
        self._tasks: set[asyncio.Task[None]] = set()
        self._failures: list[Exception] = []
        self.accepted = 0
        self.ended = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(
            self._serve, "127.0.0.1", self.port, limit=_READ_LIMIT_BYTES, ssl=self._tls
        )
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._failures:
            raise self._failures[0]

    @property
    def origin(self) -> Origin:
        return Origin("http", "127.0.0.1", self.port)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        script = self._scripts[min(self.accepted, len(self._scripts) - 1)]
        self.accepted += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        peer = Peer(reader, writer)
        try:
            await script(peer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the other side closed while the script waited for more
        except asyncio.CancelledError:
            peer.abort()
            raise
        except Exception as error:  # noqa: BLE001 - a script's own failure has to fail the test
            self._failures.append(error)
        finally:
            self.ended += 1
            self._tasks.discard(task)
            peer.close()


def responding(*responses: bytes) -> Script:
    """Responds to one bodyless request after another, then waits for the other side to close."""

    async def script(peer: Peer) -> None:
        await responding_then_closing(*responses)(peer)
        await peer.read_to_end()

    return script


def responding_then_closing(*responses: bytes) -> Script:
    """Responds to one bodyless request after another, then closes the connection."""

    async def script(peer: Peer) -> None:
        for response in responses:
            await peer.head()
            await peer.send(response)

    return script


def ok(body: bytes = b"ok", *fields: bytes, status: bytes = b"200 OK") -> bytes:
    """Returns a complete response with Content-Length."""
    lines = [b"HTTP/1.1 " + status, b"Content-Length: %d" % len(body), *fields, b"", body]
    return b"\r\n".join(lines)


def reset(writer: asyncio.StreamWriter) -> None:
    """Ends a connection with RST. socket(7): a linger time of 0 makes closing send RST instead of FIN."""
    sock = writer.get_extra_info("socket")
    if sock is not None and sock.fileno() >= 0:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def _fields(head: bytes) -> list[tuple[bytes, bytes]]:
    """Returns the header fields, names and values in lower case."""
    lines = [line.lower().partition(b":") for line in head.split(b"\r\n")[1:]]
    return [(name, value.strip()) for name, _, value in lines]
