"""Faults of a SQLite file, as the ledger and the jobs report them."""

import sqlite3


class DatabaseFault(Exception):
    """The file cannot be used. The message is the end of a sentence that starts with the file's name."""


class DatabaseCorrupt(DatabaseFault):
    """The file is damaged, or has another format."""


def fault_of(error: sqlite3.Error | OSError) -> DatabaseFault:
    """Returns what an error says about the file."""
    if isinstance(error, OSError):
        return DatabaseFault(f"cannot be used: {(error.strerror or 'unknown fault').lower()}")
    # The low byte has the primary code (sqlite.org/rescode.html).
    match getattr(error, "sqlite_errorcode", 0) & 0xFF:
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return DatabaseCorrupt("is damaged, or no database")
        case sqlite3.SQLITE_FULL:
            return DatabaseFault("cannot be written: the disk is full")
        case sqlite3.SQLITE_READONLY:
            return DatabaseFault("cannot be written: it is read-only")
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return DatabaseFault("is locked by another process")
        case sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM | sqlite3.SQLITE_AUTH:
            return DatabaseFault("cannot be opened: permission denied, or its directory is missing or read-only")
        case _:
            return DatabaseFault(f"cannot be used: {error}")
