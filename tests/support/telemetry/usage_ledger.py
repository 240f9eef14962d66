"""Makes usage ledgers without a thread, and reads their rows."""

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nanonets_proxy.core.usage.rollups import DIMENSIONS, Counts
from nanonets_proxy.telemetry.ledger.batch import Batch
from nanonets_proxy.telemetry.ledger.database import LedgerDatabase
from nanonets_proxy.telemetry.ledger.ledger import Attempt, Ledger, Reports

DAYS = 400
ROWS = 10_000_000


class WriteAtOnce:
    """Writes each batch as soon as the ledger hands it over."""

    def __init__(self, path: Path, reports: Reports) -> None:
        self._database = LedgerDatabase(path, DAYS, ROWS)
        self._reports = reports
        self._written = 0

    def put(self, batch: Batch) -> None:
        self._database.write(batch)
        self._written += batch.row_count
        self._reports.written(batch.row_count)

    def close(self) -> tuple[int, str | None]:
        self._database.close()
        return self._written, None


def ignore(*_: object) -> None:
    """Takes a report of a ledger."""


def record(path: Path, use: Callable[[Ledger], object]) -> None:
    """Calls `use` with a ledger, and closes the ledger."""

    async def run() -> None:
        ledger = Ledger(lambda reports: WriteAtOnce(path, reports), ignore, ignore, ignore)
        use(ledger)
        ledger.close()

    asyncio.run(run())


def send(
    ledger: Ledger,
    status: int = 200,
    *,
    caller: str = "billing",
    method: str = "GET",
    route: str = "/other",
    byte_counts: tuple[int, int] = (0, 0),
) -> None:
    """Notes an attempt that ends at once."""
    attempt = Attempt(ledger, ("", caller, method, route))
    attempt.begin()
    attempt.end_with(status, *byte_counts, 0)


def rows(path: Path) -> list[dict[str, Any]]:
    """Returns the ledger's rows, with the texts of their series."""
    with sqlite3.connect(path) as connection:
        connection.row_factory = sqlite3.Row
        found = connection.execute("SELECT * FROM every_attempt JOIN series ON series.id = series").fetchall()
    connection.close()
    return [dict(row) for row in found]


def sums(path: Path, key: Callable[[dict[str, Any]], Any], since_h: int, until_h: int) -> dict[Any, Counts]:
    """Returns what a view must show, by adding up the rows."""
    totals: dict[Any, Counts] = {}
    for row in rows(path):
        if since_h * 3600 <= row["at_s"] < until_h * 3600:
            own = Counts(1, row["requests"], row["request_bytes"], row["response_bytes"], row["pages"])
            totals[key(row)] = totals.get(key(row), Counts()).plus(own)
    return totals


def series_of(row: dict[str, Any]) -> tuple[str, ...]:
    return tuple(row[name] for name in DIMENSIONS)
