"""The state file, which keeps limits and closures across restarts.

Each save writes a new file beside the old one and renames it: rename(2) is atomic. Only the owner can read the
file. An invalid file is renamed to `.bad`, with a log event. A fault of the file never stops the program.
"""

import asyncio
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import structlog

from nanonets_proxy.core.ratelimit.gate import Gate
from nanonets_proxy.core.ratelimit.snapshot import dump, load
from nanonets_proxy.telemetry.alerts import Alerts

_MAX_BYTES = 4 * 2**20
_MODE = 0o600
_SAVE_INTERVAL_S = 60.0


def write_fault(path: Path) -> str | None:
    """Returns why the state file `path` cannot be written; None if it can. Leaves the file as it is."""
    try:
        if path.is_dir():
            return "is a directory"
        new = _new_file(path)
        os.close(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _MODE))
        new.unlink()
    except OSError as error:
        return error.strerror.lower() if error.strerror else str(error)
    return None


class StateFile:
    """Restores a gate from its file, and saves it now and then, so that a crash loses little."""

    def __init__(
        self, path: Path, gate: Gate, upstream: str, alerts: Alerts, redact: Callable[[bytes], bytes]
    ) -> None:
        """`redact` masks secrets: callers choose a part of some scopes' names."""
        self._path = path
        self._gate = gate
        self._redact = redact
        self._alerts = alerts
        self._upstream = upstream
        self._loop = asyncio.get_running_loop()
        self._log = structlog.get_logger()
        self._next_save: asyncio.TimerHandle | None = None
        self.is_paused = False
        """Whether the file belongs to another process."""

    def start(self) -> None:
        """Saves the state now, and every minute until `stop`."""
        self._save()
        self._next_save = self._loop.call_later(_SAVE_INTERVAL_S, self.start)

    def stop(self) -> None:
        """Saves the state for the last time."""
        if self._next_save is not None:
            self._next_save.cancel()
        self._save()

    def restore(self) -> None:
        """Restores the gate, before its first use. A missing file means a first start."""
        try:
            with self._path.open("rb") as file:
                document = json.loads(file.read(_MAX_BYTES))
            snapshots, away_s = load(document, self._upstream, time.time())
        except FileNotFoundError:
            return
        except OSError as error:
            self._log.warning("state_file_unreadable", path=str(self._path), reason=error.strerror)
        except (ValueError, RecursionError) as error:
            self._put_aside(str(error))
        else:
            self._gate.scopes.restore(snapshots, self._loop.time(), away_s)
            self._log.info("state_restored", path=str(self._path), scopes=len(snapshots), away_s=round(away_s, 1))

    def _save(self) -> None:
        """Replaces the file, unless it is paused. Reports a failure as an alert."""
        if self.is_paused:
            return
        snapshots = self._gate.scopes.snapshots(self._loop.time())
        text = json.dumps(dump(snapshots, self._upstream, time.time()), indent=1)
        try:
            new = _new_file(self._path)
            # O_EXCL follows no symbolic link. The mode is 0600 from the start.
            descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _MODE)
            with os.fdopen(descriptor, "wb") as file:
                file.write(self._redact(text.encode()))
            new.replace(self._path)
        except OSError as error:
            advice = "make room on its disk, make its directory writable, or set state_file"
            self._alerts.report("state_file_not_written", advice, path=str(self._path), reason=error.strerror)

    def _put_aside(self, reason: str) -> None:
        aside = self._path.with_name(self._path.name + ".bad")
        try:
            self._path.replace(aside)
        except OSError as error:
            self._log.warning("state_file_unreadable", path=str(self._path), reason=error.strerror)
        else:
            self._log.warning("state_file_put_aside", path=str(self._path), aside=str(aside), reason=reason)


def _new_file(path: Path) -> Path:
    """Returns the name of the file that will replace `path`. Removes a leftover of a killed process there."""
    new = path.with_name(f".{path.name}.{os.getpid()}")
    new.unlink(missing_ok=True)
    return new
