"""An upstream made of a raw socket: it records the exact bytes of each request, and says what it is told to.

async with ScriptedUpstream() as upstream:              the test plays the upstream's part
    exchange = await upstream.next_request()
    await exchange.answer(b"HTTP/1.1 200 OK\\r\\n...")

async with ScriptedUpstream(answering(OK)) as upstream:  it answers by itself
    ...
    assert upstream.requests[0].head == b"..."
"""

import asyncio
import re
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import Self

from nanonets_proxy.core.net.addresses import Origin
from support.eventually import WAIT_S

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)\r\n", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked\r\n", re.IGNORECASE)


class Exchange:
    """One request that came, and the way to answer it."""

    def __init__(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.head = head
        self.body = b""
        """What `read_body` found, without its chunks' framing."""
        self._reader = reader
        self._writer = writer
        self._released = asyncio.Event()

    @property
    def lines(self) -> list[bytes]:
        """Request line and fields."""
        return self.head[:-4].split(b"\r\n")

    @property
    def connection(self) -> asyncio.StreamWriter:
        """Tells connections apart."""
        return self._writer

    async def read(self, count: int) -> bytes:
        """So many bytes behind the head, as they stand on the wire."""
        async with asyncio.timeout(WAIT_S):
            return await self._reader.readexactly(count)

    async def read_body(self) -> bytes:
        async with asyncio.timeout(WAIT_S):
            self.body = await _read_body(self.head, self._reader)
        return self.body

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        async with asyncio.timeout(WAIT_S):
            await self._writer.drain()

    async def respond(self, data: bytes) -> None:
        """Reads the body, sends `data`, and is ready for the connection's next request."""
        await self.read_body()
        await self.send(data)
        self.release()

    def release(self) -> None:
        """The exchange is over, the connection is not."""
        self._released.set()

    def close(self) -> None:
        """Ends the connection behind what was sent."""
        self._writer.close()
        self.release()

    def reset(self) -> None:
        """Breaks the connection off, with a TCP reset."""
        reset(self._writer)
        self.release()

    async def read_to_end(self, within_s: float = WAIT_S) -> bytes:
        """Waits until the proxy has ended the connection; what came before that."""
        async with asyncio.timeout(within_s):
            try:
                return await self._reader.read()
            except ConnectionError:
                return b""

    async def until_released(self) -> None:
        await self._released.wait()


Script = Callable[[Exchange], Awaitable[None]]


def responding(*responses: bytes) -> Script:
    """Answers the first request with the first of `answers` and so on; the last one is given again and again."""
    left = list(responses)

    async def script(exchange: Exchange) -> None:
        await exchange.respond(left.pop(0) if len(left) > 1 else left[0])

    return script


class ScriptedUpstream:
    """See the module's docstring. `script` is awaited with each exchange. Port 0 takes a free one."""

    def __init__(self, script: Script | None = None, *, port: int = 0) -> None:
        self._script = script
        self._port = port
        self._arrived: asyncio.Queue[Exchange] = asyncio.Queue()
        self._tasks: set[asyncio.Task[None]] = set()
        self.requests: list[Exchange] = []
        self.connections = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._on_connection, "127.0.0.1", self._port, limit=2**20)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def origin(self) -> Origin:
        return Origin("http", "127.0.0.1", self._server.sockets[0].getsockname()[1])

    async def next_request(self) -> Exchange:
        """The next request in the order of arrival, waiting for it if need be."""
        async with asyncio.timeout(WAIT_S):
            return await self._arrived.get()

    def _on_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while not writer.is_closing():
                exchange = Exchange(await reader.readuntil(b"\r\n\r\n"), reader, writer)
                self.requests.append(exchange)
                self._arrived.put_nowait(exchange)
                if self._script is not None:
                    await self._script(exchange)
                else:
                    await exchange.until_released()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the proxy ended the connection
        finally:
            writer.transport.abort()


async def _read_body(head: bytes, reader: asyncio.StreamReader) -> bytes:
    if length := _LENGTH.search(head):
        return await reader.readexactly(int(length[1]))
    if not _CHUNKED.search(head):
        return b""
    body = []
    while size := int(await reader.readuntil(b"\r\n"), 16):
        body.append(await reader.readexactly(size))
        assert await reader.readexactly(2) == b"\r\n"
    assert await reader.readuntil(b"\r\n") == b"\r\n"
    return b"".join(body)


def reset(writer: asyncio.StreamWriter) -> None:
    """socket(7): closing with a linger time of 0 sends a reset instead of an orderly end."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
