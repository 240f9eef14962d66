"""The upstream of the soak: every answer carries its request's number and checksums of what came and what goes."""

import asyncio
import random
import re
import zlib
from collections import Counter
from typing import Final, Self

from support.scripted_upstream import _read_body

_REQUEST: Final = re.compile(rb"([A-Z]+) /r/(\d+) HTTP/1\.1\r\n")
_THROTTLED: Final = (
    b"HTTP/1.1 429 Too Many Requests\r\nContent-Type: application/json\r\nContent-Length: 36\r\n\r\n"
    b'{"details": {"retry_after":   0.05}}'
)
_BUSY: Final = b"HTTP/1.1 503 Busy\r\nX-Busy: 1\r\nContent-Length: 0\r\n\r\n"


def body_of(number: int, size: int) -> bytes:
    """The body of the answer to a request: no other request's looks like it."""
    return (b"%016d" % number * (size // 16 + 1))[:size]


class SoakUpstream:
    """`posts` counts how often a POST's head came, those refused with 429 left out."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._tasks: set[asyncio.Task[None]] = set()
        self.posts: Counter[int] = Counter()
        self.served = 0
        self.strangers: list[bytes] = []
        """Heads that no caller sent."""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=2**20)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._answer(await reader.readuntil(b"\r\n\r\n"), reader, writer):
                pass
        except (OSError, EOFError, ValueError, AssertionError, asyncio.LimitOverrunError):
            pass  # the relay broke it off
        finally:
            writer.close()

    async def _answer(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        request = _REQUEST.match(head)
        if request is None or b"Authorization: Basic " not in head:
            self.strangers.append(head)
            return False
        method, number = request[1], int(request[2])
        luck = self._chance.random()
        if method == b"POST":
            self.posts[number] += 1
        if luck < 0.002:
            self.posts[number] -= method == b"POST"
            await _read_body(head, reader)
            writer.write(_THROTTLED)
            return True
        came = await _read_body(head, reader)
        if luck < 0.02:
            writer.write(_BUSY)
            return True
        self.served += 1
        body = b"" if luck < 0.05 else body_of(number, int(10 ** self._chance.uniform(0, 5.5)))
        fields = b"X-Number: %d\r\nX-Sum: %d\r\nX-Got: %d\r\n" % (number, zlib.crc32(body), zlib.crc32(came))
        if luck < 0.4:
            writer.write(b"HTTP/1.1 200 OK\r\n%bTransfer-Encoding: chunked\r\n\r\n" % fields)
            for start in range(0, len(body), 20_000):
                piece = body[start : start + 20_000]
                writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                await writer.drain()
            writer.write(b"0\r\nX-End: 1\r\n\r\n")
        else:
            writer.write(b"HTTP/1.1 200 OK\r\n%bContent-Length: %d\r\n\r\n%b" % (fields, len(body), body))
        await writer.drain()
        return luck < 0.98
