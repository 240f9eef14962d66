"""Callers' request bodies, as the upstream side reads them."""

import asyncio
from collections import deque
from collections.abc import Iterable, Iterator


class ArrivingBody:
    """A body that arrives when the test says so: `feed()`, then `finish()` or `break_off()`."""

    def __init__(self, *pieces: bytes, finished: bool = False) -> None:
        self._pieces = deque(pieces)
        self._finished = finished
        self._error: Exception | None = None
        self._news = asyncio.Event()
        self.read_pieces = 0

    def feed(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self._news.set()

    def finish(self) -> None:
        self._finished = True
        self._news.set()

    def break_off(self, error: Exception) -> None:
        self._error = error
        self._news.set()

    def read_nowait(self) -> bytes:
        """All there is once it has ended; before, a piece at a time."""
        taken = [self._pieces.popleft() for _ in range(len(self._pieces) if self._finished else 1) if self._pieces]
        self.read_pieces += len(taken)
        return b"".join(taken)

    async def readany(self) -> bytes:
        while not self._pieces and not self._finished:
            if self._error is not None:
                raise self._error
            self._news.clear()
            await self._news.wait()
        if not self._pieces:
            return b""
        self.read_pieces += 1
        return self._pieces.popleft()


class PiecewiseBody:
    """A body of which the next piece has come each time that it is read."""

    def __init__(self, *pieces: bytes) -> None:
        self._pieces = deque(pieces)

    def read_nowait(self) -> bytes:
        return self._pieces.popleft() if self._pieces else b""

    async def readany(self) -> bytes:
        return self.read_nowait()


class BodyOnDemand:
    """A large body that is made while it is read; `read_bytes` counts what was asked for."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces: Iterator[bytes] = iter(pieces)
        self.read_bytes = 0

    def read_nowait(self) -> bytes:
        return b""

    async def readany(self) -> bytes:
        piece = next(self._pieces, b"")
        self.read_bytes += len(piece)
        return piece
