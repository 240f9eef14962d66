"""The thread that writes the usage ledger. It keeps a batch that it cannot write, and tries again.

A damaged file is put aside (`file.py`), and a new file begins; so it does if the file is removed or replaced.
"""

import queue
import sqlite3
import threading
import time
from contextlib import suppress
from typing import Final

from nanonets_proxy.core.usage.rollups import DAY_S
from nanonets_proxy.telemetry.database_fault import DatabaseCorrupt, DatabaseFault, fault_of
from nanonets_proxy.telemetry.ledger.batch import Batch
from nanonets_proxy.telemetry.ledger.database import LedgerDatabase
from nanonets_proxy.telemetry.ledger.file import put_aside
from nanonets_proxy.telemetry.ledger.ledger import Reports
from nanonets_proxy.telemetry.ledger.policy import LedgerPolicy

_RETRY_S: Final = 1.0
_MAINTENANCE_INTERVAL_S: Final = 5.0
_CLOSE_TIMEOUT_S: Final = 3.0


class LedgerWriter:
    """Owns the only connection that writes."""

    def __init__(self, policy: LedgerPolicy, reports: Reports) -> None:
        self._policy = policy
        self._reports = reports
        self._batches: queue.SimpleQueue[Batch | None] = queue.SimpleQueue()
        self._closing = threading.Event()
        self._database: LedgerDatabase | None = None
        self._next_maintenance_s = 0.0
        self._is_maintenance_due = False
        self._added = 0  # rows since the last maintenance
        self._written = 0
        self._fault: str | None = None
        self._thread = threading.Thread(target=self._run, name="usage-ledger", daemon=True)
        self._thread.start()

    def put(self, batch: Batch) -> None:
        self._batches.put(batch)

    def close(self) -> tuple[int, str | None]:
        self._closing.set()
        self._batches.put(None)
        self._thread.join(_CLOSE_TIMEOUT_S)
        return self._written, self._fault

    def _run(self) -> None:
        # Opens the file now, so that an unusable one is reported before the first request.
        with suppress(DatabaseFault):
            self._maintain(self._open())
        while (batch := self._next_batch()) is not None:
            while not self._write(batch):
                if self._closing.wait(_RETRY_S):
                    if self._write(batch):
                        break
                    return
        if self._database is not None:
            self._database.close()

    def _next_batch(self) -> Batch | None:
        """Waits for a batch. Does the maintenance meanwhile, if there were batches after the last one."""
        while self._is_maintenance_due:
            with suppress(queue.Empty):
                return self._batches.get(timeout=max(0.0, self._next_maintenance_s - time.monotonic()))
            self._is_maintenance_due = False
            if self._database is not None:
                self._maintain(self._database)
        return self._batches.get()

    def _write(self, batch: Batch) -> bool:
        """Writes a batch. Returns False if it must be tried again, and reports why."""
        try:
            database = self._open()
            try:
                database.write(batch)
            except (sqlite3.Error, OSError) as error:
                raise self._give_up(fault_of(error)) from error
            count = batch.row_count
            self._written += count
            self._fault = None
            self._reports.written(count)
            self._added += count
            self._maintain(database)
        except DatabaseFault:
            return False
        return True

    def _maintain(self, database: LedgerDatabase) -> None:
        """Deletes what is too old, and reports today's usage, at intervals. Reports a fault, and raises nothing."""
        now_s = time.monotonic()
        self._is_maintenance_due = now_s < self._next_maintenance_s
        if self._is_maintenance_due:
            return
        self._next_maintenance_s = now_s + _MAINTENANCE_INTERVAL_S
        added, self._added = self._added, 0
        try:
            database.delete_old(added)
            self._reports.usage(database.usage_of(int(time.time()) // DAY_S))
        except (sqlite3.Error, OSError) as error:
            self._give_up(fault_of(error))

    def _open(self) -> LedgerDatabase:
        """Returns the open database. Raises DatabaseFault, which is reported by then."""
        if self._database is not None and self._database.is_replaced():
            self._close_database()
        if self._database is None:
            policy = self._policy
            try:
                self._database = LedgerDatabase(policy.path, policy.days, policy.max_rows)
            except (sqlite3.Error, OSError) as error:
                raise self._give_up(fault_of(error)) from error
            except DatabaseFault as fault:
                raise self._give_up(fault) from None
        return self._database

    def _give_up(self, fault: DatabaseFault) -> DatabaseFault:
        """Closes the database, puts a damaged file aside, and reports the fault unless that cured it."""
        is_replaced = self._database is not None and self._database.is_replaced()
        self._close_database()
        if isinstance(fault, DatabaseCorrupt):
            if is_replaced:  # another process has put it aside
                return fault
            try:
                aside = put_aside(self._policy.path)
            except OSError as error:
                fault = DatabaseCorrupt(f"{fault}, and cannot be renamed: {(error.strerror or str(error)).lower()}")
            else:
                self._reports.put_aside(aside, str(fault))
                return fault
        self._fault = str(fault)
        self._reports.fault(self._fault, fault.cure)
        return fault

    def _close_database(self) -> None:
        database, self._database = self._database, None
        if database is not None:
            with suppress(sqlite3.Error):
                database.close()
