"""The event loop's side of the usage ledger: collects attempts, and hands them to the writer twice a second.

A kill loses at most a second. Finished attempts wait for at most `_HANDOVER_S`. An attempt that runs for longer
than `_LONG_S` is recorded as unfinished until it ends. While the writer cannot write, up to `MAX_PENDING` rows wait
for it, and further attempts only count as lost. No request waits for the ledger, or fails because of it.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
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
from nanonets_proxy.telemetry.ledger.batch import Batch

MAX_PENDING: Final = 50_000
"""Rows that wait to be written: 10 seconds at 5,000 requests a second, and about 10 MiB."""
_HANDOVER_S: Final = 0.5
_LONG_S: Final = 0.3
_SLOW_CURE: Final = "look for a slow disk, or for another process that locks the file"

Labels = tuple[str, str, str, str]
"""Environment, caller, method, route, as a request has them."""


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
    def close(self) -> tuple[int, str | None]:
        """Writes what was put, for at most a few seconds.

        Returns how many rows it has written since its start, and why it cannot write further ones, if it is known.
        """


class Attempt:
    """One sending of a request, from `begin` to `end`. The next sending may use it again.

    Every request pays for each call and each field, so both methods work on the ledger's fields.
    """

    __slots__ = ("began_s", "labels", "ledger", "requests")

    ledger: "Ledger"
    labels: Labels
    """Those of its request."""
    requests: int
    """1 for the first sending of a request, otherwise 0."""
    began_s: float | None
    """By the machine's clock; None: the request is not being sent."""

    def __init__(self, ledger: "Ledger", labels: Labels) -> None:
        self.ledger, self.labels, self.requests, self.began_s = ledger, labels, 1, None

    def begin(self) -> None:
        """Notes that a request is being sent. An earlier attempt ends with this."""
        if self.began_s is not None:
            self.end()
        ledger = self.ledger
        self.began_s = time.time()
        ledger.running[self] = None
        if ledger.handover is None:
            ledger.hand_over_later()

    def end(self) -> None:
        """Notes that the attempt has ended without a response, if one is running."""
        if self.began_s is not None:
            self.end_with(0, 0, 0, 0)

    def end_with(self, status: int, request_bytes: int, response_bytes: int, pages: int) -> None:
        """Notes the result of an attempt that is running; `status` 0: no response came."""
        ledger, at_s, number = self.ledger, int(self.began_s), self.ledger.number  # type: ignore[arg-type]  # it runs
        self.began_s = None
        if number >= ledger.number_limit:
            ledger.lose(self)
            return
        try:
            del ledger.running[self]  # while there is one, there is a timer
        except KeyError:
            ledger.correct(self, at_s)
        ledger.number = number + 1
        try:
            rows = ledger.rows[self.labels, status]
        except KeyError:
            rows = ledger.rows_of(self.labels, status)
        rows += (at_s, number, self.requests, request_bytes, response_bytes, pages)
        self.requests = 0


