"""The thread that owns the database of jobs. It commits many operations with one fsync (group commit).

An operation is durable when its future resolves. Operations that come while the thread writes form the next
transaction. If a transaction fails, none of its operations has happened, and each of their futures raises. If the
fault is one operation's own, such as a missing file, the others are tried again without it.
"""

import asyncio
import errno
import os
import queue
import sqlite3
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

from nanonets_proxy.jobs.database import JobDatabase
from nanonets_proxy.jobs.records import NoRoom, Tally
from nanonets_proxy.telemetry.database_fault import fault_of

T = TypeVar("T")
Operation = Callable[[JobDatabase], T]

_MOST_IN_ONE: Final = 256
_CLOSE_TIMEOUT_S: Final = 5.0


class StoreFault(Exception):
    """The store cannot be used. The message is the end of a sentence that starts with the directory's name."""

    def __init__(self, message: str, *, is_full: bool = False) -> None:
        """`is_full`: the disk is full."""
        super().__init__(message)
        self.is_full = is_full


def store_fault(error: Exception) -> StoreFault:
    """Returns what an error says about the store."""
    if not isinstance(error, sqlite3.Error | OSError):
        return StoreFault(f"has met a defect of the proxy: {type(error).__name__}: {error}")
    if isinstance(error, OSError):
        is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        return StoreFault(
            "cannot be written: the disk is full" if is_full else str(fault_of(error)), is_full=is_full
        )
    return StoreFault(str(fault_of(error)), is_full=getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_FULL)


class _Queued(NamedTuple):
    operation: Operation[Any]
    future: "asyncio.Future[Any]"
    files: tuple[Path, ...]


class _Outcome(NamedTuple):
    future: "asyncio.Future[Any]"
    result: Any
    error: Exception | None


class StoreWriter:
    """Runs operations in the order in which they come."""

    def __init__(self, path: Path, on_tally: Callable[[Tally], None]) -> None:
        """Calls `on_tally` on the event loop after each transaction. `start` must follow."""
        self._path = path
        self._on_tally = on_tally
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[_Queued | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="jobs", daemon=True)

    def start(self, database: JobDatabase) -> None:
        """Takes over the open database."""
        self._database = database
        self._directory = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._thread.start()

    def run(self, operation: Operation[T], *files: Path) -> "asyncio.Future[T]":
        """Returns the future of an operation. `files` are on the disk before it. It raises NoRoom or StoreFault."""
        future: asyncio.Future[T] = self._loop.create_future()
        self._queue.put(_Queued(operation, future, files))
        return future

    def close(self) -> None:
        """Runs what is queued, then closes the database."""
        self._queue.put(None)
        self._thread.join(_CLOSE_TIMEOUT_S)
        os.close(self._directory)

    def _run(self) -> None:
        is_open = True
        while is_open:
            group = [self._queue.get()]
            with suppress(queue.Empty):
                while len(group) < _MOST_IN_ONE:
                    group.append(self._queue.get_nowait())
            is_open = None not in group
            self._transact([queued for queued in group if queued is not None])
        self._database.close()

    def _transact(self, group: list[_Queued]) -> None:
        """Runs a group in one transaction. Operations with a fault of their own are left out."""
        faulty: list[_Outcome] = []
        synced = self._sync_files(group, faulty)
        while synced and (at := self._try_to_transact(synced, faulty)) is not None:
            del synced[at]
        if faulty:
            self._report(faulty, None)

    def _try_to_transact(self, group: list[_Queued], faulty: "list[_Outcome]") -> int | None:
        """Commits a group, and resolves its futures. Returns the place of an operation that has a defect.

        Then nothing has changed, and the operation's outcome is added to `faulty`.
        """
        outcomes: list[_Outcome] = []
        tally = None
        try:
            self._database.begin()
            for queued in group:
                try:
                    outcomes.append(_Outcome(queued.future, queued.operation(self._database), None))
                except NoRoom as error:
                    outcomes.append(_Outcome(queued.future, None, error))
            tally = self._database.tally()
            self._database.commit()
        except Exception as error:  # noqa: BLE001 - the thread must go on: without it every job would be stuck
            with suppress(sqlite3.Error):
                self._database.roll_back()
            fault = store_fault(error)
            if not isinstance(error, sqlite3.Error | OSError) and len(outcomes) < len(group):
                at = len(outcomes)
                faulty.append(_Outcome(group[at].future, None, fault))
                return at
            outcomes, tally = [_Outcome(queued.future, None, fault) for queued in group], None
        self._report(outcomes, tally)
        return None

    def _sync_files(self, group: list[_Queued], faulty: "list[_Outcome]") -> list[_Queued]:
        """Returns the operations whose files are on the disk, and adds the outcomes of the others to `faulty`."""
        synced, has_files = [], False
        for queued in group:
            try:
                for file in queued.files:
                    _sync(file)
                    has_files = True
                synced.append(queued)
            except OSError as error:
                faulty.append(_Outcome(queued.future, None, store_fault(error)))
        try:
            if has_files:
                os.fsync(self._directory)  # the names of new files
        except OSError as error:
            faulty += [_Outcome(queued.future, None, store_fault(error)) for queued in synced]
            return []
        return synced

    def _report(self, outcomes: "list[_Outcome]", tally: Tally | None) -> None:
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._resolve, outcomes, tally)

    def _resolve(self, outcomes: "list[_Outcome]", tally: Tally | None) -> None:
        if tally is not None:
            self._on_tally(tally)
        for future, result, error in outcomes:
            if future.done():  # its task was cancelled
                continue
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)


def _sync(file: Path) -> None:
    descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
