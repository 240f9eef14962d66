"""Files that are loaded again when they change: callers' tokens, and the listeners' certificates.

If the new content cannot be used, the last good state stays in force, an alert says so, and the file is read again
soon. Removing a caller takes effect on its next request. While the file is unreadable, the previous callers stay
valid.
"""

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Final

import structlog

from nanonets_proxy.keys.change_watch import FileWatch
from nanonets_proxy.telemetry.alerts import Alerts

_ALERT: Final = "file_not_reloaded"
_ADVICE: Final = "correct the file, which is then read within seconds; its last good content stays valid"


class ReloadedFile:
    """Calls `load` after each change of `path` since it was made, from `start()` to `stop()`.

    If the content cannot be used, `load` must raise ValueError or OSError and must have changed nothing.
    """

    def __init__(self, path: Path, setting: str, load: Callable[[], None], alerts: Alerts) -> None:
        """`setting` names the file."""
        self.path = path
        self._setting = setting
        self._load = load
        self._alerts = alerts
        self._fault: str | None = None
        self._watch = FileWatch(path)
        self._log = structlog.get_logger()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    def cancel(self) -> None:
        """Ends the watch, without waiting for its end."""
        self._end_alert()
        if self._task is not None:
            self._task.cancel()

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def reload(self, *, on_demand: bool = True) -> str | None:
        """Loads the file now. Returns a sentence that says why it cannot be used, or None.

        Reports a fault that is known already only `on_demand`.
        """
        try:
            self._load()
        except (ValueError, OSError) as error:
            if on_demand or str(error) != self._fault:
                self._report(str(error))
            return f"{self.path} {error}"
        self._end_alert()
        self._log.info("file_reloaded", file=str(self.path))
        return None

    def _report(self, fault: str) -> None:
        self._fault = fault
        facts = {"setting": self._setting, "path": str(self.path), "reason": fault}
        self._alerts.report(_ALERT, _ADVICE, kind=self._setting, lasting=True, log_always=True, **facts)

    def _end_alert(self) -> None:
        if self._fault is not None:
            self._fault = None
            self._alerts.end(_ALERT, self._setting)

    async def _run(self) -> None:
        while True:
            await self._watch.wait(failed=self._fault is not None)
            self.reload(on_demand=False)
