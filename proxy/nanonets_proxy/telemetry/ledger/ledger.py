"""The event loop's side of the usage ledger: collects attempts, and hands them to the writer twice a second.

A kill loses at most a second. Finished attempts wait for at most `_HANDOVER_S`. An attempt that runs for longer
than `_LONG_S` is recorded as unfinished until it ends. While the writer cannot write, up to `MAX_PENDING` rows wait
for it, and further attempts only count as lost. No request waits for the ledger, or fails because of it.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from nanonets_proxy.core.usage.rollups import (
    DAY_S,
    HOUR_S,
    UNFINISHED,
    CallerNames,
    Series,
    known_method,
    status_class,
)

MAX_PENDING: Final = 50_000
"""Rows that wait to be written: 10 seconds at 5,000 requests a second, and about 10 MiB."""
_HANDOVER_S: Final = 0.5
_LONG_S: Final = 0.3


@dataclass(frozen=True, slots=True)
class LedgerPolicy:
    """Where the ledger is, and what it keeps."""

    path: Path
    days: int
    """How long rows and roll-ups are kept."""
    max_rows: int
    """The most rows that are kept; the roll-ups stay."""


Labels = tuple[str, str, str, str]
"""Environment, caller, method, route, as a request has them."""
Sums = dict[tuple[Series, int], list[int]]
"""By series and hour: attempts, requests, request bytes, response bytes, pages. They may be negative."""
ROW_WIDTH: Final = 6


@dataclass(slots=True)
class Batch:
    """Rows to write. A row of a later batch with the same second and number replaces the earlier one."""

    rows: dict[Series, list[int]] = field(default_factory=dict)
    """The values of each series' rows, one row after another.

    A row has `ROW_WIDTH` values: the second of the sending, number, 1 for a request's first attempt, request and
    response bytes, pages. One list of numbers takes a third of the memory of a tuple for each row, is nothing for
    Python's garbage collection, and can be added up by series without a loop in Python.
    """
    corrections: Sums = field(default_factory=dict)
    """What to add to the sums of the rows: less for the series of each row that is replaced."""

    @property
    def row_count(self) -> int:
        return sum(map(len, self.rows.values())) // ROW_WIDTH


@dataclass(frozen=True, slots=True)
class DayUsage:
    """The callers with the most requests of one day (UTC, counted from 1970), by environment."""

    day: int
    callers: Mapping[str, Sequence[tuple[str, int, int]]]
    """Caller, requests, pages."""


@dataclass(frozen=True, slots=True)
class LedgerStatus:
    """Whether the ledger counts attempts, and if not, why."""

    fault: str | None
    """The end of a sentence that starts with the file's name; None: the ledger works."""
    lost: int
    """Attempts since the start of the process that are not in the ledger."""
    pending: int
    """Rows that are not written yet."""


class BatchWriter(Protocol):
    """Writes batches in another thread, and reports to the `Reports` that it was made with."""

    def put(self, batch: Batch) -> None: ...
    def close(self) -> None:
        """Writes what was put, for at most a few seconds."""


class Attempt:
    """One sending of a request, between `Ledger.begin` and `Ledger.end`. The next sending may use it again.

    `labels` are those of its request.
    """

    __slots__ = ("began_s", "labels", "number", "requests", "unfinished")

    labels: Labels
    number: int
    """0: the request is not being sent."""
    requests: int
    """1 for the first sending of a request, otherwise 0."""
    began_s: float
    """By the machine's clock."""
    unfinished: Series | None
    """The series in which the ledger has it as unfinished; None: it has no such row."""

    def __init__(self, labels: Labels) -> None:
        self.labels, self.number, self.requests, self.unfinished = labels, 0, 1, None


