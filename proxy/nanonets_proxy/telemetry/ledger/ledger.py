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
"""Rows that wait to be written: 10 seconds at 5,000 requests a second, and about 15 MiB."""
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


Row = tuple[int, int, Series, int, int, int, int]
"""The second of the sending, number, series, 1 for a request's first attempt, request and response bytes, pages."""
Sums = dict[tuple[Series, int], list[int]]
"""By series and hour: attempts, requests, request bytes, response bytes, pages. They may be negative."""


@dataclass(slots=True)
class Batch:
    """Rows to write. A later row with the same second and number replaces the earlier one."""

    rows: list[Row] = field(default_factory=list)
    sums: Sums = field(default_factory=dict)
    """What the rows add to the roll-ups."""


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
    """One sending of a request, from its beginning to its end."""

    __slots__ = ("at_s", "began_s", "is_written", "number", "requests", "series")

    def __init__(
        self, number: int, at_s: int, began_s: float, series: tuple[str, str, str, str], requests: int
    ) -> None:
        self.number = number
        self.at_s = at_s
        self.began_s = began_s
        self.series = series
        """Without the status."""
        self.requests = requests
        self.is_written = False
        """Whether the ledger has it as unfinished."""


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
        self._unrecorded: dict[int, Attempt] = {}  # running attempts that are not in the ledger, the oldest first
        self._batch = Batch()
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
        return len(self._batch.rows) + self._handed_over

    def begin(self, environment: str, caller: str, method: str, route: str, *, is_first: bool) -> Attempt:
        """Notes that a request is being sent. `end` must follow. `is_first`: for the first time."""
        at_s = int(time.time())
        self._number = number = self._number + 1
        series = (environment, self._callers.name(caller, at_s), known_method(method), route)
        self._unrecorded[number] = attempt = Attempt(number, at_s, self._loop.time(), series, int(is_first))
        if self._handover is None:
            self._handover = self._loop.call_later(_HANDOVER_S, self._hand_over)
        return attempt

    def end(
        self, attempt: Attempt, status: int, request_bytes: int = 0, response_bytes: int = 0, pages: int = 0
    ) -> None:
        """Notes the result of an attempt; `status` 0: no response came."""
        if not attempt.is_written:
            del self._unrecorded[attempt.number]
        self._add(attempt, status_class(status), request_bytes, response_bytes, pages)

    def close(self) -> None:
        """Writes all rows, within a few seconds. Attempts that still run are recorded as unfinished."""
        if self._handover is not None:
            self._handover.cancel()
        self._hand_over(closing=True)
        self._writer.close()

    def _add(
        self, attempt: Attempt, status: str, request_bytes: int = 0, response_bytes: int = 0, pages: int = 0
    ) -> None:
        batch = self._batch
        if len(batch.rows) + self._handed_over >= MAX_PENDING:
            if not attempt.is_written and status != UNFINISHED:
                self._lost += 1
            self._stop("does not take rows as fast as requests are sent")
            return
        at_s, requests = attempt.at_s, attempt.requests
        series = (*attempt.series, status)
        batch.rows.append((at_s, attempt.number, series, requests, request_bytes, response_bytes, pages))
        hour = at_s // HOUR_S
        sums = batch.sums.get((series, hour))
        if sums is None:
            sums = batch.sums[series, hour] = [0, 0, 0, 0, 0]
        sums[0] += 1
        sums[1] += requests
        sums[2] += request_bytes
        sums[3] += response_bytes
        sums[4] += pages
        if attempt.is_written:
            unfinished = batch.sums.setdefault(((*attempt.series, UNFINISHED), hour), [0, 0, 0, 0, 0])
            unfinished[0] -= 1
            unfinished[1] -= requests
        if self._handover is None:
            self._handover = self._loop.call_later(_HANDOVER_S, self._hand_over)

    def _hand_over(self, *, closing: bool = False) -> None:
        """Records the attempts that have run for long, and hands all rows to the writer."""
        began_until_s = self._loop.time() - (0 if closing else _LONG_S)
        while self._unrecorded:
            number, attempt = next(iter(self._unrecorded.items()))
            if attempt.began_s > began_until_s or self._pending >= MAX_PENDING:
                break
            self._add(attempt, UNFINISHED)
            attempt.is_written = True
            del self._unrecorded[number]
        if self._batch.rows:
            batch, self._batch = self._batch, Batch()
            self._handed_over += len(batch.rows)
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
