"""Tells when to read a source again: after a file changed, after an interval, or never.

A file's status is compared four times a second. inotify would report a change sooner, but misses replaced
directories, and changes that another machine makes on a network share. So it could not replace the comparison.
"""

import asyncio
import math
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol, TypeAlias

from nanonets_proxy.aio.daemon_thread import NoThread, in_daemon_thread

_CHECK_EVERY_S: Final = 0.25
_RETRY_S: Final = 5.0
_STABLE_S: Final = 0.02
_MOST_STABLE_CHECKS: Final = 15  # an editor may leave the file empty, but only for a moment

_Status: TypeAlias = tuple[int, ...] | None


class ChangeWatch(Protocol):
    """Watches one source for changes."""

    async def wait(self, *, failed: bool = False) -> None:
        """Returns when the source should be read again. `failed`: its last reading failed."""
        ...


class NoChanges:
    """Watches a source that cannot change."""

    async def wait(self, *, failed: bool = False) -> None:  # noqa: ARG002 - as in ChangeWatch
        await asyncio.get_running_loop().create_future()


class PeriodicWatch:
    """Watches a source that must be polled. `next_wait_s` returns the seconds until the next reading."""

    def __init__(self, next_wait_s: Callable[[], float]) -> None:
        self._next_wait_s = next_wait_s

    async def wait(self, *, failed: bool = False) -> None:  # noqa: ARG002 - as in ChangeWatch
        await asyncio.sleep(self._next_wait_s())


class FileWatch:
    """Watches a file for writes, for replacement by a rename, and for changes of the links that lead to it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen = _status(path)

    async def wait(self, *, failed: bool = False) -> None:
        """Returns when the file has changed since the last call (at first: since the start) and is stable again.

        After a failed reading, it returns soon in any case: a disk or a network share that fails for a moment
        changes no file.
        """
        loop = asyncio.get_running_loop()
        retry_at_s = loop.time() + _RETRY_S if failed else math.inf
        status = self._seen
        while status == self._seen:
            if loop.time() >= retry_at_s:
                return
            await asyncio.sleep(_CHECK_EVERY_S)
            status = await self._status()
        self._seen = await self._until_stable(status)

    async def _status(self) -> _Status:
        try:
            return await in_daemon_thread(lambda: _status(self._path))
        except NoThread:  # a later check finds the change
            return self._seen

    async def _until_stable(self, status: _Status) -> _Status:
        """Waits until the file exists, is not empty and stays the same, for a limited time."""
        for _ in range(_MOST_STABLE_CHECKS):
            await asyncio.sleep(_STABLE_S)
            before, status = status, await self._status()
            if status == before and status is not None and status[0] > 0:
                break
        return status


def _status(path: Path) -> _Status:
    """Returns the values that change with the file, its size first; None if the file cannot be found."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_dev
