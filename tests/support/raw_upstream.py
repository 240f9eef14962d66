"""An upstream that does what a script says, octet by octet: sockets alone, no HTTP library on this side."""

import asyncio
import os
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

from nanonets_proxy.core.net.addresses import Origin

_LIMIT_BYTES: Final = 1024 * 1024


class Peer:
    """One accepted connection, seen from the upstream's side."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def head(self) -> bytes:
        """The next request's header section with its empty line."""
        return await self._reader.readuntil(b"\r\n\r\n")

    async def read_exactly(self, count: int) -> bytes:
        return await self._reader.readexactly(count)

    async def read_some(self) -> bytes:
        """What has come, at least one byte; b"" at the end."""
        return await self._reader.read(_LIMIT_BYTES)

    async def read_through(self, end: bytes) -> bytes:
        return await self._reader.readuntil(end)

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def read_to_end(self) -> bytes:
        """Waits until the other side has closed; what it sent before that."""
        try:
            return await self._reader.read()
        except ConnectionError:
            return b""

    def send_fin(self) -> None:
        """FIN is in the other side's socket when this returns, unseen by its event loop."""
        with self._own_socket() as sock:
            sock.shutdown(socket.SHUT_WR)

    def send_without_tls(self, data: bytes) -> None:
        """Straight to the socket."""
        with self._own_socket() as sock:
            sock.sendall(data)

    def reset(self) -> None:
        """Ends with RST instead of FIN."""
        with self._own_socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()

    def _own_socket(self) -> socket.socket:
        """The connection's socket apart from its transport; closing it leaves the connection open."""
        return socket.socket(fileno=os.dup(self._writer.get_extra_info("socket").fileno()))


Script = Callable[[Peer], Awaitable[None]]


class RawUpstream:
    """Plays `scripts`: the first connection gets the first one, the last is for all that follow."""

    def __init__(self, scripts: tuple[Script, ...]) -> None:
        self._scripts = scripts
        self._tasks: set[asyncio.Task[None]] = set()
        self._failures: list[Exception] = []
        self.port = 0
        self.accepted = 0
        self.ended = 0

    @property
    def origin(self) -> Origin:
        return Origin("http", "127.0.0.1", self.port)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        script = self._scripts[min(self.accepted, len(self._scripts) - 1)]
        self.accepted += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await script(Peer(reader, writer))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the other side has gone, which is what a script that waits for more ends with
        except Exception as error:  # noqa: BLE001 - a script's own failure has to fail the test
            self._failures.append(error)
        finally:
            self.ended += 1
            self._tasks.discard(task)
            writer.close()

    async def stop(self) -> None:
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._failures:
            raise self._failures[0]


@asynccontextmanager
async def raw_upstream(*scripts: Script, tls: ssl.SSLContext | None = None) -> AsyncIterator[RawUpstream]:
    """A running RawUpstream on a free port of 127.0.0.1. A script that fails, fails the test at the end."""
    upstream = RawUpstream(scripts)
    server = await asyncio.start_server(upstream.serve, "127.0.0.1", 0, limit=_LIMIT_BYTES, ssl=tls)
    upstream.port = server.sockets[0].getsockname()[1]
    try:
        yield upstream
    finally:
        server.close()
        await upstream.stop()


def responding(*replies: bytes) -> Script:
    """Answers one request without a body after the other, then waits for the other side to close."""

    async def script(peer: Peer) -> None:
        for reply in replies:
            await peer.head()
            await peer.send(reply)
        await peer.read_to_end()

    return script


def responding_then_closing(*replies: bytes) -> Script:
    """Answers one request without a body after the other, then closes."""

    async def script(peer: Peer) -> None:
        for reply in replies:
            await peer.head()
            await peer.send(reply)

    return script


def ok(body: bytes = b"ok", *fields: bytes, status: bytes = b"200 OK") -> bytes:
    """A complete answer with Content-Length."""
    lines = [b"HTTP/1.1 " + status, b"Content-Length: %d" % len(body), *fields, b"", body]
    return b"\r\n".join(lines)
