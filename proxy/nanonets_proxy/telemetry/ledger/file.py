"""The file of the usage ledger: its schema, its version, and how it is recognised."""

import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import Final

from nanonets_proxy.telemetry.database_fault import DatabaseFault, ForeignFile
from nanonets_proxy.telemetry.ledger.batch import ROW_WIDTH

SCHEMA_VERSION: Final = 1
_APPLICATION_ID: Final = 0x6E6E7531  # "nnu1": tells our files from those of other programs
_MAGIC: Final = b"SQLite format 3\0"  # sqlite.org/fileformat.html, "The Database Header"
_MOST_ASIDE: Final = 9
LENGTH_OF_START: Final = len(_MAGIC)
SUMS: Final = ("attempts", "requests", "request_bytes", "response_bytes", "pages")


def _packed(column: int) -> str:
    """Returns the SQL for a column of the packed attempts, which has one value for each attempt."""
    return f"max(cell.value) FILTER (WHERE cell.key % {ROW_WIDTH} = {column})"


SCHEMA: Final = f"""
    CREATE TABLE IF NOT EXISTS run (id INTEGER PRIMARY KEY, started_s INTEGER NOT NULL);
    CREATE TABLE IF NOT EXISTS series (
        id INTEGER PRIMARY KEY, cut INTEGER NOT NULL, environment TEXT NOT NULL, caller TEXT NOT NULL,
        method TEXT NOT NULL, route TEXT NOT NULL, status TEXT NOT NULL,
        first_hour INTEGER NOT NULL, last_hour INTEGER NOT NULL,
        UNIQUE (cut, environment, caller, method, route, status)
    );
    CREATE TABLE IF NOT EXISTS attempt (
        at_s INTEGER NOT NULL, run INTEGER NOT NULL, number INTEGER NOT NULL, series INTEGER NOT NULL,
        requests INTEGER NOT NULL, request_bytes INTEGER NOT NULL, response_bytes INTEGER NOT NULL,
        pages INTEGER NOT NULL, PRIMARY KEY (at_s, run, number)
    ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS packed (
        last_s INTEGER NOT NULL, run INTEGER NOT NULL, number INTEGER NOT NULL, attempts INTEGER NOT NULL,
        by_series TEXT NOT NULL, PRIMARY KEY (last_s, run, number)
    ) WITHOUT ROWID;
    CREATE VIEW IF NOT EXISTS every_attempt AS
        SELECT at_s, run, number, series, requests, request_bytes, response_bytes, pages FROM attempt UNION ALL
        SELECT {_packed(0)}, run, {_packed(1)}, CAST(own.key AS INTEGER),
            {", ".join(map(_packed, range(2, ROW_WIDTH)))}
        FROM packed, json_each(by_series) AS own, json_each(own.value) AS cell
        GROUP BY last_s, run, packed.number, own.key, cell.key / {ROW_WIDTH};
    CREATE TABLE IF NOT EXISTS rollup (
        hours INTEGER NOT NULL, cut INTEGER NOT NULL, period INTEGER NOT NULL, series INTEGER NOT NULL,
        {", ".join(f"{name} INTEGER NOT NULL" for name in SUMS)}, PRIMARY KEY (hours, cut, period, series)
    ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS hour_total (
        hour INTEGER NOT NULL, environment TEXT NOT NULL,
        {", ".join(f"{name} INTEGER NOT NULL" for name in SUMS)}, PRIMARY KEY (hour, environment)
    ) WITHOUT ROWID;
    PRAGMA application_id = {_APPLICATION_ID};
    PRAGMA user_version = {SCHEMA_VERSION};
"""  # noqa: S608  # our own names
"""A table may be added without a new version. Earlier programs ignore it, and later ones make it."""


class NoLedger(DatabaseFault):
    """The file is missing or empty, as before the first start."""


def check_start(start: bytes) -> None:
    """Checks the first bytes of a file. Raises DatabaseFault if the file is none of SQLite.

    A power cut may leave zeros at the start of a database, so a file of zeros counts as damaged, not as foreign.
    """
    if start.strip(b"\0") and start != _MAGIC:
        raise ForeignFile("is a file of another program")


def check_identity(connection: sqlite3.Connection, *, may_be_empty: bool) -> bool:
    """Returns whether the file has our tables; False: it is empty. Raises DatabaseFault if it cannot be used."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if not tables and not application:
        if not may_be_empty:
            raise NoLedger("is empty: no attempt has been recorded there")
        return False
    if application != _APPLICATION_ID:
        raise ForeignFile("is a database of another program")
    if version > SCHEMA_VERSION:
        raise ForeignFile(
            f"was written by a newer version of nanonets-proxy (schema {version}, not {SCHEMA_VERSION})"
        )
    return True


def put_aside(path: Path) -> Path:
    """Renames a damaged file and its companions, and returns the new name. Raises OSError.

    The new name ends with `.bad`, or with a number too. A disk that damages each new file must not cost the first
    one, which has the most attempts, nor be filled by all of them: from the ninth on, each replaces the one before.
    """
    names = [f"{path.name}.bad{number}" for number in ("", *range(2, _MOST_ASIDE + 1))]
    aside, is_new = path.with_name(names[-1]), False
    for name in names:
        with suppress(FileExistsError):
            path.with_name(name).open("x").close()  # so that no other process takes the name
            aside, is_new = path.with_name(name), True
            break
    _move_companions(path, aside)  # first, since SQLite would apply them to the next file of this name
    try:
        path.replace(aside)
    except OSError:
        _move_companions(aside, path)
        if is_new:
            aside.unlink()
        raise
    return aside


def _move_companions(path: Path, to: Path) -> None:
    for suffix in ("-wal", "-shm"):
        source, target = path.with_name(path.name + suffix), to.with_name(to.name + suffix)
        target.unlink(missing_ok=True)
        with suppress(FileNotFoundError):
            source.replace(target)
