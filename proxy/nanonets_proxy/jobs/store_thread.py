"""A thread that runs operations of the database of jobs, in the order in which they come."""

import asyncio
import queue
import sqlite3
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple, TypeVar

from nanonets_proxy.jobs.database import JobDatabase
from nanonets_proxy.telemetry.database_fault import DiskFull, fault_of

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
    fault = fault_of(error)
    return StoreFault(str(fault), is_full=isinstance(fault, DiskFull))


class Queued(NamedTuple):
    """An operation that waits for the thread."""

    operation: Operation[Any]
    future: "asyncio.Future[Any]"


class Finished(NamedTuple):
    """What an operation has returned, or its error."""

    future: "asyncio.Future[Any]"
    result: Any
    error: Exception | None


class StoreThread(ABC):
    """Owns one connection. `start` must follow."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[Queued | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self, database: JobDatabase) -> None:
        """Takes over the open database."""
        self._database = database
        self._thread.start()

    def run(self, operation: Operation[T]) -> "asyncio.Future[T]":
        """Returns the future of an operation, which raises NoRoom or StoreFault."""
        future: asyncio.Future[T] = self._loop.create_future()
        self._queue.put(Queued(operation, future))
        return future

    def close(self) -> None:
        """Runs what is queued, then closes the database."""
        self._queue.put(None)
        self._thread.join(_CLOSE_TIMEOUT_S)

    def _run(self) -> None:
        is_open = True
        while is_open:
            group = [self._queue.get()]
            with suppress(queue.Empty):
                while len(group) < _MOST_IN_ONE:
                    group.append(self._queue.get_nowait())
            is_open = None not in group
            self._run_group([queued for queued in group if queued is not None])
        self._database.close()

    @abstractmethod
    def _run_group(self, group: list[Queued]) -> None:
        """Runs the operations that have come while the thread was busy, and resolves their futures."""

    def _report(self, outcomes: Sequence[Finished]) -> None:
        """Resolves futures on the event loop."""
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(_resolve, outcomes)


def _resolve(outcomes: Sequence[Finished]) -> None:
    for future, result, error in outcomes:
        if future.done():  # its task was cancelled
            continue
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)


class StoreReader(StoreThread):
    """Runs operations that change nothing. Each one sees one state of the database.

    It has a connection of its own. So a caller that polls does not wait until the writer's fsync is over, and gets
    its response also while the disk is full or another process holds the lock for writing (sqlite.org/wal.html
    §2.2).
    """

    def __init__(self) -> None:
        """`start` must follow."""
        super().__init__("jobs-reader")

    def _run_group(self, group: list[Queued]) -> None:
        outcomes = []
        for queued in group:
            try:
                self._database.begin_reading()
                outcomes.append(Finished(queued.future, queued.operation(self._database), None))
            except Exception as error:  # noqa: BLE001 - the thread must go on: without it no caller could poll
                outcomes.append(Finished(queued.future, None, store_fault(error)))
            with suppress(sqlite3.Error):
                self._database.roll_back()
        self._report(outcomes)
