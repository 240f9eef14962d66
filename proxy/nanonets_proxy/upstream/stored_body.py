"""A request body that is in a file already, and can be sent again as often as needed."""

from pathlib import Path
from typing import BinaryIO, cast

from nanonets_proxy.upstream.body import BodyBudget, RequestBody
from nanonets_proxy.upstream.policy import BodyPolicy


class _Ended:
    """The source of a body of which nothing more comes."""

    def read_nowait(self) -> bytes:
        return b""

    async def readany(self) -> bytes:
        return b""


class StoredBody(RequestBody):
    """A body in a file that outlives the request. It takes nothing from the budget of copies.

    Its file is open between `open` and `close`, so that a request that waits keeps no file open.
    """

    __slots__ = ("_path",)

    def __init__(self, path: Path, length: int) -> None:
        super().__init__(_Ended(), length, _no_budget(path.parent, length))
        self._path = path
        self._budget.spool_bytes += length
        self._file_bytes = self.received_bytes = length

    def open(self) -> None:
        """Opens the file, unless it is open, until `close` or the end of the context. Raises OSError."""
        if self._file is None:
            self._file = cast("BinaryIO", self._path.open("rb", buffering=0))
            self._budget.spool_files += 1

    def close(self) -> None:
        """Closes the file. Another `open` may follow."""
        if self._file is not None:
            self._budget.close_spool_file(self._file)
            self._file = None


def _no_budget(directory: Path, length: int) -> BodyBudget:
    """Returns a budget for this body alone."""
    return BodyBudget(BodyPolicy(0, 0, directory, length, length, 1))
