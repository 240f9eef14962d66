"""The usage ledger's file: its tables, and how batches enter it.

    packed     finished attempts, up to 500 in a row, as JSON: the values of each by the id of its series
    attempt    single attempts: those that still run, and the finished ones of earlier versions
    every_attempt  a view of both, with one row an attempt
    rollup     the sums of each series in each period of each level, and of each cut (core/usage/rollups.py)
    hour_total the sums of each environment in each hour, for the views by hour and by day
    series     the texts of each series, and the hours of its first and last attempts
    run        one row for each process that has written: two processes may write at the same time

Roll-ups are written in the same transaction as their rows, so their sums are always equal. With a row of SQLite for
each attempt, writing took twice the CPU time, and nearly as much again to delete the rows beyond `max_rows`.
"""

import os
import sqlite3
import time
from collections.abc import Sequence
from contextlib import suppress
from itertools import product
from pathlib import Path
from typing import Any, Final

import orjson

from nanonets_proxy.core.usage.rollups import DAY_H, DAY_S, DIMENSIONS, EARLIEST_H, HOUR_S, LEVELS_H, Series, cut_of
from nanonets_proxy.telemetry.ledger.batch import ROW_WIDTH, Batch
from nanonets_proxy.telemetry.ledger.file import LENGTH_OF_START, SCHEMA, SUMS, check_identity, check_start
from nanonets_proxy.telemetry.ledger.ledger import DayUsage
from nanonets_proxy.telemetry.ledger.sums import CutSums, add, chunks_of, cut_sums, give_way

_MODE: Final = 0o600
# How long another process may keep the file locked. Only the writer's thread waits for it.
_LOCK_TIMEOUT_S: Final = 5.0
_ROWS_PER_STATEMENT: Final = (500, 50, 5, 1)
# Retention deletes at most this many rows at once, and twice the rows that were added.
_DELETED_AT_ONCE: Final = 5000
# A wrong clock must delete nothing, so retention pauses for this long after a start or a jump of the clock.
_STEADY_S: Final = 600.0
_JUMP_S: Final = 60.0
_MOST_SHOWN: Final = 100
_MAX_REMEMBERED: Final = 50_000
_END_OF_TIME_S: Final = 2**62

_ADD: Final = ", ".join(f"{name} = {name} + excluded.{name}" for name in SUMS)


