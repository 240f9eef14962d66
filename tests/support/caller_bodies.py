"""Fake callers' request bodies for tests of the upstream client."""

import asyncio
from collections import deque
from collections.abc import Iterable, Iterator


class ArrivingBody:
    """A body that arrives by calls of `feed()`, then `finish()` or `break_off()`."""

    def __init__(self, *pieces: bytes, finished: bool = False) -> None:
        self._pieces = deque(pieces)
        self._finished = finished
        self._error: Exception | None = None
        self._changed = asyncio.Event()
        self.read_pieces = 0

    def feed(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self._changed.set()

    def finish(self) -> None:
        self._finished = True
        self._changed.set()

    def break_off(self, error: Exception) -> None:
        self._error = error
        self._changed.set()

    def read_nowait(self) -> bytes:
        """Returns one piece, or all remaining pieces once the body is finished."""
        taken = [self._pieces.popleft() for _ in range(len(self._pieces) if self._finished else 1) if self._pieces]
        self.read_pieces += len(taken)
        return b"".join(taken)

    async def readany(self) -> bytes:
        while not self._pieces and not self._finished:
            if self._error is not None:
                raise self._error
            self._changed.clear()
            await self._changed.wait()
        if not self._pieces:
            return b""
        self.read_pieces += 1
        return self._pieces.popleft()


class PiecewiseBody:
    """A body whose next piece has arrived at each read."""

    def __init__(self, *pieces: bytes) -> None:
        self._pieces = deque(pieces)

    def read_nowait(self) -> bytes:
        return self._pieces.popleft() if self._pieces else b""

    async def readany(self) -> bytes:
        return self.read_nowait()


class BodyOnDemand:
    """A large body that is generated while it is read. `read_bytes` counts the bytes read."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces: Iterator[bytes] = iter(pieces)
        self.read_bytes = 0

    def read_nowait(self) -> bytes:
        return b""

    async def readany(self) -> bytes:
        piece = next(self._pieces, b"")
        self.read_bytes += len(piece)
        return piece
