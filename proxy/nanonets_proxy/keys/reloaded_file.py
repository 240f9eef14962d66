"""Files that are loaded again when they change: callers' tokens, and the listeners' certificates.

If the new content cannot be used, the last good state stays in force, and the log says so. Removing a caller takes
effect on its next request. While the file is unreadable, the previous callers stay valid.
"""

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path

import structlog

from nanonets_proxy.keys.change_watch import FileWatch


class ReloadedFile:
    """Calls `load` after each change of `path` since it was made, from `start()` to `stop()`.

    If the content cannot be used, `load` must raise ValueError or OSError and must have changed nothing.
    """

    def __init__(self, path: Path, load: Callable[[], None]) -> None:
        self.path = path
        self._load = load
        self._watch = FileWatch(path)
        self._log = structlog.get_logger()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    def cancel(self) -> None:
        """Ends the watch, without waiting for its end."""
        if self._task is not None:
            self._task.cancel()

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def reload(self) -> str | None:
        """Loads the file now. Returns a sentence that says why it cannot be used, or None."""
        try:
            self._load()
        except (ValueError, OSError) as error:
            self._log.error("file_not_reloaded", file=str(self.path), reason=str(error))
            return f"{self.path} {error}"
        self._log.info("file_reloaded", file=str(self.path))
        return None

    async def _run(self) -> None:
        while True:
            await self._watch.wait()
            self.reload()
