"""An upstream that holds each request until the test lets its response go."""

import asyncio

from support.eventually import until
from support.raw_upstream import Peer, RawUpstream


class HeldUpstream(RawUpstream):
    """Each `respond` answers the oldest request that has none. `heads` has the head of each request."""

    def __init__(self) -> None:
        super().__init__(self._script)
        self.heads: list[bytes] = []
        self.lost = 0
        """Requests whose connection ended before their response."""
        self._waiting: list[tuple[Peer, asyncio.Event]] = []

    async def requests(self, count: int) -> None:
        """Waits until that many requests have come in all."""
        await until(lambda: len(self.heads) >= count)

    async def respond(self, *pieces: bytes, close: bool = False) -> None:
        """Sends a response in pieces to the oldest request without one, each in a write of its own."""
        await until(lambda: bool(self._waiting))
        peer, done = self._waiting.pop(0)
        for piece in pieces:
            await peer.send(piece)
            await asyncio.sleep(0.01 if len(pieces) > 1 else 0)
        if close:
            peer.close()
        done.set()

    async def _script(self, peer: Peer) -> None:
        while True:
            head = await peer.head()
            await peer.read_body(head)
            self.heads.append(head)
            done = asyncio.Event()
            entry = (peer, done)
            self._waiting.append(entry)
            gone = asyncio.create_task(peer.read_some())
            waiting = asyncio.create_task(done.wait())
            await asyncio.wait([gone, waiting], return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
            if gone.done():
                self.lost += entry in self._waiting
                if entry in self._waiting:
                    self._waiting.remove(entry)
                return
            gone.cancel()
            await asyncio.wait([gone])