class Ledger:
    """The ledger of a process.

    It calls `on_stop` with a fault and its cure, `on_resume` with the number of lost attempts, and `on_damage` with
    the new name of a damaged file and what was wrong with it.
    """

    def __init__(
        self,
        make_writer: "Callable[[Reports], BatchWriter]",
        on_stop: Callable[[str, str], None],
        on_resume: Callable[[int], None],
        on_damage: Callable[[Path, str], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_stop, self._on_resume = on_stop, on_resume
        self._callers = CallerNames()
        self.number = 0
        """The number of the next row."""
        self.number_limit = MAX_PENDING
        """No row gets this number before further rows are written."""
        self.running: dict[Attempt, None] = {}
        """The attempts that are not in the ledger yet, in order."""
        self._unfinished: dict[Attempt, tuple[Series, int]] = {}  # attempts with a row, its series and its number
        self.rows: dict[tuple[Labels, int], list[int]] = {}
        """Those of the batch, by labels and status."""
        self.handover: asyncio.TimerHandle | None = None
        self._batch = Batch()
        self._handed_over = 0  # the number of the first row that the writer does not have
        self._lost = 0
        self._lost_before = 0
        self._fault: str | None = None
        self._day_usage = DayUsage(-1, {})
        self._writer = make_writer(Reports(self._loop, self._on_written, self._stop, on_damage, self._note_usage))

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
        return self.number - (self.number_limit - MAX_PENDING)

    def hand_over_later(self) -> None:
        """Starts the timer for the next batch."""
        self.handover = self._loop.call_later(_HANDOVER_S, self._hand_over)

    def rows_of(self, labels: Labels, status: int) -> list[int]:
        """Returns the rows of the batch with these labels and this status."""
        series = self._series(labels, status_class(status))
        self.rows[labels, status] = rows = self._batch.rows.setdefault(series, [])
        return rows

    def close(self) -> int:
        """Writes all rows, within a few seconds. Attempts that still run are recorded as unfinished.

        Returns how many attempts are lost that no event has counted: they are not in the file.
        """
        if self.handover is not None:
            self.handover.cancel()
        self._hand_over(closing=True)
        written, fault = self._writer.close()
        self._fault = fault or self._fault
        lost, self._lost_before = self._lost - self._lost_before, self._lost
        return self.number - written + len(self.running) + lost

    def lose(self, attempt: Attempt) -> None:
        """Counts an attempt as lost, unless the ledger has it as unfinished."""
        if self._unfinished.pop(attempt, None) is None:
            del self.running[attempt]
            self._lost += 1
        attempt.requests = 0
        if self._fault is None:
            self._stop("does not take rows as fast as requests are sent", _SLOW_CURE)

    def _series(self, labels: Labels, status: str) -> Series:
        environment, caller, method, route = labels
        return environment, self._callers.name(caller, int(time.time())), known_method(method), route, status

    def correct(self, attempt: Attempt, at_s: int) -> None:
        """Takes back the row and the sums of an attempt that was unfinished."""
        series, number = self._unfinished.pop(attempt)
        self._batch.ended.append((at_s, number))
        sums = self._batch.corrections.setdefault((series, at_s // HOUR_S), [0, 0, 0, 0, 0])
        sums[0] -= 1
        sums[1] -= attempt.requests
        if self.handover is None:
            self.hand_over_later()

    def _record_unfinished(self, attempt: Attempt, began_s: float) -> None:
        series, number = self._series(attempt.labels, UNFINISHED), self.number
        self._unfinished[attempt], self.number = (series, number), number + 1
        rows = self._batch.running.setdefault(series, [])
        rows += (int(began_s), number, attempt.requests, 0, 0, 0)
        del self.running[attempt]

    def _hand_over(self, *, closing: bool = False) -> None:
        """Records the attempts that have run for long, and hands all rows to the writer."""
        now_s = time.time()
        for attempt in list(self.running):
            began_s = attempt.began_s
            assert began_s is not None
            is_young = 0 <= now_s - began_s < _LONG_S  # after the clock was set back, none is young
            if (closing or not is_young) and self.number < self.number_limit:
                self._record_unfinished(attempt, began_s)
        if self.number > self._handed_over:
            batch, self._batch = self._batch, Batch()
            self.rows.clear()
            self._handed_over = self.number
            self._writer.put(batch)
        self.handover = None
        if self.running and not closing:
            self.hand_over_later()

    def _on_written(self, rows: int) -> None:
        self.number_limit += rows
        if self._fault is not None and self._pending < MAX_PENDING // 2:
            self._fault = None
            self._on_resume(self._lost - self._lost_before)
            self._lost_before = self._lost

    def _stop(self, fault: str, cure: str) -> None:
        """Reports a fault, once until it changes or the ledger resumes."""
        if fault != self._fault:
            self._fault = fault
            self._on_stop(fault, cure)


class Reports:
    """The writer's reports, which its thread may make at any time."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        written: Callable[[int], None],
        fault: Callable[[str, str], None],
        put_aside: Callable[[Path, str], None],
        usage: Callable[[DayUsage], None],
    ) -> None:
        self._loop = loop
        self._written = written
        self._fault = fault
        self._put_aside = put_aside
        self._usage = usage

    def written(self, rows: int) -> None:
        """Reports that as many rows are in the file."""
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._written, rows)

    def fault(self, sentence: str, cure: str) -> None:
        """Reports that nothing can be written; the sentence starts with the file's name."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._fault, sentence, cure)

    def put_aside(self, aside: Path, reason: str) -> None:
        """Reports that the file was damaged and now has the name `aside`."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._put_aside, aside, reason)

    def usage(self, usage: DayUsage) -> None:
        """Reports the usage of the current day."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._usage, usage)
