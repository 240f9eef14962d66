"""The file of the usage ledger: its schema, its version, and how it is recognised."""

import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import Final

from nanonets_proxy.telemetry.database_fault import DatabaseFault

SCHEMA_VERSION: Final = 1
_APPLICATION_ID: Final = 0x6E6E7531  # "nnu1": tells our files from those of other programs
_MAGIC: Final = b"SQLite format 3\0"  # sqlite.org/fileformat.html, "The Database Header"
LENGTH_OF_START: Final = len(_MAGIC)
SUMS: Final = ("attempts", "requests", "request_bytes", "response_bytes", "pages")

SCHEMA: Final = f"""
    CREATE TABLE run (id INTEGER PRIMARY KEY, started_s INTEGER NOT NULL);
    CREATE TABLE series (
        id INTEGER PRIMARY KEY, cut INTEGER NOT NULL, environment TEXT NOT NULL, caller TEXT NOT NULL,
        method TEXT NOT NULL, route TEXT NOT NULL, status TEXT NOT NULL,
        first_hour INTEGER NOT NULL, last_hour INTEGER NOT NULL,
        UNIQUE (cut, environment, caller, method, route, status)
    );
    CREATE TABLE attempt (
        at_s INTEGER NOT NULL, run INTEGER NOT NULL, number INTEGER NOT NULL, series INTEGER NOT NULL,
        requests INTEGER NOT NULL, request_bytes INTEGER NOT NULL, response_bytes INTEGER NOT NULL,
        pages INTEGER NOT NULL, PRIMARY KEY (at_s, run, number)
    ) WITHOUT ROWID;
    CREATE TABLE rollup (
        hours INTEGER NOT NULL, cut INTEGER NOT NULL, period INTEGER NOT NULL, series INTEGER NOT NULL,
        {", ".join(f"{name} INTEGER NOT NULL" for name in SUMS)}, PRIMARY KEY (hours, cut, period, series)
    ) WITHOUT ROWID;
    CREATE TABLE hour_total (
        hour INTEGER NOT NULL, environment TEXT NOT NULL,
        {", ".join(f"{name} INTEGER NOT NULL" for name in SUMS)}, PRIMARY KEY (hour, environment)
    ) WITHOUT ROWID;
    PRAGMA application_id = {_APPLICATION_ID};
    PRAGMA user_version = {SCHEMA_VERSION};
"""


class NoLedger(DatabaseFault):
    """The file is missing or empty, as before the first start."""


def check_start(start: bytes) -> None:
    """Checks the first bytes of a file. Raises DatabaseFault if the file is none of SQLite.

    A power cut may leave zeros at the start of a database, so a file of zeros counts as damaged, not as foreign.
    """
    if start.strip(b"\0") and start != _MAGIC:
        raise DatabaseFault("is a file of another program")


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
        raise DatabaseFault("is a database of another program")
    if version > SCHEMA_VERSION:
        raise DatabaseFault(
            f"was written by a newer version of nanonets-proxy (schema {version}, not {SCHEMA_VERSION})"
        )
    return True


def put_aside(path: Path) -> Path:
    """Renames a damaged file and its companions to `.bad`, and returns the new name. Raises OSError."""
    aside = path.with_name(path.name + ".bad")
    for suffix in ("-wal", "-shm"):  # SQLite would apply them to the next file of this name
        with suppress(FileNotFoundError):
            path.with_name(path.name + suffix).replace(aside.with_name(aside.name + suffix))
    path.replace(aside)
    return aside
