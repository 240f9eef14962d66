"""A request body that is in a file already, and can be sent again as often as needed."""

from pathlib import Path
from typing import BinaryIO, cast

from nanonets_proxy.upstream.body import BodyBudget, BodyPolicy, RequestBody


class _Ended:
    """The source of a body of which nothing more comes."""

    def read_nowait(self) -> bytes:
        return b""

    async def readany(self) -> bytes:
        return b""


class StoredBody(RequestBody):
    """A body in a file that outlives the request. It takes nothing from the budget of copies."""

    __slots__ = ()

    def __init__(self, path: Path, length: int) -> None:
        """Opens the file. Raises OSError."""
        super().__init__(_Ended(), length, _no_budget(path.parent, length))
        self._file = cast("BinaryIO", path.open("rb", buffering=0))
        self._budget.spool_files += 1
        self._budget.spool_bytes += length
        self._file_bytes = self.received_bytes = length


def _no_budget(directory: Path, length: int) -> BodyBudget:
    """Returns a budget for this body alone."""
    return BodyBudget(BodyPolicy(0, 0, directory, length, length, 1))
