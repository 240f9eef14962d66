"""The small file in which what was learned of the limits outlives the process.

Written anew each time, beside its place and then moved there (rename(2) is atomic), for the owner alone. What
cannot be read is put aside under the name with `.bad` behind it, and told; it never stops the program.
"""

import json
import os
import time
from pathlib import Path

import structlog

from nanonets_proxy.core.ratelimit.gate import Gate
from nanonets_proxy.core.ratelimit.snapshot import dump, load

_MAX_BYTES = 4 * 2**20
_MODE = 0o600


class StateFile:
    """Of one gate and one upstream."""

    def __init__(self, path: Path, upstream: str) -> None:
        self._path = path
        self._upstream = upstream
        self._log = structlog.get_logger()

    def restore(self, gate: Gate, now_s: float) -> None:
        """Hands what the file holds to the gate; a file that is not there is a first start."""
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
            gate.restore(snapshots, now_s, away_s)
            self._log.info("state_restored", path=str(self._path), scopes=len(snapshots), away_s=round(away_s, 1))

    def save(self, gate: Gate, now_s: float) -> None:
        """Replaces the file; a failure is told and costs nothing else."""
        text = json.dumps(dump(gate.snapshots(now_s), self._upstream, time.time()), indent=1)
        new = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        try:
            new.unlink(missing_ok=True)  # of a process of the same number that was killed in the middle
            # O_EXCL: nobody's link is followed; 0600 from the very first moment.
            descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _MODE)
            with os.fdopen(descriptor, "w") as file:
                file.write(text)
            new.replace(self._path)
        except OSError as error:
            self._log.warning("state_file_not_written", path=str(self._path), reason=error.strerror)

    def _put_aside(self, reason: str) -> None:
        aside = self._path.with_name(self._path.name + ".bad")
        try:
            self._path.replace(aside)
        except OSError as error:
            self._log.warning("state_file_unreadable", path=str(self._path), reason=error.strerror)
        else:
            self._log.warning("state_file_put_aside", path=str(self._path), aside=str(aside), reason=reason)
