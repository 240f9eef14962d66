"""The soak's upstream: each response carries its request's number and checksums of both bodies."""

import asyncio
import random
import re
import zlib
from collections import Counter
from typing import Final

from support.raw_upstream import Peer, RawUpstream

_REQUEST: Final = re.compile(rb"([A-Z]+) /r/(\d+) HTTP/1\.1\r\n")
_THROTTLED: Final = (
    b"HTTP/1.1 429 Too Many Requests\r\nContent-Type: application/json\r\nContent-Length: 36\r\n\r\n"
    b'{"details": {"retry_after":   0.05}}'
)
_BUSY: Final = b"HTTP/1.1 503 Busy\r\nX-Busy: 1\r\nContent-Length: 0\r\n\r\n"


def body_of(number: int, size: int) -> bytes:
    """Returns a response body that is unique to the request `number`."""
    return (b"%016d" % number * (size // 16 + 1))[:size]


class SoakUpstream(RawUpstream):
    """`posts` counts how often each POST's head arrived, without the POSTs that got a 429."""

    def __init__(self, chance: random.Random) -> None:
        super().__init__(self._serve_requests)
        self._chance = chance
        self.posts: Counter[int] = Counter()
        self.served = 0
        self.strangers: list[bytes] = []
        """Request heads that no caller sent."""

    async def _serve_requests(self, peer: Peer) -> None:
        try:
            while await self._respond(await peer.head(), peer):
                pass
        except (OSError, EOFError, ValueError, AssertionError, asyncio.LimitOverrunError):
            pass  # the relay ended the connection

    async def _respond(self, head: bytes, peer: Peer) -> bool:
        """Responds to one request. Returns whether the connection can carry another request."""
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
            await peer.read_body(head)
            await peer.send(_THROTTLED)
            return True
        received = await peer.read_body(head)
        if luck < 0.02:
            await peer.send(_BUSY)
            return True
        self.served += 1
        body = b"" if luck < 0.05 else body_of(number, int(10 ** self._chance.uniform(0, 5.5)))
        fields = b"X-Number: %d\r\nX-Sum: %d\r\nX-Got: %d\r\n" % (number, zlib.crc32(body), zlib.crc32(received))
        if luck < 0.4:
            await peer.send(b"HTTP/1.1 200 OK\r\n%bTransfer-Encoding: chunked\r\n\r\n" % fields)
            for start in range(0, len(body), 20_000):
                piece = body[start : start + 20_000]
                await peer.send(b"%x\r\n%b\r\n" % (len(piece), piece))
            await peer.send(b"0\r\nX-End: 1\r\n\r\n")
        else:
            await peer.send(b"HTTP/1.1 200 OK\r\n%bContent-Length: %d\r\n\r\n%b" % (fields, len(body), body))
        return luck < 0.98
