"""The thread that changes the database of jobs. It commits many operations with one fsync (group commit).

An operation is durable when its future resolves. Operations that come while the thread writes form the next
transaction. If a transaction fails, none of its operations has happened, and each of their futures raises. If the
fault is a defect of one operation, the others are tried again without it.
"""

import sqlite3
from collections.abc import Callable
from contextlib import suppress

from nanonets_proxy.jobs.records import NoRoom, Tally
from nanonets_proxy.jobs.store_thread import Finished, Queued, StoreThread, store_fault


class StoreWriter(StoreThread):
    """Runs operations that may change the database."""

    def __init__(self, on_tally: Callable[[Tally], None]) -> None:
        """Calls `on_tally` on the event loop after each transaction. `start` must follow."""
        super().__init__("jobs")
        self._on_tally = on_tally

    def _run_group(self, group: list[Queued]) -> None:
        """Runs a group in one transaction. Operations with a defect are left out."""
        while group and (at := self._try_to_transact(group)) is not None:
            del group[at]

    def _try_to_transact(self, group: list[Queued]) -> int | None:
        """Commits a group, and resolves its futures. Returns the place of an operation that has a defect.

        Then nothing has changed, and that operation's future alone is resolved.
        """
        outcomes: list[Finished] = []
        try:
            self._database.begin()
            for queued in group:
                try:
                    outcomes.append(Finished(queued.future, queued.operation(self._database), None))
                except NoRoom as error:
                    outcomes.append(Finished(queued.future, None, error))
            tally = self._database.tally()
            self._database.commit()
        except Exception as error:  # noqa: BLE001 - the thread must go on: without it every job would be stuck
            with suppress(sqlite3.Error):
                self._database.roll_back()
            fault = store_fault(error)
            if not isinstance(error, sqlite3.Error | OSError) and len(outcomes) < len(group):
                at = len(outcomes)
                self._report([Finished(group[at].future, None, fault)])
                return at
            outcomes = [Finished(queued.future, None, fault) for queued in group]
        else:
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._on_tally, tally)
        self._report(outcomes)
        return None
