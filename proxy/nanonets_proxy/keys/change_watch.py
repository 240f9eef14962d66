"""When to read a source again: a file that changed, a time that has passed, or never.

A file is watched twice over. inotify tells at once; what it cannot see (changes made by another machine on
a network share, a directory that was swapped for another) the look at the file every half second does. Where
there is no inotify, that look is all, and early enough.
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

LOOK_EVERY_S: Final = 0.5
_SETTLE_S: Final = 0.02
_MOST_SETTLING: Final = 15  # looks; an editor's file is empty for a moment, not for longer
_MOST_LINKS: Final = 40  # as Linux has it

_Look: TypeAlias = tuple[int, ...] | None


class ChangeWatch(Protocol):
    async def wait(self) -> None:
        """Returns when the source should be read again."""
        ...

    def close(self) -> None: ...


class NoChanges:
    """For a source that cannot change."""

    async def wait(self) -> None:
        await asyncio.get_running_loop().create_future()

    def close(self) -> None:
        """Nothing is open."""


class PeriodicWatch:
    """For a source that has to be asked. `wait_s` is asked each time for how long."""

    def __init__(self, wait_s: Callable[[], float]) -> None:
        self._wait_s = wait_s

    async def wait(self) -> None:
        await asyncio.sleep(self._wait_s())

    def close(self) -> None:
        """Nothing is open."""


class FileWatch:
    """For a file, however it changes: written in place, renamed over, behind a link, or the link's target."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen = _look(path)
        self._inotify = _open_inotify()

    async def wait(self) -> None:
        """Returns when the file is another one than at the last call, or at the start, and has come to rest."""
        while True:
            await self._something_happened()
            look = await in_daemon_thread(lambda: _look(self._path))
            if look != self._seen:
                self._seen = await self._settled(look)
                return

    def close(self) -> None:
        if self._inotify is not None:
            self._inotify.close()

    async def _something_happened(self) -> None:
        """An event in one of the file's directories, or the time for a look."""
        if self._inotify is None or not await in_daemon_thread(self._arm):
            await asyncio.sleep(LOOK_EVERY_S)
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOOK_EVERY_S):
                await self._inotify.get()
                for _ in self._inotify:
                    """All that has happened is one reason to look."""

    def _arm(self) -> bool:
        """Watches each directory that the file, or a link on the way to it, stands in. Anew each time: any of
        them may have been replaced."""
        from asyncinotify import Mask  # here: the module cannot be imported where there is no inotify

        assert self._inotify is not None
        mask = Mask.CREATE | Mask.MOVE | Mask.CLOSE_WRITE | Mask.DELETE | Mask.ATTRIB | Mask.ONLYDIR
        armed = False
        for directory in _directories(self._path):
            # One that is missing, or one too many for this user: the look is left.
            with contextlib.suppress(OSError):
                self._inotify.add_watch(directory, mask)
                armed = True
        return armed

    async def _settled(self, look: _Look) -> _Look:
        for _ in range(_MOST_SETTLING):
            await asyncio.sleep(_SETTLE_S)
            before, look = look, await in_daemon_thread(lambda: _look(self._path))
            if look == before and look is not None and look[0] > 0:
                break
        return look


def _look(path: Path) -> _Look:
    """What tells one state of a file from another, its size first; None where there is none."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_dev


def _directories(path: Path) -> list[Path]:
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
        from asyncinotify import Inotify  # as in _arm

        return Inotify(sync_timeout=0)
    except Exception as error:  # noqa: BLE001 - whatever it is (no Linux, too many instances), looking is left
        structlog.get_logger().warning("key_watch_looks_only", reason=type(error).__name__)
        return None