class Ledger:
    """The ledger of a process. Calls `on_stop` and `on_resume`, with the fault and with the lost attempts."""

    def __init__(
        self,
        make_writer: "Callable[[Reports], BatchWriter]",
        on_stop: Callable[[str], None],
        on_resume: Callable[[int], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_stop, self._on_resume = on_stop, on_resume
        self._callers = CallerNames()
        self._number = 0
        self._unrecorded: dict[int, Attempt] = {}  # running attempts that are not in the ledger, by number
        self._batch = Batch()
        self._rows: dict[tuple[Labels, int], list[int]] = {}  # those of the batch, by labels and status
        self._collected = 0  # rows of the batch
        self._handover: asyncio.TimerHandle | None = None
        self._handed_over = 0  # rows that the writer has and has not written
        self._lost = 0
        self._lost_before = 0
        self._fault: str | None = None
        self._day_usage = DayUsage(-1, {})
        self._writer = make_writer(Reports(self._loop, self._on_written, self._stop, self._note_usage))

    def status(self) -> LedgerStatus:
        """Returns whether the ledger works."""
        return LedgerStatus(self._fault, self._lost, self._pending)

    def usage_today(self, environment: str) -> Sequence[tuple[str, int, int]]:
        """Returns the callers with the most requests today, with requests and pages, as of a few seconds ago."""
        usage = self._day_usage
        return usage.callers.get(environment, ()) if usage.day == int(time.time()) // DAY_S else ()

    def _note_usage(self, usage: DayUsage) -> None:
        self._day_usage = usage

    @property
    def _pending(self) -> int:
        return self._collected + self._handed_over

    def begin(self, attempt: Attempt) -> None:
        """Notes that a request is being sent. `end` must follow."""
        self._number = number = attempt.number = self._number + 1
        attempt.began_s = time.time()
        self._unrecorded[number] = attempt
        if self._handover is None:
            self._handover = self._loop.call_later(_HANDOVER_S, self._hand_over)

    def end(
        self, attempt: Attempt, status: int, request_bytes: int = 0, response_bytes: int = 0, pages: int = 0
    ) -> None:
        """Notes the result of an attempt; `status` 0: no response came."""
        number, requests = attempt.number, attempt.requests
        attempt.number = attempt.requests = 0
        if self._collected + self._handed_over >= MAX_PENDING:
            self._lose(attempt, number)
            return
        key = attempt.labels, status
        rows = self._rows.get(key)
        if rows is None:
            rows = self._rows[key] = self._rows_of(self._series(attempt.labels, status_class(status)))
        rows += (int(attempt.began_s), number, requests, request_bytes, response_bytes, pages)
        self._collected += 1
        if attempt.unfinished is None:
            del self._unrecorded[number]
        else:
            self._correct(attempt, requests)
            attempt.unfinished = None
        if self._handover is None:
            self._handover = self._loop.call_later(_HANDOVER_S, self._hand_over)

    def close(self) -> None:
        """Writes all rows, within a few seconds. Attempts that still run are recorded as unfinished."""
        if self._handover is not None:
            self._handover.cancel()
        self._hand_over(closing=True)
        self._writer.close()

    def _lose(self, attempt: Attempt, number: int) -> None:
        if attempt.unfinished is None:
            del self._unrecorded[number]
            self._lost += 1
        attempt.unfinished = None
        self._stop("does not take rows as fast as requests are sent")

    def _series(self, labels: Labels, status: str) -> Series:
        environment, caller, method, route = labels
        return environment, self._callers.name(caller, int(time.time())), known_method(method), route, status

    def _rows_of(self, series: Series) -> list[int]:
        return self._batch.rows.setdefault(series, [])

    def _correct(self, attempt: Attempt, requests: int) -> None:
        """Takes back the sums of an attempt that was unfinished."""
        assert attempt.unfinished is not None
        hour = int(attempt.began_s) // HOUR_S
        sums = self._batch.corrections.setdefault((attempt.unfinished, hour), [0, 0, 0, 0, 0])
        sums[0] -= 1
        sums[1] -= requests

    def _record_unfinished(self, attempt: Attempt) -> None:
        attempt.unfinished = series = self._series(attempt.labels, UNFINISHED)
        self._rows_of(series).extend((int(attempt.began_s), attempt.number, attempt.requests, 0, 0, 0))
        self._collected += 1
        del self._unrecorded[attempt.number]

    def _hand_over(self, *, closing: bool = False) -> None:
        """Records the attempts that have run for long, and hands all rows to the writer."""
        now_s = time.time()
        for attempt in list(self._unrecorded.values()):
            is_young = 0 <= now_s - attempt.began_s < _LONG_S  # after the clock was set back, none is young
            if (closing or not is_young) and self._pending < MAX_PENDING:
                self._record_unfinished(attempt)
        if self._collected:
            batch, self._batch = self._batch, Batch()
            self._rows.clear()
            self._handed_over += self._collected
            self._collected = 0
            self._writer.put(batch)
        self._handover = (
            self._loop.call_later(_HANDOVER_S, self._hand_over) if self._unrecorded and not closing else None
        )

    def _on_written(self, rows: int) -> None:
        self._handed_over -= rows
        if self._fault is not None and self._pending < MAX_PENDING // 2:
            self._fault = None
            self._on_resume(self._lost - self._lost_before)
            self._lost_before = self._lost

    def _stop(self, fault: str) -> None:
        """Reports a fault, once until the ledger resumes."""
        if self._fault is None:
            self._fault = fault
            self._on_stop(fault)


class Reports:
    """The writer's reports, which its thread may make at any time."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        written: Callable[[int], None],
        fault: Callable[[str], None],
        usage: Callable[[DayUsage], None],
    ) -> None:
        self._loop = loop
        self._written = written
        self._fault = fault
        self._usage = usage

    def written(self, rows: int) -> None:
        """Reports that as many rows are in the file."""
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._written, rows)

    def fault(self, sentence: str) -> None:
        """Reports that nothing can be written; the sentence starts with the file's name."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._fault, sentence)

    def usage(self, usage: DayUsage) -> None:
        """Reports the usage of the current day."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._usage, usage)
