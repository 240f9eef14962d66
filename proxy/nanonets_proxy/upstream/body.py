"""A request body that can be sent again: what was read from the caller is kept until the answer is known.

States and transitions:

    KEEPING  everything read so far is kept, in memory or in the spool file; `rewind()` may start over
      a piece read             -> KEEPING   memory first; beyond the request's share, the spool file
      no room, or too large    -> LET_GO
    LET_GO   the copy is gone; reading goes on, starting over is impossible

The spool file has no name, so a crash leaves nothing behind. It is written and read in place: it
lives in the page cache, and a chunk costs less than handing it to a thread would.
"""

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, Protocol, Self

_SPOOL_READ_BYTES: Final = 256 * 1024


@dataclass(frozen=True, slots=True)
class BodyPolicy:
    """Bounds of the kept copies, in bytes: memory of one request, memory and disk of all requests, and the
    largest body that is kept at all."""

    memory_bytes: int
    memory_total_bytes: int
    spool_dir: Path
    spool_total_bytes: int
    replay_limit_bytes: int


class BodyBudget:
    """The two budgets that all bodies share."""

    def __init__(self, policy: BodyPolicy) -> None:
        self.policy = policy
        self.memory_bytes = 0
        self.spool_bytes = 0

    def reserve_whole(self, length: int) -> bool:
        """Room in memory for the copy of a whole body, if it may have one."""
        policy = self.policy
        return length <= policy.replay_limit_bytes and length <= policy.memory_bytes and self.reserve_memory(length)

    def reserve_memory(self, count: int) -> bool:
        if self.memory_bytes + count > self.policy.memory_total_bytes:
            return False
        self.memory_bytes += count
        return True

    def reserve_spool(self, count: int) -> bool:
        if self.spool_bytes + count > self.policy.spool_total_bytes:
            return False
        self.spool_bytes += count
        return True


class BodySource(Protocol):
    """The part of aiohttp's StreamReader that is needed here."""

    def read_nowait(self) -> bytes: ...
    async def readany(self) -> bytes: ...


class RequestBody:
    """One caller's body. `length` is None where it is chunked. Use as a context manager: leaving it gives back
    memory, budget and file."""

    __slots__ = (
        "_budget",
        "_file",
        "_file_bytes",
        "_given_bytes",
        "_keeping",
        "_memory",
        "_memory_bytes",
        "_source",
        "length",
        "received_bytes",
    )

    def __init__(self, source: BodySource, length: int | None, budget: BodyBudget) -> None:
        self.length = length
        self.received_bytes = 0
        self._source = source
        self._budget = budget
        self._memory: list[bytes] = []
        self._memory_bytes = 0
        self._file: BinaryIO | None = None
        self._file_bytes = 0
        self._given_bytes = 0  # since it was begun
        self._keeping = length is None or length <= budget.policy.replay_limit_bytes

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._keeping = False
        self._budget.memory_bytes -= self._memory_bytes
        self._memory_bytes = 0
        if self._file_bytes:
            self._let_go()

    @property
    def is_replayable(self) -> bool:
        """Whether it may be begun (again): all that was read is kept, or nothing was read."""
        return self._keeping or self.received_bytes == 0

    @property
    def fits_memory(self) -> bool:
        """Whether its copy will find room in memory, as far as can be told before it is read."""
        return self.length is not None and self.length <= self._budget.policy.memory_bytes

    def rewind(self) -> bytes:
        """Starts (over) with what is here: all that is kept in memory, and what has come. `read()` has the rest.
        Only for a body that `is_replayable`."""
        self._given_bytes = 0
        if self._file is not None:
            return b""
        data = b"".join(self._memory)
        if piece := self._source.read_nowait():
            self._keep(piece)  # which may let go of the copy, or move it to the file, so it is joined first
            data += piece
        self._given_bytes = len(data)
        return data

    async def read(self) -> bytes:
        """The next bytes, kept as they pass; b"" at the end. Raises what the source raises when the caller breaks
        off."""
        if self._given_bytes == self.length:
            return b""
        if self._file is not None and self._given_bytes < self._file_bytes:
            left = self._file_bytes - self._given_bytes
            piece = os.pread(self._file.fileno(), min(_SPOOL_READ_BYTES, left), self._given_bytes)
        elif piece := await self._source.readany():
            self._keep(piece)
        self._given_bytes += len(piece)
        return piece

    def _keep(self, piece: bytes) -> None:
        self.received_bytes += len(piece)
        if not self._keeping:
            return
        policy, in_memory = self._budget.policy, self._memory_bytes + len(piece)
        if self.received_bytes > policy.replay_limit_bytes:
            self._let_go()
        elif self._file is None and in_memory <= policy.memory_bytes and self._budget.reserve_memory(len(piece)):
            self._memory.append(piece)
            self._memory_bytes = in_memory
        elif not self._spool(piece):
            self._let_go()

    def _spool(self, piece: bytes) -> bool:
        """Appends to the file, moving what is in memory there first. False where budget or disk are full."""
        moved = [*self._memory, piece]
        count = sum(map(len, moved))
        if not self._budget.reserve_spool(count):
            return False
        self._file_bytes += count
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(dir=self._budget.policy.spool_dir, buffering=0)  # noqa: SIM115 - __exit__ closes it
            for chunk in moved:
                view = memoryview(chunk)
                while view:
                    view = view[self._file.write(view) :]
        except OSError:
            return False
        self._forget_memory()
        return True

    def _forget_memory(self) -> None:
        self._memory.clear()
        self._budget.memory_bytes -= self._memory_bytes
        self._memory_bytes = 0

    def _let_go(self) -> None:
        self._keeping = False
        self._forget_memory()
        self._budget.spool_bytes -= self._file_bytes
        self._file_bytes = 0
        if self._file is not None:
            self._file.close()
            self._file = None
