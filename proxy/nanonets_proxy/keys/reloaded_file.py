"""Files that are read again when they change: callers' tokens, the listeners' certificates.

What cannot be used leaves the last good state as it is, and the log says so. Who is dropped from a file is out
with the next request; who cannot be read for a moment is not.
"""

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path

import structlog

from nanonets_proxy.core.access.caller_tokens import CallerToken, parse_token_lines
from nanonets_proxy.keys.change_watch import FileWatch
from nanonets_proxy.keys.files import FileUnreadable, read_small_file


def read_caller_tokens(path: Path) -> tuple[CallerToken, ...]:
    """ValueError: the file cannot be used; the message is the end of a sentence that starts with its name."""
    try:
        return parse_token_lines(read_small_file(path))
    except FileUnreadable as error:
        raise ValueError(str(error)) from None


class ReloadedFile:
    """Calls `use` each time that `path` has changed, until `stop()`. `use` raises ValueError, or OSError, for what
    cannot be used, and then has changed nothing."""

    def __init__(self, path: Path, use: Callable[[], None]) -> None:
        self._path = path
        self._use = use
        self._log = structlog.get_logger()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def reload(self) -> str | None:
        """Reads the file now; why it cannot be used."""
        try:
            self._use()
        except (ValueError, OSError) as error:
            self._log.error("file_not_reloaded", file=str(self._path), reason=str(error))
            return f"{self._path} {error}"
        self._log.info("file_reloaded", file=str(self._path))
        return None

    async def _run(self) -> None:
        watch = FileWatch(self._path)
        try:
            while True:
                await watch.wait()
                self.reload()
        finally:
            watch.close()
