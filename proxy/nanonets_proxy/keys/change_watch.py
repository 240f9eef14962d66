"""Tells when to read a source again: after a file changed, after an interval, or never.

A file is watched in two ways. inotify reports a change at once, but misses replaced directories, and changes that
another machine makes on a network share. The file's status is therefore compared every half second too. On systems
without inotify, that comparison alone finds the changes.
"""

import asyncio
import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

import structlog

from nanonets_proxy.keys.daemon_thread import in_daemon_thread

if TYPE_CHECKING:
    from asyncinotify import Inotify

CHECK_EVERY_S: Final = 0.5
_STABLE_S: Final = 0.02
_MOST_STABLE_CHECKS: Final = 15  # an editor may leave the file empty, but only for a moment
_MOST_LINKS: Final = 40  # Linux follows no more (path_resolution(7))

_Status: TypeAlias = tuple[int, ...] | None


class ChangeWatch(Protocol):
    """Watches one source for changes."""

    async def wait(self) -> None:
        """Returns when the source should be read again."""
        ...

    def close(self) -> None: ...


class NoChanges:
    """Watches a source that cannot change."""

    async def wait(self) -> None:
        await asyncio.get_running_loop().create_future()

    def close(self) -> None:
        """Nothing is open."""


class PeriodicWatch:
    """Watches a source that must be polled. `next_wait_s` returns the seconds until the next reading."""

    def __init__(self, next_wait_s: Callable[[], float]) -> None:
        self._next_wait_s = next_wait_s

    async def wait(self) -> None:
        await asyncio.sleep(self._next_wait_s())

    def close(self) -> None:
        """Nothing is open."""


class FileWatch:
    """Watches a file for writes, for replacement by a rename, and for changes of the links that lead to it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen = _status(path)
        self._inotify = _open_inotify()

    async def wait(self) -> None:
        """Returns when the file has changed since the last call (at first: since the start) and is stable again."""
        while True:
            await self._wait_for_hint()
            status = await in_daemon_thread(lambda: _status(self._path))
            if status != self._seen:
                self._seen = await self._until_stable(status)
                return

    def close(self) -> None:
        if self._inotify is not None:
            self._inotify.close()

    async def _wait_for_hint(self) -> None:
        """Waits for an inotify event in one of the file's directories, CHECK_EVERY_S at most."""
        if self._inotify is None or not await in_daemon_thread(self._add_watches):
            await asyncio.sleep(CHECK_EVERY_S)
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CHECK_EVERY_S):
                await self._inotify.get()
                for _ in self._inotify:
                    pass  # one check covers all pending events

    def _add_watches(self) -> bool:
        """Watches each directory that holds the file, or a link on the way to it. Returns whether any is watched.

        Called before each wait, because a directory may have been replaced.
        """
        from asyncinotify import Mask  # imported here: the import fails on systems without inotify

        assert self._inotify is not None
        mask = Mask.CREATE | Mask.MOVE | Mask.CLOSE_WRITE | Mask.DELETE | Mask.ATTRIB | Mask.ONLYDIR
        is_watched = False
        for directory in _directories(self._path):
            # The directory is missing, or the user has too many watches: the regular check remains.
            with contextlib.suppress(OSError):
                self._inotify.add_watch(directory, mask)
                is_watched = True
        return is_watched

    async def _until_stable(self, status: _Status) -> _Status:
        """Waits until the file exists, is not empty and stays the same, for a limited time."""
        for _ in range(_MOST_STABLE_CHECKS):
            await asyncio.sleep(_STABLE_S)
            before, status = status, await in_daemon_thread(lambda: _status(self._path))
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


def _directories(path: Path) -> list[Path]:
    """Returns the directory of the file, and of each link's target on the way to it."""
    directories = []
    for _ in range(_MOST_LINKS):
        directories.append(path.parent)
        try:
            path = path.parent / os.readlink(path)  # noqa: PTH115 - pathlib's readlink drops a leading `./`
        except OSError:
            break
    return directories


def _open_inotify() -> "Inotify | None":
    try:
        from asyncinotify import Inotify  # imported here: as in _add_watches

        return Inotify(sync_timeout=0)
    except Exception as error:  # noqa: BLE001 - for any reason (no Linux, too many instances), the regular check remains
        structlog.get_logger().warning("file_watch_polls_only", reason=type(error).__name__)
        return None
