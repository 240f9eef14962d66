"""A request body that can be sent again: the proxy keeps a copy until the response decides about a retry.

States and transitions:

    KEPT       the copy has every byte read so far, in memory or in the spool file; `rewind()` may start over
      a piece is read, with room   -> KEPT        in memory up to the request's share, then in the spool file
      no room, or body too large   -> DISCARDED
    DISCARDED  no copy; reading continues, but the body cannot be sent again

The spool file has no name, so a crash leaves no file behind. The event loop writes and reads it directly: the
bytes stay in the page cache, and handing a piece to a thread would cost more.
"""

import enum
import errno
import os
import tempfile
from collections.abc import Callable, Sequence
from typing import BinaryIO, Final, Protocol, Self, cast

from nanonets_proxy.errors import InternalError
from nanonets_proxy.upstream.policy import BodyPolicy

_SPOOL_READ_BYTES: Final = 256 * 1024


class LostCopy(enum.StrEnum):
    """Why a body's copy was discarded before the response came."""

    REPLAY_LIMIT = "replay_limit"
    SPOOL_TOTAL = "spool_total"
    DISK = "disk"


OnLost = Callable[[LostCopy, OSError | None], None]
"""Called for each discarded copy. The error is the disk's, if the disk is the cause."""


class BodyBudget:
    """The memory, disk and files that all copies share: the attributes say what is in use."""

    def __init__(self, policy: BodyPolicy, on_lost: OnLost = lambda _cause, _error: None) -> None:
        self.policy = policy
        self.on_lost = on_lost
        self.memory_bytes = 0
        self.spool_bytes = 0
        self.spool_files = 0

    def reserve_whole(self, length: int) -> bool:
        """Reserves memory for the copy of a whole body; returns False if the body must be streamed."""
        policy, in_use = self.policy, self.memory_bytes + length
        if length > policy.replay_limit_bytes or length > policy.memory_bytes or in_use > policy.memory_total_bytes:
            return False
        self.memory_bytes = in_use
        return True

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

    def open_spool_file(self) -> BinaryIO:
        """Returns a new file without a name; `close_spool_file` must follow. Raises OSError."""
        if self.spool_files >= self.policy.spool_files:  # callers and the upstream need the others
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        file = tempfile.TemporaryFile(dir=self.policy.spool_dir, buffering=0)  # noqa: SIM115 - close_spool_file closes it
        self.spool_files += 1
        return cast("BinaryIO", file)

    def close_spool_file(self, file: BinaryIO) -> None:
        file.close()
        self.spool_files -= 1


class BodySource(Protocol):
    """Where a body is read from; `readany()` returns b"" at the end."""

    def read_nowait(self) -> bytes: ...
    async def readany(self) -> bytes: ...


class RequestBody:
    """One caller's body. `length` is in bytes, None for a chunked body.

    A context manager: leaving it frees the copy and its budget.
    """

    __slots__ = (
        "_budget",
        "_file",
        "_file_bytes",
        "_keeping",
        "_memory",
        "_memory_bytes",
        "_position",
        "_source",
        "length",
        "lost",
        "on_whole",
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
        self._position = 0  # bytes returned since the last rewind()
        self._keeping = True
        self.lost: LostCopy | None = None
        """Why there is no copy; None: there is one."""
        self.on_whole: Callable[[], None] | None = None
        """Called when the last byte is read, if there is a copy."""
        if length is not None and length > budget.policy.replay_limit_bytes:
            self._lose_copy(LostCopy.REPLAY_LIMIT)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._keeping = False
        self._budget.memory_bytes -= self._memory_bytes
        self._memory_bytes = 0
        if self._file_bytes:
            self._discard_copy()

    @property
    def is_replayable(self) -> bool:
        """Whether `rewind()` is allowed: the copy has every byte read, or nothing was read."""
        return self._keeping or self.received_bytes == 0

    @property
    def copy(self) -> int | Sequence[bytes]:
        """The copy: the descriptor of the spool file, or the pieces in memory."""
        return self._memory if self._file is None else self._file.fileno()

    @property
    def fits_memory(self) -> bool:
        """Whether the body is short enough for a copy in memory."""
        return self.length is not None and self.length <= self._budget.policy.memory_bytes

    def rewind(self) -> bytes:
        """Starts over, and returns the first bytes without a wait. `read()` returns the next bytes.

        Only for a body that `is_replayable`.
        """
        self._position = 0
        if self._file is not None:
            return b""
        data = b"".join(self._memory)
        if piece := self._source.read_nowait():
            self._keep(piece)  # after the join, since it may discard the copy or move it to the file
            data += piece
        self._position = len(data)
        return data

    async def read(self) -> bytes:
        """Returns the next bytes and copies them; b"" at the end.

        Raises the source's error, and InternalError if the copy cannot be read back.
        """
        if self._position == self.length:
            return b""
        if self._file is not None and self._position < self._file_bytes:
            piece = self._read_file(self._file, self._file_bytes - self._position)
        elif piece := await self._source.readany():
            self._keep(piece)
        elif self.length is None:
            self._note_whole()
        self._position += len(piece)
        return piece

    def _read_file(self, file: BinaryIO, left: int) -> bytes:
        try:
            if piece := os.pread(file.fileno(), min(_SPOOL_READ_BYTES, left), self._position):
                return piece
            error = OSError("the file is shorter than what was written")
        except OSError as failure:
            error = failure
        self._lose_copy(LostCopy.DISK, error)
        raise InternalError("The proxy could not read its copy of the request's body.", reason=str(LostCopy.DISK))

    def _keep(self, piece: bytes) -> None:
        self.received_bytes += len(piece)
        if not self._keeping:
            return
        policy, in_memory = self._budget.policy, self._memory_bytes + len(piece)
        if self.received_bytes > policy.replay_limit_bytes:
            self._lose_copy(LostCopy.REPLAY_LIMIT)
        elif self._file is None and in_memory <= policy.memory_bytes and self._budget.reserve_memory(len(piece)):
            self._memory.append(piece)
            self._memory_bytes = in_memory
        else:
            self._move_to_file(piece)
        if self.received_bytes == self.length:
            self._note_whole()

    def _note_whole(self) -> None:
        if self.on_whole is not None and self._keeping:
            on_whole, self.on_whole = self.on_whole, None
            on_whole()

    def _move_to_file(self, piece: bytes) -> None:
        """Moves the copy to the file and appends `piece`; loses the copy if the budget or the disk is exhausted."""
        pieces = [*self._memory, piece]
        count = sum(map(len, pieces))
        if not self._budget.reserve_spool(count):
            self._lose_copy(LostCopy.SPOOL_TOTAL)
            return
        self._file_bytes += count
        try:
            if self._file is None:
                self._file = self._budget.open_spool_file()
            for chunk in pieces:
                view = memoryview(chunk)
                while view:
                    view = view[self._file.write(view) :]
        except OSError as error:
            self._lose_copy(LostCopy.DISK, error)
        else:
            self._free_memory()

    def _lose_copy(self, cause: LostCopy, error: OSError | None = None) -> None:
        self.lost = cause
        self._discard_copy()
        self._budget.on_lost(cause, error)

    def _free_memory(self) -> None:
        self._memory.clear()
        self._budget.memory_bytes -= self._memory_bytes
        self._memory_bytes = 0

    def _discard_copy(self) -> None:
        self._keeping = False
        self._free_memory()
        self._budget.spool_bytes -= self._file_bytes
        self._file_bytes = 0
        if self._file is not None:
            self._budget.close_spool_file(self._file)
            self._file = None
