"""The thread that changes the database of jobs. It commits many operations with one fsync (group commit).

An operation is durable when its future resolves. Operations that come while the thread writes form the next
transaction. If a transaction fails, none of its operations has happened, and each of their futures raises. If the
fault is one operation's own, such as a missing file, the others are tried again without it.
"""

import os
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from nanonets_proxy.jobs.database import JobDatabase
from nanonets_proxy.jobs.records import NoRoom, Tally
from nanonets_proxy.jobs.store_thread import Outcome, Queued, StoreThread, store_fault


class StoreWriter(StoreThread):
    """Runs operations. The `files` of an operation are on the disk before it."""

    def __init__(self, path: Path, on_tally: Callable[[Tally], None]) -> None:
        """Calls `on_tally` on the event loop after each transaction. `start` must follow."""
        super().__init__("jobs")
        self._path = path
        self._on_tally = on_tally

    def start(self, database: JobDatabase) -> None:
        self._directory = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        super().start(database)

    def close(self) -> None:
        super().close()
        os.close(self._directory)

    def _run_group(self, group: list[Queued]) -> None:
        """Runs a group in one transaction. Operations with a fault of their own are left out."""
        faulty: list[Outcome] = []
        synced = self._sync_files(group, faulty)
        while synced and (at := self._try_to_transact(synced, faulty)) is not None:
            del synced[at]
        if faulty:
            self._report(faulty)

    def _try_to_transact(self, group: list[Queued], faulty: list[Outcome]) -> int | None:
        """Commits a group, and resolves its futures. Returns the place of an operation that has a defect.

        Then nothing has changed, and the operation's outcome is added to `faulty`.
        """
        outcomes: list[Outcome] = []
        try:
            self._database.begin()
            for queued in group:
                try:
                    outcomes.append(Outcome(queued.future, queued.operation(self._database), None))
                except NoRoom as error:
                    outcomes.append(Outcome(queued.future, None, error))
            tally = self._database.tally()
            self._database.commit()
        except Exception as error:  # noqa: BLE001 - the thread must go on: without it every job would be stuck
            with suppress(sqlite3.Error):
                self._database.roll_back()
            fault = store_fault(error)
            if not isinstance(error, sqlite3.Error | OSError) and len(outcomes) < len(group):
                at = len(outcomes)
                faulty.append(Outcome(group[at].future, None, fault))
                return at
            outcomes = [Outcome(queued.future, None, fault) for queued in group]
        else:
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._on_tally, tally)
        self._report(outcomes)
        return None

    def _sync_files(self, group: list[Queued], faulty: list[Outcome]) -> list[Queued]:
        """Returns the operations whose files are on the disk, and adds the outcomes of the others to `faulty`."""
        synced, has_files = [], False
        for queued in group:
            try:
                for file in queued.files:
                    _sync(file)
                    has_files = True
                synced.append(queued)
            except OSError as error:
                faulty.append(Outcome(queued.future, None, store_fault(error)))
        try:
            if has_files:
                os.fsync(self._directory)  # the names of new files
        except OSError as error:
            faulty += [Outcome(queued.future, None, store_fault(error)) for queued in synced]
            return []
        return synced


def _sync(file: Path) -> None:
    descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