class LedgerDatabase:
    """One connection that writes. Every method raises sqlite3.Error, OSError or DatabaseFault."""

    def __init__(self, path: Path, days: int, max_rows: int) -> None:
        """Opens the file, or makes it, readable by its owner only. `days` and `max_rows`: what is kept."""
        self._days, self._max_rows = days, max_rows
        self._steady_since_s = time.monotonic()
        self._clock_offset_s = time.time() - time.monotonic()
        self._path = path
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _MODE)
        try:
            self._inode = os.fstat(descriptor).st_ino
            check_start(os.read(descriptor, LENGTH_OF_START))
        finally:
            os.close(descriptor)
        self._connection = sqlite3.connect(path, timeout=_LOCK_TIMEOUT_S, isolation_level=None)
        try:
            self._prepare()
        except BaseException:
            self._connection.close()
            raise
        self._ids: dict[tuple[int, Series], int] = {}

    def _prepare(self) -> None:
        execute = self._connection.execute
        check_identity(self._connection, may_be_empty=True)  # before anything changes another program's file
        self._path.chmod(_MODE)
        # A kill loses no committed batch. A power cut may lose the last ones, and damages nothing
        # (sqlite.org/wal.html).
        execute("PRAGMA journal_mode = WAL")
        execute("PRAGMA synchronous = NORMAL")
        execute(f"PRAGMA journal_size_limit = {8 * 2**20}")
        execute("BEGIN IMMEDIATE")
        with self._connection:
            check_identity(self._connection, may_be_empty=True)
            for statement in filter(str.strip, SCHEMA.split(";")):
                execute(statement)
            (self._run,) = execute(
                "INSERT INTO run (started_s) VALUES (?) RETURNING id", (int(time.time()),)
            ).fetchone()

    def close(self) -> None:
        """Closes the file. The last connection to close also merges the write-ahead log into it."""
        self._connection.close()

    def is_replaced(self) -> bool:
        """Returns whether the path names another file now, so that nobody would read what is written."""
        try:
            return os.stat(self._path).st_ino != self._inode  # noqa: PTH116  # called for each batch
        except FileNotFoundError:
            return True

    def write(self, batch: Batch) -> None:
        """Writes a batch in one transaction."""
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            with self._connection:
                sums = cut_sums(batch)
                ids = self._series_ids(sums)
                self._write_running(batch, ids)
                self._write_finished(batch, ids)
                self._write_rollups(sums, ids)
        except BaseException:
            self._ids.clear()  # the transaction that made some of them is rolled back
            with suppress(sqlite3.Error):
                self._connection.rollback()
            raise

    def _series_ids(self, sums: CutSums) -> dict[tuple[int, Series], int]:
        execute, ids = self._connection.execute, self._ids
        if len(ids) > _MAX_REMEMBERED:
            ids.clear()
        spans: dict[tuple[int, Series], tuple[int, int]] = {}
        for cut, series, hour in sums:
            first, last = spans.get((cut, series), (hour, hour))
            spans[cut, series] = _earlier(first, hour), max(last, hour)
        for (cut, series), span in spans.items():
            (ids[cut, series],) = execute(
                "INSERT INTO series (cut, environment, caller, method, route, status, first_hour, last_hour) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
                # As _earlier does.
                "first_hour = CASE WHEN min(first_hour, excluded.first_hour) < ? "
                "THEN max(first_hour, excluded.first_hour) ELSE min(first_hour, excluded.first_hour) END, "
                "last_hour = max(last_hour, excluded.last_hour) RETURNING id",
                (cut, *series, *span, EARLIEST_H),
            ).fetchone()
        return ids

    def _write_running(self, batch: Batch, ids: dict[tuple[int, Series], int]) -> None:
        """Writes the rows of the attempts that still run, and deletes those of attempts that have ended."""
        ended = [value for at_s, number in batch.ended for value in (at_s, self._run, number)]
        self._execute("DELETE FROM attempt WHERE (at_s, run, number) IN (VALUES", 3, ")", ended)
        values: list[int] = []
        for series, own in batch.running.items():
            for first in range(0, len(own), ROW_WIDTH):
                at_s, number, *rest = own[first : first + ROW_WIDTH]
                values += (at_s, self._run, number, ids[0, series], *rest)
        self._execute("INSERT INTO attempt VALUES", 8, "", values)

    def _write_finished(self, batch: Batch, ids: dict[tuple[int, Series], int]) -> None:
        for chunk in chunks_of(batch.rows):
            by_id = {str(ids[0, series]): own for series, own in chunk.items()}
            last_s = max(max(own[::ROW_WIDTH]) for own in by_id.values())
            number = next(iter(by_id.values()))[1]
            count = sum(map(len, by_id.values())) // ROW_WIDTH
            self._connection.execute(
                "INSERT INTO packed VALUES (?, ?, ?, ?, ?)",
                (last_s, self._run, number, count, orjson.dumps(by_id).decode()),
            )

    def _write_rollups(self, sums_of_cuts: CutSums, ids: dict[tuple[int, Series], int]) -> None:
        periods: dict[tuple[int, int, int, int], list[int]] = {}
        totals: dict[tuple[int, str], list[int]] = {}
        for (cut, series, hour), sums in give_way(sums_of_cuts.items()):
            if not cut:
                add(totals, (hour, series[0]), sums)
            for hours in LEVELS_H:
                add(periods, (hours, cut, hour // hours, ids[cut, series]), sums)
        conflict = f" ON CONFLICT DO UPDATE SET {_ADD}"
        for table, width, found in (("rollup", 9, periods), ("hour_total", 7, totals)):
            values = [value for key, sums in give_way(found.items()) for value in (*key, *sums)]
            self._execute(f"INSERT INTO {table} VALUES", width, conflict, values)

    def _execute(self, start: str, width: int, end: str, values: Sequence[Any]) -> None:
        """Executes a statement with rows of `width` values each, as many as possible at once."""
        one = f"({', '.join('?' * width)})"
        first = 0
        for size in _ROWS_PER_STATEMENT:
            statement, step = f"{start} {', '.join([one] * size)}{end}", size * width
            while len(values) - first >= step:
                self._connection.execute(statement, values[first : first + step])
                first += step

    def usage_of(self, day: int) -> DayUsage:
        """Returns the usage of a day since 1970."""
        callers: dict[str, list[tuple[str, int, int]]] = {}
        for environment, *caller in self._connection.execute(
            "SELECT environment, caller, sum(requests), sum(pages) FROM rollup CROSS JOIN series "
            "ON series.id = rollup.series WHERE hours = ? AND rollup.cut = ? AND period = ? "
            "GROUP BY 1, 2 ORDER BY 3 DESC",
            (DAY_H, cut_of(["caller"]), day),
        ):
            own = callers.setdefault(environment, [])
            if len(own) < _MOST_SHOWN:
                own.append((caller[0], caller[1], caller[2]))
        return DayUsage(day, callers)

    def delete_old(self, added: int) -> None:
        """Deletes a part of what is too old: more rows than were `added` since the last time."""
        wall_s, monotonic_s = time.time(), time.monotonic()
        if abs(wall_s - monotonic_s - self._clock_offset_s) > _JUMP_S:
            self._clock_offset_s, self._steady_since_s = wall_s - monotonic_s, monotonic_s
        if monotonic_s - self._steady_since_s < _STEADY_S:
            return
        self.delete_before(int(wall_s) - self._days * DAY_S, 2 * added + _DELETED_AT_ONCE)

    def delete_before(self, before_s: int, most: int) -> None:
        """Deletes rows and roll-ups before `before_s`, about `most` of each, and rows beyond `max_rows`."""
        execute = self._connection.execute
        execute("BEGIN IMMEDIATE")
        with self._connection:
            self._delete_attempts(before_s, most)
            before_h = before_s // HOUR_S
            # All roll-ups end at the same hour, so that a view finds either all levels of an hour or none.
            later = execute(
                "SELECT hour FROM hour_total WHERE hour < ? ORDER BY hour LIMIT 1 OFFSET ?", (before_h, most)
            ).fetchone()
            if later is not None:
                (before_h,) = later
            execute("DELETE FROM hour_total WHERE hour < ?", (before_h,))
            for hours, cut in product(LEVELS_H, range(len(DIMENSIONS) + 1)):
                execute(
                    "DELETE FROM rollup WHERE hours = ? AND cut = ? AND period < ?", (hours, cut, before_h // hours)
                )
            execute("DELETE FROM series WHERE last_hour < ?", (before_h - 2 * LEVELS_H[-1],))

    def _delete_attempts(self, before_s: int, most: int) -> None:
        execute = self._connection.execute
        (count,) = execute(
            "SELECT coalesce(sum(attempts), 0) FROM hour_total WHERE hour >= (SELECT min(oldest_s) / ? FROM "
            "(SELECT min(at_s) AS oldest_s FROM attempt UNION ALL SELECT min(last_s) FROM packed))",
            (HOUR_S,),
        ).fetchone()
        surplus = min(most, max(0, count - self._max_rows))
        # Of the oldest attempts: those beyond `max_rows`, and those before `before_s`.
        for end_s, limit in ((_END_OF_TIME_S, surplus), (before_s, most)):
            deleted = execute(
                "DELETE FROM attempt WHERE (at_s, run, number) IN (SELECT at_s, run, number FROM attempt "
                "WHERE at_s < ?1 AND at_s <= (SELECT coalesce(min(last_s), ?1) FROM packed) "
                "ORDER BY at_s, run, number LIMIT ?2)",
                (end_s, limit),
            ).rowcount
            execute(
                "DELETE FROM packed WHERE (last_s, run, number) IN (SELECT last_s, run, number FROM ("
                "SELECT last_s, run, number, sum(attempts) OVER (ORDER BY last_s, run, number) AS up_to_here FROM ("
                "SELECT last_s, run, number, attempts FROM packed WHERE last_s < ?1 "
                "ORDER BY last_s, run, number LIMIT ?2)) WHERE up_to_here <= ?2)",
                (end_s, limit - deleted),
            )


def _earlier(one_h: int, other_h: int) -> int:
    """Returns the earlier hour. An hour before the clock was set counts only if there is no other one."""
    return (min if min(one_h, other_h) >= EARLIEST_H else max)(one_h, other_h)
