"""Views of the usage ledger, read from its roll-ups in a connection that cannot write."""

import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

from nanonets_proxy.core.usage.rollups import DAY_H, DIMENSIONS, Counts, cut_of, periods_within
from nanonets_proxy.telemetry.database_fault import DatabaseFault, fault_of
from nanonets_proxy.telemetry.ledger.file import NoLedger, check_identity

_LOCK_TIMEOUT_S: Final = 2.0
_SUMS: Final = ("attempts", "requests", "request_bytes", "response_bytes", "pages")
_SUMMED: Final = ", ".join(f"sum({name})" for name in _SUMS)

Keys = tuple[Any, ...]
_Name = TypeVar("_Name")


@contextmanager
def open_ledger(path: Path) -> "Iterator[LedgerReader]":
    """Opens the ledger for reading. Raises DatabaseFault, also from the views; its message names the file."""
    try:
        if not path.exists():
            raise NoLedger("does not exist: no attempt has been recorded there")
        before = _change_of(path)
        # Without a write-ahead log, no process has the file open, and all of it is in the file itself. SQLite would
        # make the log's files to read it, would leave them there, and could not in a directory that is read-only.
        is_closed = not path.with_name(f"{path.name}-wal").exists()
        uri = f"{path.absolute().as_uri()}?mode=ro{'&immutable=1' if is_closed else ''}"
        with closing(sqlite3.connect(uri, uri=True, timeout=_LOCK_TIMEOUT_S)) as connection:
            try:
                check_identity(connection, may_be_empty=False)
                yield LedgerReader(connection)
            except (sqlite3.Error, DatabaseFault):
                _check_unchanged(path, before, is_closed=is_closed)
                raise
            _check_unchanged(path, before, is_closed=is_closed)
    except DatabaseFault as fault:
        raise type(fault)(f"{path} {fault}") from None
    except (sqlite3.Error, OSError) as error:
        raise DatabaseFault(f"{path} {fault_of(error)}") from None


def _change_of(path: Path) -> tuple[int, int]:
    """Returns what differs after the file has changed."""
    stat = path.stat()
    return stat.st_mtime_ns, stat.st_size


def _check_unchanged(path: Path, before: tuple[int, int], *, is_closed: bool) -> None:
    """Raises DatabaseFault if a proxy that started meanwhile has changed what was read without its locks."""
    if is_closed and _change_of(path) != before:
        raise DatabaseFault("was changed while it was read: try again")


def open_fault(path: Path) -> str | None:
    """Returns why the proxy cannot write the ledger, as the end of a sentence; None if it can. Changes nothing."""
    try:
        if not path.exists():
            new = path.with_name(f".{path.name}.{os.getpid()}")  # makes no ledger
            os.close(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
            new.unlink()
            return None
        with path.open("r+b"), open_ledger(path):
            return None
    except NoLedger:
        return None
    except OSError as error:
        return str(fault_of(error))
    except DatabaseFault as fault:
        return str(fault).removeprefix(f"{path} ")


class LedgerReader:
    """Each view covers the hours from `since_h` to `until_h` - 1 since 1970, as far as the ledger has them."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def execute(self, statement: str, *parameters: object) -> sqlite3.Cursor:
        """Runs a statement that reads."""
        return self._connection.execute(statement, parameters)

    def by(
        self, dimensions: Sequence[str], since_h: int, until_h: int, environment: str | None = None
    ) -> list[tuple[Keys, Counts]]:
        """Returns the sums for each combination of some `DIMENSIONS`, the most attempts first.

        Raises ValueError if a dimension is unknown.
        """
        if unknown := set(dimensions) - set(DIMENSIONS):
            raise ValueError(f"unknown dimensions: {unknown}")
        # The first hour that is kept: whole periods of higher levels may still count older hours.
        (oldest_h,) = self._connection.execute("SELECT coalesce(min(hour), 0) FROM hour_total").fetchone()
        (newest_h,) = self._connection.execute("SELECT coalesce(max(hour), 0) FROM hour_total").fetchone()
        periods = list(periods_within(max(since_h, oldest_h), min(until_h, newest_h + 1)))
        if not periods:
            return []
        parts = ", ".join(["(?, ?, ?)"] * len(periods))
        columns = ", ".join(dimensions)
        # CROSS JOIN keeps this order, so that each part is a range of the key (sqlite.org/optoverview.html).
        rows = self._connection.execute(
            f"WITH part (hours, first, last) AS (VALUES {parts}), "  # noqa: S608  # constants and placeholders
            f"summed AS (SELECT series, {_named_sums()} FROM part CROSS JOIN rollup ON rollup.hours = part.hours "
            "AND rollup.cut = ? AND rollup.period >= part.first AND rollup.period < part.last GROUP BY series) "
            f"SELECT {columns}, {_SUMMED} FROM summed JOIN series ON series.id = summed.series "
            f"{'' if environment is None else 'WHERE environment = ? '}"
            f"GROUP BY {columns} HAVING sum(attempts) > 0 ORDER BY sum(attempts) DESC, {columns}",
            (
                *(number for part in periods for number in (part.hours, part.first, part.last)),
                cut_of(dimensions),
                *(() if environment is None else (environment,)),
            ),
        )
        return [(row[: len(dimensions)], Counts._make(row[len(dimensions) :])) for row in rows]

    def by_period(
        self, hours: int, since_h: int, until_h: int, environment: str | None, name: Callable[[int], _Name]
    ) -> list[tuple[_Name, Counts]]:
        """Returns the sums for each period of 1 or 24 hours with attempts. `name` names its number since 1970."""
        # The table has one row for each environment and hour, so a view of one environment by hour adds nothing up.
        is_summed = hours != 1 or environment is None
        period = "hour" if hours == 1 else f"hour / {hours:d}"  # a plain column comes in the order of the key
        rows = self._connection.execute(
            f"SELECT {period} AS period, {_SUMMED if is_summed else ', '.join(_SUMS)} FROM hour_total "  # noqa: S608  # constants and a number
            "WHERE hour >= ? AND hour < ? "
            f"{'' if environment is None else 'AND environment = ? '}"
            f"{'GROUP BY period HAVING sum(attempts) > 0' if is_summed else 'AND attempts > 0'} ORDER BY period",
            (since_h, until_h, *(() if environment is None else (environment,))),
        )
        make = partial(tuple.__new__, Counts)  # Counts._make takes twice as long: a year has 8,760 hours
        return [(name(number), make(sums)) for number, *sums in rows]

    def requests_by_day(
        self, dimensions: Sequence[str], first_day: int, last_day: int
    ) -> Iterator[tuple[int, Keys, int]]:
        """Yields day, keys and requests, of days counted from 1970, both ends included."""
        columns = ", ".join(dimensions)
        for day, *keys, requests in self._connection.execute(
            f"SELECT period, {columns}, sum(requests) FROM rollup CROSS JOIN series "  # noqa: S608  # our own names
            f"ON series.id = rollup.series WHERE hours = ? AND rollup.cut = 0 AND period BETWEEN ? AND ? "
            f"GROUP BY period, {columns}",
            (DAY_H, first_day, last_day),
        ):
            yield day, tuple(keys), requests

    def last_day(self) -> int:
        """Returns the last day with attempts, counted from 1970; -1: there is none."""
        (last_h,) = self._connection.execute("SELECT coalesce(max(hour), -1) FROM hour_total").fetchone()
        return int(last_h) // DAY_H


def _named_sums() -> str:
    return ", ".join(f"sum({name}) AS {name}" for name in _SUMS)
