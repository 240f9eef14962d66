"""Faults of a SQLite file, as the ledger and the jobs report them."""

import errno
import sqlite3
from typing import Final

from nanonets_proxy.core.status.error_advice import RAISE_OPEN_FILES

# A new file of WAL's shared memory gets this one (sqlite.org/rescode.html).
_SHARED_MEMORY_FULL: Final = sqlite3.SQLITE_IOERR_SHMSIZE
_NOT_WRITABLE: Final = (
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.EISDIR, errno.ENOENT),
    *(errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP),
)


class DatabaseFault(Exception):
    """The file cannot be used. The message is the end of a sentence that starts with the file's name."""

    cure = "look for the cause in the system's log, such as a failing disk"
    """What an operator can do, as the start of an advice."""


class DatabaseCorrupt(DatabaseFault):
    """The file is damaged, or has another format."""

    cure = "move the file away"


class NotWritable(DatabaseFault):
    """The file cannot be opened or made by this name, or cannot be written."""

    cure = "name a file that the proxy may write, or make this one writable"


class TooManyFiles(DatabaseFault):
    """The process, or the system, has as many open files as it may."""

    cure = RAISE_OPEN_FILES


class DiskFull(DatabaseFault):
    """The disk has no room."""

    cure = "make room on the file's disk"

    def __init__(self) -> None:
        super().__init__("cannot be written: the disk is full")


class ForeignFile(DatabaseFault):
    """The file belongs to another program or to a newer version, and is left alone."""

    cure = "name another file, or move this one away"


class FileLocked(DatabaseFault):
    """Another process holds the file's lock for too long."""

    cure = "find the process that has the file open"

    def __init__(self) -> None:
        super().__init__("is locked by another process")


def fault_of(error: sqlite3.Error | OSError) -> DatabaseFault:
    """Returns what an error says about the file."""
    if isinstance(error, OSError):
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return DiskFull()
        kind = DatabaseFault
        if error.errno in _NOT_WRITABLE:
            kind = NotWritable
        elif error.errno in (errno.EMFILE, errno.ENFILE):
            kind = TooManyFiles
        return kind(f"cannot be used: {(error.strerror or 'unknown fault').lower()}")
    code = getattr(error, "sqlite_errorcode", 0)
    if code == _SHARED_MEMORY_FULL:
        return DiskFull()
    match code & 0xFF:  # the low byte has the primary code
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return DatabaseCorrupt("is damaged, or no database")
        case sqlite3.SQLITE_FULL:
            return DiskFull()
        case sqlite3.SQLITE_READONLY:
            return NotWritable("cannot be written: it is read-only")
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return FileLocked()
        case sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM | sqlite3.SQLITE_AUTH:
            return NotWritable("cannot be opened: permission denied, or its directory is missing or read-only")
        case _:
            return DatabaseFault(f"cannot be used: {error}")
