"""An upstream that records the exact bytes of each request, and responds as the test or a script says.

async with ScriptedUpstream() as upstream:               the test plays the upstream's part
    exchange = await upstream.next_request()
    await exchange.respond(b"HTTP/1.1 200 OK\\r\\n...")

async with ScriptedUpstream(responding(OK)) as upstream:  the script responds
    ...
    assert upstream.requests[0].head == b"..."

`raw_upstream` scripts whole connections instead of single requests.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Self

from nanonets_proxy.core.net.addresses import Origin
from support.eventually import WAIT_S
from support.raw_upstream import Peer, RawUpstream, ok

OK = ok()


class Exchange:
    """One request that the upstream received, and the means to respond to it."""

    def __init__(self, head: bytes, connection: Peer) -> None:
        self.head = head
        self.body = b""
        """What `read_body` read, without the chunks' framing."""
        self.connection = connection
        self._released = asyncio.Event()

    @property
    def lines(self) -> list[bytes]:
        """The request line and the header fields."""
        return self.head[:-4].split(b"\r\n")

    async def read(self, count: int) -> bytes:
        """Reads `count` bytes after the head, as they are on the wire."""
        async with asyncio.timeout(WAIT_S):
            return await self.connection.read_exactly(count)

    async def read_body(self) -> bytes:
        async with asyncio.timeout(WAIT_S):
            self.body = await self.connection.read_body(self.head)
        return self.body

    async def send(self, data: bytes) -> None:
        async with asyncio.timeout(WAIT_S):
            await self.connection.send(data)

    async def respond(self, data: bytes) -> None:
        """Reads the body, sends `data`, and lets the connection carry the next request."""
        await self.read_body()
        await self.send(data)
        self.release()

    def release(self) -> None:
        """Ends the exchange; the connection stays open for the next request."""
        self._released.set()

    def close(self) -> None:
        """Closes the connection after the bytes sent so far."""
        self.connection.close()
        self.release()

    def reset(self) -> None:
        """Ends the connection with a TCP reset."""
        self.connection.reset()
        self.release()

    async def read_to_end(self, within_s: float = WAIT_S) -> bytes:
        """Waits until the proxy ends the connection; returns the bytes before that."""
        async with asyncio.timeout(within_s):
            return await self.connection.read_to_end()

    async def until_released(self) -> None:
        await self._released.wait()


Script = Callable[[Exchange], Awaitable[None]]


def responding(*responses: bytes) -> Script:
    """Sends the first of `responses` to the first request, and so on; repeats the last one."""
    left = list(responses)

    async def script(exchange: Exchange) -> None:
        await exchange.respond(left.pop(0) if len(left) > 1 else left[0])

    return script


class ScriptedUpstream:
    """Awaits `script` with each exchange; without a script, the test responds. Port 0 takes a free port."""

    def __init__(self, script: Script | None = None, *, port: int = 0) -> None:
        self._script = script
        self._raw = RawUpstream(self._serve, port=port)
        self._arrived: asyncio.Queue[Exchange] = asyncio.Queue()
        self.requests: list[Exchange] = []

    async def __aenter__(self) -> Self:
        await self._raw.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._raw.__aexit__(*exc)

    @property
    def origin(self) -> Origin:
        return self._raw.origin

    @property
    def connections(self) -> int:
        """The number of connections accepted so far."""
        return self._raw.accepted

    async def next_request(self) -> Exchange:
        """Returns the next request in order of arrival, and waits for it if necessary."""
        async with asyncio.timeout(WAIT_S):
            return await self._arrived.get()

    async def _serve(self, connection: Peer) -> None:
        while not connection.is_closing:
            exchange = Exchange(await connection.head(), connection)
            self.requests.append(exchange)
            self._arrived.put_nowait(exchange)
            if self._script is not None:
                await self._script(exchange)
            else:
                await exchange.until_released()
