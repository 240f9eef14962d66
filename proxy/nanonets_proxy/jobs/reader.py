"""The thread that reads the database of jobs.

It has a connection of its own. So a caller that polls does not wait until the writer's fsync is over, and gets its
response also while the disk is full or another process holds the lock for writing (sqlite.org/wal.html §2.2).
"""

import sqlite3
from contextlib import suppress

from nanonets_proxy.jobs.store_thread import Outcome, Queued, StoreThread, store_fault


class StoreReader(StoreThread):
    """Runs operations that change nothing. Each one sees one state of the database."""

    def __init__(self) -> None:
        """`start` must follow."""
        super().__init__("jobs-reader")

    def _run_group(self, group: list[Queued]) -> None:
        outcomes = []
        for queued in group:
            try:
                self._database.begin_reading()
                outcomes.append(Outcome(queued.future, queued.operation(self._database), None))
            except Exception as error:  # noqa: BLE001 - the thread must go on: without it no caller could poll
                outcomes.append(Outcome(queued.future, None, store_fault(error)))
            with suppress(sqlite3.Error):
                self._database.roll_back()
        self._report(outcomes)
